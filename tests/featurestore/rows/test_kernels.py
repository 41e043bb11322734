"""Each kernel does what its naive twin does, for any ragged batch of float16 or float32 rows."""

import itertools
from collections.abc import Callable

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from featurestore.errors import StoreError
from featurestore.rows import kernels


def naive_widen(values: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    return values.astype(np.float32)


def naive_pad(values: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    parts = [values[start:stop] for start, stop in itertools.pairwise(offsets)]
    out = np.zeros((len(parts), max(map(len, parts), default=0), values.shape[1]), np.float32)
    for row, part in zip(out, parts, strict=True):
        row[: len(part)] = part
    return out


def naive_pool_frames(values: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    groups = [
        values[t : min(t + 3, stop)].astype(np.float32).mean(axis=0, dtype=np.float64)
        for start, stop in itertools.pairwise(offsets)
        for t in range(start, stop, 3)
    ]
    return np.array(groups, np.float32).reshape(len(groups), values.shape[1])


def pool_frames_by_3(values: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    pooled = [kernels.pool_rows(values[start:stop], 3) for start, stop in itertools.pairwise(offsets)]
    assert [len(rows) for rows in pooled] == [kernels.n_pooled(length, 3) for length in np.diff(offsets)]
    return np.concatenate([*pooled, np.empty((0, values.shape[1]), np.float32)])


TWINS: dict[str, tuple[Callable[..., np.ndarray], Callable[..., np.ndarray], float]] = {
    "widen": (lambda values, offsets: kernels.pool_rows(values, 1), naive_widen, 0.0),
    "pad": (kernels.pad, naive_pad, 0.0),
    "pool_frames": (pool_frames_by_3, naive_pool_frames, 1e-5),
}


@st.composite
def ragged(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    lengths = draw(st.lists(st.integers(0, 9), max_size=5))
    dtype = draw(st.sampled_from(["float16", "float32"]))
    elements = st.floats(-1000, 1000, width=16, allow_subnormal=True)
    values = draw(hnp.arrays(dtype, (sum(lengths), draw(st.integers(1, 5))), elements=elements))
    values.flags.writeable = draw(st.booleans())
    return values, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


@pytest.mark.parametrize("name", TWINS)
@settings(max_examples=60)
@given(batch=ragged())
def test_kernels_equal_their_naive_twins(name: str, batch: tuple[np.ndarray, np.ndarray]) -> None:
    kernel, naive, tolerance = TWINS[name]
    actual, expected = kernel(*batch), naive(*batch)
    assert actual.dtype == np.float32
    assert actual.shape == expected.shape
    # Tolerances are relative to the largest value that enters: single additions may cancel.
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance * np.abs(batch[0]).max(initial=0.0))


@pytest.mark.parametrize("instructions", [kernels._widen_ir, kernels._widen_by_bits_ir])
def test_every_float16_widens_exactly(instructions: Callable[..., object]) -> None:
    """All 65,536 of them, by the processor's conversion and by the way for processors that have none."""
    if instructions is kernels._widen_ir and not kernels._has_half_conversion():
        pytest.skip("this processor can't")
    value = kernels._widening(instructions)

    @numba.njit
    def widen_all(bits, out):  # type: ignore[no-untyped-def]
        for i in range(bits.size):
            out[i] = value(bits[i])

    bits = np.arange(1 << 16, dtype=np.uint16)
    out = np.empty(bits.size, np.float32)
    widen_all(bits, out)
    np.testing.assert_array_equal(out, bits.view(np.float16).astype(np.float32))
    assert np.signbit(out[0x8000])


def test_nan_stays_nan() -> None:
    """A pooled NaN must not turn into a number on its way to the network."""
    values = np.array([[1, np.nan], [2, 3]], np.float16)
    assert np.isnan(kernels.pool_rows(values, 2)[0]).tolist() == [False, True]


@pytest.mark.parametrize("offsets", [[0, 5], [-1, 3], [0, 2, 1], [], [[0, 3]]])
def test_offsets_outside_the_rows_are_refused(offsets: list) -> None:
    with pytest.raises(StoreError, match="Offsets"):
        kernels.pad(np.zeros((3, 2), np.float16), np.array(offsets))


def test_wrong_dtypes_strides_and_buffers_are_refused() -> None:
    rows = np.zeros((3, 2), np.float16)
    with pytest.raises(StoreError, match="float64"):
        kernels.pad(rows.astype(np.float64), np.array([0, 3]))
    with pytest.raises(StoreError, match="stride is 0"):
        kernels.pool_rows(rows, 0)
    with pytest.raises(StoreError, match=r"float32 \(2, 2\) is needed"):
        kernels.pool_rows(rows, 2, np.empty((3, 2), np.float32))


def test_rows_in_another_order_of_memory() -> None:
    rows = np.asfortranarray(np.arange(12, dtype=np.float16).reshape(4, 3))
    assert kernels.pool_rows(rows, 1).tolist() == rows.tolist()
    assert kernels.pool_rows(rows[::2], 1).tolist() == rows[::2].tolist()
