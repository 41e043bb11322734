"""Peers that keep arrays: .npy, HDF5 and safetensors per utterance, one Zarr array, tar files of .npy."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from .rows import Batch, Rows
from .ways import PEER, Concatenated, Filled, Place, Reader, Way, in_number_order, nothing, per_thread

# What serves the three readers best of 64 KiB to 2 MiB, sharded or not; they read whole chunks.
ZARR_CHUNK_BYTES = 256 << 10
TAR_BYTES = 128 << 20


def write_npy(directory: Path, rows: Rows) -> None:
    for i, key in enumerate(rows.keys):
        np.save(directory / f"{key}.npy", rows.of(i))


def _npy(place: Place) -> Callable[[Batch], list[np.ndarray]]:
    return lambda batch: [np.load(place.directory / f"{key}.npy") for key in batch.keys]


def write_hdf5(directory: Path, rows: Rows) -> None:
    import h5py

    with h5py.File(directory / "rows.h5", "w") as file:
        for i, key in enumerate(rows.keys):
            file.create_dataset(key, data=rows.of(i))


class Hdf5:
    """One file with a dataset per utterance, read straight into the same buffer each time."""

    def __init__(self, place: Place) -> None:
        import h5py

        self.file, self.out = h5py.File(place.directory / "rows.h5", "r"), place.buffer()
        self.close = self.file.close

    def read(self, batches: Sequence[Batch]) -> Iterator[np.ndarray]:
        for batch in batches:
            first = 0
            for key in batch.keys:
                dataset = self.file[key]
                dataset.read_direct(self.out, dest_sel=np.s_[first : first + len(dataset)])
                first += len(dataset)
            yield self.out[:first]


def write_safetensors(directory: Path, rows: Rows) -> None:
    from safetensors.numpy import save_file

    save_file({key: rows.of(i) for i, key in enumerate(rows.keys)}, directory / "rows.safetensors")


def _safetensors(place: Place) -> Reader:
    from safetensors import safe_open

    file = safe_open(place.directory / "rows.safetensors", "np")
    file.__enter__()
    parts = lambda batch: (file.get_tensor(key) for key in batch.keys)  # noqa: E731
    return Filled(place.buffer(), parts, lambda: file.__exit__(None, None, None))


def write_zarr(directory: Path, rows: Rows) -> None:
    """All rows in one array: uncompressed, sharded, the chunks small enough for single utterances."""
    import zarr

    n_rows, dim = rows.values.shape
    chunk_rows = max(1, ZARR_CHUNK_BYTES // (dim * rows.values.itemsize))
    shard_rows = chunk_rows * max(1, (256 << 20) // ZARR_CHUNK_BYTES)
    shard_rows = min(shard_rows, -(-n_rows // chunk_rows) * chunk_rows)
    array = zarr.create_array(
        str(directory / "rows.zarr"), shape=rows.values.shape, chunks=(chunk_rows, dim), shards=(shard_rows, dim),
        dtype=rows.values.dtype, compressors=None,
    )  # fmt: skip
    # Shard by shard: zarr-python needs several times what it writes at once.
    for first in range(0, n_rows, shard_rows):
        array[first : first + shard_rows] = rows.values[first : first + shard_rows]


def _zarr(pipeline: str = "") -> Callable[[Place], Reader]:
    def open_reader(place: Place) -> Reader:
        import zarr

        if pipeline:
            import zarrs  # noqa: F401
        with zarr.config.set({"codec_pipeline.path": pipeline}) if pipeline else nullcontext():
            array: Any = zarr.open_array(str(place.directory / "rows.zarr"), mode="r")
        offsets = place.rows.offsets.tolist()
        return Filled(place.buffer(), lambda batch: (array[offsets[i] : offsets[i + 1]] for i in batch.numbers))

    return open_reader


class TensorStore:
    """The same Zarr array; all utterances of a batch at once, straight into the same buffer."""

    def __init__(self, place: Place) -> None:
        import tensorstore

        where = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(place.directory / "rows.zarr")}}
        self.array = tensorstore.open(where, read=True).result()
        self.wrap, self.out, self.offsets = tensorstore.array, place.buffer(), place.rows.offsets.tolist()

    def read(self, batches: Sequence[Batch]) -> Iterator[np.ndarray]:
        for batch in batches:
            first, copies = 0, []
            for i in batch.numbers:
                start, stop = self.offsets[i], self.offsets[i + 1]
                copies.append(self.wrap(self.out[first : first + stop - start]).write(self.array[start:stop]))
                first += stop - start
            for copy in copies:
                copy.result()
            yield self.out[:first]

    close = staticmethod(nothing)


class AnnBatch:
    """The same Zarr array through annbatch's loader. Its samplers draw single rows; this one asks for utterances."""

    def __init__(self, place: Place) -> None:
        import zarr
        import zarrs  # noqa: F401
        from annbatch import Loader
        from annbatch.abc import Sampler

        with zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}):
            array = zarr.open_array(str(place.directory / "rows.zarr"), mode="r")
        offsets = place.rows.offsets.tolist()

        class Utterances(Sampler):  # type: ignore[misc]  # annbatch may be absent
            batch_size, shuffle = None, False  # a request says itself what it is split into

            def __init__(self, batches: Sequence[Batch]) -> None:
                self.batches = batches

            def n_batches(self, n_obs: int) -> int:
                return len(self.batches)

            def validate(self, n_obs: int) -> None: ...

            def _sample(self, n_obs: int) -> Iterator[dict[str, Any]]:
                for batch in self.batches:
                    parts = [slice(offsets[i], offsets[i + 1]) for i in batch.numbers]
                    yield {"requests": parts, "splits": [np.arange(batch.n_rows)]}

        def loader(batches: Sequence[Batch]) -> Iterable[dict[str, Any]]:
            sampler: Any = Utterances
            return Loader(batch_sampler=sampler(batches)).add_dataset(array)  # type: ignore[no-any-return]

        self.loader = loader

    def read(self, batches: Sequence[Batch]) -> Iterator[np.ndarray]:
        for loaded in self.loader(batches):
            yield loaded["X"]

    close = staticmethod(nothing)


