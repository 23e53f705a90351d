"""The stages of an export one by one: what each hands to the next, and to the converters, which are stubs here.

The stubs write an artifact of their own, so that an export takes a second. Real converters: test_bundle.py.
"""

from __future__ import annotations

import errno
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

from pocketbert.export import bundle, golden
from pocketbert.export.backends import Lowered
from pocketbert.export.bundle import ExportError, ExportOptions, export_bundle
from pocketbert.export.checkpoint import Checkpoint, load_checkpoint
from pocketbert.export.encoder import build_encoder, compute_logits
from pocketbert.export.lowering import Result, map_oracle
from pocketbert.export.quantize import SCHEMES, dequantize, quantize
from pocketbert.export.tokenizer.tables import compile_tokenizer
from pocketbert.runtime.errors import PocketbertError
from pocketbert.runtime.manifest import SEQUENCE_CLASSIFICATION, describe_file, read_manifest, verify_files
from pocketbert.runtime.progress import Progress

ALL = ("executorch", "tflite", "coreml")
TEXTS = ("", "not bad 映画", "a film that goes on " * 20)
BYTES = 100_000  # of a stub's artifact: more than the weights


class Converters:
    """Stands for the worker processes, and keeps what they were told."""

    def __init__(self) -> None:
        self.lowered: dict[str, tuple[str, tuple[int, ...]]] = {}
        self.oracles: dict[str, Any] = {}
        self.hidden: list[Path] = []

    def __call__(self, formats: Sequence[str], hidden: Path) -> Converters:
        assert (hidden / bundle.SCRATCH).is_dir()  # where workers put their temporary files
        self.formats, self.lowered, self.hidden = tuple(formats), {}, [*self.hidden, hidden]
        return self

    def __enter__(self) -> Converters:
        return self

    def __exit__(self, *problem: object) -> None:
        self.left = True

    def lower(self, name: str, oracles: Path, oracle: str, lengths: Sequence[int], folder: Path) -> None:
        self.lowered[name] = (oracle, tuple(lengths))
        self.oracles[name] = map_oracle(oracles, oracle)
        self.names = set(torch.load(oracles, weights_only=False))
        self.place, self.folder = oracles, folder

    def results(self) -> Iterator[tuple[str, Result]]:
        """In another order than they were asked."""
        for i, name in enumerate(reversed(self.lowered)):
            path = f"model.{name}"
            (self.folder / path).write_bytes(bytes(BYTES + i))
            lowered = Lowered(path, f"entry of {name}", name != "tflite", {name: ">=1"})
            yield name, Result(lowered, (describe_file(self.folder, path),), 10.0 + i)


@pytest.fixture
def converters(monkeypatch: pytest.MonkeyPatch) -> Converters:
    found = Converters()
    monkeypatch.setattr(bundle, "Workers", found)
    monkeypatch.setattr(golden, "TEXTS", TEXTS)
    compiled = SimpleNamespace(save=lambda file: file.write_bytes(b"tables"))
    monkeypatch.setattr(bundle, "compile_tokenizer", lambda tokenizer: compiled)  # takes seconds
    return found


