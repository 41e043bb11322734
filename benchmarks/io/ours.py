"""Our store: both containers, float16 and int8, into a reused buffer, fresh arrays, and the loader; its disk floors."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

from featurestore.format.spec import FeatureSpec
from featurestore.format.zarr3 import chunk_file
from featurestore.loaders.batch_loader import ANNOUNCED_BYTES, BatchLoader, FeatureRef
from featurestore.sets.feature_set import FeatureSet
from featurestore.store.feature_store import FeatureStore

from .disk import open_sequential
from .rows import FRAME_RATE_HZ, Batch, Rows
from .ways import FLOOR, OURS, Place, Reader, Way, nothing, per_thread

LAYER = "layer_00"
NAME = "random"


def write_store(directory: Path, rows: Rows, format: str = "zarr", dtype: str = "float16") -> None:
    """Commit all rows to a new store in `directory`, in segments of the default size."""
    spec = FeatureSpec("audio", "random", "none", (LAYER,), rows.dim, FRAME_RATE_HZ, dtype)
    with FeatureStore.create(directory / "store").writer(NAME, spec, format=format) as writer:
        for i, key in enumerate(rows.keys):
            writer.append(key, [rows.of(i)])


def features_of(place: Place) -> FeatureSet:
    return FeatureStore.open(place.directory / "store")[NAME]


class Medusa:
    """`FeatureSet.gather`; the next batches are announced where the data lies on disk, as the loader does, in a thread.

    A cold run opens the set anew, so that it includes what only the first reading costs: every utterance's checksum.
    """

    def __init__(self, features: FeatureSet, out: np.ndarray | None, announce: bool) -> None:
        self.features, self.out, self.announce = features, out, announce

    def read(self, batches: Sequence[Batch]) -> Iterator[np.ndarray]:
        if not self.announce:
            for batch in batches:
                yield self.features.gather(batch.keys, out=self.out).values
            return
        row_bytes = self.features.spec.row_type.row_bytes(self.features.dim)
        coming: deque[tuple[Batch, Future[None]]] = deque()
        with ThreadPoolExecutor(1) as announcer:
            for ahead in [*batches, None]:
                if ahead is not None:
                    coming.append((ahead, announcer.submit(self.features.announce, ahead.keys)))
                while coming and (ahead is None or row_bytes * sum(b.n_rows for b, _ in coming) > ANNOUNCED_BYTES):
                    first, announced = coming.popleft()
                    announced.result()
                    yield self.features.gather(first.keys, out=self.out).values

    close = staticmethod(nothing)


class Loader:
    """`BatchLoader`, kept from epoch to epoch: a thread of its own reads ahead; rows come as float32."""

    def __init__(self, place: Place) -> None:
        keys = place.rows.keys
        self.loader = BatchLoader(FeatureStore.open(place.directory / "store"), [FeatureRef(NAME)], [], keys=keys)

    def read(self, batches: Sequence[Batch]) -> Iterator[np.ndarray]:
        for (packed,) in self.loader.over([batch.numbers for batch in batches]):
            yield packed.values[0]

    close = staticmethod(nothing)


def _open(reused: bool) -> Callable[[Place], list[Reader]]:
    def open_readers(place: Place) -> list[Reader]:
        features = features_of(place)  # one for all threads
        return [Medusa(features, place.buffer() if reused else None, place.cold) for _ in range(place.n_threads)]

    return open_readers


def _dequantised(place: Place) -> Callable[[int], np.ndarray]:
    """Return what int8 rows should be read as: stored values times their scales, rounded once.

    Near what was written.
    """
    features, rows = features_of(place), place.rows

    def of(i: int) -> np.ndarray:
        scales = features.scales(rows.keys[i])[:, None]
        exact = features.stored(rows.keys[i]).astype(np.float32) * scales
        error = np.abs(exact - rows.of(i))
        # FORMAT.md's bound on the quantisation itself.
        bound = np.abs(rows.of(i)).max(axis=1, keepdims=True).astype(np.float32) / 253
        if not (error <= bound).all():
            raise AssertionError(f"bench io: int8 rows of {rows.keys[i]} are off by {error.max():.3g}")
        half: np.ndarray = exact.astype(np.float16)
        return half

    return of


def file_order(place: Place) -> list[int]:
    """Utterances in the order in which their rows lie in the segments."""
    index = features_of(place).index
    positions = index.positions(place.rows.keys)
    order: list[int] = np.lexsort((index.first_row[positions], index.segment[positions])).tolist()
    return order


def _disk(direct: bool) -> Callable[[Place], Sequence[Reader]]:
    def open_readers(place: Place) -> Sequence[Reader]:
        row_bytes = place.rows.dim * place.rows.values.itemsize
        segments = features_of(place).segments
        extents = [(chunk_file(segment.path / LAYER, 2), segment.n_rows * row_bytes) for segment in segments]
        return open_sequential(place, extents, direct)

    return open_readers


_MEDUSA = Way("medusa", "medusa, reused buffer", OURS, "store", _open(reused=True))
MEDUSA_WAYS = [
    _MEDUSA,
    replace(_MEDUSA, id="medusa-fresh", name="medusa, fresh arrays", open=_open(reused=False)),
    replace(_MEDUSA, id="medusa-loader", name="medusa loader, to float32", open=per_thread(Loader)),
    replace(_MEDUSA, id="medusa-hdf5", name="medusa, HDF5 segments", layout="store-hdf5"),
    replace(_MEDUSA, id="medusa-int8", name="medusa, int8 to float16", layout="store-int8", expect=_dequantised),
]
_SEQUENTIAL = replace(
    _MEDUSA, id="disk", group=FLOOR, name="", order=file_order, in_blocks=True, open=_disk(False), states=("cold",)
)
DISK_WAYS = [
    replace(_SEQUENTIAL, name="sequential read of our segments"),
    replace(_SEQUENTIAL, id="disk-direct", name="the same, O_DIRECT", open=_disk(True)),
]
