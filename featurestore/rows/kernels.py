"""Compiled loops over packed rows: decode, pad, pool. Rows are as they are stored, results mostly float32.

Stored rows are float16, float32, uint16 (the bits of bfloat16) or int8 with a float32 scale per row.

Each kernel is a plain loop that fills `out` with the GIL released; a test holds it to a naive twin. Decided on purpose:
no `fastmath` (it assumes that there is no NaN), no `cache` (it has crashed under multiprocessing elsewhere), no
`parallel` (loaders run several at once in threads; one thread fills a batch at about the speed of memory).
"""

import platform
from typing import Any

import llvmlite.binding  # type: ignore[import-untyped]
import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from featurestore.errors import StoreError


def _has_half_conversion() -> bool:
    """Whether the processor widens float16 itself: every arm64, and x86-64 since 2012 (F16C)."""
    if platform.machine() in ("arm64", "aarch64"):
        return True
    return bool(llvmlite.binding.get_host_cpu_features().get("f16c"))


def _has_fused_multiply_add() -> bool:
    """Whether the processor multiplies and adds with one rounding: every arm64, and x86-64 since 2013 (FMA)."""
    if platform.machine() in ("arm64", "aarch64"):
        return True
    return bool(llvmlite.binding.get_host_cpu_features().get("fma"))


def _widen_ir(builder: Any, half_bits: Any) -> Any:
    """LLVM instructions from a float16's 16 bits to float32, by the processor's own conversion."""
    return builder.fpext(builder.bitcast(half_bits, ir.HalfType()), ir.FloatType())


def _widen_by_bits_ir(builder: Any, half_bits: Any) -> Any:
    """Return the same with integers: exponent and fraction moved into place, then scaled by 2^112.

    The scale mends subnormals.
    """
    i32, f32 = ir.IntType(32), ir.FloatType()
    bits = builder.zext(half_bits, i32)
    moved = builder.shl(builder.and_(bits, i32(0x7FFF)), i32(13))
    scaled = builder.bitcast(builder.fmul(builder.bitcast(moved, f32), ir.Constant(f32, 2.0**112)), i32)
    not_finite = builder.icmp_unsigned(">=", moved, i32(0x0F800000))
    magnitude = builder.select(not_finite, builder.or_(moved, i32(0x7F800000)), scaled)
    sign = builder.shl(builder.and_(bits, i32(0x8000)), i32(16))
    return builder.bitcast(builder.or_(magnitude, sign), f32)


def _widen_bfloat16_ir(builder: Any, bits: Any) -> Any:
    """From a bfloat16's 16 bits to float32: they are its upper half."""
    i32 = ir.IntType(32)
    return builder.bitcast(builder.shl(builder.zext(bits, i32), i32(16)), ir.FloatType())


def _narrow_ir(builder: Any, value: Any) -> Any:
    """From float32 to a float16's 16 bits, to nearest, ties to even."""
    return builder.bitcast(builder.fptrunc(value, ir.HalfType()), ir.IntType(16))


