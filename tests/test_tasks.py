"""Token classification, question answering and text pairs: each equals Hugging Face, and each artifact its oracle."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import LABELS, Maker, edit_json, make_model, unigram, wordpiece, write_checkpoint
from safetensors.torch import load_file, save_file
from test_bundle import pocketbert
from torch import Tensor
from transformers import (
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from pocketbert.export import golden
from pocketbert.export.bundle import ExportError, ExportOptions, export_bundle
from pocketbert.export.checkpoint import CheckpointError, load_checkpoint
from pocketbert.export.encoder import Encoder, build_encoder, compute_logits, find_second
from pocketbert.export.quantize import DEFAULT_SCHEME, SCHEMES, DynamicLinear, quantize
from pocketbert.export.reference import compute
from pocketbert.export.tokenizer.load import TokenizerError, find_separator
from pocketbert.runtime import QuestionAnswerer
from pocketbert.runtime.errors import EngineError, PocketbertError
from pocketbert.runtime.manifest import (
    QUESTION_ANSWERING,
    SEQUENCE_CLASSIFICATION,
    TOKEN_CLASSIFICATION,
    Manifest,
    make_outputs,
    read_manifest,
)
from pocketbert.runtime.scores import softmax
from pocketbert.runtime.self_check import check_golden_cases

EQUAL = 1e-4  # largest difference of a logit that counts as the same fp32 arithmetic
LOWERED = 0.05  # an int8 rounding that falls the other way moves one of all tokens' logits by up to this
HALF = 0.02  # what fp16 rounds off the logits of these small random models
PADDING_DRIFT = 1e-5  # in probability: what the product promises
FAMILIES = ("bert", "distilbert", "albert")
TYPED = ("bert", "albert")  # the families that tell two texts apart
KINDS: dict[str, Any] = {
    SEQUENCE_CLASSIFICATION: AutoModelForSequenceClassification,
    TOKEN_CLASSIFICATION: AutoModelForTokenClassification,
    QUESTION_ANSWERING: AutoModelForQuestionAnswering,
}
TWO = {"id2label": {0: "start", 1: "end"}, "label2id": {"start": 0, "end": 1}}
QUESTION, TEXT = "is it good?", "the film was lovely, the app not very"
# How apart the rows of the type table are set: random ones would move too little.
FAR = 3.0


def settings_of(task: str) -> dict[str, Any]:
    return TWO if task == QUESTION_ANSWERING else {}


def make_task_model(family: str, task: str) -> Any:
    """A Hugging Face model of the task, whose two token types are far from each other."""
    model = make_model(family, KINDS[task], **settings_of(task))
    if family in TYPED:
        with torch.no_grad():
            model.base_model.embeddings.token_type_embeddings.weight[1] *= -FAR / 0.2
    return model


def write_task(folder: Path, family: str, task: str) -> Path:
    make_task_model(family, task).save_pretrained(folder)
    (unigram() if family == "albert" else wordpiece()).save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="module")
def task_checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    """A checkpoint of each family and task; read only."""
    return {
        (family, task): write_task(tmp_path_factory.mktemp(f"{family}-{task}"), family, task)
        for family in FAMILIES
        for task in KINDS
    }


def load_encoder(folder: Path, pairs: bool = False) -> Encoder:
    loaded = load_checkpoint(folder, pairs=pairs)
    return build_encoder(loaded.config, loaded.tensors)


def random_ids(length: int) -> list[int]:
    """Ids with neither padding (0) nor a separator (3)."""
    return torch.randint(5, 35, (length,), generator=torch.Generator().manual_seed(length)).tolist()


def reference_logits(model: Any, ids: list[int], types: list[int] | None = None) -> np.ndarray:
    """Hugging Face's logits in the shapes of `compute_logits`, those of padding cut off."""
    given = {"input_ids": torch.tensor([ids]), "attention_mask": torch.tensor([[int(each != 0) for each in ids]])}
    if types is not None:
        given["token_type_ids"] = torch.tensor([types])
    with torch.no_grad():
        found = model(**given)
    logits = found.logits[0] if "logits" in found else torch.stack([found.start_logits[0], found.end_logits[0]], -1)
    return logits.numpy() if logits.dim() == 1 else logits[: len(ids) - ids.count(0)].numpy()


