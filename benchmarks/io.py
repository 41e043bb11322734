"""How fast random batches of rows are read: our store, what others do, and memcpy as the floor, in one run.

Every reader gets the same rows and the same batches, and its results are checked against the rows before it is timed.
"""

import gc
import json
import os
import platform
import shutil
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from featurestore.errors import ConfigError
from featurestore.featureset import FeatureSet
from featurestore.spec import FeatureSpec
from featurestore.store import FeatureStore

if TYPE_CHECKING:
    from rich.table import Table

FRAME_RATE_HZ = 50.0
LAYER = "layer_00"
# Batches announced ahead of the one that is read, in the cold runs of our own reader.
ANNOUNCED_BATCHES = 4
FLOOR = "memcpy into a reused buffer"
OURS = "medusa, into a reused buffer"


@dataclass(frozen=True)
class IoSettings:
    """What is measured: utterances of `mean_s` on average at 50 rows of `dim` float16 values per second."""

    n_utterances: int = 600
    dim: int = 1024
    mean_s: float = 5.5
    batch: int = 32
    repeats: int = 5
    seed: int = 0
    cold: bool = False

    def __post_init__(self) -> None:
        for name in ("n_utterances", "dim", "mean_s", "batch", "repeats"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"bench io: {name} is {getattr(self, name)}; it must be more than 0.")


