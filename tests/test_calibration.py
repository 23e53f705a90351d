"""Calibration: what it looks at is what the model computes, and what it rounds is the same wherever it runs."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import write_checkpoint
from test_tasks import load_encoder, write_task
from torch import Tensor, nn

from pocketbert.export import calibration
from pocketbert.export.calibration import Moments, calibrate, observe
from pocketbert.export.encoder import Encoder, Pack, copy_modules
from pocketbert.export.quantize import FOUR_BIT_SCHEME, SCHEMES, hash_weights, quantize, split_outliers
from pocketbert.runtime.manifest import QUESTION_ANSWERING, SEQUENCE_CLASSIFICATION, TOKEN_CLASSIFICATION

SAME = 1e-12  # of float64, added up in another order
LENGTHS = (7, 1, 19, 30, 2, 12)
SEPARATOR = 3
ENCODERS = {
    "bert, pairs": ("bert", SEQUENCE_CLASSIFICATION, True),
    "distilbert": ("distilbert", SEQUENCE_CLASSIFICATION, False),
    "albert": ("albert", SEQUENCE_CLASSIFICATION, False),
    "bert by token": ("bert", TOKEN_CLASSIFICATION, False),
    "albert, answers": ("albert", QUESTION_ANSWERING, False),
}


def make_texts(lengths: Sequence[int] = LENGTHS, pairs: bool = False) -> list[Tensor]:
    random = torch.Generator().manual_seed(0)
    texts = [torch.randint(5, 35, (length,), generator=random, dtype=torch.int32) for length in lengths]
    for ids in texts:
        ids[len(ids) // 2 if pairs else -1] = SEPARATOR
    return texts


@pytest.fixture(scope="module", params=ENCODERS)
def encoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    family, task, pairs = ENCODERS[request.param]
    return load_encoder(write_task(tmp_path_factory.mktemp("checkpoint"), family, task), pairs)


@pytest.fixture(scope="module")
def distilbert(checkpoints: dict[str, Path]) -> Encoder:
    return load_encoder(checkpoints["distilbert"])


def finish(encoder: Encoder, hidden: Tensor) -> Tensor:
    """The logits of one text, from the rows that its head reads."""
    found = encoder.shape_outputs(encoder.head(hidden))
    return torch.stack(found, -1)[0] if isinstance(found, tuple) else found[0]


def answer(encoder: Encoder, ids: Tensor) -> Tensor:
    found = encoder(ids[None])
    return torch.stack(found, -1)[0] if isinstance(found, tuple) else found[0]


# Texts in a pack


def test_a_pack_of_texts_computes_what_each_text_does_by_itself(encoder: Encoder) -> None:
    model, texts = copy.deepcopy(encoder).double(), make_texts(pairs=True)
    pack = Pack.of(texts)
    rows = model.run_layers(model.embed(pack), pack, 0, len(model.config.layer_schedule))
    by_token = model.num_positions is None
    for ids, found in zip(texts, rows.split(list(LENGTHS) if by_token else 1), strict=True):
        torch.testing.assert_close(finish(model, found), answer(model, ids), atol=1e-9, rtol=0)


def test_layers_can_be_run_in_parts(encoder: Encoder) -> None:
    model, depths = copy.deepcopy(encoder).double(), len(encoder.config.layer_schedule)
    pack = Pack.of(make_texts())
    whole = model.run_layers(model.embed(pack), pack, 0, depths)
    for cut in range(depths + 1):
        first = model.run_layers(model.embed(pack), pack, 0, cut)
        torch.testing.assert_close(model.run_layers(first, pack, cut, depths), whole, atol=SAME, rtol=0)


def test_texts_of_a_pack_do_not_look_at_each_other() -> None:
    pack = Pack.of(make_texts((2, 3)))
    assert pack.starts.tolist() == [0, 2]
    assert (pack.mask == 0).int().tolist() == [[1, 1, 0, 0, 0]] * 2 + [[0, 0, 1, 1, 1]] * 3


def test_packs_hold_texts_in_order_and_one_too_long_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "PACK", 20)
    packs = list(calibration.split_texts(make_texts((7, 13, 1, 25, 20, 3))))
    assert [[len(ids) for ids in pack] for pack in packs] == [[7, 13], [1], [25], [20], [3]]


@pytest.mark.parametrize("size", [1, 40])
def test_how_many_texts_are_a_pack_changes_no_number(
    distilbert: Encoder, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    texts = make_texts()
    usual = calibrate(distilbert, texts)
    monkeypatch.setattr(calibration, "PACK", size)
    for name, found in calibrate(distilbert, texts).items():
        assert torch.equal(found.rounded.weight, usual[name].rounded.weight), name


# Moments


def test_moments_are_mean_and_covariance_however_the_inputs_come() -> None:
    inputs = 3 + torch.randn(50, 6, dtype=torch.float64)
    moments = Moments(6)
    for part in inputs.split(17):
        moments.add(part)
    torch.testing.assert_close(moments.mean, inputs.mean(dim=0), atol=SAME, rtol=0)
    torch.testing.assert_close(moments.covariance, torch.cov(inputs.T, correction=0), atol=1e-10, rtol=0)


def test_what_a_linear_sees_is_counted_once_for_each_token_that_it_computes(distilbert: Encoder) -> None:
    model, pack = copy.deepcopy(distilbert).double(), Pack.of(make_texts())
    last = len(model.config.layer_schedule) - 1
    state = model.run_layers(model.embed(pack), pack, 0, last)
    layer = model.layers[last]
    with observe(layer) as seen:  # type: ignore[arg-type]
        model.run_layers(state, pack, last, last + 1)
    counts = {name: moments.count for name, moments in seen.items()}
    by_token, by_text = (
        sum(LENGTHS),
        len(LENGTHS),
    )  # [CLS] alone is asked for behind the keys and values of the last layer
    assert counts == {"query": by_text, "key": by_token, "value": by_token} | dict.fromkeys(
        ("attention_out", "up", "down"), by_text
    )
    torch.testing.assert_close(seen["key"].mean, state.mean(dim=0), atol=SAME, rtol=0)
    model.run_layers(state, pack, last, last + 1)
    assert seen["key"].count == by_token  # it looks no longer


# What is rounded


def test_rounding_moves_no_mean_output() -> None:
    """What the whole numbers of each row lose on average is in the bias."""
    inputs = 2 + torch.randn(300, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    moments = Moments(32)
    moments.add(inputs)
    linear = nn.Linear(32, 16, dtype=torch.float64).requires_grad_(False)
    before, bias = linear(inputs), linear.bias.clone()
    calibrated = calibration._round(linear, moments)
    rounded = calibrated.rounded.dequantize().double()
    after = inputs @ rounded.T
    torch.testing.assert_close((after + linear.bias).mean(0), before.mean(0), atol=1e-9, rtol=0)
    torch.testing.assert_close(calibrated.bias.double(), linear.bias, atol=1e-6, rtol=0)
    assert ((after + bias).mean(0) - before.mean(0)).abs().max() > 1e-2  # so much it would have been
    torch.testing.assert_close(linear(inputs), after + linear.bias)  # the layers behind see what was rounded


def test_each_linear_of_each_layer_is_rounded_and_the_encoder_stays_what_it_was(encoder: Encoder) -> None:
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    steps: list[None] = []
    found = calibrate(encoder, make_texts(), lambda: steps.append(None))
    linears = {name for name, part in encoder.named_modules() if isinstance(part, nn.Linear)}
    assert set(found) == {name for name in linears if name.startswith("layers.")}
    assert len(steps) == encoder.config.stored_layers
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())
    for each in found.values():
        assert each.rounded.bits == 4 and each.bias.dtype == torch.float32


@pytest.mark.parametrize(("layers", "groups"), [(3, 1), (4, 2), (6, 3)])
def test_a_layer_that_runs_at_several_depths_is_rounded_once_by_what_it_sees_at_all_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layers: int, groups: int
) -> None:
    folder = write_checkpoint(tmp_path / "albert", "albert", num_hidden_layers=layers, num_hidden_groups=groups)
    encoder, texts = load_encoder(folder), make_texts()
    counts: list[int] = []
    once = calibration._round

    def count(linear: nn.Linear, moments: Moments, *options: bool) -> calibration.Calibrated:
        counts.append(moments.count)
        return once(linear, moments, *options)

    monkeypatch.setattr(calibration, "_round", count)
    found = calibrate(encoder, texts)
    schedule, stored = encoder.config.layer_schedule, encoder.config.stored_layers
    assert len(found) == len(counts) == 6 * stored
    keys = counts[1::6]  # query, key, ...
    assert keys == [sum(LENGTHS) * schedule.count(layer) for layer in range(stored)]
    queries = counts[0::6]
    lost = sum(LENGTHS) - len(LENGTHS)  # of the last depth only [CLS] is asked for
    assert queries == [each - lost * (layer == schedule[-1]) for layer, each in enumerate(keys)]


def test_a_layer_behind_makes_up_for_what_those_before_it_lost(tmp_path: Path) -> None:
    """Its moments are of what the rounded layers give, not of what the exact ones do."""
    encoder = load_encoder(write_checkpoint(tmp_path / "checkpoint", "distilbert", n_layers=3))
    found = calibrate(encoder, make_texts())
    model, pack = copy.deepcopy(encoder).double(), Pack.of(make_texts())
    state = model.embed(pack)
    for depth in range(3):
        layer: Any = model.layers[depth]
        with observe(layer) as seen:
            model.run_layers(state, pack, depth, depth + 1)
        for name, moments in seen.items():
            again, expected = calibration._round(getattr(layer, name), moments), found[f"layers.{depth}.{name}"]
            assert torch.equal(again.rounded.weight, expected.rounded.weight), (depth, name)
            assert torch.equal(again.rounded.scale, expected.rounded.scale), (depth, name)
        state = model.run_layers(state, pack, depth, depth + 1)


def test_calibrated_rounding_answers_nearer_to_the_checkpoint_than_rounding_to_nearest(distilbert: Encoder) -> None:
    """On texts that were not calibrated by. `weight.double()`: what is rounded by nothing but itself."""
    texts = make_texts([24] * 60)
    calibrated = quantize(distilbert, SCHEMES[FOUR_BIT_SCHEME], texts[:40])
    blind = calibrate_blindly(distilbert, texts[:40])
    drifts = [
        torch.cat([(answer(each, ids) - answer(distilbert, ids)).abs() for ids in texts[40:]]).mean()
        for each in (calibrated, blind)
    ]
    assert drifts[0] < 0.8 * drifts[1]


def calibrate_blindly(encoder: Encoder, texts: Sequence[Tensor]) -> Encoder:
    """As if all inputs had nothing in common and a mean of 0."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Moments, "covariance", property(lambda self: torch.eye(len(self.total), dtype=torch.float64)))
        patch.setattr(Moments, "mean", property(lambda self: torch.zeros_like(self.total)))
        return quantize(encoder, SCHEMES[FOUR_BIT_SCHEME], texts)


