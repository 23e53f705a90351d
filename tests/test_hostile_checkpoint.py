"""A checkpoint that says anything is refused in one line, or loads as Hugging Face loads it."""

from __future__ import annotations

import base64
import contextlib
import json
import random
import resource
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from conftest import LABELS, Maker, edit_json, unigram, wordpiece
from safetensors.torch import load_file, save_file
from test_bundle import TFLITE, pocketbert
from tokenizers import Tokenizer

from pocketbert.export.architectures import MOST_LAYERS, read_config, read_labels
from pocketbert.export.bundle import ExportError, ExportOptions, export_bundle
from pocketbert.export.checkpoint import Checkpoint, CheckpointError, load_checkpoint
from pocketbert.export.encoder import build_encoder
from pocketbert.export.tokenizer.load import TokenizerError, largest_id, load_tokenizer
from pocketbert.export.tokenizer.tables import compile_tokenizer, read_charsmap
from pocketbert.runtime.errors import PocketbertError

FAMILIES = ("bert", "distilbert", "albert")
IDS = torch.tensor([[2, 5, 6, 7, 3]], dtype=torch.int32)
EQUAL = 1e-4  # largest difference of a logit that counts as the same fp32 arithmetic
LONGEST_LINE = 500  # characters; what a file holds is shown shortened
ROOM = 4 << 30  # bytes that a test may take on top of what torch has
DEEP = 100_000  # levels of JSON
NUMBERS = (0, -1, 1, 2, 3, 5, 7, 2**20, 10**9, 2**31, 2**63, 10**30, 0.5, 1e-5, 1e38, -0.0, 2.0)
NO_NUMBERS = (float("nan"), float("inf"), -float("inf"))
TEXTS = ("", "12", "gelu_new", "nan", "\ud800", "\0", "x" * 10_000, "[/nope]", "multi_label_classification")
CONTAINERS: tuple[Any, ...] = ([], [1], {}, {"0": "a"}, {"0": None}, {"a": 1}, [[[[]]]], {"0": "a", "1": "a", "2": "b"})
HOSTILE: tuple[Any, ...] = (None, True, False, *NUMBERS, *NO_NUMBERS, *TEXTS, *CONTAINERS)
# Read where they are, though make_checkpoint does not write them.
OPTIONAL = ("problem_type", "num_labels", "quantization_config", "is_decoder", "position_embedding_type")