def write_tar(directory: Path, rows: Rows) -> None:
    import webdataset

    with webdataset.ShardWriter(str(directory / "rows-%04d.tar"), maxsize=TAR_BYTES, verbose=0) as writer:
        for i, key in enumerate(rows.keys):
            writer.write({"__key__": key, "npy": rows.of(i)})


class WebDataset:
    """Tar files from front to back: it can't read at random."""

    def __init__(self, place: Place) -> None:
        import webdataset

        tars = [str(path) for path in sorted(place.directory.glob("*.tar"))]
        self.samples = webdataset.WebDataset(tars, shardshuffle=False).decode().to_tuple("__key__", "npy")
        self.out = place.buffer()

    def read(self, batches: Sequence[Batch]) -> Iterator[np.ndarray]:
        samples = iter(self.samples)
        for batch in batches:
            first = 0
            for key, (read_key, part) in zip(batch.keys, islice(samples, len(batch.keys)), strict=True):
                if read_key != key:
                    raise AssertionError(f"bench io: WebDataset gave {read_key}, {key} was next")
                self.out[first : first + len(part)] = part
                first += len(part)
            yield self.out[:first]

    close = staticmethod(nothing)


_NPY = Way("npy", "one .npy per utterance", PEER, "npy", per_thread(lambda place: Concatenated(_npy(place))))
FILE_WAYS = [
    _NPY,
    replace(
        _NPY,
        id="npy-reused",
        name="one .npy per utterance, reused buffer",
        open=per_thread(lambda place: Filled(place.buffer(), _npy(place))),
    ),
    Way("hdf5", "HDF5, a dataset per utterance", PEER, "hdf5", per_thread(Hdf5)),
    Way("safetensors", "safetensors, a tensor per utterance", PEER, "safetensors", per_thread(_safetensors)),
    Way("zarr-python", "zarr-python, one Zarr array", PEER, "zarr", per_thread(_zarr())),
    Way("zarrs", "zarrs, one Zarr array", PEER, "zarr", per_thread(_zarr("zarrs.ZarrsCodecPipeline")), "zarrs"),
    Way("tensorstore", "tensorstore, one Zarr array", PEER, "zarr", per_thread(TensorStore), "tensorstore"),
    Way("annbatch", "annbatch, the same with zarrs", PEER, "zarr", per_thread(AnnBatch), "annbatch"),
    Way(
        "webdataset", "WebDataset, in its order", PEER, "tar", per_thread(WebDataset), "webdataset",
        order=in_number_order, threads=False,
    ),
]  # fmt: skip
