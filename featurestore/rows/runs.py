"""Compiled loops over the rows of many utterances at once, wherever in memory these lie: what fills a batch.

One call fills a batch of every layer, with the GIL released: calls for each utterance cost 8 us, as long as copying
40 KB takes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np

from featurestore.errors import StoreError
from featurestore.rows.addresses import copy_bytes, rows_at, scales_at
from featurestore.rows.aligned import address_of, is_streamed
from featurestore.rows.kernels import HALF_CONVERSION, _bits, _check_stride, _decode, _pool_rows
from featurestore.rows.streaming import stream_runs


@dataclass(frozen=True, eq=False)
class Runs:
    """Where the stored rows of B utterances lie, in L layers.

    rows: int64 (L, B) addresses of each one's first row, C-contiguous (T, D). scales: int64 (L, B) addresses of float32
    (T,), for int8 rows alone. lengths: int64 (B,). dtype: of the stored values. keeps: what owns the memory.
    """

    rows: np.ndarray
    scales: np.ndarray | None
    lengths: np.ndarray
    dtype: np.dtype[Any]
    keeps: Any = None

    @classmethod
    def of(cls, rows: Sequence[np.ndarray], scales: Sequence[np.ndarray] | None) -> "Runs":
        """Return runs of one layer, from each utterance's array of stored rows (T, D), and of scales (T,)."""
        arrays = [np.ascontiguousarray(part) for part in rows]
        factors = None if scales is None else [np.ascontiguousarray(part, np.float32) for part in scales]
        return cls(
            np.array([[address_of(part) for part in arrays]], np.int64).reshape(1, -1),
            None if factors is None else np.array([[address_of(part) for part in factors]], np.int64).reshape(1, -1),
            np.array([len(part) for part in arrays], np.int64),
            arrays[0].dtype,
            (arrays, factors),
        )


@numba.njit(nogil=True)
def _copy_runs(rows, lengths, row_bytes, target):  # type: ignore[no-untyped-def]
    for k in range(rows.shape[0]):
        for i in range(rows.shape[1]):
            n_bytes = lengths[i] * row_bytes
            copy_bytes(target, rows[k, i], n_bytes)  # type: ignore[call-arg]
            target += n_bytes  # type: ignore[unreachable]


@numba.njit(nogil=True)
def _decode_runs(like, floats, rows, scales, lengths, out):  # type: ignore[no-untyped-def]
    for k in range(rows.shape[0]):
        first = 0
        for i in range(rows.shape[1]):
            n = lengths[i]
            run_scales = None if scales is None else scales_at(scales[k, i], floats, n)
            _decode(rows_at(rows[k, i], like, n, out.shape[2]), run_scales, out[k, first : first + n])
            first += n


@numba.njit(nogil=True)
def _pool_runs(like, floats, rows, scales, lengths, stride, out):  # type: ignore[no-untyped-def]
    for k in range(rows.shape[0]):
        first = 0
        for i in range(rows.shape[1]):
            n = lengths[i]
            last = first + (n + stride - 1) // stride
            run_scales = None if scales is None else scales_at(scales[k, i], floats, n)
            _pool_rows(rows_at(rows[k, i], like, n, out.shape[2]), run_scales, stride, out[k, first:last])
            first = last


_FLOATS = np.empty(0, np.float32)


def read_runs(runs: Runs, out: np.ndarray) -> None:
    """Fill `out` (L, sum T, D), C-contiguous float16 or float32, with the rows of each layer, utterance by utterance.

    Exact, except that float16 is rounded to nearest (infinite where too large).
    """
    _check(runs, int(runs.lengths.sum()), out)
    if HALF_CONVERSION and is_streamed(out):
        like, target_bits = _bits(np.empty(0, runs.dtype)), _bits(np.empty(0, out.dtype))
        stream_runs(like, target_bits, _FLOATS, runs.rows, runs.scales, runs.lengths, out.shape[2], address_of(out))
    elif runs.dtype == out.dtype:
        _copy_runs(runs.rows, runs.lengths, out.shape[2] * out.itemsize, address_of(out))
    elif out.dtype == np.float32 or HALF_CONVERSION:
        like, target = _bits(np.empty(0, runs.dtype)), out if out.dtype == np.float32 else out.view(np.uint16)
        _decode_runs(like, _FLOATS, runs.rows, runs.scales, runs.lengths, target)
    else:
        wide = np.empty(out.shape, np.float32)
        read_runs(runs, wide)
        with np.errstate(over="ignore"):
            out[:] = wide


def pool_runs(runs: Runs, stride: int, out: np.ndarray) -> None:
    """Fill `out` (L, sum T', D), C-contiguous float16 or float32, with means over `stride` rows: T' = ceil(T / stride).

    Means are taken in float32. The last group of an utterance may be short.
    """
    _check_stride(stride)
    _check(runs, int((-(-runs.lengths // stride)).sum()), out)
    wide = out if out.dtype == np.float32 else np.empty(out.shape, np.float32)
    like = _bits(np.empty(0, runs.dtype))
    _pool_runs(like, _FLOATS, runs.rows, runs.scales, runs.lengths, stride, wide)
    if wide is not out:
        with np.errstate(over="ignore"):
            out[:] = wide


def _check(runs: Runs, n_rows: int, out: np.ndarray) -> None:
    fits = out.ndim == 3 and len(out) == len(runs.rows) and out.shape[1] == n_rows
    if not fits or out.dtype not in (np.float16, np.float32) or not out.flags.c_contiguous:
        raise StoreError(
            f"The buffer for rows is {out.dtype} {out.shape}; C-contiguous float16 or float32 ({len(runs.rows)}, "
            f"{n_rows}, D) is needed."
        )
    if (runs.dtype == np.int8) != (runs.scales is not None):
        raise StoreError(f"Rows of dtype {runs.dtype} {'need' if runs.scales is None else 'have no'} scales.")