@pytest.fixture(autouse=True)
def _bounded_memory() -> Iterator[None]:
    """What is not refused fails here, and does not take the machine down."""
    used = psutil.Process().memory_info().vms
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.fixture
def hostile(checkpoints: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    """hostile("bert") -> a copy of the family's checkpoint, to be spoiled."""
    return lambda family: Path(shutil.copytree(checkpoints[family], tmp_path / "hostile", dirs_exist_ok=True))


def hugging_face_logits(folder: Path) -> torch.Tensor | None:
    """None where transformers refuses the folder itself."""
    from transformers import AutoModelForSequenceClassification

    try:
        model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
        with torch.no_grad():
            return model(input_ids=IDS.long(), attention_mask=torch.ones_like(IDS).long()).logits
    except Exception:  # each value has an error of its own
        return None


def logits(loaded: Checkpoint) -> torch.Tensor:
    return build_encoder(loaded.config, loaded.tensors)(IDS)


def refused(folder: Path) -> str | None:
    """The message of the refusal, or None where the checkpoint loads. Any other exception is a failure."""
    try:
        logits(load_checkpoint(folder))
    except PocketbertError as problem:
        return str(problem)
    return None


def replacements(config: dict[str, Any], seed: int, count: int) -> Iterator[dict[str, Any]]:
    """One to three values of a config replaced, or taken away."""
    dice = random.Random(seed)
    keys = sorted({*config, *OPTIONAL})
    for _ in range(count):
        yield {key: dice.choice(HOSTILE) for key in dice.sample(keys, dice.choice((1, 1, 1, 2, 3)))}


class Watched(dict[str, Any]):
    """A config that knows which of its keys were asked for."""

    def __init__(self, content: Mapping[str, Any]) -> None:
        super().__init__(content)
        self.asked: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        self.asked.add(key)
        return super().get(key, default)


def keys_read(config: Mapping[str, Any]) -> set[str]:
    """What decides our answers. transformers refuses nonsense in keys that decide nothing, such as a dropout."""
    watched = Watched(config)
    read_config(watched)
    read_labels(watched)
    return watched.asked


# Config


@pytest.mark.parametrize("family", FAMILIES)
def test_any_config_is_refused_in_one_line_or_loads_as_hugging_face_loads_it(
    hostile: Callable[[str], Path], family: str
) -> None:
    folder = hostile(family)
    config = json.loads((folder / "config.json").read_text())
    unspoiled = logits(load_checkpoint(folder))
    lines, loaded = 0, 0
    for changes in replacements(config, seed=12, count=300):
        (folder / "config.json").write_text(json.dumps({**config, **changes}))
        message = refused(folder)
        if message is not None:
            lines += 1
            assert "\n" not in message and len(message) < LONGEST_LINE + len(str(folder)), changes
            message.encode()  # a terminal can show it
            continue
        loaded += 1
        if loaded % 4 == 0:  # transformers takes its time
            ours = logits(load_checkpoint(folder))
            read = {key: value for key, value in changes.items() if key in keys_read(config)}
            (folder / "config.json").write_text(json.dumps({**config, **read}))
            theirs = hugging_face_logits(folder)
            expected = unspoiled if theirs is None else theirs
            torch.testing.assert_close(ours, expected, atol=EQUAL, rtol=0, msg=str(changes))
    assert lines > 60 and loaded > 60


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        ("bert", {"num_hidden_layers": 0}, "num_hidden_layers 0 in config.json is not an integer from 1 to 1024"),
        ("bert", {"num_hidden_layers": 10**9}, "num_hidden_layers 1000000000 in config.json is not"),
        ("bert", {"num_attention_heads": 0}, "num_attention_heads 0 in config.json is not an integer from 1"),
        ("bert", {"hidden_size": 32.0}, "hidden_size 32.0 in config.json is not an integer"),
        ("bert", {"intermediate_size": True}, "intermediate_size True in config.json is not an integer"),
        ("bert", {"vocab_size": "30522"}, "vocab_size '30522' in config.json is not an integer"),
        ("bert", {"layer_norm_eps": float("nan")}, "layer_norm_eps nan in config.json is not a number between 0 and 1"),
        ("bert", {"layer_norm_eps": 1e38}, "layer_norm_eps 1e+38 in config.json is not a number between 0 and 1"),
        ("albert", {"inner_group_num": 10**9}, "inner_group_num 1000000000 in config.json is not"),
        ("albert", {"num_hidden_groups": 4}, "num_hidden_groups 4 in config.json is not an integer from 1 to 3"),
        ("distilbert", {"n_layers": -1}, "n_layers -1 in config.json is not"),
        ("bert", {"id2label": ["a", "b", "c"]}, "id2label ['a', 'b', 'c'] in config.json is not an object"),
        ("bert", {"id2label": {"0": "a", "1": "b", "2": None}}, "id2label[2] None in config.json is not a name"),
        ("bert", {"id2label": {"0": "a", "1": "b\n", "2": "c"}}, r"id2label[1] 'b\n' in config.json is not a name"),
        ("bert", {"id2label": {"0": "a", "1": "b", "2": "a"}}, "id2label in config.json has 'a' twice"),
        ("bert", {"num_labels": 2}, "num_labels is 2, id2label has 3"),
    ],
    ids=str,
)
def test_an_absurd_value_is_named_before_a_weight_is_read(
    hostile: Callable[[str], Path], family: str, changes: dict[str, Any], message: str
) -> None:
    folder = hostile(family)
    (folder / "model.safetensors").unlink()
    edit_json(folder / "config.json", **changes)
    assert message in str(refused(folder))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_hostile_value_of_every_key_is_refused_in_one_line_or_read(
    checkpoints: dict[str, Path], family: str
) -> None:
    config = json.loads((checkpoints[family] / "config.json").read_text())
    for key in sorted(keys_read(config)):
        for value in HOSTILE:
            try:
                found, (labels, _) = read_config({**config, key: value}), read_labels({**config, key: value})
            except PocketbertError as problem:
                assert "\n" not in str(problem) and len(str(problem).encode()) < LONGEST_LINE, (key, value)
            else:
                assert len(labels) == found.num_labels and len(found.layer_schedule) <= MOST_LAYERS, (key, value)


