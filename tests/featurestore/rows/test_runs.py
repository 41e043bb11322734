"""Batches of rows read by address are what reading each utterance alone gives."""

import itertools

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.errors import StoreError
from featurestore.rows import aligned, kernels
from featurestore.rows.aligned import ALIGNMENT, address_of, aligned_empty
from featurestore.rows.runs import Runs, pool_runs, read_runs

STORED = ("float16", "float32", "uint16", "int8")
Parts = tuple[list[np.ndarray], list[np.ndarray] | None]


@st.composite
def utterances(draw: st.DrawFn) -> Parts:
    dtype = draw(st.sampled_from(STORED))
    dim = draw(st.integers(1, 70))
    lengths = draw(st.lists(st.integers(0, 9), min_size=1, max_size=5))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    if dtype == "uint16":
        parts = [(rng.standard_normal((n, dim)).astype(np.float32).view(np.uint32) >> 16) for n in lengths]
    else:
        parts = [rng.integers(-127, 128, (n, dim)) for n in lengths]
    rows = [part.astype(dtype) for part in parts]
    scales = [rng.random(n).astype(np.float32) for n in lengths] if dtype == "int8" else None
    return rows, scales


def alone(parts: Parts, stride: int) -> list[np.ndarray]:
    """Each utterance by numpy, float32."""
    result = []
    for i, rows in enumerate(parts[0]):
        wide = (rows.astype(np.uint32) << 16).view(np.float32) if rows.dtype == np.uint16 else rows.astype(np.float32)
        wide = wide * parts[1][i][:, None] if parts[1] is not None else wide
        groups = [wide[t : t + stride].mean(axis=0, dtype=np.float64) for t in range(0, len(wide), stride)]
        result.append(np.array(groups, np.float32).reshape(-1, rows.shape[1]))
    return result


@settings(max_examples=60)
@given(parts=utterances(), out=st.sampled_from(["float32", "float16"]))
def test_rows_read_at_once_are_those_of_each_utterance(parts: Parts, out: str) -> None:
    runs = Runs.of(*parts)
    values = aligned_empty((1, int(runs.lengths.sum()), parts[0][0].shape[1]), out)
    read_runs(runs, values)
    np.testing.assert_array_equal(values[0], np.concatenate(alone(parts, 1)).astype(out))