@dataclass(frozen=True)
class Rows:
    """The rows of all utterances, packed: utterance i has rows offsets[i]:offsets[i + 1] of the values (sum T, D)."""

    values: np.ndarray
    offsets: np.ndarray

    @classmethod
    def random(cls, settings: IoSettings) -> "Rows":
        """Durations as in podcast speech (a gamma distribution, half a second at least), values in [0, 1)."""
        rng = np.random.default_rng(settings.seed)
        durations_s = np.maximum(rng.gamma(2.5, settings.mean_s / 2.5, settings.n_utterances), 0.5)
        offsets = np.concatenate([[0], np.cumsum(np.ceil(durations_s * FRAME_RATE_HZ).astype(np.int64))])
        # Every bit pattern below that of 1.0 is a float16 in [0, 1); a normal distribution takes ten times as long.
        bits = rng.integers(0, 0x3C00, (int(offsets[-1]), settings.dim), dtype=np.uint16)
        return cls(bits.view(np.float16), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def of(self, i: int) -> np.ndarray:
        return self.values[self.offsets[i] : self.offsets[i + 1]]

    def largest_batch(self, n: int) -> int:
        """Rows that any `n` utterances have at most."""
        return int(np.sort(np.diff(self.offsets))[-n:].sum())


@dataclass(frozen=True)
class Batch:
    """What to read: utterances by number, and the same by key."""

    numbers: list[int]
    keys: list[str]
    n_rows: int


class Reader(Protocol):
    """One way to read a batch: the rows of the utterances, one after the other, (sum T, D)."""

    def read(self, batch: Batch) -> np.ndarray: ...


def key_of(number: int) -> str:
    """An utterance's name, as a corpus has them."""
    return f"MSP-PODCAST_{number // 100:04d}_{number:06d}"


class Memcpy:
    """The floor: as many bytes, from one contiguous run of memory, into the same buffer each time."""

    def __init__(self, rows: Rows, settings: IoSettings) -> None:
        self.rows, self.out, self.first = rows, new_buffer(rows, settings), 0

    def read(self, batch: Batch) -> np.ndarray:
        n = batch.n_rows
        # Batch after batch the run moves on, so that its source is no more in the cache than anyone else's.
        self.first = self.first if self.first + n <= len(self.rows.values) else 0
        out = self.out[:n]
        np.copyto(out, self.rows.values[self.first : self.first + n])
        self.first += n
        return out


class Medusa:
    """Our store, into the same buffer each time."""

    def __init__(self, features: FeatureSet, out: np.ndarray | None) -> None:
        self.features, self.out = features, out

    def read(self, batch: Batch) -> np.ndarray:
        return self.features.gather(batch.keys, out=self.out).values

    def announce(self, batch: Batch) -> None:
        self.features.announce(batch.keys)


class PackedMap:
    """A np.memmap of all rows and known offsets: no keys, no checks; copied into one buffer, or concatenated afresh."""

    def __init__(self, path: Path, rows: Rows, out: np.ndarray | None) -> None:
        # A plain array over the map: slicing np.memmap itself costs several microseconds.
        self.values = np.asarray(np.memmap(path, np.float16, "r", shape=rows.values.shape))
        self.offsets, self.out = rows.offsets.tolist(), out

    def read(self, batch: Batch) -> np.ndarray:
        parts = [self.values[self.offsets[i] : self.offsets[i + 1]] for i in batch.numbers]
        if self.out is None:
            return np.concatenate(parts)
        first = 0
        for part in parts:
            self.out[first : first + len(part)] = part
            first += len(part)
        return self.out[:first]


class NpyFiles:
    """One .npy per utterance, loaded and concatenated: what most recipes do."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def read(self, batch: Batch) -> np.ndarray:
        return np.concatenate([np.load(self.directory / f"{key}.npy") for key in batch.keys])


class Hdf5:
    """One HDF5 file with a dataset per utterance, read straight into the same buffer each time."""

    def __init__(self, path: Path, out: np.ndarray) -> None:
        import h5py

        self.file, self.out = h5py.File(path, "r"), out

    def read(self, batch: Batch) -> np.ndarray:
        first = 0
        for key in batch.keys:
            dataset = self.file[key]
            dataset.read_direct(self.out, dest_sel=np.s_[first : first + len(dataset)])
            first += len(dataset)
        return self.out[:first]


class ZarrPython:
    """zarr-python over the very segments that our reader maps."""

    def __init__(self, features: FeatureSet) -> None:
        import zarr

        arrays = [zarr.open_array(segment.path / LAYER, mode="r") for segment in features.segments]
        index = features.index
        positions = index.positions([key_of(number) for number in range(len(index))])
        self.where = [
            (arrays[index.segment[p]], int(index.first_row[p]), int(index.first_row[p] + index.n_rows[p]))
            for p in positions
        ]

    def read(self, batch: Batch) -> np.ndarray:
        return np.concatenate([array[first:last] for array, first, last in (self.where[i] for i in batch.numbers)])


class SequentialRead:
    """The floor of cold runs: the packed file from front to back, as many bytes at a time as the batch has."""

    def __init__(self, path: Path, rows: Rows, settings: IoSettings) -> None:
        self.file, self.rows, self.out = open(path, "rb", buffering=0), rows, new_buffer(rows, settings)  # noqa: SIM115

    def read(self, batch: Batch) -> np.ndarray:
        out = self.out[: batch.n_rows]
        view = out.data.cast("B")
        while view and (n_read := self.file.readinto(view)):
            view = view[n_read:]
        return out


def new_buffer(rows: Rows, settings: IoSettings) -> np.ndarray:
    """Room for the largest batch, its pages touched, so that no timed read is their first use."""
    return np.zeros((rows.largest_batch(settings.batch), rows.values.shape[1]), rows.values.dtype)


def run_io(
    directory: Path | None = None,
    *,
    n_utterances: int = IoSettings.n_utterances,
    dim: int = IoSettings.dim,
    mean_s: float = IoSettings.mean_s,
    batch: int = IoSettings.batch,
    repeats: int = IoSettings.repeats,
    seed: int = IoSettings.seed,
    cold: bool = IoSettings.cold,
    json_path: Path | None = None,
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Measure every reader and return {"settings", "machine", "n_bytes", "warm": [...], "cold": [...]}.

    directory: where the files (four times the rows' bytes) are written and removed again; the default is the system's
    temporary directory. cold: measure also after dropping these files from the page cache. json_path: write the result
    there too. progress: told what is being done. Raises ConfigError for settings that can't be, and AssertionError
    when a reader returns other rows than were written.
    """
    settings = IoSettings(n_utterances, dim, mean_s, min(batch, n_utterances), repeats, seed, cold)
    told = progress or (lambda _: None)
    parent = Path(directory or tempfile.gettempdir())
    parent.mkdir(parents=True, exist_ok=True)
    needed = int(4.2 * n_utterances * mean_s * FRAME_RATE_HZ * dim * 2)
    if shutil.disk_usage(parent).free < needed:
        raise ConfigError(f"bench io needs {needed / 1e9:.1f} GB in {parent}: give --directory, or fewer --utterances.")
    rows = Rows.random(settings)
    work = Path(tempfile.mkdtemp(prefix="medusa-bench-io-", dir=parent))
    try:
        told("writing the files")
        readers, files = write_all(work, rows, settings)
        result: dict[str, Any] = {
            "settings": asdict(settings),
            "machine": machine(),
            "n_bytes": rows.values.nbytes,
            "warm": measure(readers, rows, settings, FLOOR, told),
            "cold": None,
        }
        if cold:
            del readers[FLOOR]
            readers = {"sequential read": lambda: SequentialRead(work / "packed.bin", rows, settings), **readers}
            result["cold"] = measure(readers, rows, settings, "sequential read", told, drop=files)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    if json_path is not None:
        Path(json_path).write_text(json.dumps(result, indent=1) + "\n")
    return result


def write_all(
    work: Path, rows: Rows, settings: IoSettings
) -> tuple[dict[str, Callable[[], Reader]], Callable[[], Iterator[Path]]]:
    """Write the rows in every layout; returns what opens each reader, and all files written."""
    import h5py

    keys = [key_of(number) for number in range(len(rows))]
    store = FeatureStore.create(work / "store")
    spec = FeatureSpec("audio", "random", "none", (LAYER,), settings.dim, FRAME_RATE_HZ)
    with store.writer("random", spec) as writer:
        for i, key in enumerate(keys):
            writer.append(key, [rows.of(i)])
    rows.values.tofile(work / "packed.bin")
    (work / "npy").mkdir()
    with h5py.File(work / "rows.h5", "w") as file:
        for i, key in enumerate(keys):
            np.save(work / "npy" / f"{key}.npy", rows.of(i))
            file.create_dataset(key, data=rows.of(i))
    features = store["random"]
    readers: dict[str, Callable[[], Reader]] = {
        FLOOR: lambda: Memcpy(rows, settings),
        OURS: lambda: Medusa(store["random"], new_buffer(rows, settings)),
        "medusa, a fresh array each": lambda: Medusa(store["random"], None),
        "packed np.memmap, into a reused buffer": lambda: PackedMap(
            work / "packed.bin", rows, new_buffer(rows, settings)
        ),
        "packed np.memmap, a fresh array each": lambda: PackedMap(work / "packed.bin", rows, None),
        "one .npy per utterance": lambda: NpyFiles(work / "npy"),
        "HDF5, one dataset per utterance": lambda: Hdf5(work / "rows.h5", new_buffer(rows, settings)),
        "zarr-python, the same segments": lambda: ZarrPython(features),
    }
    return readers, lambda: (path for path in work.rglob("*") if path.is_file())


def measure(
    readers: dict[str, Callable[[], Reader]],
    rows: Rows,
    settings: IoSettings,
    floor: str,
    progress: Callable[[str], None],
    drop: Callable[[], Iterator[Path]] | None = None,
) -> list[dict[str, Any]]:
    """Seconds for all utterances in random batches, per reader and repeat; their order alternates between repeats.

    drop: the files to drop from the page cache before every timing; readers are opened anew then, since pages that a
    process maps are not dropped.
    """
    opened: dict[str, Reader] = {}
    if drop is None:
        for name, start in readers.items():
            progress(f"checking {name}")
            opened[name] = start()
            check(name, opened[name], rows, batches_of(rows, settings, 0))
    seconds: dict[str, list[float]] = {name: [] for name in readers}
    for repeat in range(settings.repeats):
        progress(f"{'cold' if drop else 'warm'} run {repeat + 1} of {settings.repeats}")
        batches = batches_of(rows, settings, repeat)
        names = list(readers)
        names = names[repeat % len(names) :] + names[: repeat % len(names)]
        for name in reversed(names) if repeat % 2 else names:
            if drop is not None:
                gc.collect()
                drop_from_cache(drop())
                reader = readers[name]()
                seconds[name].append(time_reader(reader, batches, announce=True))
                close(reader)
            else:
                # An untimed pass first: a large server's last-level cache (480 MB here) holds what the reader before
                # left there, and whoever shared its pages looked 1.4 times as fast as who did not.
                time_reader(opened[name], batches, announce=False)
                seconds[name].append(time_reader(opened[name], batches, announce=False))
    for reader in opened.values():
        close(reader)
    floor_s = statistics.median(seconds[floor])
    return [
        {
            "name": name,
            "gb_per_s": rows.values.nbytes / statistics.median(taken) / 1e9,
            "utterances_per_s": len(rows) / statistics.median(taken),
            "ratio_to_floor": floor_s / statistics.median(taken),
            "seconds": taken,
        }
        for name, taken in seconds.items()
    ]


def batches_of(rows: Rows, settings: IoSettings, repeat: int) -> list[Batch]:
    """Every utterance once, in random batches; the same for each reader of a repeat."""
    order = np.random.default_rng((settings.seed, repeat)).permutation(len(rows)).tolist()
    n_rows = np.diff(rows.offsets)
    chosen = [order[i : i + settings.batch] for i in range(0, len(order), settings.batch)]
    return [Batch(numbers, [key_of(i) for i in numbers], int(n_rows[numbers].sum())) for numbers in chosen]


def time_reader(reader: Reader, batches: Sequence[Batch], announce: bool) -> float:
    """Seconds to read the batches; those to come are announced where the reader can."""
    tell = getattr(reader, "announce", None) if announce else None
    start = time.perf_counter()
    coming = deque(batches[:ANNOUNCED_BATCHES] if tell else [])
    for batch in coming:
        tell(batch)  # type: ignore[misc]
    for i, batch in enumerate(batches):
        if tell and i + ANNOUNCED_BATCHES < len(batches):
            tell(batches[i + ANNOUNCED_BATCHES])
        reader.read(batch)
    return time.perf_counter() - start


def check(name: str, reader: Reader, rows: Rows, batches: Sequence[Batch]) -> None:
    """Read all batches once, bit for bit as written (which also brings the files into the page cache)."""
    position = 0
    for batch in batches:
        found = reader.read(batch)
        expected = np.concatenate([rows.of(i) for i in batch.numbers])
        if isinstance(reader, Memcpy):  # its rows are a run of the same length
            expected = rows.values[position : position + len(expected)]
            position += len(expected)
        if found.shape != expected.shape or not np.array_equal(found.view(np.uint16), expected.view(np.uint16)):
            raise AssertionError(f"bench io: {name} returned other rows than were written")


def close(reader: Reader) -> None:
    """Close the file of a reader that has one."""
    if hasattr(reader, "file"):
        reader.file.close()


def drop_from_cache(paths: Iterator[Path]) -> None:
    """Make the kernel forget these files' pages, and no others."""
    if not hasattr(os, "posix_fadvise"):
        raise ConfigError("bench io --cold needs posix_fadvise, which this system lacks; leave it out.")
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)  # pages that aren't on disk yet stay
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    from importlib.metadata import version

    packages = {name: version(name) for name in ("numpy", "h5py", "zarr")}
    return {"system": platform.system(), "cpus": os.cpu_count(), "python": platform.python_version(), **packages}


def io_table(result: dict[str, Any]) -> "Table":
    """The result of `run_io` as a table for the terminal."""
    from rich.table import Table

    settings = result["settings"]
    what = f"{settings['n_utterances']} utterances, {result['n_bytes'] / 1e9:.2f} GB of float16 x {settings['dim']}"
    how = f"random batches of {settings['batch']}, median of {settings['repeats']}"
    table = Table(title=f"{what}, {how}", title_justify="left")
    for column in ("reader", "GB/s", "utterances/s", "of the floor"):
        table.add_column(column, justify="left" if column == "reader" else "right")
    for state in ("warm", "cold"):
        for row in result[state] or []:
            name = f"{row['name']} ({state})" if result["cold"] else row["name"]
            figures = f"{row['gb_per_s']:.2f}", f"{row['utterances_per_s']:,.0f}", f"{row['ratio_to_floor']:.2f}"
            table.add_row(name, *figures, style="bold" if row["name"] == OURS else None)
        table.add_section()
    return table