def test_a_config_of_other_positions_than_the_table_has_is_refused(hostile: Callable[[str], Path]) -> None:
    """transformers refuses it too; the encoder alone would take the first rows for an export of short texts."""
    for positions in (2, 47, 49):
        folder = hostile("bert")
        edit_json(folder / "config.json", max_position_embeddings=positions)
        assert f"has the shape (48, 32), config.json asks for ({positions}, 32)" in str(refused(folder))


@pytest.mark.parametrize("problem_type", [None, "single_label_classification"])
def test_one_label_is_a_regression_and_refused(make_checkpoint: Maker, problem_type: str | None) -> None:
    """Its softmax would be 1.000 whatever the text."""
    folder = make_checkpoint("bert", id2label={0: "spam"}, label2id={"spam": 0})
    edit_json(folder / "config.json", problem_type=problem_type)
    with pytest.raises(CheckpointError, match="one label, 'spam', which makes a regression"):
        load_checkpoint(folder)


def test_one_label_with_a_sigmoid_is_a_classifier(make_checkpoint: Maker) -> None:
    kind = "multi_label_classification"
    loaded = load_checkpoint(make_checkpoint("bert", id2label={0: "spam"}, label2id={"spam": 0}, problem_type=kind))
    assert (loaded.labels, loaded.multi_label) == (("spam",), True)


@pytest.mark.parametrize(
    ("pad_id", "message"),
    [
        (75, "pad_token_id 75 is unknown to the tokenizer"),
        (5, "pad_token_id 5 is 'film', which texts are made of"),
        (1, "pad_token_id 1 is '[UNK]', which texts are made of"),
        (3, "pad_token_id 3 is '[SEP]', which texts are made of"),
    ],
)
def test_a_pad_id_that_texts_can_have_is_refused(make_checkpoint: Maker, pad_id: int, message: str) -> None:
    """The model ignores that id wherever it is: in every text that holds it."""
    folder = make_checkpoint("bert", vocab_size=100, pad_token_id=pad_id)
    pieces = json.loads((folder / "tokenizer.json").read_text())
    kept = {piece: i for piece, i in pieces["model"]["vocab"].items() if i < 75}
    edit_json(folder / "tokenizer.json", model={**pieces["model"], "vocab": kept})
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(folder)
    assert message in str(caught.value)


# Weights


