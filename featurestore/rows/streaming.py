"""Rows written past the cache, 64 bytes at a time: for batches that are larger than the cache anyhow.

An ordinary store first reads the line that it writes to from memory; these don't (docs/speed.md has what it gains).
"""

from typing import Any

import numba
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic

from featurestore.rows.addresses import scales_at
from featurestore.rows.aligned import ALIGNMENT


def _to_floats(builder: Any, stored: Any, values: Any, n: int) -> Any:
    """LLVM instructions from a vector of n stored values, as `kernels` tells their types apart, to one of floats."""
    floats, i32 = ir.VectorType(ir.FloatType(), n), ir.VectorType(ir.IntType(32), n)
    if stored == types.uint16:
        return builder.fpext(builder.bitcast(values, ir.VectorType(ir.HalfType(), n)), floats)
    if stored == types.int16:
        return builder.bitcast(builder.shl(builder.zext(values, i32), ir.Constant(i32, [16] * n)), floats)
    return builder.sitofp(values, floats) if stored == types.int8 else values


@intrinsic
def _stream_line(typing_context: Any, like: Any, target_like: Any, source: Any, target: Any, scale: Any) -> Any:
    """Write 64 bytes of values of the type of `target_like` at the address `target`, from those of `like` at `source`.

    scale: what they are multiplied by, None for nothing.
    """

    def convert(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        n = ALIGNMENT // (target_like.dtype.bitwidth // 8)
        element = context.get_value_type(like.dtype)
        pointer = builder.inttoptr(arguments[2], ir.VectorType(element, n).as_pointer())
        values = builder.load(pointer, align=like.dtype.bitwidth // 8)
        if like.dtype != target_like.dtype or scale != types.none:
            values = _to_floats(builder, like.dtype, values, n)
            if scale != types.none:
                factors = ir.Constant(ir.VectorType(ir.FloatType(), n), ir.Undefined)
                for i in range(n):
                    factors = builder.insert_element(factors, arguments[4], ir.Constant(ir.IntType(32), i))
                values = builder.fmul(values, factors)
            if target_like.dtype == types.uint16:
                values = builder.fptrunc(values, ir.VectorType(ir.HalfType(), n))
        store = builder.store(values, builder.inttoptr(arguments[3], values.type.as_pointer()), align=ALIGNMENT)
        store.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)]))
        return context.get_dummy_value()

    return types.void(like, target_like, source, target, scale), convert


@intrinsic
def _fence(typing_context: Any) -> Any:
    """Let all that was streamed be seen by other threads before what is written from here on."""

    def convert(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), convert


@numba.njit(nogil=True)
def stream_runs(like, target_like, floats, rows, scales, lengths, dim, target):  # type: ignore[no-untyped-def]
    """Write rows of `dim` values at the address `target`, each layer utterance by utterance.

    like, target_like, floats: empty arrays of the stored type, of that of the target and of float32. rows, scales:
    addresses (L, B), see `Runs`; lengths (B,).
    """
    n_lines = dim * target_like.itemsize // ALIGNMENT  # of a row
    step = ALIGNMENT // target_like.itemsize * like.itemsize
    for k in range(rows.shape[0]):
        for i in range(rows.shape[1]):
            source = rows[k, i]
            if scales is None:
                for _ in range(lengths[i] * n_lines):
                    _stream_line(like, target_like, source, target, None)  # type: ignore[call-arg]
                    source += step  # type: ignore[unreachable]
                    target += ALIGNMENT
            else:
                factors = scales_at(scales[k, i], floats, lengths[i])
                for t in range(lengths[i]):
                    for _ in range(n_lines):
                        _stream_line(like, target_like, source, target, factors[t])  # type: ignore[call-arg]
                        source += step  # type: ignore[unreachable]
                        target += ALIGNMENT
    _fence()  # type: ignore[call-arg]