def ours(encoder: Encoder, ids: list[int]) -> np.ndarray:
    (logits,) = compute_logits(encoder, [ids])
    return logits if logits.ndim == 1 else logits[: len(ids) - ids.count(0)]


# Equal to Hugging Face


@pytest.mark.parametrize("length", [1, 3, 17, 48])
@pytest.mark.parametrize("task", [TOKEN_CLASSIFICATION, QUESTION_ANSWERING])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_tokens_logits_equal_hugging_face(
    task_checkpoints: dict[tuple[str, str], Path], family: str, task: str, length: int
) -> None:
    model, encoder = make_task_model(family, task), load_encoder(task_checkpoints[family, task])
    for ids in (random_ids(length), [*random_ids(length), *[0] * (48 - length)]):
        expected = reference_logits(model, ids)
        assert expected.shape == (length, 3 if task == TOKEN_CLASSIFICATION else 2)
        np.testing.assert_allclose(ours(encoder, ids), expected, atol=EQUAL, rtol=0)


@pytest.mark.parametrize("task", [SEQUENCE_CLASSIFICATION, QUESTION_ANSWERING])
@pytest.mark.parametrize("family", FAMILIES)
def test_pairs_equal_hugging_face_with_its_token_types(
    task_checkpoints: dict[tuple[str, str], Path], family: str, task: str
) -> None:
    model, encoder = make_task_model(family, task), load_encoder(task_checkpoints[family, task], pairs=True)
    tokenizer = load_checkpoint(task_checkpoints[family, task]).tokenizer
    for texts in ((QUESTION, TEXT), ("", TEXT), (QUESTION, ""), ("", ""), (TEXT,)):
        encoding = tokenizer.encode(*texts)
        for padding in (0, 5):
            ids, types = encoding.ids + [0] * padding, encoding.type_ids + [0] * padding
            expected = reference_logits(model, ids, types if family in TYPED else None)
            np.testing.assert_allclose(ours(encoder, ids), expected, atol=EQUAL, rtol=0, err_msg=str(texts))


REAL_TEXTS = {
    "distilbert-l6-h384-wnut17": [("Matt Smith flew from Leeds to @BBC HQ with a Nokia 3310",), ("lol",), ("",)],
    "distilbert-l6-h384-xquad": [("Who wrote it?", "Kafka wrote The Trial in 1914 , in Prague . " * 12), ("", "")],
    "bert-l6-h384-answers": [("when does it open", "It opens at nine."), ("who?", "It opens at nine. " * 20), ("a",)],
}


@pytest.mark.parametrize("name", REAL_TEXTS)
def test_real_checkpoints_of_other_tasks_equal_hugging_face(shared: Path, name: str) -> None:
    folder, paired = shared / "models" / name, name.endswith("answers")
    loaded = load_checkpoint(folder, pairs=paired)
    model = KINDS[loaded.config.task].from_pretrained(folder).float().eval()
    encoder = build_encoder(loaded.config, loaded.tensors)
    for texts in REAL_TEXTS[name]:
        encoding = loaded.tokenizer.encode(*texts)
        expected = reference_logits(model, encoding.ids, encoding.type_ids if paired else None)
        np.testing.assert_allclose(ours(encoder, encoding.ids), expected, atol=EQUAL, rtol=0, err_msg=str(texts))


