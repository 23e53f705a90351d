"""Reads an .mlpackage from disk: what the model takes, and the operations of its ML program.

Takes the package's folder. Returns one frozen `Program`; its constants stay where they are until `Value.read`.
Leaves out: evaluation (evaluator.py), neural-network models (before Core ML 5), several functions in one
model, state, control flow, lists and dictionaries, and ranges of shapes (the exporter enumerates them).

The folder is Manifest.json, which names the root item; the model in Data/, a protobuf; and weight files. Field
numbers are from coremltools: mlmodel/format/Model.proto, FeatureTypes.proto and MIL.proto.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pocketbert.runtime.engines.coreml.mil.protobuf import Message, UnreadableProgram
from pocketbert.runtime.engines.coreml.mil.weights import Blob, unpack_int4
from pocketbert.runtime.manifest import LARGEST_MANIFEST, read_regular

LARGEST_MODEL = 1 << 24  # bytes; without weights a base-size encoder has some hundred thousand
MODEL_DESCRIPTION, MODEL_ML_PROGRAM = 2, 502
DESCRIPTION_INPUT = 1
FEATURE_NAME, FEATURE_TYPE, FEATURE_MULTI_ARRAY = 1, 3, 5
ARRAY_SHAPE, ARRAY_ENUMERATED_SHAPES, ARRAY_SHAPE_RANGE = 1, 21, 31
ENUMERATED_SHAPES, SHAPE = 1, 1
PROGRAM_FUNCTIONS = 2
FUNCTION_INPUTS, FUNCTION_OPSET, FUNCTION_BLOCKS = 1, 2, 3
BLOCK_OUTPUTS, BLOCK_OPERATIONS = 2, 3
OPERATION_TYPE, OPERATION_INPUTS, OPERATION_OUTPUTS, OPERATION_BLOCKS, OPERATION_ATTRIBUTES = 1, 2, 3, 4, 5
ARGUMENT_BINDINGS, BINDING_NAME, BINDING_VALUE = 1, 1, 2
NAMED_NAME, NAMED_TYPE = 1, 2
TYPE_TENSOR = 1
TENSOR_DATA_TYPE, TENSOR_RANK, TENSOR_DIMENSIONS = 1, 2, 3
DIMENSION_CONSTANT, CONSTANT_SIZE = 1, 1
VALUE_TYPE, VALUE_IMMEDIATE, VALUE_BLOB_FILE = 2, 3, 5
IMMEDIATE_TENSOR = 1
BLOB_FILE_NAME, BLOB_FILE_OFFSET = 1, 2
TENSOR_FLOATS, TENSOR_INTS, TENSOR_BOOLS, TENSOR_STRINGS, TENSOR_BYTES = 1, 2, 3, 4, 7
REPEATED_VALUES = 1

STRING = np.dtype(object)
# MIL.proto's enum DataType, as far as this runtime needs it.
DATA_TYPES = {
    1: np.dtype(np.bool_),
    2: STRING,
    10: np.dtype("<f2"),
    11: np.dtype("<f4"),
    21: np.dtype("i1"),
    22: np.dtype("<i2"),
    23: np.dtype("<i4"),
    25: np.dtype("i1"),
    31: np.dtype("u1"),
    32: np.dtype("<u2"),
}
INT4 = 25  # whose constants are two numbers in a byte, in the program as in a blob file
MODEL_PATH = "@model_path/"  # how a program names the folder that its model file lies in


@dataclass(frozen=True)
class TensorType:
    """A value's declared type. A size is None where it depends on the input's length."""

    dtype: np.dtype[Any]
    shape: tuple[int | None, ...]
    four_bits: bool = False  # numbers of -8 to 7, which numpy has as int8

    def admits(self, shape: tuple[int, ...]) -> bool:
        """Whether an array of `shape` can be of this type."""
        return len(shape) == len(self.shape) and all(
            declared in (None, size) for declared, size in zip(self.shape, shape, strict=True)
        )


@dataclass(frozen=True)
class Value:
    """A constant that is not read yet. Equal values are one constant, so it can be a dictionary's key."""

    type: TensorType
    stored: Blob | bytes | str  # in a blob file, or in the program

    def read(self) -> NDArray[Any]:
        """Reads it: an array of `type`. Raises UnreadableProgram if what is stored is not of that type."""
        if isinstance(self.stored, str):
            return np.array(self.stored, STRING)
        dtype = self.type.dtype
        found = self.stored.read() if isinstance(self.stored, Blob) else self._unpack(self.stored)
        if isinstance(self.stored, Blob) and found.dtype != dtype:
            raise UnreadableProgram(f"a constant declared {dtype} is stored as {found.dtype}")
        sizes = [-1 if size is None else size for size in self.type.shape]
        if min(sizes, default=0) < 0 or found.nbytes != math.prod(sizes) * dtype.itemsize:
            raise UnreadableProgram(f"a constant declared {dtype} {self.type.shape} holds {found.nbytes} bytes")
        try:
            return found.view(dtype).reshape(sizes)
        except ValueError as error:  # more dimensions than numpy has, or sizes whose product is 0 and still too large
            raise UnreadableProgram(f"a constant declared {dtype} {self.type.shape} is no array: {error}") from None

    def _unpack(self, stored: bytes) -> NDArray[Any]:
        if not self.type.four_bits:
            return np.frombuffer(stored, np.uint8)
        return unpack_int4(stored, odd=bool(math.prod(size or 0 for size in self.type.shape) % 2))