class Recorder(Progress):
    """Keeps what it is told, in order."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def start(self, stage: str, total: int | None = None, note: str = "") -> None:
        self.calls.append(("start", stage, total, note))

    def finish(self, stage: str, note: str = "", seconds: float | None = None) -> None:
        self.calls.append(("finish", stage, note, seconds))


def exported(checkpoints: dict[str, Path], out: Path, **options: Any) -> bundle.ExportResult:
    return export_bundle(str(checkpoints["distilbert"]), out, ExportOptions(**{"max_length": 24, **options}))


def refused(source: Path, out: Path, **options: Any) -> str:
    with pytest.raises(ExportError) as found:
        export_bundle(str(source), out, ExportOptions(**options))
    return str(found.value)


def test_the_manifest_says_what_checkpoint_options_and_converters_gave(
    checkpoints: dict[str, Path], tmp_path: Path, converters: Converters
) -> None:
    out = tmp_path / "deep/out"
    result = exported(checkpoints, out)
    checkpoint = load_checkpoint(checkpoints["distilbert"])
    found = read_manifest(out)
    verify_files(out, found.files)
    assert (result.folder, result.manifest) == (out, found)
    assert (found.task, found.architecture, found.labels) == (
        *("sequence-classification", "distilbert"),
        ("anger", "joy", "calm"),
    )
    assert (found.multi_label, found.pad_id, found.scheme) == (False, 0, "dynamic_wi8_afp32")
    assert (found.lengths, found.max_length) == ((8, 16, 24), 24)
    assert found.source == {
        "name": checkpoints["distilbert"].name,
        "weights_sha256": checkpoint.weights_sha256,
        "ignored_tensors": list(checkpoint.ignored),
    }
    assert list(found.tools) == ["pocketbert", "torch", "executorch", "ai-edge-litert", "coremltools", "tokenizers"]
    assert found.tools["torch"] == version("torch")
    assert [file.path for file in found.files[:3]] == ["tokenizer.json", "tokenizer.safetensors", "golden.json"]
    for name, artifact in zip(ALL, found.artifacts, strict=True):
        activations = "fp16" if name == "coreml" else "int8"
        assert (artifact.format, artifact.path, artifact.entry) == (name, f"model.{name}", f"entry of {name}")
        assert (artifact.any_length, artifact.activations) == (name != "tflite", activations)
        assert artifact.requires == {name: ">=1"}
        assert sum(artifact.parts.values()) == artifact.bytes >= BYTES
        assert list(artifact.parts) == ["embeddings", "layers", "head", "graph"]
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_converters_get_the_oracle_that_their_format_stores(
    checkpoints: dict[str, Path], tmp_path: Path, converters: Converters
) -> None:
    exported(checkpoints, tmp_path / "out")
    assert converters.formats == ALL
    assert converters.lowered == {name: ("int8", (8, 16, 24)) for name in ALL}
    assert converters.names == {"int8"}
    assert (converters.folder.parent, converters.place.parent) == (converters.hidden[0],) * 2
    assert converters.left
    loaded = load_checkpoint(checkpoints["distilbert"])
    config = replace(loaded.config, max_position_embeddings=24)
    expected = quantize(build_encoder(config, loaded.tensors), SCHEMES["dynamic_wi8_afp32"]).state_dict()
    stored = converters.oracles["tflite"].state_dict()
    assert stored.keys() == expected.keys()
    assert all(torch.equal(stored[name], expected[name]) for name in stored)


@pytest.mark.parametrize(
    ("options", "oracles", "activations"),
    [
        ({}, {"int8"}, ["int8", "int8", "fp16"]),
        ({"scheme": "float_wf32_afp32"}, {"fp32"}, ["fp32", "fp32", "fp16"]),
        ({"tflite_compat": "2.14"}, {"int8", "int8_per_tensor"}, ["int8", "int8_per_tensor", "fp16"]),
    ],
    ids=["int8", "float", "one scale a weight"],
)
def test_golden_cases_hold_the_logits_of_every_arithmetic(
    checkpoints: dict[str, Path], tmp_path: Path, converters: Converters, options: Any, oracles: Any, activations: Any
) -> None:
    out = tmp_path / "out"
    found = exported(checkpoints, out, **options).manifest
    assert [artifact.activations for artifact in found.artifacts] == activations
    assert (converters.names, found.scheme) == (oracles, options.get("scheme", "dynamic_wi8_afp32"))
    cases = json.loads((out / "golden.json").read_text(encoding="utf-8"))["cases"]
    assert [case["text"] for case in cases] == list(TEXTS)
    assert all(list(case["oracle"]) == sorted(set(activations)) for case in cases)
    compatible = {"tflite": ">=1"} | ({"tflite-runtime": ">=2.14"} if "tflite_compat" in options else {})
    assert found.artifact("tflite").requires == compatible
    assert found.artifact("executorch").requires == {"executorch": ">=1"}


def test_golden_logits_are_those_of_the_encoder_and_the_oracles(
    checkpoints: dict[str, Path], tmp_path: Path, converters: Converters
) -> None:
    out = tmp_path / "out"
    exported(checkpoints, out)
    loaded = load_checkpoint(checkpoints["distilbert"])
    encoder = build_encoder(loaded.config, loaded.tensors)
    oracle = quantize(encoder, SCHEMES["dynamic_wi8_afp32"])
    content = json.loads((out / "golden.json").read_text(encoding="utf-8"))
    assert list(content) == ["tolerance", "cases"]
    for case in content["cases"]:
        assert list(case) == ["text", "input_ids", "logits", "oracle"]
        assert case["input_ids"] == golden.encode(loaded.tokenizer, case["text"], max_length=24)
        for model, logits in (
            (encoder, case["logits"]),
            (oracle, case["oracle"]["int8"]),
            (dequantize(oracle), case["oracle"]["fp16"]),
        ):
            assert logits == pytest.approx(compute_logits(model, [case["input_ids"]])[0].tolist(), abs=0.02)


def test_both_forms_of_the_tokenizer_are_in_the_bundle(
    checkpoints: dict[str, Path], tmp_path: Path, converters: Converters, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    monkeypatch.setattr(bundle, "compile_tokenizer", compile_tokenizer)
    exported(checkpoints, out, formats=("tflite",))
    text = (out / "tokenizer.json").read_text(encoding="utf-8")
    loaded = load_checkpoint(checkpoints["distilbert"]).tokenizer
    assert text == loaded.to_str(pretty=False) + "\n"
    with safe_open(out / "tokenizer.safetensors", "np") as tables:
        assert list(tables.keys())


def test_weights_are_counted_by_part_as_the_format_stores_them(
    checkpoints: dict[str, Path], tmp_path: Path, converters: Converters
) -> None:
    found = exported(checkpoints, tmp_path / "out").manifest
    state = converters.oracles["tflite"].state_dict()
    for artifact in found.artifacts:
        for part in ("embeddings", "layers", "head"):
            tensors = [tensor for name, tensor in state.items() if name.startswith(f"{part}.")]
            narrow = artifact.format == "coreml"
            size = sum(
                tensor.numel() * (2 if narrow and tensor.is_floating_point() else tensor.element_size())
                for tensor in tensors
                if tensor.dtype != torch.int64  # zero points
            )
            assert artifact.parts[part] == size > 0


def test_progress_says_what_is_done_and_for_how_long(
    checkpoints: dict[str, Path], tmp_path: Path, converters: Converters, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(1000))
    monkeypatch.setattr(bundle.time, "perf_counter", lambda: float(next(clock)))
    progress, source = Recorder(), str(checkpoints["distilbert"])
    options = ExportOptions(formats=("tflite", "coreml"), max_length=24)
    result = export_bundle(source, tmp_path / "out", options, progress)
    assert [call for call in progress.calls if call[0] == "start"] == [
        ("start", "checkpoint", None, f"reading {source}"),
        ("start", "oracle", None, "quantizing"),
        ("start", "tflite", None, "lowering"),
        ("start", "coreml", None, "lowering"),
        ("start", "golden", None, "writing golden.json and the tokenizer"),
    ]
    assert [call for call in progress.calls if call[0] == "finish"] == [
        ("finish", "checkpoint", "distilbert, 3 labels", 1.0),
        ("finish", "oracle", "dynamic_wi8_afp32", 1.0),
        ("finish", "golden", "3 cases", 1.0),
        ("finish", "coreml", "model.coreml", 10.0),
        ("finish", "tflite", "model.tflite", 11.0),
    ]
    assert result.seconds == {"checkpoint": 1, "oracle": 1, "golden": 1, "coreml": 10, "tflite": 11, "total": 9}


def test_golden_cases_are_computed_in_one_thread_and_the_others_come_back(
    checkpoints: dict[str, Path], tmp_path: Path, converters: Converters, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    original = bundle.write_golden

    def write(*arguments: Any) -> int:
        seen.append(torch.get_num_threads())
        return original(*arguments)

    monkeypatch.setattr(bundle, "write_golden", write)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        exported(checkpoints, tmp_path / "out", formats=("tflite",))
        assert (seen, torch.get_num_threads()) == ([1], 2)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"formats": ("tflite", "onnx")}, "unknown format 'onnx': use executorch, tflite, coreml"),
        ({"formats": ()}, "unknown format '': use executorch, tflite, coreml"),
        ({"formats": ("tflite", "tflite")}, "format 'tflite' is named twice: name each once"),
        ({"formats": ("coreml", "tflite", "coreml")}, "format 'coreml' is named twice: name each once"),
        ({"scheme": "int2"}, "unknown scheme 'int2': use dynamic_wi8_afp32, dynamic_wi4_afp32, float_wf32_afp32"),
        ({"tflite_compat": "2.13"}, "unknown --tflite-compat '2.13': use 2.14"),
        (
            {"task": "translation"},
            "unknown task 'translation': use sequence-classification, token-classification, question-answering",
        ),
        ({"max_length": 2}, "--max-length 2 is out of range: 3 to 48 for {}"),
        ({"max_length": 49}, "--max-length 49 is out of range: 3 to 48 for {}"),
    ],
)
def test_each_wrong_option_is_a_line(
    checkpoints: dict[str, Path], tmp_path: Path, converters: Converters, options: Any, said: str
) -> None:
    source = checkpoints["distilbert"]
    assert refused(source, tmp_path / "out", **options) == said.format(source.name)
    assert list(tmp_path.iterdir()) == []
    assert converters.hidden == []


@pytest.mark.parametrize(
    ("max_length", "lengths"),
    [(3, (3,)), (8, (8,)), (9, (8, 9)), (24, (8, 16, 24)), (48, (8, 16, 24, 32, 48))],
)
def test_lengths_go_up_to_the_maximum(
    checkpoints: dict[str, Path], tmp_path: Path, converters: Converters, max_length: int, lengths: tuple[int, ...]
) -> None:
    found = exported(checkpoints, tmp_path / "out", formats=("tflite",), max_length=max_length).manifest
    assert (found.lengths, found.max_length) == (lengths, max_length)
    assert converters.lowered["tflite"][1] == lengths
    cases = json.loads((tmp_path / "out/golden.json").read_text(encoding="utf-8"))["cases"]
    assert max(len(case["input_ids"]) for case in cases) == max_length


def test_what_is_there_is_kept_unless_it_is_a_bundle_and_forced(
    checkpoints: dict[str, Path], tmp_path: Path, converters: Converters
) -> None:
    out, mine = tmp_path / "out", tmp_path / "mine"
    exported(checkpoints, out, formats=("tflite",))
    assert refused(checkpoints["distilbert"], out) == (
        f"{out} exists: choose another --out, or pass --force to replace it"
    )
    exported(checkpoints, out, formats=("coreml",), force=True)
    assert [artifact.format for artifact in read_manifest(out).artifacts] == ["coreml"]
    mine.mkdir()
    assert refused(checkpoints["distilbert"], mine, force=True) == (
        f"{mine} is not a bundle and is not replaced: choose another --out"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "out"]


def test_a_folder_that_appears_meanwhile_is_kept(
    checkpoints: dict[str, Path], tmp_path: Path, converters: Converters, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, original = tmp_path / "out", bundle.write_manifest

    def write(*arguments: Any) -> None:
        original(*arguments)
        out.mkdir()

    monkeypatch.setattr(bundle, "write_manifest", write)
    assert refused(checkpoints["distilbert"], out, formats=("tflite",), max_length=8).startswith(f"{out} exists")
    assert list(out.iterdir()) == []


@pytest.mark.parametrize(
    ("problem", "reason"),
    [
        (OSError(errno.ENOSPC, "full"), "no space left on the disk: make room"),
        (OSError(errno.EDQUOT, "quota"), "no space left on the disk: make room"),
        (OSError(errno.EROFS, "Read-only file system"), "Read-only file system"),
        (OSError("it is gone"), "it is gone"),
    ],
)
def test_a_disk_that_fails_is_a_line(
    checkpoints: dict[str, Path],
    tmp_path: Path,
    converters: Converters,
    monkeypatch: pytest.MonkeyPatch,
    problem: OSError,
    reason: str,
) -> None:
    def fail(*arguments: object) -> None:
        raise problem

    monkeypatch.setattr(bundle, "write_golden", fail)
    out = tmp_path / "out"
    said = refused(checkpoints["distilbert"], out, formats=("tflite",), max_length=8)
    assert said == f"cannot write {out}: {reason}"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "times"),
    [
        ({}, 10),  # three artifacts with a converter's two temporary files each, and the oracles
        ({"formats": ("tflite",)}, 4),
        ({"formats": ("tflite",), "scheme": "float_wf32_afp32"}, 16),
    ],
    ids=str,
)
def test_room_is_asked_for_before_anything_is_written(
    checkpoints: dict[str, Path],
    tmp_path: Path,
    converters: Converters,
    monkeypatch: pytest.MonkeyPatch,
    options: Any,
    times: int,
) -> None:
    weights = sum(tensor.numel() for tensor in load_checkpoint(checkpoints["distilbert"]).tensors.values())
    asked: list[Path] = []

    def usage(free: int) -> Any:
        return lambda path: asked.append(path) or SimpleNamespace(free=free)

    monkeypatch.setattr(bundle, "MB", 1000)
    monkeypatch.setattr(bundle.shutil, "disk_usage", usage(times * weights - 1))
    said = refused(checkpoints["distilbert"], tmp_path / "out", **options, max_length=8)
    assert said == (
        f"{asked[0].parent} has {(times * weights - 1) // 1000} MB free, "
        f"the export needs {times * weights // 1000}: make room"
    )
    assert (converters.hidden, asked[0].parent.parent) == ([], tmp_path)
    monkeypatch.setattr(bundle.shutil, "disk_usage", usage(times * weights))
    exported(checkpoints, tmp_path / "out", **options, max_length=8)


def test_weights_beyond_half_precision_are_refused_for_core_ml_alone(
    checkpoints: dict[str, Path], tmp_path: Path, converters: Converters, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = bundle.load_checkpoint
    value = 65504.0

    def load(*arguments: Any) -> Any:
        loaded = original(*arguments)
        name = "head.classifier.bias"
        return replace(loaded, tensors={**loaded.tensors, name: torch.tensor([0.0, -value, 1.0])})

    monkeypatch.setattr(bundle, "load_checkpoint", load)
    exported(checkpoints, tmp_path / "edge", max_length=8)
    value = 65536.0
    assert refused(checkpoints["distilbert"], tmp_path / "out", max_length=8) == (
        "tensor 'head.classifier.bias' holds 65536, Core ML's fp16 ends at 65504: leave coreml out of --formats"
    )
    exported(checkpoints, tmp_path / "out", max_length=8, formats=("tflite", "executorch"))


def test_tensors_that_are_left_out_are_in_the_manifest(
    checkpoints: dict[str, Path], tmp_path: Path, converters: Converters, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    original = bundle.load_checkpoint

    def load(source: str, ignore: tuple[str, ...], *rest: Any) -> Any:
        seen.append(ignore)
        return replace(original(source, (), *rest), ignored=("spare",), multi_label=True)

    monkeypatch.setattr(bundle, "load_checkpoint", load)
    found = exported(checkpoints, tmp_path / "out", max_length=8, formats=("tflite",), ignore=("sp*",)).manifest
    assert (seen, found.source["ignored_tensors"], found.multi_label) == ([("sp*",)], ["spare"], True)


def test_a_tool_that_is_absent_is_said_to_be(
    checkpoints: dict[str, Path], tmp_path: Path, converters: Converters, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle, "TOOLS", ("torch", "no-such-package"))
    found = exported(checkpoints, tmp_path / "out", max_length=8, formats=("tflite",)).manifest
    assert found.tools == {"torch": version("torch"), "no-such-package": "not installed"}


# Golden cases


class Encoder(torch.nn.Module):
    """Two logits: the number of tokens and their sum, by a factor."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.factor = factor
        self.config = SimpleNamespace(task=SEQUENCE_CLASSIFICATION, num_labels=2)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return torch.tensor([[ids.shape[1] * self.factor, float(ids.sum())]])


