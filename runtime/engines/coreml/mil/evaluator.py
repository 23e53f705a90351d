"""Evaluates an ML program in numpy, in the precision that it declares.

Takes a `Program` and its inputs. Returns its outputs, as arrays. Safe to share between threads.
Leaves out: speed beyond what BLAS gives, and everything that is not in ops.py.

What it models: every value that the program declares fp16 is stored as fp16, so each op computes in float32
and its result is rounded once, to nearest even, with fp16's range: 65520 and more is infinite. Weights are
fp16 too: int8 or int4 times an fp16 scale, rounded.
What it does not model: how a device rounds inside an op or fuses several, in which order and width it adds up
(the Neural Engine may accumulate in fp16), and that it may flush subnormal numbers to 0. It proves that the
program that was written computes the right answer, not that one chip does.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pocketbert.runtime.engines.coreml.mil.ops import ARITHMETIC, MOVES, UnsupportedOp
from pocketbert.runtime.engines.coreml.mil.package import Input, Operation, Program, TensorType, Value
from pocketbert.runtime.engines.coreml.mil.protobuf import UnreadableProgram
from pocketbert.runtime.errors import EngineError

Array = NDArray[Any]

# The ops that hold a constant, and what they make it of: iOS 16's have attributes, iOS 18's have inputs.
CONSTANTS = {
    "const": {"val"},
    "constexpr_affine_dequantize": {"quantized_data", "scale", "zero_point", "axis"},
    "constexpr_blockwise_shift_scale": {"data", "scale"},
}
VARIADIC = "values"  # the one parameter, of concat, that takes several values
# What numpy raises for operands that do not fit together; a damaged program can ask for any of them.
MISFITS = (ArithmeticError, LookupError, MemoryError, TypeError, ValueError)


@dataclass(frozen=True)
class Step:
    """One op, ready to run."""

    op: str
    function: Callable[..., Array]
    parameters: Mapping[str, tuple[str | Array, ...]]  # values are named, constants may be written in place
    result: str
    type: TensorType
    reads: frozenset[str]  # the names among `parameters`
    spent: frozenset[str]  # those of them that no later step reads

    def run(self, values: Mapping[str, Array]) -> Array:
        """Returns an array of `type`. Raises EngineError naming the op."""
        arguments = {name: self._argument(name, values) for name in self.parameters}
        try:
            array = np.asarray(self.function(**arguments))
        except UnsupportedOp as error:
            raise UnsupportedOp(f"{self.op} {self.result!r}: {error}") from None
        except MISFITS as error:
            raise EngineError(f"{self.op} {self.result!r} cannot be computed: {error}") from error
        return _conform(array, self.type, f"{self.op} {self.result!r}")

    def _argument(self, parameter: str, values: Mapping[str, Array]) -> Array | tuple[Array, ...]:
        arrays = tuple(values[each] if isinstance(each, str) else each for each in self.parameters[parameter])
        if self.op in ARITHMETIC:
            arrays = tuple(_widen(array) for array in arrays)
        return arrays if parameter == VARIADIC else arrays[0]


class Evaluator:
    """A program whose constants are in memory, equal ones once. fp16 that overflows is infinite, without a warning.

    Raises UnsupportedOp for an op or a parameter that ops.py does not have, UnreadableProgram for a program
    that contradicts itself.
    """

    def __init__(self, program: Program) -> None:
        self.inputs, self.outputs = program.inputs, program.outputs
        self._steps = _plan([op for op in program.operations if op.type not in CONSTANTS], program.outputs)
        constants = [op for op in program.operations if op.type in CONSTANTS]
        by_arithmetic = {name for step in self._steps if step.op in ARITHMETIC for name in step.reads}
        by_linear = {name for step in self._steps if step.op == "linear" for name in step.reads}
        with np.errstate(all="ignore"):
            self._constants = _load(constants, widened=by_arithmetic, transposed=by_linear)
        _require_order([*self._constants, *(each.name for each in self.inputs)], self._steps, self.outputs)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Returns output name -> array. Raises EngineError for inputs that the program does not take."""
        values = {**self._constants, **{each.name: _accept(each, inputs) for each in self.inputs}}
        with np.errstate(all="ignore"):
            for step in self._steps:
                values[step.result] = step.run(values)
                for name in step.spent:
                    del values[name]
        return {name: values[name] for name in self.outputs}


def _plan(operations: list[Operation], outputs: Iterable[str]) -> tuple[Step, ...]:
    """Goes from the last op to the first: the first reader of a value that it meets is the last one to run."""
    steps: list[Step] = []
    needed = set(outputs)
    for op in reversed(operations):
        step = _step(op, needed)
        needed |= step.reads
        steps.append(step)
    return tuple(reversed(steps))


def _step(op: Operation, needed: set[str]) -> Step:
    name, type_ = _only_output(op)
    function = (MOVES | ARITHMETIC).get(op.type)
    if function is None:
        raise UnsupportedOp(f"the op {op.type!r} ({name!r}) is not supported")
    unknown = set(op.inputs) - set(inspect.signature(function).parameters)
    if unknown:
        raise UnsupportedOp(f"{op.type} {name!r}: the parameter {min(unknown)!r} is not supported")
    for parameter, values in op.inputs.items():
        if len(values) != 1 and parameter != VARIADIC:
            raise UnreadableProgram(f"{op.type} {name!r}: the parameter {parameter!r} has {len(values)} values")
    parameters = {
        parameter: tuple(value.read() if isinstance(value, Value) else value for value in values)
        for parameter, values in op.inputs.items()
    }
    reads = frozenset(value for values in parameters.values() for value in values if isinstance(value, str))
    return Step(op.type, function, parameters, name, type_, reads, spent=reads - needed)