@dataclass(frozen=True)
class Operation:
    """One op: parameter name -> the values' names or constants; what it gives; the constants of a const op."""

    type: str
    inputs: dict[str, tuple[str | Value, ...]]
    outputs: tuple[tuple[str, TensorType], ...]
    attributes: dict[str, Value]


@dataclass(frozen=True)
class Input:
    """A model input: its type, and every shape that it may have."""

    name: str
    type: TensorType
    shapes: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Program:
    """The function `main` of an ML program, its operations in an order in which they can run."""

    inputs: tuple[Input, ...]
    operations: tuple[Operation, ...]
    outputs: tuple[str, ...]


def read(package: Path) -> Program:
    """Reads `package`, an .mlpackage folder. Raises UnreadableProgram."""
    try:
        path = _find_model(package)
        return _read_model(Message(read_regular(path, LARGEST_MODEL)), path.parent)
    except OSError as error:
        raise UnreadableProgram(f"{str(error.filename)!r} cannot be read: {error.strerror or error}") from None


def _find_model(package: Path) -> Path:
    try:
        manifest = json.loads(read_regular(package / "Manifest.json", LARGEST_MANIFEST))
        path = str(manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]["path"])
    except (ValueError, TypeError, LookupError, RecursionError):
        raise UnreadableProgram("Manifest.json names no root model") from None
    return _inside(package / "Data", path)


def _inside(folder: Path, relative: str) -> Path:
    """A package that was downloaded must not make us read a file outside it."""
    try:
        inside = (folder / relative).resolve().is_relative_to(folder.resolve())
    except (ValueError, RuntimeError):  # no name that a file can have; links that point at each other
        inside = False
    if not inside:
        raise UnreadableProgram(f"{relative!r} lies outside the package")
    return folder / relative


def _read_model(model: Message, folder: Path) -> Program:
    if MODEL_ML_PROGRAM not in model:
        raise UnreadableProgram("the model holds no ML program: convert it for iOS 15 or later")
    shapes = dict(map(_read_shapes, model.message(MODEL_DESCRIPTION).messages(DESCRIPTION_INPUT)))
    functions = model.message(MODEL_ML_PROGRAM).table(PROGRAM_FUNCTIONS)
    if set(functions) != {"main"}:
        raise UnreadableProgram(f"the program has the functions {sorted(functions)}, not just main")
    return _read_function(functions["main"], shapes, folder)


def _read_shapes(feature: Message) -> tuple[str, tuple[tuple[int, ...], ...]]:
    name, type_ = feature.text(FEATURE_NAME), feature.message(FEATURE_TYPE)
    array = type_.message(FEATURE_MULTI_ARRAY)
    if FEATURE_MULTI_ARRAY not in type_ or ARRAY_SHAPE_RANGE in array:
        raise UnreadableProgram(f"input {name!r} is not an array with a fixed shape or enumerated shapes")
    enumerated = array.message(ARRAY_ENUMERATED_SHAPES).messages(ENUMERATED_SHAPES)
    shapes = [shape.integers(SHAPE) for shape in enumerated] or [array.integers(ARRAY_SHAPE)]
    return name, tuple(sorted(map(tuple, shapes)))


