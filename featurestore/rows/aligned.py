"""Arrays that begin at a multiple of 64 bytes: a cache line, and a vector register of AVX-512."""

import math
from typing import Any

import numpy as np

# glibc copies pieces below a megabyte or so with `rep movsb`, which some AMD processors do at half speed into an
# address that isn't a multiple of 32; numpy's own large arrays begin 16 bytes behind one. Intel's don't mind.
ALIGNMENT = 64

# Batches as large as this are written past the cache (`rows.streaming`); smaller ones may still be there when used.
STREAMED_BYTES = 8 << 20


def aligned_empty(shape: int | tuple[int, ...], dtype: str | np.dtype[Any] = "float64") -> np.ndarray:
    """Return a C-contiguous array of undefined values whose first byte lies at a multiple of 64.

    Rows lie at multiples of 64 too where their size is one, such as that of 32 float16 or 16 float32 values.
    """
    shape = (shape,) if isinstance(shape, int) else shape
    dtype = np.dtype(dtype)
    n_bytes = math.prod(shape) * dtype.itemsize
    memory = np.empty(n_bytes + ALIGNMENT, np.uint8)
    start = -address_of(memory) % ALIGNMENT
    return memory[start : start + n_bytes].view(dtype).reshape(shape)


def address_of(array: np.ndarray) -> int:
    """Return the address of an array's first byte."""
    address: int = array.__array_interface__["data"][0]
    return address


def is_streamed(out: np.ndarray) -> bool:
    """Return whether rows go into this array past the cache: it is large, and its rows begin at multiples of 64."""
    row_bytes = out.shape[-1] * out.itemsize
    return out.nbytes >= STREAMED_BYTES and row_bytes % ALIGNMENT == 0 and address_of(out) % ALIGNMENT == 0
