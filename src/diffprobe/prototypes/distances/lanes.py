"""Vectors of 16 numbers as a type for numba, which has none.

They stay in registers, and each operation is a few instructions of whatever the processor has. Plain loops over 16
numbers would go through memory at every step.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import extending, types
from numba.extending import models, register_model
from numba.np.arrayobj import make_array

LANES = 16
BINS = 8  # of a state, whose two vectors each fill half of a processor's 32 registers
INT = ir.IntType(32)
intrinsic: Any = extending.intrinsic  # Any: it takes the first argument away
FUSED = ("contract",)  # a product and a sum may become one instruction


class Lanes(types.Type):
    """Type of 16 numbers; `number` is LLVM's name for the type of one."""

    def __init__(self, number: str) -> None:
        super().__init__(name=f"{LANES} x {number}")
        self.vector = ir.VectorType({"i32": INT, "float": ir.FloatType(), "double": ir.DoubleType()}[number], LANES)


@register_model(Lanes)
class Registers(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Lanes) -> None:
        super().__init__(manager, kind, kind.vector)


integers, floats, doubles = Lanes("i32"), Lanes("float"), Lanes("double")
counts, sums = types.UniTuple(floats, BINS), types.UniTuple(integers, BINS)
lowered = types.Tuple((floats, counts))
state = types.Tuple((floats, counts, sums, floats))


def every(kind: Lanes, value: float) -> ir.Constant:
    """16 times the same constant."""
    return ir.Constant(kind.vector, [value] * LANES)


def spread(builder: ir.IRBuilder, kind: Lanes, value: ir.Value) -> ir.Value:
    """16 times the same value."""
    empty = ir.Constant(kind.vector, ir.Undefined)
    first = builder.insert_element(empty, value, INT(0))
    return builder.shuffle_vector(first, empty, ir.Constant(ir.VectorType(INT, LANES), [0] * LANES))


def read_lanes(context: Any, builder: ir.IRBuilder, kind: Any, array: ir.Value, start: ir.Value) -> Any:
    value = builder.load(place_of(context, builder, kind, array, start), align=kind.dtype.bitwidth // 8)
    return value if kind.dtype.bitwidth == INT.width else builder.zext(value, integers.vector)


def place_of(context: Any, builder: ir.IRBuilder, kind: Any, array: ir.Value, start: ir.Value) -> Any:
    """A pointer to 16 numbers from `start` of a flat array."""
    vector = ir.VectorType(ir.IntType(kind.dtype.bitwidth), LANES)
    return builder.bitcast(builder.gep(make_array(kind)(context, builder, array).data, [start]), vector.as_pointer())


@intrinsic
def read(typing, array, start):
    """16 integers from `start` of a flat array of int32 or uint8."""
    return integers(array, types.intp), lambda context, builder, signature, values: read_lanes(
        context, builder, array, *values
    )


@intrinsic
def copy(typing, array, start, target, target_start):
    """16 integers of one flat array of int32 to another."""

    def build(context, builder, signature, values):
        lanes = read_lanes(context, builder, array, *values[:2])
        builder.store(lanes, place_of(context, builder, target, *values[2:]), align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, target, types.intp), build


@intrinsic
def read_sums(typing, array, start):
    """BINS times 16 integers from `start` of a flat array of int32."""

    def build(context, builder, signature, values):
        result = ir.Constant(context.get_value_type(sums), ir.Undefined)
        for each in range(BINS):
            place = builder.add(values[1], ir.Constant(values[1].type, LANES * each))
            result = builder.insert_value(result, read_lanes(context, builder, array, values[0], place), each)
        return result

    return sums(array, types.intp), build


@intrinsic
def add_to(typing, array, start, stride, lanes):
    """Adds 16 doubles to a flat array of float64, `stride` apart."""

    def build(context, builder, signature, values):
        data, (_, place, step, added) = make_array(array)(context, builder, values[0]).data, values
        for lane in range(LANES):
            pointer = builder.gep(data, [place])
            builder.store(builder.fadd(builder.load(pointer), builder.extract_element(added, INT(lane))), pointer)
            place = builder.add(place, step)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, doubles), build


def zeros(kind):
    """An intrinsic that gives zeros of a type."""

    @intrinsic
    def zero(typing):
        return kind(), lambda context, builder, signature, values: ir.Constant(context.get_value_type(kind), None)

    return zero


no_integers, no_floats, no_doubles, no_counts = zeros(integers), zeros(floats), zeros(doubles), zeros(counts)


@intrinsic
def add(typing, a, b):
    return integers(integers, integers), lambda context, builder, signature, values: builder.add(*values)


@intrinsic
def subtract(typing, a, b):
    """a - b, where b may be one number."""

    def build(context, builder, signature, values):
        return builder.sub(values[0], values[1] if b == integers else spread(builder, integers, values[1]))

    return integers(integers, b), build


@intrinsic
def add_larger(typing, total, a, b):
    """total + max(a, b)"""

    def build(context, builder, signature, values):
        total, a, b = values
        return builder.add(total, builder.select(builder.icmp_signed(">", a, b), a, b))

    return integers(integers, integers, integers), build


@intrinsic
def add_product(typing, total, number, lanes):
    """total + number * lanes, in float64 whatever the lanes are."""

    def build(context, builder, signature, values):
        widen = builder.sitofp if lanes == integers else builder.fpext
        product = builder.fmul(spread(builder, doubles, values[1]), widen(values[2], doubles.vector), flags=FUSED)
        return builder.fadd(values[0], product, flags=FUSED)

    return doubles(doubles, types.float64, lanes), build


@intrinsic
def lower(typing, below, entered, by, each_by):
    """Counts less a number, and those of each bin less another."""

    def build(context, builder, signature, values):
        below, entered, by, each_by = values
        for each in range(BINS):
            count = builder.fsub(builder.extract_value(entered, each), spread(builder, floats, each_by))
            entered = builder.insert_value(entered, count, each)
        below = builder.fsub(below, spread(builder, floats, by))
        return context.make_tuple(builder, lowered, [below, entered])

    return lowered(floats, counts, types.float32, types.float32), build


@intrinsic
def enter(typing, below, entered, left, bins, values):
    """In each lane, moves one value from what is left to what has entered.

    `below` and `entered` count how many have entered below the first bin and in each bin, `left` sums what is left of
    each. Returns these three and the sum over bins of (entered, in all bins before it) * (left in it).
    """

    def build(context, builder, signature, arguments):
        below, entered, left, bins, lanes = arguments
        product, one = every(floats, 0), every(floats, 1)
        is_below = builder.icmp_signed("<", bins, every(integers, 0))
        before = below = builder.select(is_below, builder.fadd(below, one), below)
        for each in range(BINS):
            count, rest = builder.extract_value(entered, each), builder.extract_value(left, each)
            here = builder.icmp_signed("==", bins, every(integers, each))
            count = builder.select(here, builder.fadd(count, one), count)
            rest = builder.select(here, builder.sub(rest, lanes), rest)
            term = builder.fmul(before, builder.sitofp(rest, floats.vector), flags=FUSED)
            product = builder.fadd(product, term, flags=FUSED)
            before = builder.fadd(before, count)
            entered, left = builder.insert_value(entered, count, each), builder.insert_value(left, rest, each)
        return context.make_tuple(builder, state, [below, entered, left, product])

    return state(floats, counts, sums, integers, integers), build