def spoil(folder: Path, name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file({**tensors, name: change(tensors[name])}, folder / "model.safetensors")


def with_value(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    """Sets the last number of a tensor."""

    def change(tensor: torch.Tensor) -> torch.Tensor:
        tensor = tensor.clone()
        tensor.view(-1)[-1] = value
        return tensor

    return change


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")], ids=str)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_a_weight_that_is_no_number_is_refused_by_its_name(
    hostile: Callable[[str], Path], value: float, dtype: torch.dtype
) -> None:
    for name in sorted(load_file(hostile("albert") / "model.safetensors")):
        folder = hostile("albert")
        spoil(folder, name, lambda tensor: with_value(value)(tensor.to(dtype)))
        assert f"tensor {name!r} holds NaN or infinity" in str(refused(folder))


def test_a_double_beyond_fp32_is_refused_by_its_name(hostile: Callable[[str], Path]) -> None:
    folder = hostile("bert")
    spoil(folder, "classifier.bias", lambda tensor: with_value(1e300)(tensor.double()))
    assert "tensor 'classifier.bias' holds NaN or infinity" in str(refused(folder))


@pytest.mark.parametrize("dtype", [torch.int8, torch.int32, torch.uint8, torch.bool, torch.float8_e4m3fn], ids=str)
def test_a_weight_of_another_type_is_refused_by_its_name(hostile: Callable[[str], Path], dtype: torch.dtype) -> None:
    folder = hostile("bert")
    spoil(folder, "bert.encoder.layer.1.output.dense.weight", lambda tensor: tensor.to(dtype))
    kind = str(dtype).removeprefix("torch.")
    assert f"'bert.encoder.layer.1.output.dense.weight' is {kind}: weights are fp32" in str(refused(folder))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_tensor_of_any_shape_is_refused_in_one_line(hostile: Callable[[str], Path], family: str) -> None:
    for name in sorted(load_file(hostile(family) / "model.safetensors")):
        for shape in ((), (0,), (1,), (1, 1), (2, 3, 4)):
            folder = hostile(family)
            spoil(folder, name, lambda tensor, shape=shape: torch.zeros(shape))  # type: ignore[misc]
            message = refused(folder)
            assert message is not None and f"has the shape {shape}, config.json asks for" in message, name


def test_a_weight_beyond_fp16_is_refused_for_core_ml_alone(hostile: Callable[[str], Path], tmp_path: Path) -> None:
    folder = hostile("distilbert")
    spoil(folder, "pre_classifier.bias", with_value(70_000.0))
    with pytest.raises(ExportError, match=r"'head.pool.bias' holds 70000, Core ML's fp16 ends at 65504: leave coreml"):
        export_bundle(str(folder), tmp_path / "out", ExportOptions(("tflite", "coreml"), max_length=16))
    assert not (tmp_path / "out").exists()
    export_bundle(str(folder), tmp_path / "out", TFLITE)


def test_finite_weights_whose_logits_are_not_are_refused(hostile: Callable[[str], Path], tmp_path: Path) -> None:
    folder = hostile("distilbert")
    spoil(folder, "classifier.weight", lambda tensor: torch.full_like(tensor, 3e38))
    spoil(folder, "pre_classifier.weight", lambda tensor: tensor * 1e6)
    with pytest.raises(PocketbertError, match="answers '' with logits that are no numbers: its weights are too large"):
        export_bundle(str(folder), tmp_path / "out", TFLITE)
    assert not (tmp_path / "out").exists()


# Files


def deep(opening: str, closing: str) -> bytes:
    return (opening * DEEP + closing * DEEP).encode()


BINARY = bytes(range(256)) * 8
BROKEN = {
    "binary": BINARY,
    "empty": b"",
    "nested lists": deep("[", "]"),
    "nested objects": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    "a list": b"[]",
    "a long number": b'{"model": ' + b"9" * 5000 + b"}",
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"])
def test_a_broken_file_is_refused_in_one_line(hostile: Callable[[str], Path], name: str, content: bytes) -> None:
    folder = hostile("bert")
    (folder / name).write_bytes(content)
    message = refused(folder)
    assert message is not None and name in message and "\n" not in message and len(message) < LONGEST_LINE


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("name", ["vocab.txt", "spiece.model"])
def test_a_broken_vocabulary_is_refused_in_one_line(hostile: Callable[[str], Path], name: str, content: bytes) -> None:
    folder = hostile("bert")
    (folder / "tokenizer.json").unlink()
    (folder / name).write_bytes(content)
    message = refused(folder)
    assert message is not None and "\n" not in message and len(message) < LONGEST_LINE


@pytest.mark.parametrize(
    "index",
    [{}, {"weight_map": []}, {"weight_map": {"a": 1}}, {"weight_map": {"a": "../x"}}, {"weight_map": {"a": "x\0y"}}],
    ids=str,
)
def test_a_broken_index_is_refused_in_one_line(hostile: Callable[[str], Path], index: dict[str, Any]) -> None:
    folder = hostile("bert")
    (folder / "model.safetensors").rename(folder.parent / "x")
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "model.safetensors.index.json" in str(refused(folder))


@pytest.mark.parametrize(
    "settings",
    [
        {"do_lower_case": "yes"},
        {"cls_token": {}},
        {"unk_token": 5},
        {"strip_accents": []},
        {"sep_token": {"content": None}},
    ],
    ids=str,
)
def test_a_strange_setting_of_the_tokenizer_is_refused_by_name(tmp_path: Path, settings: dict[str, Any]) -> None:
    pieces = sorted(wordpiece().get_vocab().items(), key=lambda item: item[1])
    (tmp_path / "vocab.txt").write_text("\n".join(piece for piece, _ in pieces) + "\n", encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(PocketbertError, match=f"{next(iter(settings))} .* in tokenizer_config.json is not"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("make", [wordpiece, unigram])
def test_any_tokenizer_is_refused_in_one_line_or_works(
    tmp_path: Path, make: Callable[[], Tokenizer], capfd: pytest.CaptureFixture[str]
) -> None:
    """Values anywhere in tokenizer.json are replaced; what still loads encodes."""
    dice, compiled = random.Random(12), 0
    whole = json.loads(make().to_str())
    for _ in range(150):
        content = json.loads(json.dumps(whole))
        place = dice.choice(list(places(content)))
        parent = content
        for step in place[:-1]:
            parent = parent[step]
        parent[place[-1]] = dice.choice([value for value in HOSTILE if value != "\ud800"])
        (tmp_path / "tokenizer.json").write_text(json.dumps(content))
        try:
            tokenizer = load_tokenizer(tmp_path)
        except TokenizerError as problem:
            assert "\n" not in str(problem)
        except PocketbertError as problem:
            assert "tokenizer.json" in str(problem)
        else:
            tokenizer.encode("a lovely film")
            compiled += refuses_or_compiles(tokenizer)
    assert compiled > 5
    assert capfd.readouterr().err == ""  # a panic writes a page


def refuses_or_compiles(tokenizer: Tokenizer) -> bool:
    try:
        return largest_id(tokenizer) < 1000 and bool(compile_tokenizer(tokenizer).program)
    except TokenizerError:
        return False


def places(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths to values; of a long object or list its first few."""
    children = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in list(children)[:12]:
        yield (*path, key)
        yield from places(value, (*path, key))


def test_a_damaged_charsmap_is_refused_in_one_line_and_in_no_time(shared: Path) -> None:
    content = json.loads((shared / "models/albert-l6-h384-sst2/tokenizer.json").read_text(encoding="utf-8"))
    (part,) = (part for part in content["normalizer"]["normalizers"] if part["type"] == "Precompiled")
    whole = base64.b64decode(part["precompiled_charsmap"])
    for seed in range(40):
        dice = random.Random(seed)
        damaged = bytearray(whole)
        for _ in range(2 ** dice.randrange(12)):
            damaged[dice.randrange(len(damaged))] = dice.randrange(256)
        with contextlib.suppress(ValueError, IndexError):  # what compile_tokenizer turns into a TokenizerError
            assert read_charsmap(bytes(damaged[: dice.randrange(len(damaged))] if seed % 4 == 0 else damaged))


# The command


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "vocab.txt"])
def test_the_command_says_a_binary_file_in_one_line(hostile: Callable[[str], Path], tmp_path: Path, name: str) -> None:
    folder = hostile("bert")
    (folder / "tokenizer.json").unlink()
    (folder / name).write_bytes(BINARY)
    done = pocketbert("export", folder, "--out", tmp_path / "out")
    assert done.returncode == 2
    assert done.stderr.startswith(f"pocketbert: {folder}: cannot read {name}") and done.stderr.count("\n") == 1


def test_labels_are_the_configs(checkpoints: dict[str, Path]) -> None:
    assert all(load_checkpoint(folder).labels == LABELS for folder in checkpoints.values())