def _widening(half_instructions: Any) -> Any:
    # numba has no float16 on the CPU, so that rows come as uint16, and bfloat16 as int16. Measured here, from the
    # cache, in 10^9 values/s: the processor's conversion 10-16, integers 4.8, a table 3.7, numpy's astype 1.0.
    @intrinsic
    def widen_value(typing_context: Any, value: Any) -> Any:
        def convert(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            if value == types.uint16:
                return half_instructions(builder, arguments[0])
            if value == types.int16:
                return _widen_bfloat16_ir(builder, arguments[0])
            if value == types.int8:
                return builder.sitofp(arguments[0], ir.FloatType())
            if value == types.uint32:
                return builder.bitcast(arguments[0], ir.FloatType())
            return arguments[0]

        return types.float32(value), convert

    return widen_value


def _narrowing() -> Any:
    @intrinsic
    def narrow_value(typing_context: Any, value: Any) -> Any:
        def convert(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return _narrow_ir(builder, arguments[0])

        return types.uint16(types.float32), convert

    return narrow_value


@intrinsic
def _as_stored(typing_context: Any, value: Any, like: Any) -> Any:
    """Return a float32 as an element of `like`: as it is, or as a float16's bits."""

    def convert(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _narrow_ir(builder, arguments[0]) if like.dtype == types.uint16 else arguments[0]

    return like.dtype(value, like), convert


@intrinsic
def _larger_magnitude(typing_context: Any, magnitude: Any, value: Any) -> Any:
    """Return the larger of `magnitude`, a float's bits without sign, and those of `value`, a float16 or float32.

    Without the sign, floats are ordered as their bits are, infinity and NaN above all others.
    """

    def convert(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        bits = ir.IntType(value.bitwidth)
        magnitude = builder.and_(builder.bitcast(arguments[1], bits), bits((1 << value.bitwidth - 1) - 1))
        return builder.select(builder.icmp_unsigned(">", magnitude, arguments[0]), magnitude, arguments[0])

    return magnitude(magnitude, value), convert


@intrinsic
def _multiply_add(typing_context: Any, a: Any, b: Any, c: Any) -> Any:
    """Return a * b + c, rounded once."""

    def convert(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fma(*arguments)

    return types.float32(types.float32, types.float32, types.float32), convert


@intrinsic
def _lowest_byte(typing_context: Any, value: Any) -> Any:
    def convert(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.trunc(builder.bitcast(arguments[0], ir.IntType(32)), ir.IntType(8))

    return types.int8(types.float32), convert


# Adding 1.5 * 2^23 rounds a small value to the nearest integer, ties to even, and leaves it in the lowest byte.
ROUNDING = np.float32(12582912)
FUSED_MULTIPLY_ADD = _has_fused_multiply_add()
# Between these a scale, its inverse and the remainders of a division by it are exact enough: none comes near to
# float32's limits.
LEAST_FAST_SCALE, LARGEST_FAST_SCALE = np.float32(2.0**-90), np.float32(2.0**90)
HALF_CONVERSION = _has_half_conversion()
_narrow = _narrowing()
_value = _widening(_widen_ir if HALF_CONVERSION else _widen_by_bits_ir)


@numba.njit(nogil=True)
def _decode(rows, scales, out):  # type: ignore[no-untyped-def]
    # `scales is None`, and the type of `out`, are decided when the kernel is compiled. One loop over all values where
    # it can be: 1.2 times as fast as a loop for each row.
    if scales is None:
        values, target = rows.reshape(-1), out.reshape(-1)
        for i in range(values.size):
            target[i] = _as_stored(_value(values[i]), target)  # type: ignore[call-arg]
        return
    for t in range(rows.shape[0]):
        for d in range(rows.shape[1]):
            out[t, d] = _as_stored(_value(rows[t, d]) * scales[t], out)  # type: ignore[call-arg]


@numba.njit(nogil=True)
def _quantise(rows, zero, out, scales):  # type: ignore[no-untyped-def]
    # zero: an unsigned integer as wide as a value.
    for t in range(rows.shape[0]):
        row, quantised, largest = rows[t], out[t], zero
        for d in range(row.size):
            largest = _larger_magnitude(largest, row[d])  # type: ignore[call-arg]
        scale = _value(largest) / np.float32(127)
        scales[t] = scale
        if FUSED_MULTIPLY_ADD and LEAST_FAST_SCALE <= scale <= LARGEST_FAST_SCALE:
            _times_inverse(row, scale, quantised)
        else:
            # A row of zeros has scale 0; dividing by 1 instead leaves it zeros.
            _divide(row, scale if scale > 0 else np.float32(1), quantised)


@numba.njit(nogil=True)
def _divide(row, scale, out):  # type: ignore[no-untyped-def]
    for d in range(row.size):
        value = (_value(row[d]) / scale + ROUNDING) - ROUNDING  # np.rint is a call
        value = value if value < np.float32(127) else np.float32(127)
        value = value if value > np.float32(-127) else np.float32(-127)
        out[d] = np.int8(np.int32(value))


@numba.njit(nogil=True)
def _times_inverse(row, scale, out):  # type: ignore[no-untyped-def]
    # The quotient that a division rounds to, to the last bit, without one: half the time. The remainder of a quotient
    # is exact with a fused multiplication; with the inverse rounded to nearest, the first correction brings the
    # quotient within one unit of its last place, and the second rounds it as a division does (P. Markstein,
    # "Computation of elementary functions on the IBM RISC System/6000 processor", 1990, theorem on quotients). Of
    # float16 the first gives the same bytes: a test tries every value beside every largest one.
    inverse = np.float32(1) / scale
    for d in range(row.size):
        value = _value(row[d])
        quotient = value * inverse
        quotient = _multiply_add(_multiply_add(-quotient, scale, value), inverse, quotient)  # type: ignore[call-arg]
        if row.itemsize > 2:  # type: ignore[unreachable]
            quotient = _multiply_add(_multiply_add(-quotient, scale, value), inverse, quotient)
        out[d] = _lowest_byte(quotient + ROUNDING)


@numba.njit(nogil=True)
def _narrow_all(values, out):  # type: ignore[no-untyped-def]
    for i in range(values.size):
        out[i] = _narrow(values[i])


@numba.njit(nogil=True)
def _upper_half(bits, out):  # type: ignore[no-untyped-def]
    for t in range(bits.shape[0]):
        for d in range(bits.shape[1]):
            value = bits[t, d]
            rounded = (value + np.uint32(0x7FFF) + ((value >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
            is_nan = (value & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)
            out[t, d] = np.uint16(0x7FC0) if is_nan else np.uint16(rounded)


@numba.njit(nogil=True)
def _pool_rows(rows, scales, stride, out):  # type: ignore[no-untyped-def]
    n_rows, dim = rows.shape
    for group in range(out.shape[0]):
        first = group * stride
        last = min(first + stride, n_rows)
        _decode(rows[first : first + 1], None if scales is None else scales[first : first + 1], out[group : group + 1])
        for t in range(first + 1, last):
            if scales is None:
                for d in range(dim):
                    out[group, d] += _value(rows[t, d])
            else:
                for d in range(dim):
                    out[group, d] += _value(rows[t, d]) * scales[t]
        if last - first > 1:
            scale = np.float32(1.0) / np.float32(last - first)
            for d in range(dim):
                out[group, d] *= scale


@numba.njit(nogil=True)
def _pad(values, offsets, out):  # type: ignore[no-untyped-def]
    for b in range(out.shape[0]):
        length = offsets[b + 1] - offsets[b]
        for t in range(length):
            for d in range(out.shape[2]):
                out[b, t, d] = _value(values[offsets[b] + t, d])
        for t in range(length, out.shape[1]):
            for d in range(out.shape[2]):
                out[b, t, d] = np.float32(0.0)


def decode_rows(rows: np.ndarray, scales: np.ndarray | None, out: np.ndarray) -> np.ndarray:
    """Write stored rows (T, D) as floats into `out` (T, D), C-contiguous float32 or float16; returns it.

    scales: float32 (T,) of int8 rows. Exact, except that float16 is rounded to nearest (infinite where too large).
    """
    bits, scales = _bits(rows), _checked_scales(rows, scales)
    if out.shape != rows.shape or out.dtype not in (np.float16, np.float32) or not out.flags.c_contiguous:
        raise StoreError(
            f"The buffer for decoded rows is {out.dtype} {out.shape}; C-contiguous {rows.shape} is needed."
        )
    if out.dtype == np.float32:
        _decode(bits, scales, out)
    elif HALF_CONVERSION:
        _decode(bits, scales, out.view(np.uint16))
    else:
        wide = np.empty(rows.shape, dtype=np.float32)
        _decode(bits, scales, wide)
        with np.errstate(over="ignore"):
            out[:] = wide
    return out


def quantise(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Float rows (T, D) as int8 (T, D) and a float32 scale per row (T,): max|row| / 127, not finite where it isn't."""
    rows = rows if rows.dtype == np.float16 else rows.astype(np.float32, copy=False)
    out, scales = np.empty(rows.shape, dtype=np.int8), np.empty(len(rows), dtype=np.float32)
    _quantise(_bits(rows), np.uint16(0) if rows.dtype == np.float16 else np.uint32(0), out, scales)
    return out, scales


def to_float16(rows: np.ndarray) -> np.ndarray:
    """Return float rows (T, D) as float16 (T, D): rounded to nearest, ties to even, infinite where they are too large.

    float64 rows are rounded once, by numpy, which also serves processors without the conversion.
    """
    if rows.dtype != np.float32 or not HALF_CONVERSION:
        return np.ascontiguousarray(rows, dtype=np.float16)
    rows = np.ascontiguousarray(rows)
    out = np.empty(rows.shape, dtype=np.uint16)
    _narrow_all(rows.reshape(-1), out.reshape(-1))
    return out.view(np.float16)


def to_bfloat16(rows: np.ndarray) -> np.ndarray:
    """Float rows (T, D) as bfloat16's bits, uint16 (T, D): rounded to nearest, ties to even; NaN stays NaN."""
    rows = np.ascontiguousarray(rows, dtype=np.float32)
    out = np.empty(rows.shape, dtype=np.uint16)
    _upper_half(rows.view(np.uint32), out)
    return out


def pool_rows(
    rows: np.ndarray, stride: int, out: np.ndarray | None = None, scales: np.ndarray | None = None
) -> np.ndarray:
    """Means over each `stride` rows of one utterance: (T, D) -> (ceil(T / stride), D) float32.

    The last group may be short. out: C-contiguous float32 of the result's shape, filled and returned. scales: float32
    (T,) of int8 rows.
    """
    _check_stride(stride)
    bits, scales = _bits(rows), _checked_scales(rows, scales)
    shape = (n_pooled(len(rows), stride), rows.shape[1])
    if out is None:
        out = np.empty(shape, dtype=np.float32)
    elif out.shape != shape or out.dtype != np.float32:
        raise StoreError(f"The buffer for pooled rows is {out.dtype} {out.shape}; float32 {shape} is needed.")
    _pool_rows(bits, scales, stride, out)
    return out


def n_pooled(n_rows: Any, stride: int) -> Any:
    """Rows that remain of `n_rows` (a number or an array) after pooling by `stride`."""
    return (n_rows + stride - 1) // stride


def pad(values: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Packed (sum T, D) as (B, max T, D) float32, zeros after each utterance's end."""
    offsets = _checked(values, offsets)
    longest = int(np.diff(offsets).max(initial=0))
    out = np.empty((len(offsets) - 1, longest, values.shape[1]), dtype=np.float32)
    _pad(_bits(values), offsets, out)
    return out


def _bits(rows: np.ndarray) -> np.ndarray:
    """Rows as the kernels tell their types apart, C-contiguous: float16 as uint16, bfloat16's bits as int16."""
    rows = np.ascontiguousarray(rows)
    if rows.dtype == np.float16:
        return rows.view(np.uint16)
    if rows.dtype == np.uint16:
        return rows.view(np.int16)
    if rows.dtype in (np.float32, np.int8):
        return rows
    raise StoreError(f"Rows of dtype {rows.dtype} were given; float16, float32, uint16 (bfloat16) or int8 is needed.")


def _checked_scales(rows: np.ndarray, scales: np.ndarray | None) -> np.ndarray | None:
    """Return the scales C-contiguous, once it is sure that there is one per int8 row, and none for other rows."""
    if (rows.dtype == np.int8) != (scales is not None):
        raise StoreError(f"Rows of dtype {rows.dtype} {'need' if scales is None else 'have no'} scales.")
    if scales is None:
        return None
    if scales.shape != rows.shape[:1] or scales.dtype != np.float32:
        raise StoreError(f"Scales are {scales.dtype} {scales.shape}; float32 ({len(rows)},) is needed.")
    return np.ascontiguousarray(scales)


def _checked(values: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Return the offsets as int64, once it is sure that they lead nowhere outside the rows: kernels don't check."""
    offsets = np.ascontiguousarray(offsets, dtype=np.int64)
    inside = offsets.ndim == 1 and len(offsets) > 0 and offsets[0] >= 0 and offsets[-1] <= len(values)
    if not inside or (np.diff(offsets) < 0).any():
        raise StoreError(f"Offsets must rise within 0..{len(values)}, the number of rows; found {offsets}.")
    return offsets


def _check_stride(stride: int) -> None:
    if stride < 1:
        raise StoreError(f"stride is {stride}; it must be 1 or more.")
