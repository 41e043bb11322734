"""Rows by the addresses at which they lie, in compiled loops."""

from typing import Any

import numba
from llvmlite import ir  # type: ignore[import-untyped]
from numba import carray, types  # type: ignore[attr-defined]
from numba.core import cgutils
from numba.extending import intrinsic


@intrinsic
def pointer(typing_context: Any, address: Any, like: Any) -> Any:
    """Return an address as a pointer to values of the type of those of `like`."""

    def convert(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    kind = types.CPointer(like.dtype)  # type: ignore[no-untyped-call]
    return kind(types.int64, like), convert


@intrinsic
def copy_bytes(typing_context: Any, target: Any, source: Any, n_bytes: Any) -> Any:
    """memcpy, by addresses."""

    def convert(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        to_bytes = ir.IntType(8).as_pointer()
        to, of = (builder.inttoptr(address, to_bytes) for address in arguments[:2])
        cgutils.raw_memcpy(builder, to, of, arguments[2], 1)  # type: ignore[no-untyped-call]
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), convert


@numba.njit(nogil=True)
def rows_at(address, like, n, dim):  # type: ignore[no-untyped-def]
    return carray(pointer(address, like), (n, dim))  # type: ignore[call-arg]


@numba.njit(nogil=True)
def scales_at(address, like, n):  # type: ignore[no-untyped-def]
    return carray(pointer(address, like), (n,))  # type: ignore[call-arg]