@pytest.fixture
def checkpoint(checkpoints: dict[str, Path]) -> Checkpoint:
    return load_checkpoint(checkpoints["bert"])


def test_golden_json_is_readable_and_holds_every_oracle(tmp_path: Path, checkpoint: Checkpoint) -> None:
    golden.write_golden(tmp_path, checkpoint, Encoder(), {"b": Encoder(2), "a": Encoder(3)}, 8)  # type: ignore[arg-type, dict-item]
    text = (tmp_path / "golden.json").read_bytes().decode("utf-8")
    assert text.startswith('{\n "tolerance": 0.05,\n "cases": [\n  {\n   "text": "",') and text.endswith("\n}\n")
    assert "Une comédie légère" in text and "映画" in text
    for case, expected in zip(json.loads(text)["cases"], golden.TEXTS, strict=True):
        count, total = len(case["input_ids"]), sum(case["input_ids"])
        assert (case["text"], case["logits"]) == (expected, [count, total])
        assert list(case["oracle"].items()) == [("b", [2 * count, total]), ("a", [3 * count, total])]


def test_ids_are_cut_and_the_tokenizer_is_as_before(checkpoint: Checkpoint) -> None:
    tokenizer = checkpoint.tokenizer
    whole = tokenizer.encode("the film was lovely").ids
    cut = golden.encode(tokenizer, "the film was lovely", max_length=4)
    assert cut == [*whole[:3], whole[-1]]
    assert type(cut) is list
    assert tokenizer.truncation is None
    assert tokenizer.encode("the film was lovely").ids == whole