@pytest.mark.parametrize("out", ["float32", "float16"])
@pytest.mark.parametrize("stored", STORED)
def test_rows_of_large_batches_are_those_of_small_ones(stored: str, out: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random bit patterns, infinities and NaN among them, and utterances without rows."""
    rng = np.random.default_rng(0)
    lengths, dim = np.array([3, 0, 1, 2040, 4]), 64
    parts = [rng.integers(0, 256, (n, dim * np.dtype(stored).itemsize), np.uint8).view(stored) for n in lengths]
    scales = [rng.random(n).astype(np.float32) * 1000 for n in lengths] if stored == "int8" else None
    runs = Runs.of(parts, scales)
    small = aligned_empty((1, int(lengths.sum()), dim), out)
    large = aligned_empty(small.shape, out)
    with np.errstate(over="ignore", invalid="ignore"):
        read_runs(runs, small)
        monkeypatch.setattr(aligned, "STREAMED_BYTES", 0)
        read_runs(runs, large)
    np.testing.assert_array_equal(large, small)


def test_batches_that_do_not_begin_at_a_cache_line_are_not_streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aligned, "STREAMED_BYTES", 0)
    memory = aligned_empty(1 + 5 * 32, "float32")
    assert aligned.is_streamed(memory[:160].reshape(1, 5, 32))
    assert not aligned.is_streamed(memory[1:161].reshape(1, 5, 32))
    assert not aligned.is_streamed(memory[:150].reshape(1, 5, 30))


@settings(max_examples=40)
@given(parts=utterances(), stride=st.integers(1, 4))
def test_rows_pooled_at_once_are_those_of_each_utterance(parts: Parts, stride: int) -> None:
    runs, expected = Runs.of(*parts), np.concatenate(alone(parts, stride))
    values = aligned_empty((1, *expected.shape), "float32")
    pool_runs(runs, stride, values)
    np.testing.assert_allclose(values[0], expected, rtol=1e-5, atol=1e-4)
    one_by_one = [
        kernels.pool_rows(rows, stride, scales=None if parts[1] is None else parts[1][i])
        for i, rows in enumerate(parts[0])
    ]
    np.testing.assert_array_equal(values[0], np.concatenate(one_by_one))


def test_layers_lie_one_behind_the_other() -> None:
    layers = [np.arange(12, dtype=np.float16).reshape(6, 2), np.arange(12, 24, dtype=np.float16).reshape(6, 2)]
    starts = np.array([0, 4, 1])
    rows = np.array([[address_of(layer[start:]) for start in starts] for layer in layers])
    runs = Runs(rows, None, np.array([2, 1, 3]), np.dtype("float16"), layers)
    for dtype in ("float16", "float32"):
        values = aligned_empty((2, 6, 2), dtype)
        read_runs(runs, values)
        for layer, actual in zip(layers, values, strict=True):
            expected = np.concatenate([layer[s : s + n] for s, n in zip(starts, runs.lengths, strict=True)])
            np.testing.assert_array_equal(actual, expected.astype(dtype))


def test_buffers_that_do_not_fit_are_refused() -> None:
    runs = Runs.of([np.zeros((3, 2), np.float16)], None)
    for wrong in (np.zeros((1, 2, 2), "float32"), np.zeros((1, 3, 2), "float64"), np.zeros((3, 2), "float32")):
        with pytest.raises(StoreError, match=r"\(1, 3, D\)"):
            read_runs(runs, wrong)
    with pytest.raises(StoreError, match="need scales"):
        read_runs(Runs.of([np.zeros((3, 2), np.int8)], None), np.zeros((1, 3, 2), "float32"))


@pytest.mark.parametrize("dtype", ["float16", "float32", "int64", "uint8"])
def test_aligned_arrays_begin_at_a_cache_line(dtype: str) -> None:
    for shape in [(), 1, (3, 5), (1000, 1024)]:
        array = aligned_empty(shape, dtype)
        assert address_of(array) % ALIGNMENT == 0
        assert array.shape == (shape if isinstance(shape, tuple) else (shape,))
        assert array.dtype == dtype
        assert array.flags.c_contiguous
        assert array.flags.writeable


def test_int8_rows_of_halves_and_of_floats_are_the_same() -> None:
    rng = np.random.default_rng(0)
    half = (rng.standard_normal((50, 33)) * 10.0 ** rng.integers(-6, 4, (50, 1))).astype(np.float16)
    half[3] = 0
    for of_half, of_floats in zip(kernels.quantise(half), kernels.quantise(half.astype(np.float32)), strict=True):
        np.testing.assert_array_equal(of_half, of_floats)


def test_int8_rounds_to_nearest_ties_to_even_and_keeps_the_bound() -> None:
    """Halves between two steps, as numpy rounds them; and values of every size."""
    rows = np.concatenate([[[127.0]], np.arange(-253, 254)[None] / 2], axis=1).astype(np.float32)
    np.testing.assert_array_equal(kernels.quantise(rows)[0], np.rint(rows))
    wide = np.random.default_rng(1).standard_normal((99, 7)).astype(np.float32) * 1e30
    values, scales = kernels.quantise(wide)
    assert (np.abs(values * scales[:, None] - wide) <= np.abs(wide).max(axis=1, keepdims=True) / 253).all()


def test_every_float32_narrows_as_numpy_does() -> None:
    """A spread of all bit patterns, and those at the ends of float16's range."""
    bits = np.random.default_rng(0).integers(0, 1 << 32, 1 << 20, dtype=np.uint32)
    edges = np.array([65504, 65519.99, 65520, -1e9, np.inf, np.nan, 6e-8, 2.9e-8, 3e-8, 0, -0.0], np.float32)
    rows = np.concatenate([bits.view(np.float32), edges])[None]
    with np.errstate(over="ignore", invalid="ignore"):
        expected = rows.astype(np.float16)
    np.testing.assert_array_equal(kernels.to_float16(rows), expected)


def test_pairs_of_rows_next_to_each_other_in_memory_do_not_mix() -> None:
    """Utterances of no rows between others leave them where they are."""
    rows = [np.full((n, 3), i, np.float16) for i, n in enumerate([2, 0, 1, 0])]
    values = aligned_empty((1, 3, 3), "float32")
    read_runs(Runs.of(rows, None), values)
    assert [set(values[0, a:b].ravel()) for a, b in itertools.pairwise([0, 2, 2, 3])] == [{0}, set(), {2}]


def quantised_by_division(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return int8 rows and scales as FORMAT.md has them: float32 divisions, rounded to nearest, ties to even."""
    with np.errstate(all="ignore"):
        wide = rows.astype(np.float32)
        scales = (np.abs(wide).max(axis=1) / np.float32(127)).astype(np.float32)
        quotients = wide / np.where(scales > 0, scales, np.float32(1))[:, None]
    return np.rint(np.clip(quotients, -127, 127)).astype(np.int8), scales


def test_int8_of_every_float16_is_the_quotient_of_a_division() -> None:
    """Under the largest values of one binade, of the subnormals and of the ends: other binades scale them by 2^n."""
    bits = np.arange(0x7C00, dtype=np.uint16)
    for largest in [*range(0x3C00, 0x4000, 5), *range(1, 0x800, 37), 0x0400, 0x7BFF]:
        values = bits[: largest + 1].view(np.float16)
        row = np.concatenate([values, -values])[None]
        for actual, expected in zip(kernels.quantise(row), quantised_by_division(row), strict=True):
            np.testing.assert_array_equal(actual, expected)


def test_int8_of_every_float16_beside_every_largest_one_is_the_quotient_of_a_division() -> None:
    """Quotients keep their bits when both numbers are doubled: of the largest one the fraction counts, 1,024 of them.

    Beside it the values of all fractions, down to those that become 0.
    """
    fractions = np.arange(1024, 2048, dtype=np.float32)
    smaller = (fractions / np.float32(2) ** np.arange(11, dtype=np.float32)[:, None]).ravel()
    for largest in np.split(fractions, 64):
        values = np.minimum(smaller, largest[:, None])
        rows = np.concatenate([largest[:, None], values], axis=1).astype(np.float16)
        for actual, expected in zip(kernels.quantise(rows), quantised_by_division(rows), strict=True):
            np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("fused", [True, False])
def test_int8_of_float32_at_every_rounding_boundary_is_the_quotient_of_a_division(
    fused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The halves between two steps and the two values on each side of them, for largest values of any size."""
    quantise = kernels.quantise
    if not fused:
        monkeypatch.setattr(kernels, "FUSED_MULTIPLY_ADD", False)
        monkeypatch.setattr(kernels, "_quantise", numba.njit(nogil=True)(kernels._quantise.py_func))
    rng = np.random.default_rng(0)
    for _ in range(300):
        largest = np.float32(rng.uniform(1, 2) * 2.0 ** rng.integers(-148, 127))
        halves = ((np.arange(-127, 127) + 0.5) * np.float64(largest / np.float32(127))).astype(np.float32)
        near = [halves]
        for direction in (np.float32(np.inf), np.float32(-np.inf)):
            neighbours = np.nextafter(halves, direction)
            near += [neighbours, np.nextafter(neighbours, direction)]
        row = np.append(np.clip(np.concatenate(near), -largest, largest), largest)[None]
        for actual, expected in zip(quantise(row), quantised_by_division(row), strict=True):
            np.testing.assert_array_equal(actual, expected)
