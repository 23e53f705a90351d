"""The reference evaluator for Core ML programs, against torch and against coremltools' own reading.

Every package here is written by coremltools, or is one of those, damaged. `python tests/test_mil.py` measures
the time of a text on a DistilBERT-base shape: at most TARGET_SECONDS with one thread.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import math
import os
import random
import shutil
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
import types as python_types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from pocketbert.export import encoder as encoders
from pocketbert.export import quantize
from pocketbert.export.architectures import EncoderConfig
from pocketbert.export.backends import coreml as exporter
from pocketbert.runtime.engines import LOGITS
from pocketbert.runtime.engines import coreml as engine
from pocketbert.runtime.engines.coreml import mil
from pocketbert.runtime.engines.coreml.mil import ops, package, protobuf
from pocketbert.runtime.engines.coreml.mil.evaluator import Evaluator, _scale_blocks
from pocketbert.runtime.engines.coreml.mil.weights import Blob, unpack_int4
from pocketbert.runtime.errors import EngineError
from pocketbert.runtime.manifest import QUESTION_ANSWERING, SEQUENCE_CLASSIFICATION, TOKEN_CLASSIFICATION

LENGTHS = (4, 8, 16, 40)  # the last more than one block of a product, and no whole number of them
FP32_GAP = 2e-6  # relative and absolute: two float32 sums in different orders
FP16_GAP = 1  # units in the last place: two roundings of such sums may fall either way
ENCODER_GAP = 1e-2  # what fp16 may cost a small encoder with logits about 1: twice the largest gap measured
# OPENBLAS_CORETYPE, threads, and what numpy leaves unused: its kernels on most processors, as far as this one has them.
# Two threads only once: on a busy machine they wait for each other.
NO_AVX512 = "X86_V4 AVX512_ICL AVX512_SPR"
KERNELS = [
    ("Haswell", "1", NO_AVX512),
    ("Haswell", "2", ""),
    ("Zen", "1", NO_AVX512),
    ("SkylakeX", "1", ""),
    ("Sandybridge", "1", ""),
    ("Nehalem", "1", ""),
    ("", "1", ""),
]
TARGET_SECONDS, TARGET_TOKENS = 0.5, 32
FLIPS, CUTS = 80, 40  # damaged copies; a load takes some 10 ms
MODEL, WEIGHTS = "Data/com.apple.CoreML/model.mlmodel", "Data/com.apple.CoreML/weights/weight.bin"


@pytest.fixture(autouse=True, scope="module")
def _quick_conversion() -> Iterator[None]:
    """coremltools collects garbage at each conversion, over all that torch and itself have allocated."""
    exporter._import_quietly()
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def write(build: Callable[..., Any], arrays: dict[str, np.ndarray], folder: Path, opset: str = "iOS16") -> Path:
    """Writes the program that `build` makes of the inputs x, y, z, as far as `arrays` has them."""
    ct = exporter._import_quietly()
    from coremltools.converters.mil import Builder
    from coremltools.converters.mil.mil import types

    target = ct.target[opset]
    specs = [
        Builder.TensorSpec(array.shape, types.numpy_type_to_builtin_type(array.dtype.type)) for array in arrays.values()
    ]
    functions = {1: lambda x: build(x), 2: lambda x, y: build(x, y), 3: lambda x, y, z: build(x, y, z)}
    program = Builder.program(input_specs=specs, opset_version=target)(functions[len(arrays)])
    model = ct.convert(
        program,
        minimum_deployment_target=target,
        compute_precision=ct.precision.FLOAT32,  # as built: the types are part of what is tested
        skip_model_load=True,
        pass_pipeline=ct.PassPipeline.EMPTY,
    )
    model.save(str(folder / "one.mlpackage"))
    return folder / "one.mlpackage"


def evaluate(build: Callable[..., Any], arrays: dict[str, np.ndarray], folder: Path) -> np.ndarray:
    (result,) = mil.load(write(build, arrays, folder)).run(arrays).values()
    return result


def builder() -> Any:
    from coremltools.converters.mil import Builder

    return Builder


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    """float32 whose values fp16 has too, so that one reference serves both precisions."""
    return (2 * np.random.default_rng(seed).standard_normal(shape)).astype(np.float16).astype(np.float32)


def like(constant: np.ndarray, x: Any) -> np.ndarray:
    """`constant` in the type of the MIL value `x`."""
    from coremltools.converters.mil.mil import types

    return constant.astype(types.nptype_from_builtin(x.dtype))


# Arithmetic: a name that starts with the op's -> (inputs, what MIL builds, the same in torch).
X, Y = normal(2, 3, 8), normal(2, 3, 8, seed=1)
GAMMA, BETA = normal(8, seed=2), normal(8, seed=3)
WEIGHT, BIAS = normal(5, 8, seed=4), normal(5, seed=5)
EPSILON = np.array(2.0**-8, np.float32)
ARITHMETIC: dict[str, tuple[list[np.ndarray], Callable[..., Any], Callable[..., torch.Tensor]]] = {
    "add": ([X, Y], lambda x, y: builder().add(x=x, y=y), torch.add),
    "add_broadcast": ([X, GAMMA], lambda x, y: builder().add(x=x, y=y), torch.add),
    "sub": ([X, Y], lambda x, y: builder().sub(x=x, y=y), torch.sub),
    "mul": ([X, Y], lambda x, y: builder().mul(x=x, y=y), torch.mul),
    "maximum": ([X, Y], lambda x, y: builder().maximum(x=x, y=y), torch.maximum),
    "minimum": ([X, Y], lambda x, y: builder().minimum(x=x, y=y), torch.minimum),
    "real_div": ([X, Y], lambda x, y: builder().real_div(x=x, y=y), torch.div),
    "relu": ([X], lambda x: builder().relu(x=x), torch.relu),
    "tanh": ([X], lambda x: builder().tanh(x=x), torch.tanh),
    "sigmoid": ([X], lambda x: builder().sigmoid(x=x), torch.sigmoid),
    "cumsum": ([X], lambda x: builder().cumsum(x=x, axis=1), lambda x: torch.cumsum(x, 1)),
    "erf": ([X], lambda x: builder().erf(x=x), torch.erf),
    "gelu_exact": ([X], lambda x: builder().gelu(x=x, mode="EXACT"), functional.gelu),
    "gelu_tanh": (
        [X],
        lambda x: builder().gelu(x=x, mode="TANH_APPROXIMATION"),
        lambda x: functional.gelu(x, approximate="tanh"),
    ),
    "softmax_last": ([X], lambda x: builder().softmax(x=x), lambda x: torch.softmax(x, -1)),
    "softmax_axis_1": ([X], lambda x: builder().softmax(x=x, axis=1), lambda x: torch.softmax(x, 1)),
    "layer_norm": (
        [X],
        lambda x: builder().layer_norm(
            x=x, axes=[-1], gamma=like(GAMMA, x), beta=like(BETA, x), epsilon=like(EPSILON, x)[()]
        ),
        lambda x: functional.layer_norm(x, (8,), torch.tensor(GAMMA), torch.tensor(BETA), EPSILON.item()),
    ),
    "layer_norm_plain": (
        [X],
        lambda x: builder().layer_norm(x=x, axes=[1, 2]),
        lambda x: functional.layer_norm(x, (3, 8)),
    ),
    "linear": (
        [X],
        lambda x: builder().linear(x=x, weight=like(WEIGHT, x), bias=like(BIAS, x)),
        lambda x: functional.linear(x, torch.tensor(WEIGHT), torch.tensor(BIAS)),
    ),
    "matmul": ([X, normal(2, 8, 4)], lambda x, y: builder().matmul(x=x, y=y), torch.matmul),
    "matmul_transpose_x": (
        [X, normal(2, 3, 4)],
        lambda x, y: builder().matmul(x=x, y=y, transpose_x=True),
        lambda x, y: x.mT @ y,
    ),
    "matmul_transpose_y": (
        [X, Y],
        lambda x, y: builder().matmul(x=x, y=y, transpose_y=True),
        lambda x, y: x @ y.mT,
    ),
}
PRECISION = {"fp16": np.float16, "fp32": np.float32}


@pytest.mark.parametrize("precision", PRECISION)
@pytest.mark.parametrize("name", ARITHMETIC)
def test_arithmetic_equals_torch(name: str, precision: str, tmp_path: Path) -> None:
    inputs, build, reference = ARITHMETIC[name]
    arrays = {key: array.astype(PRECISION[precision]) for key, array in zip("xyz", inputs, strict=False)}
    expected = reference(*map(torch.tensor, inputs)).numpy().astype(PRECISION[precision])
    result = evaluate(build, arrays, tmp_path)
    assert result.dtype == expected.dtype and result.shape == expected.shape
    if precision == "fp32":
        np.testing.assert_allclose(result, expected, rtol=FP32_GAP, atol=FP32_GAP)
    else:
        assert (np.abs(result - expected) <= FP16_GAP * np.spacing(np.abs(expected)) + FP32_GAP).all()


# What only moves values must not change a bit; as above, name -> (inputs, what MIL builds, what must come out).
WORDS, IDS = normal(9, 4).astype(np.float16), np.array([[3, 0, -1]], np.int32)
NUMBERS = np.arange(24, dtype=np.int32).reshape(2, 3, 4)
MOVES: dict[str, tuple[list[np.ndarray], Callable[..., Any], Any]] = {
    "gather_rows": ([WORDS, IDS], lambda x, y: builder().gather(x=x, indices=y, axis=0), WORDS[IDS]),
    "gather_last_axis": ([NUMBERS, IDS], lambda x, y: builder().gather(x=x, indices=y, axis=2), NUMBERS[:, :, IDS]),
    "gather_size": ([NUMBERS], lambda x: builder().gather(x=builder().shape(x=x), indices=1), np.int32(3)),
    "shape": ([NUMBERS], lambda x: builder().shape(x=x), np.array([2, 3, 4], np.int32)),
    "reshape_rest": ([NUMBERS], lambda x: builder().reshape(x=x, shape=[4, -1]), NUMBERS.reshape(4, 6)),
    "reshape_keep": ([NUMBERS], lambda x: builder().reshape(x=x, shape=[-1, 0, 2]), NUMBERS.reshape(4, 3, 2)),
    "transpose": ([NUMBERS], lambda x: builder().transpose(x=x, perm=[1, -1, 0]), NUMBERS.transpose(1, 2, 0)),
    "expand_dims": ([NUMBERS], lambda x: builder().expand_dims(x=x, axes=[0, -1]), NUMBERS[None, ..., None]),
    "squeeze": ([NUMBERS[:, :1]], lambda x: builder().squeeze(x=x, axes=[1]), NUMBERS[:, 0]),
    "squeeze_all": ([NUMBERS[:1, :1]], lambda x: builder().squeeze(x=x), NUMBERS[0, 0]),
    "concat": ([NUMBERS, NUMBERS], lambda x, y: builder().concat(values=[x, y], axis=1), np.hstack([NUMBERS] * 2)),
    "concat_one": ([NUMBERS], lambda x: builder().concat(values=[x], axis=0), NUMBERS),
    "slice_by_index": (
        [NUMBERS],
        lambda x: builder().slice_by_index(x=x, begin=[0, 1, 1], end=[1, 3, 3]),
        NUMBERS[:1, 1:, 1:3],
    ),
    "slice_by_index_masks": (
        [NUMBERS],
        lambda x: builder().slice_by_index(
            x=x,
            begin=[1, 2, -3],
            end=[0, 3, 0],
            stride=[1, 1, 2],
            begin_mask=[False, True, False],
            end_mask=[True, False, True],
            squeeze_mask=[True, False, False],
        ),
        NUMBERS[1, :3, -3::2],
    ),
    "select": (
        [X, Y],
        lambda x, y: builder().select(cond=builder().equal(x=builder().relu(x=x), y=x), a=x, b=y),
        np.where(X >= 0, X, Y),
    ),
    "identity": ([NUMBERS], lambda x: builder().identity(x=x), NUMBERS),
    "equal": ([NUMBERS], lambda x: as_int(builder().equal(x=x, y=3)), (NUMBERS == 3).astype(np.int32)),
    "greater": ([X, Y], lambda x, y: as_int(builder().greater(x=x, y=y)), (X > Y).astype(np.int32)),
    "not_equal": ([NUMBERS], lambda x: as_int(builder().not_equal(x=x, y=3)), (NUMBERS != 3).astype(np.int32)),
    "logical_not": (
        [NUMBERS],
        lambda x: as_int(builder().logical_not(x=builder().equal(x=x, y=3))),
        (NUMBERS != 3).astype(np.int32),
    ),
    "logical_and": (
        [NUMBERS, NUMBERS % 2],
        lambda x, y: as_int(builder().logical_and(x=builder().equal(x=x, y=3), y=builder().equal(x=y, y=1))),
        (NUMBERS == 3).astype(np.int32),
    ),
    "cast_to_int_drops_the_fraction": (
        [np.array([-1.7, -0.5, 0.5, 1.7], np.float32)],
        lambda x: as_int(x),
        np.array([-1, 0, 0, 1], np.int32),
    ),
    "cast_to_fp16_rounds": ([X], lambda x: builder().cast(x=x, dtype="fp16"), X.astype(np.float16)),
    "cast_to_fp16_overflows": (
        [np.array([65519.0, 65520.0, -1e9], np.float32)],
        lambda x: builder().cast(x=x, dtype="fp16"),
        np.array([65504, np.inf, -np.inf], np.float16),
    ),
    "add_integers": ([NUMBERS, NUMBERS], lambda x, y: builder().add(x=x, y=y), 2 * NUMBERS),
}


def as_int(x: Any) -> Any:
    return builder().cast(x=x, dtype="int32")


@pytest.mark.parametrize("name", MOVES)
def test_moved_values_are_bit_for_bit_the_same(name: str, tmp_path: Path) -> None:
    inputs, build, expected = MOVES[name]
    result = evaluate(build, dict(zip("xyz", inputs, strict=False)), tmp_path)
    assert result.dtype == expected.dtype and result.shape == expected.shape
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("op", ops.MOVES | ops.ARITHMETIC)
def test_no_op_goes_untested(op: str) -> None:
    assert any(name.startswith(op) for name in (*MOVES, *ARITHMETIC))


def test_fp16_rounds_after_an_op_and_not_inside_it(tmp_path: Path) -> None:
    """2048 + 1 is no fp16 number: two ops lose both ones, one op that sums all three keeps them."""
    one = np.float16(1)
    apart = evaluate(
        lambda x: builder().add(x=builder().add(x=x, y=one), y=one), {"x": np.array([2048], np.float16)}, tmp_path
    )
    summed = evaluate(
        lambda x: builder().linear(x=x, weight=np.ones((1, 3), np.float16)),
        {"x": np.array([[2048, 1, 1]], np.float16)},
        tmp_path,
    )
    assert (apart.item(), summed.item()) == (2048, 2050)


def test_erf_is_off_by_at_most_1e_7() -> None:
    x = np.concatenate([np.linspace(-6, 6, 100_001), [0.0, 1e-6, 100.0]])
    exact = np.array([math.erf(value) for value in x])
    assert np.abs(ops.erf(x) - exact).max() <= 1e-7


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("rows", [2, 40])  # few numbers are written in place, many into the blob file
@pytest.mark.parametrize("kind", [np.int8, np.uint8])
def test_8_bit_constants_are_decoded_exactly(axis: int, rows: int, kind: type, tmp_path: Path) -> None:
    random_ = np.random.default_rng(0)
    limits = np.iinfo(kind)
    data = random_.integers(limits.min, limits.max + 1, (rows, 3)).astype(kind)
    data[0, 0], data[-1, -1] = limits.min, limits.max
    scale = random_.uniform(1e-3, 1e-2, data.shape[axis]).astype(np.float16)
    zero = random_.integers(limits.min, limits.max + 1, data.shape[axis]).astype(kind)

    def build(x: Any) -> Any:
        weight = builder().constexpr_affine_dequantize(quantized_data=data, zero_point=zero, scale=scale, axis=axis)
        return builder().gather(x=weight, indices=x, axis=0)

    sizes = (-1, 1) if axis == 0 else (1, -1)
    centered = data.astype(np.int64) - zero.astype(np.int64).reshape(sizes)
    expected = (centered * scale.astype(np.float64).reshape(sizes)).astype(np.float16)
    rows_in_order = np.arange(rows, dtype=np.int32)
    np.testing.assert_array_equal(evaluate(build, {"x": rows_in_order}, tmp_path), expected)


def test_one_scale_serves_a_whole_tensor(tmp_path: Path) -> None:
    data = np.arange(-6, 6, dtype=np.int8).reshape(4, 3)

    def build(x: Any) -> Any:
        weight = builder().constexpr_affine_dequantize(
            quantized_data=data, zero_point=np.int8(2), scale=np.float32(0.5), axis=0
        )
        return builder().linear(x=x, weight=weight)

    expected = (data.astype(np.float32) - 2) * 0.5
    np.testing.assert_array_equal(evaluate(build, {"x": np.eye(3, dtype=np.float32)}, tmp_path), expected.T)


@pytest.mark.parametrize("columns", [3, 4, 8])
@pytest.mark.parametrize("rows", [1, 3, 40])  # few numbers are written in place, many into the blob file
def test_4_bit_constants_with_a_scale_per_row_are_decoded_exactly(rows: int, columns: int, tmp_path: Path) -> None:
    data = np.random.default_rng(0).integers(-8, 8, (rows, columns)).astype(np.int8)
    data[0, 0], data[-1, -1] = -8, 7
    scale = np.random.default_rng(1).uniform(1e-3, 1e-2, (rows, 1)).astype(np.float16)
    np.testing.assert_array_equal(evaluate_blocks(data, scale, tmp_path), multiply_exactly(data, scale))


@pytest.mark.parametrize("blocks", [(6, 2), (3, 4), (1, 1), (6, 8), (2, 1)], ids=str)
@pytest.mark.parametrize("bits", [4, 8])
def test_a_scale_serves_a_block_of_numbers(blocks: tuple[int, int], bits: int, tmp_path: Path) -> None:
    end = 1 << bits - 1
    data = np.random.default_rng(0).integers(-end, end, (6, 8)).astype(np.int8)
    scale = np.random.default_rng(1).uniform(1e-3, 1e-2, blocks).astype(np.float16)
    found = evaluate_blocks(data, scale, tmp_path, bits)
    np.testing.assert_array_equal(found, multiply_exactly(data, scale))


def evaluate_blocks(data: np.ndarray, scale: np.ndarray, folder: Path, bits: int = 4) -> np.ndarray:
    """What the evaluator makes of a constant of iOS 18, all of its rows."""
    from coremltools.converters.mil.mil import types

    kind = types.nptype_from_builtin(types.get_nbits_int_builtin_type(bits, True))

    def build(x: Any) -> Any:
        weight = builder().constexpr_blockwise_shift_scale(data=data.astype(kind), scale=scale)
        return builder().gather(x=weight, indices=x, axis=0, validate_indices=False)

    inputs = {"x": np.arange(len(data), dtype=np.int32)}
    (found,) = mil.load(write(build, inputs, folder, "iOS18")).run(inputs).values()
    return found


def multiply_exactly(data: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """fp16, rounded once."""
    wide = np.kron(scale.astype(np.float64), np.ones([a // b for a, b in zip(data.shape, scale.shape, strict=True)]))
    return (data * wide).astype(np.float16)


@pytest.mark.parametrize(
    ("numbers", "odd", "stored"),
    [([1, -8, 7, -1], False, b"\x81\xf7"), ([1, -8, 7], True, b"\x81\x07"), ([], False, b""), ([-1], True, b"\x0f")],
)
def test_the_first_of_two_numbers_is_in_the_lower_half_of_a_byte(numbers: list[int], odd: bool, stored: bytes) -> None:
    assert unpack_int4(stored, odd).tolist() == numbers
    type_ = package.TensorType(np.dtype(np.int8), (len(numbers),), four_bits=True)
    assert package.Value(type_, stored).read().tolist() == numbers


@pytest.mark.parametrize(("stored", "sizes"), [(b"\x11\x11", (2,)), (b"\x11", (3,)), (b"\x11\x11", (5,)), (b"", (1,))])
def test_4_bit_constants_of_another_size_than_declared_are_refused(stored: bytes, sizes: tuple[int, ...]) -> None:
    with pytest.raises(mil.UnreadableProgram, match="holds"):
        package.Value(package.TensorType(np.dtype(np.int8), sizes, four_bits=True), stored).read()


@pytest.mark.parametrize("shape", [(4, 1), (6, 3), (6,), (6, 8, 1), (7, 8)], ids=str)
def test_scales_that_do_not_divide_a_constant_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"scales \(.*\) do not divide \(6, 8\)"):
        _scale_blocks(np.zeros((6, 8), np.int8), np.ones(shape, np.float16))


def small_config(
    architecture: str, task: str = SEQUENCE_CLASSIFICATION, separator_id: int | None = None
) -> EncoderConfig:
    albert = architecture == "albert"
    return EncoderConfig(
        architecture=architecture,
        task=task,
        vocab_size=60,
        embedding_size=16 if albert else 32,
        hidden_size=32,
        intermediate_size=64,
        num_attention_heads=4,
        max_position_embeddings=40,
        layer_schedule=(0, 0, 0) if albert else (0, 1),
        inner_layers=1,
        activation="gelu",
        layer_norm_eps=1e-12,
        pad_id=0,
        num_labels=3,
        separator_id=separator_id,
    )


def random_encoder(config: EncoderConfig, scale: float = 0.2) -> encoders.Encoder:
    """An encoder whose every tensor matters: norms that are not 1, biases that are not 0."""
    generator = torch.Generator().manual_seed(0)
    encoder = encoders.Encoder(config)
    for name, parameter in encoder.state_dict().items():
        mean = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale + mean)
    return encoder.eval().requires_grad_(False)


def lower(config: EncoderConfig, folder: Path, lengths: tuple[int, ...] = LENGTHS) -> tuple[Path, encoders.Encoder]:
    """Writes the int8 package; gives it and the encoder that it must answer like."""
    oracle = quantize.quantize(random_encoder(config), quantize.SCHEMES[quantize.DEFAULT_SCHEME])
    artifact = exporter.lower(oracle, lengths, folder)
    return folder / artifact.path, quantize.dequantize(oracle)


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, encoders.Encoder]]:
    return {name: lower(small_config(name), tmp_path_factory.mktemp(name)) for name in ("bert", "distilbert", "albert")}


@pytest.fixture(scope="module")
def packages_by_token(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, encoders.Encoder]]:
    """Of the other tasks, with token types that change within a text."""
    configs = {
        "entities": small_config("distilbert", TOKEN_CLASSIFICATION),
        "answers": dataclasses.replace(small_config("albert", QUESTION_ANSWERING, separator_id=7), num_labels=2),
        "pairs": small_config("bert", separator_id=7),
    }
    return {name: lower(config, tmp_path_factory.mktemp(name)) for name, config in configs.items()}


@pytest.fixture(params=["bert", "distilbert", "albert"])
def lowered(
    request: pytest.FixtureRequest, packages: dict[str, tuple[Path, encoders.Encoder]]
) -> tuple[Path, encoders.Encoder]:
    return packages[request.param]


@pytest.fixture
def distilbert(packages: dict[str, tuple[Path, encoders.Encoder]]) -> Path:
    return packages["distilbert"][0]


@pytest.fixture
def albert(packages: dict[str, tuple[Path, encoders.Encoder]]) -> Path:
    return packages["albert"][0]


def example(length: int, padding: int = 0) -> np.ndarray:
    ids = np.random.default_rng(length).integers(1, 60, (1, length)).astype(np.int32)
    return np.pad(ids, ((0, 0), (0, padding)))


@pytest.mark.parametrize(("length", "padding"), [(4, 0), (8, 0), (16, 0), (5, 3), (5, 11)])
def test_a_lowered_encoder_answers_like_torch(
    lowered: tuple[Path, encoders.Encoder], length: int, padding: int
) -> None:
    path, encoder = lowered
    ids = example(length, padding)
    logits = mil.load(path).run({"input_ids": ids})["logits"]
    assert logits.dtype == np.float32 and logits.shape == (1, 3)
    np.testing.assert_allclose(logits, encoder(torch.from_numpy(ids)).numpy(), rtol=0, atol=ENCODER_GAP)


@pytest.mark.parametrize("length", [1, 5, 16, 40])
def test_other_tasks_answer_like_torch(
    length: int, packages_by_token: dict[str, tuple[Path, encoders.Encoder]]
) -> None:
    padded = min(each for each in LENGTHS if each >= length)
    ids = example(length, padded - length)
    for name, (path, encoder) in packages_by_token.items():
        found = mil.load(path).run({"input_ids": ids})
        expected = encoder(torch.from_numpy(ids))
        for values, wanted in zip(found.values(), expected if name == "answers" else (expected,), strict=True):
            assert values.dtype == np.float32
            np.testing.assert_allclose(values, wanted.numpy(), rtol=0, atol=2 * ENCODER_GAP, err_msg=name)


@pytest.mark.parametrize(("core", "threads", "unused"), KERNELS)
def test_padding_moves_no_bit(
    core: str,
    threads: str,
    unused: str,
    packages: dict[str, tuple[Path, encoders.Encoder]],
    packages_by_token: dict[str, tuple[Path, encoders.Encoder]],
) -> None:
    program = Path(__file__).with_name("padding_drift.py")
    paths = [str(path) for path, _ in (*packages.values(), *packages_by_token.values())]
    kernels = {"OPENBLAS_CORETYPE": core, "OMP_NUM_THREADS": threads, "NPY_DISABLE_CPU_FEATURES": unused}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(program), "0", *paths],
        capture_output=True,
        text=True,
        env=os.environ | kernels,
    )
    if done.returncode == -signal.SIGILL:
        pytest.skip(f"this processor does not run OpenBLAS's {core} kernels")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found) == 4 + len(paths)
    for operation, (moved, tried) in found.items():
        assert moved == 0 and tried > 20, f"{operation}: {moved} of {tried} moved"


def test_constants_are_those_that_coremltools_reads(lowered: tuple[Path, encoders.Encoder]) -> None:
    """Every constant, the dequantized weights included, by name and bit for bit."""
    import coremltools as ct
    from coremltools.converters.mil.frontend.milproto import load

    model = ct.models.MLModel(str(lowered[0]), skip_model_load=True)
    program = load.load(model.get_spec(), model.get_spec().specificationVersion, model.weights_dir)
    theirs = {
        op.outputs[0].name: op.materialized_val_inference() if op.op_type.startswith("constexpr") else op.val.val
        for op in program.functions["main"].operations
        if op.op_type == "const" or op.op_type.startswith("constexpr")
    }
    ours = Evaluator(package.read(lowered[0]))._constants
    assert len(ours) > 40
    for name, array in ours.items():
        np.testing.assert_array_equal(array, theirs[name], err_msg=name)


def test_albert_weights_are_held_once(albert: Path) -> None:
    evaluator = mil.load(albert)
    read = [step.parameters["weight"][0] for step in evaluator._steps if step.op == "linear"]
    arrays = {id(evaluator._constants[name]) for name in read if isinstance(name, str)}
    assert len(read) == 3 * 6 + 3  # three passes over one layer; the projection, the pooling and the classifier
    assert len(arrays) == 6 + 3


def test_equal_constants_are_one_array(distilbert: Path) -> None:
    """Two ops that name the same blob, as a writer that does not deduplicate leaves them."""
    program = package.read(distilbert)
    weight = next(op for op in program.operations if op.type.startswith("constexpr"))
    ((name, type_),) = weight.outputs
    twin = package.Operation(weight.type, {}, (("twin", type_),), dict(weight.attributes))
    constants = Evaluator(package.Program(program.inputs, (twin, *program.operations), program.outputs))._constants
    assert constants["twin"] is constants[name]


def test_threads_share_an_evaluator(distilbert: Path) -> None:
    evaluator = mil.load(distilbert)
    alone = {length: evaluator.run({"input_ids": example(length)})["logits"] for length in LENGTHS}
    together: list[bool] = []

    def work(length: int) -> None:
        for _ in range(20):
            together.append(np.array_equal(evaluator.run({"input_ids": example(length)})["logits"], alone[length]))

    threads = [threading.Thread(target=work, args=(length,)) for length in LENGTHS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == [True] * 20 * len(LENGTHS)


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (lambda x: builder().sin(x=x), "the op 'sin'"),
        (lambda x: builder().gelu(x=x, mode="SIGMOID_APPROXIMATION"), "gelu 'one': mode 'SIGMOID_APPROXIMATION'"),
        (lambda x: builder().concat(values=[x, x], axis=0, interleave=True), "concat 'one': interleave True"),
        (lambda x: builder().gather(x=x, indices=as_int(x), axis=1, batch_dims=1), "gather 'one': batch_dims 1"),
        (lambda x: builder().cumsum(x=x, axis=0, exclusive=True), "cumsum 'one': exclusive True"),
        (lambda x: builder().cumsum(x=x, axis=0, reverse=True), "cumsum 'one': reverse True"),
        (lambda x: builder().real_div(x=as_int(x), y=as_int(x)), "real_div 'one': the type int32"),
    ],
)
def test_what_is_not_evaluated_is_refused_by_name(build: Callable[..., Any], named: str, tmp_path: Path) -> None:
    x = np.zeros((2, 3), np.float32)

    def named_build(x: Any) -> Any:
        result = build(x)
        result.name = "one"
        return result

    with pytest.raises(mil.UnsupportedOp, match=named):
        evaluate(named_build, {"x": x}, tmp_path)


@pytest.mark.parametrize("validate", [False, True])
def test_a_gather_of_a_newer_opset_must_not_ask_for_its_indices_to_be_validated(validate: bool, tmp_path: Path) -> None:
    x = np.array([[2, 0], [1, 1]], np.int32)

    def build(x: Any) -> Any:
        return builder().gather(x=x, indices=[1, 0], axis=1, validate_indices=validate)

    loaded = mil.load(write(build, {"x": x}, tmp_path, "iOS17"))
    if validate:
        with pytest.raises(mil.UnsupportedOp, match="validate_indices True"):
            loaded.run({"x": x})
    else:
        np.testing.assert_array_equal(*loaded.run({"x": x}).values(), x[:, [1, 0]])


def test_a_part_of_a_constant_that_is_not_read_is_refused_by_name(tmp_path: Path) -> None:
    """Zero points are none of ours, and must not be passed over."""
    data, x = np.ones((4, 4), np.int8), np.zeros(1, np.int32)

    def build(x: Any) -> Any:
        scale, offset = np.ones((4, 1), np.float16), np.ones((4, 1), np.int8)
        weight = builder().constexpr_blockwise_shift_scale(data=data, scale=scale, offset=offset)
        return builder().gather(x=weight, indices=x, axis=0, validate_indices=False)

    with pytest.raises(mil.UnreadableProgram, match=r"is made of \['data', 'offset', 'scale'\]"):
        mil.load(write(build, {"x": x}, tmp_path, "iOS18"))


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        (
            {"input_ids": example(7)},
            r"int32 \(1, 7\), the program takes int32 \(1, 4\), \(1, 8\), \(1, 16\), \(1, 40\)",
        ),
        ({"input_ids": example(8)[0]}, r"int32 \(8,\), the program takes"),
        ({"input_ids": example(8).astype(np.int64)}, r"int64 \(1, 8\), the program takes int32"),
        ({"ids": example(8)}, "the input 'input_ids' is missing"),
        ({"input_ids": np.full((1, 8), 60, np.int32)}, "gather .* cannot be computed: .*60"),
    ],
)
def test_an_input_that_the_program_does_not_take_is_refused(
    inputs: dict[str, np.ndarray], said: str, distilbert: Path
) -> None:
    with pytest.raises(EngineError, match=said):
        mil.load(distilbert).run(inputs)


def damaged(source: Path, folder: Path, file: str, data: bytes) -> Path:
    """A copy of `source` in which `file` holds `data`."""
    copy = folder / "damaged.mlpackage"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(source, copy)
    (copy / file).write_bytes(data)
    return copy


def survives(path: Path) -> bool:
    """Whether a damaged package still answers. Any exception but a ValueError of ours fails the test."""
    try:
        mil.load(path).run({"input_ids": example(8)})
    except EngineError as error:
        assert str(error) and "\n" not in str(error)
        return False
    return True


@pytest.mark.parametrize("file", ["Manifest.json", MODEL, WEIGHTS])
def test_a_package_cut_short_is_refused(file: str, distilbert: Path, tmp_path: Path) -> None:
    whole = (distilbert / file).read_bytes().rstrip(b"\n")
    for size in sorted({0, 1, len(whole) - 1, *np.linspace(0, len(whole) - 1, CUTS, dtype=int).tolist()}):
        assert not survives(damaged(distilbert, tmp_path, file, whole[:size])), f"cut to {size} of {len(whole)}"


@pytest.mark.parametrize("file", ["Manifest.json", MODEL, WEIGHTS])
def test_flipped_bits_give_an_answer_or_a_clear_error(file: str, distilbert: Path, tmp_path: Path) -> None:
    chance = random.Random(0)
    whole = (distilbert / file).read_bytes()
    outcomes = set()
    for _ in range(FLIPS):
        data = bytearray(whole)
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        outcomes.add(survives(damaged(distilbert, tmp_path, file, bytes(data))))
    assert False in outcomes


@pytest.mark.parametrize(
    ("file", "data", "said"),
    [
        ("Manifest.json", b"[]", "Manifest.json names no root model"),
        ("Manifest.json", b"[" * 100_000, "Manifest.json names no root model"),
        (MODEL, b"\x08\x04", "holds no ML program"),  # specificationVersion 4: a neural network's
        (MODEL, b"\xb2\x1f\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "cut short or damaged"),  # a field of 2^63 bytes
        (MODEL, b"\x03", "wire type 3"),
        (WEIGHTS, b"\x01\x00\x00\x00\x01\x00\x00\x00" + bytes(56), "version 1 of the blob format"),
        (WEIGHTS, b"\x01\x00\x00\x00\x02\x00\x00\x00" + bytes(1 << 20), "no blob at byte"),
    ],
)
def test_a_foreign_file_is_refused_by_what_it_is(
    file: str, data: bytes, said: str, distilbert: Path, tmp_path: Path
) -> None:
    with pytest.raises(mil.UnreadableProgram, match=f"damaged.mlpackage: .*{said}"):
        mil.load(damaged(distilbert, tmp_path, file, data))


def test_a_program_that_contradicts_itself_is_refused(distilbert: Path) -> None:
    program = package.read(distilbert)
    tanh, value = package.TensorType(np.dtype(np.float32), (1, 3)), program.outputs[0]

    def refused(result: str, *values: str, shape: package.TensorType = tanh) -> str:
        op = package.Operation("tanh", {"x": values}, ((result, shape),), {})
        with pytest.raises(mil.UnreadableProgram) as caught:
            changed = dataclasses.replace(program, operations=(*program.operations, op), outputs=(result,))
            Evaluator(changed).run({"input_ids": example(8)})
        return str(caught.value)

    wrong = package.TensorType(np.dtype(np.float32), (1, 4))
    assert refused("late", value, value) == "tanh 'late': the parameter 'x' has 2 values"
    assert refused("late") == "tanh 'late': the parameter 'x' has 0 values"
    assert refused("late", "later") == "tanh 'late' reads 'later', given by nothing"
    assert refused(value, value) == f"the value {value!r} is given twice"
    assert refused("late", value, shape=wrong) == (
        "tanh 'late' gives float32 (1, 3), the program declares float32 (1, 4)"
    )


def test_a_parameter_that_an_op_is_not_known_to_have_is_refused_by_name(distilbert: Path) -> None:
    program = package.read(distilbert)
    value, type_ = program.outputs[0], package.TensorType(np.dtype(np.float32), (1, 3))
    op = package.Operation("tanh", {"x": (value,), "newer": (value,)}, (("late", type_),), {})
    with pytest.raises(mil.UnsupportedOp, match="tanh 'late': the parameter 'newer' is not supported"):
        Evaluator(dataclasses.replace(program, operations=(*program.operations, op), outputs=("late",)))


def test_a_missing_package_or_file_is_refused_by_name(distilbert: Path, tmp_path: Path) -> None:
    with pytest.raises(mil.UnreadableProgram, match="nowhere"):
        mil.load(tmp_path / "nowhere.mlpackage")
    copy = damaged(distilbert, tmp_path, MODEL, b"")
    (copy / MODEL).unlink()
    with pytest.raises(mil.UnreadableProgram, match=r"model\.mlmodel"):
        mil.load(copy)


def test_a_package_cannot_name_a_file_outside_itself(distilbert: Path, tmp_path: Path) -> None:
    manifest = json.loads((distilbert / "Manifest.json").read_text())
    manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]["path"] = "../../elsewhere.mlmodel"
    with pytest.raises(mil.UnreadableProgram, match="outside the package"):
        mil.load(damaged(distilbert, tmp_path, "Manifest.json", json.dumps(manifest).encode()))


@pytest.mark.parametrize(
    ("sentinel", "kind", "size", "said"),
    [
        (0xDEADBEEE, 1, 64, "no blob at byte 64"),
        (0xDEADBEEF, 5, 64, "no blob at byte 64, or one of unknown type"),  # bfloat16
        (0xDEADBEEF, 1, 63, "63 bytes at 128 are no whole number of float16"),
        (0xDEADBEEF, 1, 1 << 62, "ends at byte 192"),  # and nothing of that size is allocated
    ],
)
def test_a_blob_that_is_none_is_refused(sentinel: int, kind: int, size: int, said: str, tmp_path: Path) -> None:
    header, metadata = struct.pack("<II56x", 1, 2), struct.pack("<IIQQ40x", sentinel, kind, size, 128)
    (tmp_path / "weight.bin").write_bytes(header + metadata + bytes(64))
    with pytest.raises(mil.UnreadableProgram, match=said):
        Blob(tmp_path / "weight.bin", 64).read()


@pytest.mark.parametrize(("stored", "sizes"), [(b"123456", (4,)), (b"12345", (3,)), (b"", (None,)), (b"12", (-1, -1))])
def test_a_constant_of_another_size_than_declared_is_refused(stored: bytes, sizes: tuple[int | None, ...]) -> None:
    with pytest.raises(mil.UnreadableProgram, match=f"holds {len(stored)} bytes"):
        package.Value(package.TensorType(np.dtype(np.float16), sizes), stored).read()


def test_a_protobuf_field_of_the_wrong_kind_is_refused() -> None:
    message = protobuf.Message(b"\x08\x05\x12\x01a")  # field 1 is the integer 5, field 2 the text "a"
    assert (message.integer(1), message.text(2), message.integer(3), message.text(3)) == (5, "a", 0, "")
    with pytest.raises(mil.UnreadableProgram, match="field 2 holds bytes"):
        message.integer(2)
    with pytest.raises(mil.UnreadableProgram, match="field 1 holds an integer"):
        message.text(1)


def test_importing_the_evaluator_imports_no_framework() -> None:
    heavy = ("torch", "coremltools", "google.protobuf", "scipy")
    code = (
        f"import sys, pocketbert.runtime.engines.coreml.mil; print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_engine_says_that_it_is_the_evaluator(distilbert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    opened = engine.open_artifact(distilbert, None, 1, None, lambda: None, LOGITS)  # type: ignore[arg-type]
    logits = opened.run(example(8))
    assert (opened.name, logits.dtype, logits.shape) == ("coreml", np.float32, (1, 3))
    assert opened.version.startswith("MIL reference evaluator 2")
    opened.close()
    with pytest.raises(EngineError, match="closed"):
        opened.run(example(8))


@pytest.mark.parametrize(
    ("implementation", "said"), [("coreml", "needs macOS"), ("metal", "no implementation 'metal'")]
)
def test_an_engine_that_is_not_here_is_refused(
    implementation: str, said: str, distilbert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    with pytest.raises(EngineError, match=said):
        engine.open_artifact(distilbert, None, 1, implementation, lambda: None, LOGITS)  # type: ignore[arg-type]


def test_a_mac_uses_core_ml(distilbert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for coremltools' MLModel, which predicts on a Mac only."""

    class StandIn:
        def __init__(self, path: str) -> None:
            self.path = path

        def predict(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            assert inputs["input_ids"].dtype == np.int32
            return {"logits": np.array([[1, 2, 3]], np.float16)}

    fake = python_types.SimpleNamespace(models=python_types.SimpleNamespace(MLModel=StandIn))
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(engine.platform, "mac_ver", lambda: ("15.1", ("", "", ""), "arm64"))
    monkeypatch.setitem(sys.modules, "coremltools", fake)  # type: ignore[arg-type]
    monkeypatch.setattr(engine, "can_import", lambda package: True)
    opened = engine.open_artifact(distilbert, None, 1, None, lambda: None, LOGITS)  # type: ignore[arg-type]
    assert opened.version.startswith("Core ML on macOS 15.1 (coremltools 9")
    np.testing.assert_array_equal(opened.run(example(8)), np.array([[1, 2, 3]], np.float32))


def benchmark(runs: int = 21) -> float:
    """Prints and gives the median seconds of a text of TARGET_TOKENS on a DistilBERT-base shape.

    Takes a minute, most of it export. Run it alone, with OMP_NUM_THREADS=1.
    """
    base = EncoderConfig("distilbert", 30522, 768, 768, 3072, 12, 512, tuple(range(6)), 1, "gelu", "relu", 1e-12, 0, 2)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        path, _ = lower(base, Path(folder), (TARGET_TOKENS,))
        exported = time.perf_counter()
        evaluator = mil.load(path)
        loaded = time.perf_counter()
    seconds = []
    for _ in range(runs):
        begun = time.perf_counter()
        evaluator.run({"input_ids": example(TARGET_TOKENS)})
        seconds.append(time.perf_counter() - begun)
    print(f"export {exported - started:.1f} s, load {loaded - exported:.2f} s, text {statistics.median(seconds):.3f} s")
    return statistics.median(seconds)


if __name__ == "__main__":
    sys.exit(benchmark() > TARGET_SECONDS)