@pytest.mark.parametrize("factor", [math.nan, math.inf])
def test_logits_that_are_no_numbers_name_the_model_and_the_text(
    tmp_path: Path, checkpoint: Checkpoint, factor: float
) -> None:
    said = "{} answers '' with logits that are no numbers: its weights are too large"
    for encoder, oracle, name in ((factor, 1, "the checkpoint"), (1, factor, "int8")):
        with pytest.raises(PocketbertError) as found:
            golden.write_golden(tmp_path, checkpoint, Encoder(encoder), {"int8": Encoder(oracle)}, 8)  # type: ignore[arg-type, dict-item]
        assert str(found.value) == said.format(name)
    assert list(tmp_path.iterdir()) == []


def test_of_a_long_text_the_beginning_is_named() -> None:
    cases = [golden.Case((text,), []) for text in golden.TEXTS]
    rows = [np.zeros(1, np.float32)] * (len(cases) - 1) + [np.full(1, math.nan, np.float32)]
    with pytest.raises(PocketbertError, match=r"^int8 answers 'a film that goes on for ever and a \[...\]' with"):
        golden._check_finite("int8", cases, rows)


def test_the_mean_drift_is_over_all_logits_of_all_cases(tmp_path: Path) -> None:
    cases = [
        {"logits": [1, 2], "oracle": {"int8": [1.5, 2], "fp16": [9, 9]}},
        {"logits": [0, 0], "oracle": {"int8": [0, -1], "fp16": [9, 9]}},
    ]
    (tmp_path / "golden.json").write_text(json.dumps({"cases": cases}))
    assert golden.mean_drift(tmp_path, "int8") == pytest.approx(1.5 / 4)
