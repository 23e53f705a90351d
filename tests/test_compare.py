"""Parameters and multiply-adds are what the literature and torch count; figures are relative to the first one's."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import WORDS, make_model
from test_bench import absolute_paths
from test_bundle import pocketbert
from torch.utils.flop_counter import FlopCounterMode

from pocketbert.export.architectures import EncoderConfig, canonical_names, read_config
from pocketbert.export.checkpoint import load_checkpoint
from pocketbert.export.compare import report
from pocketbert.export.compare.base_models import BASE_MODELS, build_base_model
from pocketbert.export.compare.job import (
    ArtifactMetrics,
    CheckpointMetrics,
    CompareOptions,
    Comparison,
    Quality,
    _distinguish_names,
    compare,
)
from pocketbert.export.compare.model_cost import ParameterCount, count_multiply_adds, count_parameters
from pocketbert.export.encoder import build_encoder
from pocketbert.runtime.errors import PocketbertError

MILLION = 1_000_000
FOUR_AND_EIGHT = ("dynamic_wi8_afp32", "dynamic_wi4_afp32")
FAMILIES = ("bert", "distilbert", "albert")


def describe(model: Any) -> tuple[EncoderConfig, ParameterCount]:
    """What a transformers model is, whether or not its tensors have storage."""
    config, state = read_config(model.config.to_dict()), model.state_dict()
    names, _ = canonical_names(config, state)
    return config, count_parameters(config, {name: state[stored].numel() for name, stored in names.items()})


@pytest.fixture(scope="module")
def base_models() -> Mapping[str, tuple[EncoderConfig, ParameterCount]]:
    with torch.device("meta"):
        return {name: describe(build_base_model(name)) for name in BASE_MODELS}


def test_base_models_have_the_parameters_that_the_papers_give(base_models: Any) -> None:
    """110 M and 66 M: arXiv 1910.01108, table 3; 12 M: arXiv 1909.11942, table 1. Heads are ours: up to 0.6 M more."""
    counts = {name: parameters.stored / MILLION for name, (_, parameters) in base_models.items()}
    assert counts == pytest.approx({"bert-base": 109.5, "distilbert-base": 67.0, "albert-base": 11.7}, abs=0.05)
    assert 1 - counts["distilbert-base"] / counts["bert-base"] == pytest.approx(0.40, abs=0.02)


def test_a_shared_layer_is_executed_as_often_as_it_runs(base_models: Any) -> None:
    (_, bert), (config, albert) = base_models["bert-base"], base_models["albert-base"]
    assert bert.executed == bert.stored
    layer = 4 * (768 * 768 + 768) + 2 * 768 * 3072 + 3072 + 768 + 4 * 768
    assert config.layer_schedule == (0,) * 12
    assert albert.executed - albert.stored == 11 * layer


def test_half_the_layers_are_half_the_work(base_models: Any) -> None:
    bert, distilbert = (count_multiply_adds(base_models[name][0], 128) for name in ("bert-base", "distilbert-base"))
    # Of the last layer little but keys and values is computed: 5 and a bit of 11 and a bit.
    assert distilbert / bert == pytest.approx(0.463, abs=0.001)


@pytest.mark.parametrize("length", [1, 7, 40])
@pytest.mark.parametrize("family", FAMILIES)
def test_multiply_adds_are_those_that_torch_counts(checkpoints: dict[str, Path], family: str, length: int) -> None:
    loaded = load_checkpoint(checkpoints[family])
    model = build_encoder(loaded.config, loaded.tensors)
    with FlopCounterMode(display=False) as counter:
        model(torch.ones(1, length, dtype=torch.int32))
    assert counter.get_total_flops() == 2 * count_multiply_adds(loaded.config, length)


def test_the_parameters_of_a_checkpoint_are_those_of_transformers() -> None:
    for family in FAMILIES:
        model = make_model(family)
        assert describe(model)[1].stored == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (CompareOptions(("x",), formats=("onnx",)), "unknown format 'onnx'"),
        (CompareOptions((), data=Path("d.tsv")), "--data needs checkpoints"),
        (CompareOptions(("no/such/place",)), "no such folder"),
        (CompareOptions(("x",), schemes=("int2",)), "unknown scheme 'int2': use dynamic_wi8_afp32, dynamic_wi4_afp32"),
        (CompareOptions(("x",), schemes=FOUR_AND_EIGHT * 2), "scheme 'dynamic_wi8_afp32' is named twice"),
        (CompareOptions(("x",), calibrate=Path("t.txt")), "--calibrate is for 4 bits: leave it out, or pass --scheme"),
    ],
    ids=str,
)
def test_wrong_options_are_named(options: CompareOptions, message: str) -> None:
    with pytest.raises(PocketbertError, match=message):
        compare(options)


def test_folders_of_one_name_show_no_more_of_their_paths_than_tells_them_apart(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    sources = [tmp_path / place for place in ("a/old/model", "b/old/model", "b/other")]
    for source in sources:
        shutil.copytree(checkpoints["bert"], source)
    loaded = _distinguish_names([(str(source), load_checkpoint(source)) for source in sources])
    assert [checkpoint.name for _, checkpoint in loaded] == ["a/old/model", "b/old/model", "other"]
    assert [source for source, _ in loaded] == [str(source) for source in sources]


def test_one_folder_twice_keeps_its_name(checkpoints: dict[str, Path]) -> None:
    twice = [(str(checkpoints["bert"]), load_checkpoint(checkpoints["bert"]))] * 2
    assert _distinguish_names(twice) == twice


@pytest.mark.slow
def test_two_checkpoints_side_by_side(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    data = tmp_path / "d.tsv"
    data.write_text("text\tlabel\n" + "".join(f"{word} film\tjoy\n{word} app\tcalm\n" for word in WORDS))
    pair = (checkpoints["bert"], checkpoints["albert"])
    wanted = ["--data", data, "--formats", "tflite", "--json", tmp_path / "c.json", "--report", tmp_path / "c.html"]
    result = pocketbert("compare", *pair, *wanted, COLUMNS="120")
    assert result.returncode == 0, result.stderr
    found = json.loads((tmp_path / "c.json").read_text())
    first, second = found["checkpoints"]
    assert (found["texts"], found["lengths"], first["layers"], second["layers_stored"]) == (24, [16, 32], 2, 1)
    assert set(first["formats"]["tflite"]["relative_time"].values()) == {1.0}
    for row in (first, second):
        tflite = row["formats"]["tflite"]
        assert tflite["bytes"] > row["parameters"]  # a byte for each, and the graph
        assert tflite["resident_mb"] > 0
        assert min(tflite["milliseconds"].values()) > 0
        assert abs(tflite["accuracy"] - row["accuracy"]) <= 0.1
        assert tflite["agreement"] >= 0.9
        assert (row["title"], row["scheme"]) == (row["name"], "dynamic_wi8_afp32")
    assert first["accuracy_kept"] == 1.0
    assert absolute_paths(found) == []
    assert "parameters" in result.stdout
    page = (tmp_path / "c.html").read_text()
    assert page.count("<svg") == 2
    assert "Accuracy over size" in page and "Latency over length, tflite" in page


@pytest.mark.slow
def test_schemes_side_by_side_have_a_column_each(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    """Both are columns of one checkpoint: the same in fp32, the second of fewer bytes."""
    data, texts = tmp_path / "d.tsv", tmp_path / "t.txt"
    data.write_text("text\tlabel\n" + "".join(f"{word} film\tjoy\n{word} app\tcalm\n" for word in WORDS))
    texts.write_text("".join(f"{word} film {word}\n" for word in WORDS * 2))
    chosen = [part for scheme in FOUR_AND_EIGHT for part in ("--scheme", scheme)]
    wanted = ["--data", data, "--formats", "tflite", "--json", tmp_path / "c.json", "--report", tmp_path / "c.html"]
    result = pocketbert("compare", checkpoints["albert"], *chosen, "--calibrate", texts, *wanted, COLUMNS="120")
    assert result.returncode == 0, result.stderr
    eight, four = json.loads((tmp_path / "c.json").read_text())["checkpoints"]
    assert (eight["scheme"], four["scheme"]) == FOUR_AND_EIGHT
    assert [eight["title"], four["title"]] == [f"{eight['name']}, {scheme}" for scheme in FOUR_AND_EIGHT]
    assert eight["accuracy"] == four["accuracy"]
    sizes = [row["formats"]["tflite"]["bytes"] for row in (eight, four)]
    assert sizes[1] < sizes[0]
    assert four["formats"]["tflite"]["relative_bytes"] == sizes[1] / sizes[0]
    assert all(scheme in result.stdout and scheme in (tmp_path / "c.html").read_text() for scheme in FOUR_AND_EIGHT)
    assert result.stderr.count("answering 24 texts in fp32") == 1


def test_agreement_is_with_the_same_checkpoint_and_accuracy_with_the_first() -> None:
    def column(scheme: str, size: int, quality: Quality) -> CheckpointMetrics:
        formats = {"tflite": ArtifactMetrics(size, None, quality)}
        return CheckpointMetrics("a", scheme, "bert", "2 layers", 2, 2, 10, 10, 40, {32: 5}, 0.8, formats)

    pair = [column("eight", 20, Quality(0.8, 0.99)), column("four", 11, Quality(0.6, 0.9))]
    eight, four = report.describe(Comparison(pair, "d.tsv", 9, 2, [32]))["checkpoints"]
    assert (eight["title"], four["title"]) == ("a, eight", "a, four")
    found = four["formats"]["tflite"]
    assert (found["accuracy"], found["agreement"], found["relative_bytes"]) == (0.6, 0.9, 0.55)
    assert found["accuracy_kept"] == pytest.approx(0.75)


def test_a_page_needs_neither_accuracy_nor_engine(tmp_path: Path) -> None:
    formats = {"coreml": ArtifactMetrics(9, None, None)}
    found = CheckpointMetrics("a", "dynamic_wi8_afp32", "bert", "2 layers", 2, 2, 10, 10, 40, {32: 5}, None, formats)
    result = report.describe(Comparison([found], None, 0, 2, [32]))
    report.write_html(result, tmp_path / "c.html")
    assert "not run on this computer" in (tmp_path / "c.html").read_text()