def _read_function(function: Message, shapes: dict[str, tuple[tuple[int, ...], ...]], folder: Path) -> Program:
    opset, blocks = function.text(FUNCTION_OPSET), function.table(FUNCTION_BLOCKS)
    types = dict(map(_read_named, function.messages(FUNCTION_INPUTS)))
    if opset not in blocks:
        raise UnreadableProgram(f"the program has no block for its opset {opset!r}")
    if set(types) != set(shapes):
        raise UnreadableProgram(f"the program takes {sorted(types)}, the description says {sorted(shapes)}")
    return Program(
        inputs=tuple(Input(name, types[name], shapes[name]) for name in types),
        operations=tuple(_read_operation(op, folder) for op in blocks[opset].messages(BLOCK_OPERATIONS)),
        outputs=tuple(blocks[opset].texts(BLOCK_OUTPUTS)),
    )


def _read_operation(op: Message, folder: Path) -> Operation:
    kind = op.text(OPERATION_TYPE)
    if OPERATION_BLOCKS in op:
        raise UnreadableProgram(f"the op {kind!r} holds blocks: control flow is not supported")
    inputs = {
        name: tuple(_read_binding(binding, folder) for binding in argument.messages(ARGUMENT_BINDINGS))
        for name, argument in op.table(OPERATION_INPUTS).items()
    }
    attributes = op.table(OPERATION_ATTRIBUTES)
    return Operation(
        kind,
        inputs,
        outputs=tuple(map(_read_named, op.messages(OPERATION_OUTPUTS))),
        attributes={name: _read_value(value, folder) for name, value in attributes.items() if name != "name"},
    )


def _read_binding(binding: Message, folder: Path) -> str | Value:
    if BINDING_NAME in binding:
        return binding.text(BINDING_NAME)
    return _read_value(binding.message(BINDING_VALUE), folder)


def _read_named(named: Message) -> tuple[str, TensorType]:
    return named.text(NAMED_NAME), _read_type(named.message(NAMED_TYPE))


def _read_type(type_: Message) -> TensorType:
    tensor = type_.message(TYPE_TENSOR)
    data_type, dimensions = tensor.integer(TENSOR_DATA_TYPE), tensor.messages(TENSOR_DIMENSIONS)
    if TYPE_TENSOR not in type_ or data_type not in DATA_TYPES:
        raise UnreadableProgram(f"a value is not a tensor of a supported type (DataType {data_type} in MIL.proto)")
    if tensor.integer(TENSOR_RANK) != len(dimensions):
        raise UnreadableProgram(f"a tensor has {len(dimensions)} sizes and rank {tensor.integer(TENSOR_RANK)}")
    return TensorType(DATA_TYPES[data_type], tuple(map(_read_dimension, dimensions)), data_type == INT4)


def _read_dimension(dimension: Message) -> int | None:
    if DIMENSION_CONSTANT not in dimension:
        return None
    return dimension.message(DIMENSION_CONSTANT).integer(CONSTANT_SIZE)


def _read_value(value: Message, folder: Path) -> Value:
    type_ = _read_type(value.message(VALUE_TYPE))
    if VALUE_BLOB_FILE in value:
        blob = value.message(VALUE_BLOB_FILE)
        path = _inside(folder, blob.text(BLOB_FILE_NAME).removeprefix(MODEL_PATH))
        return Value(type_, Blob(path, blob.integer(BLOB_FILE_OFFSET)))
    return Value(type_, _read_immediate(value.message(VALUE_IMMEDIATE).message(IMMEDIATE_TENSOR), type_))


def _read_immediate(tensor: Message, type_: TensorType) -> bytes | str:
    if type_.dtype == STRING:
        return tensor.message(TENSOR_STRINGS).text(REPEATED_VALUES)
    if TENSOR_FLOATS in tensor or TENSOR_BYTES in tensor:
        field = TENSOR_FLOATS if TENSOR_FLOATS in tensor else TENSOR_BYTES
        return b"".join(tensor.message(field).chunks(REPEATED_VALUES))
    field = TENSOR_INTS if TENSOR_INTS in tensor else TENSOR_BOOLS
    return np.array(tensor.message(field).integers(REPEATED_VALUES), np.int64).astype(type_.dtype).tobytes()
