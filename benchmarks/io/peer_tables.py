"""Peers that keep bytes by key or number: LMDB, Arrow, Hugging Face datasets, Lance, litData, MosaicML streaming."""

import sys
from collections.abc import Iterable
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from typing import Any

import numpy as np

from .rows import Rows
from .ways import PEER, Filled, Place, Reader, Way, per_thread

UTTERANCES_PER_RECORD_BATCH = 64


def write_lmdb(directory: Path, rows: Rows) -> None:
    import lmdb

    # Pages of 4 KiB and the tree come on top of the rows; the file grows only as far as it is used.
    room = 2 * rows.values.nbytes + (len(rows) << 13) + (64 << 20)
    with lmdb.open(str(directory / "lmdb"), map_size=room) as environment, environment.begin(write=True) as writing:
        for i, key in enumerate(rows.keys):
            writing.put(key.encode(), rows.of(i).data)


def open_lmdb(place: Place) -> list[Reader]:
    """One environment, as a process may open it only once; one transaction per thread, its values not copied."""
    import lmdb

    environment = lmdb.open(str(place.directory / "lmdb"), readonly=True, lock=False)

    def one() -> Reader:
        reading = environment.begin(buffers=True)

        def close() -> None:
            reading.abort()
            environment.close()

        parts = lambda batch: (place.part(reading.get(key.encode())) for key in batch.keys)  # noqa: E731
        return Filled(place.buffer(), parts, close)

    return [one() for _ in range(place.n_threads)]


def _table(rows: Rows) -> Any:
    """Return the rows as an Arrow table: one binary value per utterance, in record batches.

    Their bytes are not copied.
    """
    import pyarrow

    row_bytes = rows.dim * rows.values.itemsize
    values = pyarrow.py_buffer(rows.values)
    schema = pyarrow.schema([("key", pyarrow.string()), ("rows", pyarrow.large_binary())])
    batches = []
    for first in range(0, len(rows), UTTERANCES_PER_RECORD_BATCH):
        keys = rows.keys[first : first + UTTERANCES_PER_RECORD_BATCH]
        bounds = rows.offsets[first : first + len(keys) + 1] * row_bytes
        data = values.slice(int(bounds[0]), int(bounds[-1] - bounds[0]))
        column = pyarrow.LargeBinaryArray.from_buffers(
            pyarrow.large_binary(), len(keys), [None, pyarrow.py_buffer(np.ascontiguousarray(bounds - bounds[0])), data]
        )
        batches.append(pyarrow.record_batch([pyarrow.array(keys), column], schema=schema))
    return pyarrow.Table.from_batches(batches, schema)


def _values(place: Place, column: Iterable[Any]) -> Iterable[np.ndarray]:
    return (place.part(value.as_buffer()) for value in column)


def write_arrow(directory: Path, rows: Rows) -> None:
    import pyarrow

    table = _table(rows)
    path = str(directory / "rows.arrow")
    with pyarrow.OSFile(path, "wb") as file, pyarrow.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


def _arrow(place: Place) -> Reader:
    import pyarrow

    mapped = pyarrow.memory_map(str(place.directory / "rows.arrow"))
    column = pyarrow.ipc.open_file(mapped).read_all()["rows"]
    return Filled(place.buffer(), lambda batch: _values(place, (column[i] for i in batch.numbers)), mapped.close)


def write_datasets(directory: Path, rows: Rows) -> None:
    import datasets

    datasets.disable_progress_bars()
    datasets.Dataset(_table(rows)).save_to_disk(str(directory / "dataset"))


def _datasets(place: Place) -> Reader:
    import datasets

    # The quickest of its formats: as Arrow, without Python objects.
    dataset = datasets.load_from_disk(str(place.directory / "dataset")).select_columns(["rows"]).with_format("arrow")
    return Filled(place.buffer(), lambda batch: _values(place, dataset[batch.numbers]["rows"]))


def write_lance(directory: Path, rows: Rows) -> None:
    import lance

    lance.write_dataset(_table(rows), str(directory / "rows.lance"))


def _lance(place: Place) -> Reader:
    import lance

    dataset = lance.dataset(str(place.directory / "rows.lance"))
    return Filled(place.buffer(), lambda batch: _values(place, dataset.take(batch.numbers, columns=["rows"])["rows"]))


def write_litdata(directory: Path, rows: Rows) -> None:
    from litdata.streaming import Cache

    cache = Cache(str(directory), chunk_bytes="64MB")
    for i in range(len(rows)):
        cache[i] = {"rows": rows.of(i)}
    cache.done()
    cache.merge()


def _litdata(place: Place) -> Reader:
    from litdata import StreamingDataset

    dataset = StreamingDataset(str(place.directory))
    return Filled(place.buffer(), lambda batch: (dataset[i]["rows"] for i in batch.numbers))


def _mosaic() -> Any:
    """`streaming.base`. The package itself imports torchvision for its image sets, which are of no use here."""
    if "streaming" not in sys.modules:
        spec = find_spec("streaming")
        assert spec is not None
        sys.modules["streaming"] = module_from_spec(spec)  # not run
    from streaming import base

    return base


def write_mosaic(directory: Path, rows: Rows) -> None:
    with _mosaic().MDSWriter(out=str(directory / "mds"), columns={"rows": "bytes"}) as writer:
        for i in range(len(rows)):
            writer.write({"rows": rows.of(i).tobytes()})


def _mosaic_reader(place: Place) -> Reader:
    dataset = _mosaic().LocalDataset(str(place.directory / "mds"))
    return Filled(place.buffer(), lambda batch: (place.part(dataset[i]["rows"]) for i in batch.numbers))


TABLE_WAYS = [
    Way("lmdb", "LMDB", PEER, "lmdb", open_lmdb, "lmdb"),
    Way("arrow", "Arrow file, memory-mapped", PEER, "arrow", per_thread(_arrow), "pyarrow"),
    Way("datasets", "Hugging Face datasets", PEER, "datasets", per_thread(_datasets), "datasets"),
    Way("lance", "Lance", PEER, "lance", per_thread(_lance), "lance"),
    Way("litdata", "litData", PEER, "litdata", per_thread(_litdata), "litdata"),
    Way("mosaic", "MosaicML streaming", PEER, "mosaic", per_thread(_mosaic_reader), "streaming"),
]