def test_without_texts_nothing_is_calibrated(distilbert: Encoder) -> None:
    with pytest.raises(ValueError, match="texts"):
        calibrate(distilbert, [])
    with pytest.raises(ValueError, match="texts"):
        quantize(distilbert, SCHEMES[FOUR_BIT_SCHEME])


# Wherever it runs

PRINT_HASH = """
import sys, torch
from pathlib import Path
from pocketbert.export.checkpoint import load_checkpoint
from pocketbert.export.encoder import build_encoder
from pocketbert.export.quantize import FOUR_BIT_SCHEME, SCHEMES, hash_weights, quantize
loaded = load_checkpoint(sys.argv[1])
texts = torch.load(sys.argv[2])
for threads in map(int, sys.argv[3:]):
    torch.set_num_threads(threads)
    oracle = quantize(build_encoder(loaded.config, loaded.tensors), SCHEMES[FOUR_BIT_SCHEME], texts)
    print(torch.backends.cpu.get_cpu_capability(), hash_weights(oracle))
"""


@pytest.mark.slow
def test_every_processor_and_any_threads_round_to_the_same_numbers(tmp_path: Path) -> None:
    """What float64 is for. torch and MKL take an older processor's kernels where environment variables say so."""
    folder = write_checkpoint(tmp_path / "checkpoint", "distilbert", dim=128, hidden_dim=512)
    torch.save(make_texts([32] * 60), tmp_path / "texts.pt")
    found = set()
    for level, kernels in (("", ""), ("avx2", "AVX2"), ("default", "SSE4_2")):
        chosen = {"ATEN_CPU_CAPABILITY": level, "MKL_ENABLE_INSTRUCTIONS": kernels} if level else {}
        command = [sys.executable, "-c", PRINT_HASH, str(folder), str(tmp_path / "texts.pt"), "1", "2"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, **chosen})
        capabilities, hashes = zip(*(line.split() for line in done.stdout.splitlines()), strict=True)
        assert len(hashes) == 2 and {each.lower() for each in capabilities} == {level or capabilities[0].lower()}
        found |= set(hashes)
    assert len(found) == 1


def test_a_hash_of_weights_tells_one_number_of_one_weight(distilbert: Encoder) -> None:
    oracle = quantize(distilbert, SCHEMES[FOUR_BIT_SCHEME], make_texts())
    same = quantize(distilbert, SCHEMES[FOUR_BIT_SCHEME], make_texts())
    assert hash_weights(oracle) == hash_weights(same)
    for place, part in (("layers.1.up", "weight"), ("layers.0.key", "scale"), ("embeddings.word.others", "weight")):
        changed = copy_modules(oracle)
        module = changed.get_submodule(place)
        tensor = getattr(module, part).clone()
        tensor.view(-1)[5] += 1
        setattr(module, part, tensor)
        assert hash_weights(changed) != hash_weights(oracle)
    assert hash_weights(split_outliers(distilbert)) != hash_weights(oracle)