@pytest.fixture(scope="module")
def answers(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a real answerer; read only."""
    folder = tmp_path_factory.mktemp("real") / "answers"
    options = ExportOptions(formats=("tflite", "executorch"))
    export_bundle(str(shared / "models/distilbert-l6-h384-xquad"), folder, options)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["tflite", "executorch"])
def test_engines_pass_the_self_check_of_a_real_answerer(answers: Path, engine: str) -> None:
    assert json.loads((answers / "golden.json").read_text())["tolerance"] == 0.05
    with QuestionAnswerer.open(answers, engine) as answerer:
        answer = answerer("When did Peter go to Rome?", "Anna lives in Oslo. Their son Peter went to Rome in 1998.")
    assert answer and answer.text == "1998"


@pytest.mark.slow
def test_kernels_that_take_the_first_scale_for_all_channels_are_refused(
    answers: Path, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the texts that rounding tips are left out."""
    monkeypatch.setenv("POCKETBERT_CACHE", str(tmp_path))  # where no pass is remembered
    loaded = load_checkpoint(shared / "models/distilbert-l6-h384-xquad")
    wrong = quantize(build_encoder(loaded.config, loaded.tensors), SCHEMES[DEFAULT_SCHEME])
    for linear in (each for each in wrong.modules() if isinstance(each, DynamicLinear)):
        linear.scale = linear.scale[:1].expand_as(linear.scale)
    with QuestionAnswerer.open(answers, "tflite", self_check=False) as answerer:
        check_golden_cases(answerer, answers)
        monkeypatch.setenv("POCKETBERT_CACHE", str(tmp_path / "again"))
        monkeypatch.setattr(answerer, "run", lambda ids: compute_logits(wrong, [ids])[0])
        with pytest.raises(EngineError, match=r"probabilities are off by 0\.[1-9]"):
            check_golden_cases(answerer, answers)


@pytest.mark.parametrize("family", TYPED)
def test_token_types_matter_to_these_checkpoints(task_checkpoints: dict[tuple[str, str], Path], family: str) -> None:
    """Else the equality above would prove nothing."""
    folder = task_checkpoints[family, SEQUENCE_CLASSIFICATION]
    ids = load_checkpoint(folder).tokenizer.encode(QUESTION, TEXT).ids
    with_types, without = (ours(load_encoder(folder, pairs=pairs), ids) for pairs in (True, False))
    assert np.abs(with_types - without).max() > 1000 * EQUAL


@pytest.mark.parametrize("family", FAMILIES)
def test_a_classifier_of_single_texts_has_no_token_types_in_its_graph(
    task_checkpoints: dict[tuple[str, str], Path], family: str
) -> None:
    folder = task_checkpoints[family, SEQUENCE_CLASSIFICATION]
    single, pairs = (set(load_encoder(folder, pairs=pairs).state_dict()) for pairs in (False, True))
    assert pairs - single == ({"embeddings.second"} if family in TYPED else set())


def test_one_row_of_types_leaves_nothing_to_tell_apart(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "bert", "bert", type_vocab_size=1)
    loaded = load_checkpoint(folder, pairs=True)
    assert loaded.pairs and loaded.config.separator_id is None
    build_encoder(loaded.config, loaded.tensors)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("length", [1, 512, 10_000])
def test_the_second_text_begins_behind_the_first_separator_in_any_precision(length: int, dtype: torch.dtype) -> None:
    dice = torch.Generator().manual_seed(length)
    for share in (0.0, 0.002, 0.5, 1.0):
        ids = 1 + 2 * (torch.rand(length, generator=dice) < share).to(torch.int32)
        seen = np.cumsum(ids.numpy() == 3) - (ids.numpy() == 3)
        assert find_second(ids, 3, dtype).tolist() == (seen > 0).astype(float).tolist()


def test_the_last_layer_computes_every_position_that_a_head_reads(
    task_checkpoints: dict[tuple[str, str], Path],
) -> None:
    computed = {}
    for task in KINDS:
        encoder, rows = load_encoder(task_checkpoints["distilbert", task]), []
        for layer in encoder.layers:
            layer.up.register_forward_hook(lambda module, inputs, output, rows=rows: rows.append(len(output)))
        compute_logits(encoder, [random_ids(17)])
        computed[task] = rows
    assert computed == {
        SEQUENCE_CLASSIFICATION: [17, 1],
        TOKEN_CLASSIFICATION: [17, 17],
        QUESTION_ANSWERING: [17, 17],
    }


# What a checkpoint does


@pytest.mark.parametrize("task", KINDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_task_is_read_off_the_architectures(
    task_checkpoints: dict[tuple[str, str], Path], family: str, task: str
) -> None:
    loaded = load_checkpoint(task_checkpoints[family, task])
    assert (loaded.config.task, loaded.ignored) == (task, [])
    assert loaded.labels == (() if task == QUESTION_ANSWERING else LABELS)
    assert loaded.pairs == (task == QUESTION_ANSWERING)


@pytest.mark.parametrize("task", KINDS)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("said", [None, [], ["BertModel"]], ids=str)
def test_tensors_tell_the_task_where_the_config_does_not(tmp_path: Path, family: str, task: str, said: Any) -> None:
    folder = write_task(tmp_path / "checkpoint", family, task)
    edit_json(folder / "config.json", architectures=said)
    assert load_checkpoint(folder).config.task == task
    assert load_checkpoint(folder, task=task).config.task == task


def test_a_spare_pooler_is_listed_and_not_used(tmp_path: Path) -> None:
    for family, pooler in (("bert", "bert.pooler.dense"), ("albert", "albert.pooler")):
        folder = write_task(tmp_path / family, family, TOKEN_CLASSIFICATION)
        add_tensors(folder, **{f"{pooler}.weight": torch.zeros(32, 32), f"{pooler}.bias": torch.zeros(32)})
        assert load_checkpoint(folder).ignored == [f"{pooler}.bias", f"{pooler}.weight"]


def add_tensors(folder: Path, **tensors: Tensor) -> None:
    save_file({**load_file(folder / "model.safetensors"), **tensors}, folder / "model.safetensors")


def drop_tensors(folder: Path, prefix: str) -> None:
    kept = {name: t for name, t in load_file(folder / "model.safetensors").items() if not name.startswith(prefix)}
    save_file(kept, folder / "model.safetensors")


ONE_LABEL = {"id2label": {"0": "O"}, "num_labels": None}


@pytest.mark.parametrize(
    ("made", "change", "asked", "message"),
    [
        (
            TOKEN_CLASSIFICATION,
            {},
            {"task": QUESTION_ANSWERING},
            "architectures in config.json say token-classification ('DistilBertForTokenClassification'), "
            "not question-answering",
        ),
        (
            TOKEN_CLASSIFICATION,
            {"architectures": ["DistilBertForQuestionAnswering"]},
            {},
            "tensor 'qa_outputs.bias' of a question answerer is missing, there is 'classifier.bias': another task?",
        ),
        (
            QUESTION_ANSWERING,
            {"architectures": ["DistilBertForTokenClassification"]},
            {},
            "tensor 'classifier.bias' of a token classifier is missing, there is 'qa_outputs.bias': another task?",
        ),
        (
            QUESTION_ANSWERING,
            {"architectures": None},
            {"task": TOKEN_CLASSIFICATION},
            "tensor 'classifier.bias' of a token classifier is missing, there is 'qa_outputs.bias': another task?",
        ),
        (
            SEQUENCE_CLASSIFICATION,
            {"architectures": None},
            {"task": TOKEN_CLASSIFICATION},
            "2 tensors are not part of a distilbert token classifier, first 'pre_classifier.bias'",
        ),
        (TOKEN_CLASSIFICATION, ONE_LABEL, {}, "there is one label, 'O', which every token would have"),
        (TOKEN_CLASSIFICATION, {}, {"pairs": True}, "token-classification takes one text: leave --pairs out"),
        (TOKEN_CLASSIFICATION, {"architectures": "Bert"}, {}, "architectures 'Bert' in config.json is not a list"),
        (TOKEN_CLASSIFICATION, {"architectures": [1]}, {}, "architectures [1] in config.json is not a list of names"),
    ],
    ids=str,
)
def test_what_does_not_fit_a_task_is_refused_by_name(
    tmp_path: Path, made: str, change: dict[str, Any], asked: dict[str, Any], message: str
) -> None:
    folder = write_task(tmp_path / "checkpoint", "distilbert", made)
    edit_json(folder / "config.json", **change)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(folder, **asked)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_heads_of_two_tasks_ask_which(tmp_path: Path) -> None:
    folder = write_task(tmp_path / "checkpoint", "bert", TOKEN_CLASSIFICATION)
    add_tensors(folder, **{"qa_outputs.weight": torch.zeros(2, 32), "qa_outputs.bias": torch.zeros(2)})
    edit_json(folder / "config.json", architectures=None)
    with pytest.raises(CheckpointError, match="those of token-classification and question-answering: pass --task"):
        load_checkpoint(folder)
    loaded = load_checkpoint(folder, ignore=["qa_outputs.*"], task=TOKEN_CLASSIFICATION)
    assert loaded.ignored == ["qa_outputs.bias", "qa_outputs.weight"]


@pytest.mark.parametrize("rows", [1, 3])
def test_span_logits_are_two(tmp_path: Path, rows: int) -> None:
    folder = write_task(tmp_path / "checkpoint", "bert", QUESTION_ANSWERING)
    add_tensors(folder, **{"qa_outputs.weight": torch.zeros(rows, 32)})
    with pytest.raises(CheckpointError, match=rf"'qa_outputs.weight' has the shape \({rows}, 32\): .* 2 rows, start"):
        load_checkpoint(folder)


@pytest.mark.parametrize("task", [TOKEN_CLASSIFICATION, QUESTION_ANSWERING])
def test_an_encoder_without_the_tasks_head_says_to_fine_tune(tmp_path: Path, task: str) -> None:
    folder = tmp_path / "checkpoint"
    write_checkpoint(folder, "albert", AutoModelForMaskedLM)
    with pytest.raises(CheckpointError, match=r"is missing: this is not a fine-tuned (token|question) \w+; fine-tune"):
        load_checkpoint(folder, task=task)
    with pytest.raises(CheckpointError, match="this is not a fine-tuned sequence classifier; fine-tune it first"):
        load_checkpoint(folder)


def test_labels_and_num_labels_mean_nothing_to_a_question_answerer(tmp_path: Path) -> None:
    folder = write_task(tmp_path / "checkpoint", "bert", QUESTION_ANSWERING)
    edit_json(folder / "config.json", id2label={"0": "a", "1": "b", "2": "c"}, problem_type="regression")
    assert load_checkpoint(folder).labels == ()


# Separators


def test_pairs_need_a_tokenizer_with_a_separator(make_checkpoint: Maker) -> None:
    folder = make_checkpoint("bert")
    edit_json(folder / "tokenizer.json", post_processor=None)
    with pytest.raises(CheckpointError, match="no token of its own between two texts: pairs need a separator"):
        load_checkpoint(folder, pairs=True)


def test_a_separator_is_what_stands_between_two_texts() -> None:
    assert find_separator(wordpiece(), typed=True) == wordpiece().token_to_id("[SEP]")
    assert find_separator(unigram(), typed=True) == unigram().token_to_id("[SEP]")


def test_a_tokenizer_of_other_token_types_is_refused_where_they_matter(tmp_path: Path) -> None:
    from tokenizers import processors

    flat = wordpiece()
    flat.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:0 [SEP]:0",
        special_tokens=[(name, flat.token_to_id(name)) for name in ("[CLS]", "[SEP]")],
    )
    with pytest.raises(TokenizerError, match=r"token types \[0, 0, 0, 0, 0\], not \[0, 0, 0, 1, 1\]"):
        find_separator(flat, typed=True)
    assert find_separator(flat, typed=False) == flat.token_to_id("[SEP]")


# Artifacts


@pytest.fixture(scope="module", params=["entities", "answers", "pairs"])
def case(request: pytest.FixtureRequest) -> str:
    return str(request.param)


CASES = {
    "entities": ("distilbert", TOKEN_CLASSIFICATION, False),
    "answers": ("albert", QUESTION_ANSWERING, False),
    "pairs": ("bert", SEQUENCE_CLASSIFICATION, True),
}


@pytest.fixture(scope="module")
def bundle(case: str, task_checkpoints: dict[tuple[str, str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    family, task, pairs = CASES[case]
    folder = tmp_path_factory.mktemp("bundles") / case
    export_bundle(str(task_checkpoints[family, task]), folder, ExportOptions(max_length=24, pairs=pairs))
    return folder


@pytest.fixture(scope="module")
def manifest(bundle: Path) -> Manifest:
    return read_manifest(bundle)


@pytest.fixture(scope="module")
def oracle(case: str, task_checkpoints: dict[tuple[str, str], Path]) -> Encoder:
    family, task, pairs = CASES[case]
    return quantize(load_encoder(task_checkpoints[family, task], pairs), SCHEMES[DEFAULT_SCHEME])


Run = Callable[[np.ndarray], list[np.ndarray]]  # int32 (1, seq) -> the outputs, in the manifest's order


def open_tflite(file: Path, names: list[str]) -> Run:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(file), num_threads=1)

    def run(ids: np.ndarray) -> list[np.ndarray]:
        found = interpreter.get_signature_runner(f"seq_{ids.shape[1]}")(input_ids=ids)
        assert sorted(found) == sorted(names)
        return [found[name].copy() for name in names]

    return run


def open_executorch(file: Path, names: list[str]) -> Run:
    from executorch.runtime import Runtime

    method = Runtime.get().load_program(file).load_method("forward")

    def run(ids: np.ndarray) -> list[np.ndarray]:
        found = method.execute([torch.from_numpy(ids)])
        assert len(found) == len(names)
        return [np.array(each.numpy()) for each in found]

    return run


def open_coreml(file: Path, names: list[str]) -> Run:
    from pocketbert.runtime.engines.coreml import mil

    evaluator = mil.load(file)
    assert list(evaluator.outputs) == names
    return lambda ids: list(evaluator.run({"input_ids": ids}).values())


OPENERS = {"tflite": open_tflite, "executorch": open_executorch, "coreml": open_coreml}


@pytest.fixture(scope="module", params=OPENERS)
def artifact(request: pytest.FixtureRequest, bundle: Path, manifest: Manifest) -> Callable[..., np.ndarray]:
    """artifact(ids, padded=16): the logits of ids, in the shapes of `compute_logits`."""
    described = manifest.artifact(request.param)
    run = OPENERS[request.param](bundle / described.path, [output.name for output in manifest.outputs])

    def answer(ids: list[int], padded: int | None = None) -> np.ndarray:
        length = padded or (len(ids) if described.any_length else manifest.padded_length(len(ids)))
        outputs = run(np.array([ids + [manifest.pad_id] * (length - len(ids))], np.int32))
        for output, declared in zip(outputs, manifest.outputs, strict=True):
            assert output.dtype == np.float32
            assert output.shape == tuple(length if size is None else size for size in declared.shape)
        logits = np.stack(outputs, -1)[0] if len(outputs) > 1 else outputs[0][0]
        return logits if logits.ndim == 1 else logits[: len(ids)]

    answer.described = described  # type: ignore[attr-defined]
    return answer


def probabilities(logits: np.ndarray, task: str) -> np.ndarray:
    """Of labels; of positions where an answer is looked for."""
    return softmax(logits.T) if task == QUESTION_ANSWERING else softmax(logits)


def golden_cases(bundle: Path) -> list[dict[str, Any]]:
    return list(json.loads((bundle / "golden.json").read_text())["cases"])


def test_artifacts_meet_their_oracles_golden_logits(artifact: Any, bundle: Path, manifest: Manifest) -> None:
    kind = artifact.described.activations
    for each in golden_cases(bundle):
        found, expected = artifact(each["input_ids"]), np.array(each["oracle"][kind])
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, atol=HALF if kind == "fp16" else LOWERED, rtol=0)


def test_artifacts_answer_like_the_oracle_at_every_length(artifact: Any, oracle: Encoder, manifest: Manifest) -> None:
    if artifact.described.activations != "int8":
        pytest.skip("Core ML computes in fp16: its golden logits are another oracle's")
    for length in range(1, manifest.max_length + 1):
        ids = random_ids(length)
        ids[length // 2] = 3  # a separator somewhere
        np.testing.assert_allclose(artifact(ids), ours(oracle, ids), atol=LOWERED, rtol=0, err_msg=str(length))


def test_padding_and_repetition_move_nothing(artifact: Any, manifest: Manifest) -> None:
    for length in (1, 5, 7, 12, 16):
        ids = random_ids(length)
        ids[length // 3] = 3
        alone = artifact(ids)
        assert np.array_equal(artifact(ids), alone)
        for padded in (each for each in manifest.lengths if each >= length):
            moved = probabilities(artifact(ids, padded), manifest.task) - probabilities(alone, manifest.task)
            assert np.abs(moved).max() <= (PADDING_DRIFT if artifact.described.format == "executorch" else 0), padded


def test_all_formats_hold_the_oracles_integers(bundle: Path, oracle: Encoder) -> None:
    import coremltools
    from ai_edge_litert import schema_py_generated as schema
    from coremltools.converters.mil.frontend.milproto.load import load

    weights = [tensor.numpy() for tensor in oracle.state_dict().values() if tensor.dtype == torch.int8]
    model = schema.ModelT.InitFromPackedBuf((bundle / "model.tflite").read_bytes(), 0)
    buffers = [bytes(buffer.data) for buffer in model.buffers if buffer.data is not None]
    package = bundle / "model.mlpackage"
    spec = coremltools.models.MLModel(str(package), skip_model_load=True).get_spec()
    program = load(spec, spec.specificationVersion, str(package / "Data/com.apple.CoreML/weights"))
    stored = [
        op.quantized_data.val
        for op in program.functions["main"].operations
        if op.op_type == "constexpr_affine_dequantize"
    ]
    for weight in weights:
        assert buffers.count(weight.tobytes()) == 1
        assert any(np.array_equal(weight, values) for values in stored)
    assert (bundle / "model.pte").read_bytes().count(oracle.embeddings.word.weight.numpy().tobytes()) == 1


def test_executorch_runs_what_is_no_layer_on_kernels_that_every_build_has(bundle: Path) -> None:
    """Android's library links all of ExecuTorch's portable kernels (kernels/portable/functions.yaml)."""
    from test_backends import read_program

    _, operators = read_program(bundle / "model.pte")
    look_ups = {"aten::embedding", "aten::slice_copy", "aten::select_copy", "aten::mul", "aten::add", "aten::eq"}
    types = {"aten::cumsum", "aten::gt", "aten::view_copy"}
    shapes = {"aten::unsqueeze_copy", "aten::permute_copy", "aten::_to_copy", "aten::sym_size"}
    assert operators <= look_ups | types | shapes | {"executorch_prim::et_view"}


def test_the_manifest_says_what_the_bundle_does(case: str, manifest: Manifest, bundle: Path) -> None:
    family, task, pairs = CASES[case]
    assert (manifest.architecture, manifest.task) == (family, task)
    assert manifest.pairs == (pairs or task == QUESTION_ANSWERING)
    assert manifest.labels == (() if task == QUESTION_ANSWERING else LABELS)
    written = json.loads((bundle / "manifest.json").read_text())
    assert ("outputs" in written) == (task == QUESTION_ANSWERING)


def test_golden_cases_are_what_the_task_is_asked(case: str, bundle: Path, manifest: Manifest) -> None:
    cases = golden_cases(bundle)
    both = [each for each in cases if "text_pair" in each]
    expected = {"entities": (len(golden.TEXTS), 0), "answers": (0, len(golden.PAIRED_TEXTS))}
    expected["pairs"] = (len(golden.TEXTS), len(golden.PAIRED_TEXTS))
    fitting = len(both) if case == "answers" else expected[case][1]  # a long question has no room in 24 tokens
    assert (len(cases) - len(both), len(both)) == (expected[case][0], fitting)
    assert case == "entities" or len(both) >= 3
    for each in cases:
        shape = np.array(each["logits"]).shape
        tokens = len(each["input_ids"])
        assert shape == {"entities": (tokens, 3), "answers": (tokens, 2), "pairs": (3,)}[case]
        assert tokens <= manifest.max_length
    assert max(len(each["input_ids"]) for each in cases) == manifest.max_length


def test_of_a_question_and_a_text_only_the_text_is_cut(task_checkpoints: dict[tuple[str, str], Path]) -> None:
    tokenizer = load_checkpoint(task_checkpoints["bert", QUESTION_ANSWERING]).tokenizer
    cases = golden._make_cases(tokenizer, QUESTION_ANSWERING, 24, pairs=True)
    cut = [each for each in cases if len(each.ids) == 24]
    assert cut
    tokenizer.enable_truncation(24, strategy="only_second")
    assert all(each.ids == tokenizer.encode(*each.texts).ids for each in cases)


def test_golden_logits_stay_few_however_many_labels(task_checkpoints: dict[tuple[str, str], Path]) -> None:
    """The longest texts are left out first, and never all of them."""
    from dataclasses import replace

    loaded = load_checkpoint(task_checkpoints["bert", TOKEN_CLASSIFICATION])
    cases = golden._make_cases(loaded.tokenizer, TOKEN_CLASSIFICATION, 48, pairs=False)
    assert golden._keep_few(cases, loaded.config, 3) == cases
    some = golden._keep_few(cases, replace(loaded.config, num_labels=1000), 3)
    assert 0 < len(some) < len(cases)
    assert sum(len(each.ids) for each in some) * 1000 * 3 <= golden.MOST_NUMBERS
    assert max(len(each.ids) for each in some) <= min(len(each.ids) for each in cases if each not in some)
    assert len(golden._keep_few(cases, replace(loaded.config, num_labels=10**6), 3)) == 1


def test_the_reference_gives_each_text_its_own_shape(
    case: str, bundle: Path, manifest: Manifest, task_checkpoints: dict[tuple[str, str], Path]
) -> None:
    family, task, _ = CASES[case]
    cases = golden_cases(bundle)[:4]
    ids_list = [np.array(each["input_ids"], np.int32) for each in cases]
    found = compute(str(task_checkpoints[family, task]), manifest, ids_list)
    assert set(found) == {"fp32", "fp16", "int8"}
    assert {name: len(rows) for name, rows in found.items()} == dict.fromkeys(found, len(cases))
    for i, each in enumerate(cases):
        assert {rows[i].shape for rows in found.values()} == {np.shape(each["logits"])}
        np.testing.assert_allclose(found["fp32"][i], np.array(each["logits"]), atol=1e-5, rtol=0)
        np.testing.assert_allclose(found["int8"][i], np.array(each["oracle"]["int8"]), atol=LOWERED, rtol=0)


# The command


def test_an_unknown_task_is_refused(task_checkpoints: dict[tuple[str, str], Path], tmp_path: Path) -> None:
    folder = str(task_checkpoints["bert", TOKEN_CLASSIFICATION])
    with pytest.raises(ExportError, match="unknown task 'translation': use sequence-classification, token-"):
        export_bundle(folder, tmp_path / "out", ExportOptions(task="translation"))


def test_the_command_takes_task_and_pairs(task_checkpoints: dict[tuple[str, str], Path], tmp_path: Path) -> None:
    folder = task_checkpoints["bert", SEQUENCE_CLASSIFICATION]
    options = ("--task", SEQUENCE_CLASSIFICATION, "--pairs", "--formats", "tflite", "--max-length", 16)
    done = pocketbert("export", folder, "--out", tmp_path / "out", *options, "--json")
    assert done.returncode == 0, done.stderr
    assert "bert, 3 labels of text pairs" in done.stderr
    assert read_manifest(tmp_path / "out").pairs


def test_the_command_says_in_one_line_what_does_not_fit(
    task_checkpoints: dict[tuple[str, str], Path], tmp_path: Path
) -> None:
    folder = task_checkpoints["bert", QUESTION_ANSWERING]
    done = pocketbert("export", folder, "--out", tmp_path / "out", "--task", TOKEN_CLASSIFICATION)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "architectures in config.json say question-answering ('BertForQuestionAnswering'), not" in done.stderr


def test_distilling_refuses_other_tasks_by_name(task_checkpoints: dict[tuple[str, str], Path], tmp_path: Path) -> None:
    folder, data = task_checkpoints["distilbert", TOKEN_CLASSIFICATION], tmp_path / "data.tsv"
    data.write_text("text\tlabel\na\tjoy\n")
    done = pocketbert(
        "distill", "--teacher", folder, "--student", "distilbert", "--data", data, "--out", tmp_path / "o"
    )
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert "say token-classification ('DistilBertForTokenClassification'), not sequence-classification" in last


def test_checkpoints_of_two_tasks_are_not_compared(task_checkpoints: dict[tuple[str, str], Path]) -> None:
    one, other = task_checkpoints["distilbert", TOKEN_CLASSIFICATION], task_checkpoints["bert", QUESTION_ANSWERING]
    done = pocketbert("compare", one, other)
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert "is for token-classification" in last and last.endswith(
        "question-answering: compare checkpoints of one task"
    )


def test_errors_are_of_one_family() -> None:
    assert issubclass(TokenizerError, PocketbertError)


@pytest.mark.slow
@pytest.mark.parametrize("case_", ["entities", "answers", "pairs"])
def test_the_onnxruntime_baseline_is_the_same_checkpoint(
    case_: str, task_checkpoints: dict[tuple[str, str], Path], tmp_path: Path
) -> None:
    """Its float form, before ONNX Runtime quantizes it: any length, and token types found from the ids."""
    import onnxruntime

    from pocketbert.export.onnxruntime_baseline import export_onnxruntime

    family, task, pairs = CASES[case_]
    loaded = load_checkpoint(task_checkpoints[family, task])
    assert export_onnxruntime(str(task_checkpoints[family, task]), tmp_path, pairs=pairs).exists()
    session = onnxruntime.InferenceSession(str(tmp_path / "model.float.onnx"), providers=["CPUExecutionProvider"])
    assert [each.name for each in session.get_outputs()] == [each.name for each in make_outputs(task, 3)]
    for texts in ((QUESTION, TEXT), ("lovely", "app")):
        encoding = loaded.tokenizer.encode(*texts)
        ids = np.array([encoding.ids])
        found = session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})
        logits = np.stack(found, -1)[0] if len(found) > 1 else found[0][0]
        types = encoding.type_ids if family in TYPED and task != TOKEN_CLASSIFICATION else None
        expected = reference_logits(make_task_model(family, task), encoding.ids, types)
        np.testing.assert_allclose(logits, expected, atol=EQUAL, rtol=0)