def _only_output(op: Operation) -> tuple[str, TensorType]:
    if len(op.outputs) != 1:
        raise UnreadableProgram(f"the op {op.type!r} gives {len(op.outputs)} values, not 1")
    return op.outputs[0]


def _load(operations: list[Operation], widened: set[str], transposed: set[str]) -> dict[str, Array]:
    """Reads every constant, equal ones once; those that arithmetic reads stay in float32, to be widened once.

    A linear's weight lies in memory as it is read, transposed: BLAS would do it anew for every block of rows.
    """
    keys = {_only_output(op)[0]: (op.type, frozenset(_stored(op).items())) for op in operations}
    wide, turned = ({keys[name] for name in names & set(keys)} for names in (widened, transposed))
    arrays: dict[Any, Array] = {}
    for op in operations:
        key = keys[_only_output(op)[0]]
        if key not in arrays:
            array = _widen(_read_constant(op)) if key in wide else _read_constant(op)
            arrays[key] = np.asfortranarray(array) if key in turned else array
    return {name: arrays[key] for name, key in keys.items()}


def _read_constant(op: Operation) -> Array:
    name, type_ = _only_output(op)
    stored = _stored(op)
    if set(stored) != CONSTANTS[op.type]:
        raise UnreadableProgram(f"{op.type} {name!r} is made of {sorted(stored)}")
    parts = {part: value.read() for part, value in stored.items()}
    try:
        array = MAKERS[op.type](**parts)
    except MISFITS as error:
        raise UnreadableProgram(f"{op.type} {name!r} cannot be computed: {error}") from error
    return _conform(array, type_, f"{op.type} {name!r}")


def _stored(op: Operation) -> dict[str, Value]:
    """What a constant is made of."""
    found = dict(op.attributes)
    for name, values in op.inputs.items():
        if len(values) != 1 or not isinstance(values[0], Value):
            raise UnreadableProgram(f"{op.type} {_only_output(op)[0]!r}: {name!r} is not one constant")
        found[name] = values[0]
    return found


def _dequantize(quantized_data: Array, scale: Array, zero_point: Array, axis: Array) -> Array:
    """scale * (quantized_data - zero_point), both of them one for all or one for each index of `axis`."""
    sizes = [1] * quantized_data.ndim
    sizes[int(axis)] = -1
    array = quantized_data.astype(np.float32)
    array -= zero_point.astype(np.float32).reshape(sizes)
    array *= scale.astype(np.float32).reshape(sizes)
    return array


def _scale_blocks(data: Array, scale: Array) -> Array:
    """data * scale, which has a number for each block: a block's sizes are those of data by those of scale."""
    if data.ndim != scale.ndim or any(size % count for size, count in zip(data.shape, scale.shape, strict=True)):
        raise ValueError(f"scales {scale.shape} do not divide {data.shape}")
    wide = scale.astype(np.float32)
    for axis, (size, count) in enumerate(zip(data.shape, scale.shape, strict=True)):
        wide = wide if count == 1 else np.repeat(wide, size // count, axis)
    return data.astype(np.float32) * wide


MAKERS: dict[str, Callable[..., Array]] = {
    "const": lambda val: val,
    "constexpr_affine_dequantize": _dequantize,
    "constexpr_blockwise_shift_scale": _scale_blocks,
}


def _conform(array: Array, type_: TensorType, name: str) -> Array:
    """Rounds `array` to the declared type, once it is known to be of that kind and shape."""
    if not type_.admits(array.shape) or array.dtype.kind != type_.dtype.kind:
        declared = f"{type_.dtype} {type_.shape}"
        raise UnreadableProgram(f"{name} gives {array.dtype} {array.shape}, the program declares {declared}")
    return array.astype(type_.dtype, copy=False)


def _widen(array: Array) -> Array:
    """fp16 to float32: numpy computes in fp16 one number at a time, with a rounding after each."""
    return array.astype(np.float32) if array.dtype == np.float16 else array


def _accept(declared: Input, inputs: Mapping[str, Array]) -> Array:
    array = inputs.get(declared.name)
    if array is None:
        raise EngineError(f"the input {declared.name!r} is missing")
    if array.dtype != declared.type.dtype or array.shape not in declared.shapes:
        shapes = ", ".join(map(str, declared.shapes))
        given = f"{array.dtype} {array.shape}"
        raise EngineError(f"the input {declared.name!r} is {given}, the program takes {declared.type.dtype} {shapes}")
    return array


def _require_order(given: list[str], steps: Iterable[Step], outputs: tuple[str, ...]) -> None:
    """Every value is given once, and before it is read."""
    known: set[str] = set()
    for name in given:
        _add(name, known)
    for step in steps:
        if not step.reads <= known:
            raise UnreadableProgram(f"{step.op} {step.result!r} reads {min(step.reads - known)!r}, given by nothing")
        _add(step.result, known)
    if not outputs or not known.issuperset(outputs):
        raise UnreadableProgram(f"the program does not compute its outputs {outputs}")


def _add(name: str, known: set[str]) -> None:
    if name in known:
        raise UnreadableProgram(f"the value {name!r} is given twice")
    known.add(name)
