"""Programs of others read the rows of a store as we do, with nothing of ours: the table of docs/reference/readers."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr

from featurestore.format.spec import FeatureSpec
from featurestore.store.feature_store import FeatureStore


def read_zarr(segment: Path, name: str) -> np.ndarray:
    return np.asarray(zarr.open_group(segment, mode="r")[name])


def read_zarrs(segment: Path, name: str) -> np.ndarray:
    with zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}):
        return np.asarray(zarr.open_group(segment, mode="r")[name])


def read_tensorstore(segment: Path, name: str) -> np.ndarray:
    import tensorstore

    place = {"driver": "file", "path": str(segment / name)}
    return np.asarray(tensorstore.open({"driver": "zarr3", "kvstore": place}, open=True).result().read().result())


def read_h5py(segment: Path, name: str) -> np.ndarray:
    with h5py.File(segment) as file:
        return np.asarray(file[name])


STORAGES = {"zarr": ["", "zstd", "blosc"], "hdf5": ["", "gzip"]}
READ: dict[str, tuple[str, Callable[[Path, str], np.ndarray]]] = {
    "zarr": ("zarr", read_zarr),
    "zarrs": ("zarr", read_zarrs),
    "tensorstore": ("zarr", read_tensorstore),
    "h5py": ("hdf5", read_h5py),
}


@pytest.fixture(scope="module")
def segments(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    """One segment of each container, plain and compressed, all of the same rows."""
    store = FeatureStore.create(tmp_path_factory.mktemp("readers") / "store")
    rows = np.random.default_rng(0).normal(size=(2, 40, 24)).astype(np.float16)
    segments = {}
    for format, compress in [(format, compress) for format, ways in STORAGES.items() for compress in ways]:
        name = f"{format}{compress}"
        spec = FeatureSpec("audio", "random", "none", ("layer_01", "layer_02"), 24, 50.0)
        with store.writer(name, spec, format=format, compress=compress) as writer:
            writer.append("a", rows[:, :15])
            writer.append("b/ü", rows[:, 15:])
        (segments[format, compress],) = (store.path / name).glob("seg-*")
    return segments


@pytest.mark.parametrize(
    ("reader", "compress"),
    [(reader, compress) for reader, (format, _) in READ.items() for compress in STORAGES[format]],
)
def test_it_reads_the_rows_and_the_offsets(reader: str, compress: str, segments: dict[tuple[str, str], Path]) -> None:
    format, reader_of = READ[reader]
    if importlib.util.find_spec(reader) is None:
        pytest.skip(f"{reader} is not installed (pip install 'medusa-ser[bench]')")
    segment = segments[format, compress]
    expected = np.random.default_rng(0).normal(size=(2, 40, 24)).astype(np.float16)
    np.testing.assert_array_equal(reader_of(segment, "layer_01"), expected[0])
    np.testing.assert_array_equal(reader_of(segment, "layer_02"), expected[1])
    assert reader_of(segment, "offsets").tolist() == [0, 15, 40]
