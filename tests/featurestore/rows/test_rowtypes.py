"""Rows come back as they were stored, and what a type can't hold stays within its stated bound or is refused."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from featurestore.errors import StoreError
from featurestore.format.spec import FeatureSpec
from featurestore.rows.kernels import decode_rows, pool_rows
from featurestore.rows.rowtypes import ROW_TYPES, encode, first_bad_row
from featurestore.store.feature_store import FeatureStore
from tests.helpers.small_store import STORAGES

BFLOAT16, INT8 = ROW_TYPES["bfloat16"], ROW_TYPES["int8"]


def naive(stored: np.ndarray, scales: np.ndarray | None) -> np.ndarray:
    """Return what FORMAT.md says that stored rows mean, float32."""
    if stored.dtype == np.uint16:
        return (stored.astype(np.uint32) << 16).view(np.float32)
    if scales is None:
        return stored.astype(np.float32)
    return stored.astype(np.float32) * scales[:, None]


def test_every_bfloat16_is_read_exactly_and_written_back() -> None:
    bits = np.arange(1 << 16, dtype=np.uint16).reshape(-1, 16)
    values = naive(bits, None)
    assert np.array_equal(decode_rows(bits, None, np.empty(bits.shape, np.float32)), values, equal_nan=True)
    encoded, _ = encode(values, BFLOAT16)
    finite = np.isfinite(values)
    assert np.array_equal(encoded[finite], bits[finite])
    assert np.isnan(naive(encoded, None)[np.isnan(values)]).all()


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_bfloat16_rounds_to_nearest_even(value: float) -> None:
    torch = pytest.importorskip("torch")
    rows = np.full((1, 1), value, np.float32)
    stored, _ = encode(rows, BFLOAT16)
    expected = torch.from_numpy(rows).to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)
    assert stored[0, 0] == expected[0, 0]


@given(hnp.arrays(np.float32, (3, 7), elements=st.floats(-65504, 65504, width=32)))
def test_quantising_equals_its_naive_twin(rows: np.ndarray) -> None:
    stored, scales = encode(rows, INT8)
    for t, row in enumerate(rows):
        scale = np.float32(np.abs(row).max() / np.float32(127))
        assert scales is not None
        assert scales[t] == scale
        for d, value in enumerate(row):
            assert stored[t, d] == np.clip(np.rint(value / (scale if scale > 0 else np.float32(1))), -127, 127)


@given(hnp.arrays(np.float32, (3, 7), elements=st.floats(-65504, 65504, width=32)))
def test_int8_stays_within_its_bound(rows: np.ndarray) -> None:
    stored, scales = encode(rows, INT8)
    assert scales is not None
    assert stored.dtype == np.int8
    largest = np.abs(rows).max(axis=1, keepdims=True).astype(np.float64)
    wide = decode_rows(stored, scales, np.empty(rows.shape, np.float32))
    assert np.array_equal(wide, naive(stored, scales))
    # The smallest positive float32 is 2^-149: scales below it are lost, with rows below 2^-142.
    assert (np.abs(wide - rows) <= largest / 253 + 2.0**-142).all()
    half = decode_rows(stored, scales, np.empty(rows.shape, np.float16))
    assert np.isfinite(half).all()
    assert (np.abs(half.astype(np.float64) - rows) <= largest / 225 + 2.0**-25).all()


def test_int8_is_exact_for_zeros_and_extremes() -> None:
    rows = np.array([[0, 0, 0], [-127, 1, 127], [65504, -65504, 0]], np.float32)
    stored, scales = encode(rows, INT8)
    assert np.array_equal(naive(stored, scales), rows)


@pytest.mark.parametrize("dtype", list(ROW_TYPES))
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3.4e38])
def test_what_a_type_cannot_hold_is_found(dtype: str, bad: float) -> None:
    rows = np.zeros((4, 3), np.float64)
    rows[2, 1] = bad
    stored, scales = encode(rows, ROW_TYPES[dtype])
    expected = None if bad == 3.4e38 and dtype == "float32" else 2
    if bad == 3.4e38 and dtype == "bfloat16":
        expected = None if np.isfinite(naive(stored, None)).all() else 2
    assert first_bad_row(stored, scales, ROW_TYPES[dtype]) == expected
    for n in (2, 0):
        assert first_bad_row(*encode(rows[:n], ROW_TYPES[dtype]), ROW_TYPES[dtype]) is None


@pytest.mark.parametrize("dtype", list(ROW_TYPES))
@pytest.mark.parametrize(("n_rows", "stride"), [(7, 1), (7, 3), (8, 4), (0, 2), (1, 5)])
def test_pooling_equals_its_naive_twin(dtype: str, n_rows: int, stride: int) -> None:
    rows = np.random.default_rng(0).normal(size=(n_rows, 19))
    stored, scales = encode(rows, ROW_TYPES[dtype])
    values = naive(stored, scales)
    expected = [values[i : i + stride].mean(axis=0) for i in range(0, n_rows, stride)]
    result = pool_rows(stored, stride, scales=scales)
    np.testing.assert_allclose(result, np.reshape(expected, (-1, 19)), rtol=1e-5, atol=1e-6)


def test_scales_go_with_int8_rows_only() -> None:
    rows = np.zeros((2, 3), np.int8)
    out = np.empty((2, 3), np.float32)
    with pytest.raises(StoreError, match="need scales"):
        decode_rows(rows, None, out)
    with pytest.raises(StoreError, match=r"\(2,\) is needed"):
        decode_rows(rows, np.zeros(3, np.float32), out)
    with pytest.raises(StoreError, match="have no scales"):
        decode_rows(rows.astype(np.float16), np.zeros(2, np.float32), out)
    with pytest.raises(StoreError, match="buffer"):
        decode_rows(rows, np.zeros(2, np.float32), out.astype(np.float64))


@pytest.mark.parametrize(("format", "compress"), STORAGES)
@pytest.mark.parametrize("dtype", list(ROW_TYPES))
def test_a_store_reads_what_the_type_says(tmp_path: Path, dtype: str, format: str, compress: str) -> None:
    spec = FeatureSpec("audio", "e", "none", ("layer_00", "layer_01"), 33, dtype=dtype)
    rng = np.random.default_rng(1)
    data = {f"k{i}": rng.normal(size=(2, n, 33)).astype(np.float32) for i, n in enumerate([3, 0, 1, 2000, 5])}
    store = FeatureStore.create(tmp_path / "s")
    with store.writer("a", spec, format=format, compress=compress, segment_bytes=1 << 16) as writer:
        for key, rows in data.items():
            writer.append(key, rows)
    features = FeatureStore.open(store.path)["a"]
    assert features.verify() == []
    assert (features.format, features.compress) == (format, compress)
    for column, layer in enumerate(spec.layers):
        for key, rows in data.items():
            stored, scales = encode(rows[column], spec.row_type)
            assert features.stored(key, layer).tobytes() == stored.tobytes()
            result = features.array(key, layer)
            assert not result.flags.writeable
            assert result.dtype == features.dtype
            with np.errstate(over="ignore"):
                assert np.array_equal(result, naive(stored, scales).astype(features.dtype))
            if scales is None:
                with pytest.raises(StoreError, match=r"int8.*scales"):
                    features.scales(key, layer)
            else:
                assert np.array_equal(features.scales(key, layer), scales)
        keys = ["k3", "k0", "k1", "k3"]
        for requested in ("float16", "float32"):
            packed = features.gather(keys, layer, dtype=requested)
            expected = [naive(*encode(data[key][column], spec.row_type)) for key in keys]
            assert packed.values.dtype == requested
            assert np.array_equal(packed.values, np.concatenate(expected).astype(requested))


def test_a_format_takes_what_its_readers_decode(tmp_path: Path) -> None:
    store = FeatureStore.create(tmp_path / "s")
    spec = FeatureSpec("audio", "e", "none", ("l",), 3)
    for format, compress in (("hdf5", "zstd"), ("zarr", "gzip"), ("zarr", "lzma"), ("npy", "")):
        with pytest.raises(StoreError, match=r"use zarr or hdf5|use zstd or blosc|use gzip"):
            store.writer("a", spec, format=format, compress=compress)
    assert store.names() == []
    with store.writer("a", spec, format="hdf5", compress="gzip") as writer:
        writer.append("1", np.zeros((1, 2, 3)))
    with store.writer("a", spec) as writer:  # as the set was made
        writer.append("2", np.zeros((1, 2, 3)))
    with store.writer("a", spec, format="zarr") as writer:  # segments of both kinds in one set
        writer.append("3", np.zeros((1, 2, 3)))
    features = store["a"]
    assert sorted((segment.format, segment.info.compress) for segment in features.segments) == [
        ("hdf5", "gzip"), ("hdf5", "gzip"), ("zarr", ""),
    ]  # fmt: skip
    assert sorted(features) == ["1", "2", "3"]
    assert features.verify() == []
