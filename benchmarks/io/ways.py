"""What a way of keeping and reading rows is, and the plainest ones: memcpy, and a bare memory map of packed rows."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from featurestore.rows.aligned import aligned_empty

from .rows import Batch, Rows

FLOOR, BARE, PEER, OURS = "floor", "bare", "peer", "ours"


class Reader(Protocol):
    """Reads batches for one thread."""

    def read(self, batches: Sequence[Batch]) -> Iterator[np.ndarray]:
        """Return the rows of each batch, (sum T, D), utterance after utterance; valid until the next are asked for."""

    def close(self) -> None: ...


@dataclass(frozen=True)
class Place:
    """What readers are opened with. directory: where their files lie. batch: utterances per batch at most."""

    directory: Path
    rows: Rows
    batch: int
    n_threads: int = 1
    cold: bool = False

    def buffer(self) -> np.ndarray:
        """Room for the largest batch, aligned, its pages touched, so that no timed read is their first use."""
        out = aligned_empty((self.rows.largest_batch(self.batch), self.rows.dim), self.rows.values.dtype)
        out[:] = 0
        return out

    def part(self, data: Any) -> np.ndarray:
        """One utterance's bytes as rows."""
        return np.frombuffer(data, self.rows.values.dtype).reshape(-1, self.rows.dim)


@dataclass(frozen=True)
class Way:
    """One way to read rows. layout: whose files it reads (a name of `run.LAYOUTS`); "" for none.

    open: one reader per thread. needs: the module that it takes. order: the utterances in the order in which it can
    read them, where it can't read at random. threads: whether several may read. expect: what it should return for each
    utterance where that isn't the rows as written. in_blocks: it yields runs of bytes rather than batches. states:
    where it is measured.
    """

    id: str
    name: str
    group: str
    layout: str
    open: Callable[[Place], Sequence[Reader]]
    needs: str = ""
    order: Callable[[Place], list[int]] | None = None
    threads: bool = True
    expect: Callable[[Place], Callable[[int], np.ndarray]] | None = None
    in_blocks: bool = False
    states: tuple[str, ...] = ("warm", "cold")

    @property
    def installed(self) -> bool:
        return not self.needs or find_spec(self.needs) is not None


def per_thread(one: Callable[[Place], Reader]) -> Callable[[Place], list[Reader]]:
    """Return a function that opens `one` for each thread."""
    return lambda place: [one(place) for _ in range(place.n_threads)]


def in_number_order(place: Place) -> list[int]:
    return list(range(len(place.rows)))


def nothing() -> None:
    pass


def fill(out: np.ndarray, parts: Iterable[np.ndarray]) -> np.ndarray:
    """Copy the parts one after the other into `out`, and return its filled rows."""
    first = 0
    for part in parts:
        out[first : first + len(part)] = part
        first += len(part)
    return out[:first]


@dataclass
class Filled:
    """Copies the utterances of a batch into the same buffer each time. parts: their rows, as the library gives them."""

    out: np.ndarray
    parts: Callable[[Batch], Iterable[np.ndarray]]
    close: Callable[[], None] = nothing

    def read(self, batches: Sequence[Batch]) -> Iterator[np.ndarray]:
        for batch in batches:
            yield fill(self.out, self.parts(batch))


@dataclass
class Concatenated:
    """Concatenates the utterances of a batch into a new array."""

    parts: Callable[[Batch], Sequence[np.ndarray]]
    close: Callable[[], None] = nothing

    def read(self, batches: Sequence[Batch]) -> Iterator[np.ndarray]:
        for batch in batches:
            yield np.concatenate(self.parts(batch))


class Memcpy:
    """As many bytes, from one contiguous run of memory, into the same buffer each time; one numpy copy per batch."""

    def __init__(self, place: Place) -> None:
        self.rows, self.out = place.rows, place.buffer()

    def read(self, batches: Sequence[Batch]) -> Iterator[np.ndarray]:
        for batch in batches:
            first = self.rows.offsets[batch.numbers[0]]
            out = self.out[: batch.n_rows]
            np.copyto(out, self.rows.values[first : first + batch.n_rows])
            yield out

    def close(self) -> None:
        pass


def write_packed(directory: Path, rows: Rows) -> None:
    rows.values.tofile(directory / "packed.bin")


def _mapped_parts(place: Place) -> Callable[[Batch], list[np.ndarray]]:
    # A plain array over the map: slicing np.memmap itself costs several microseconds.
    shape = place.rows.values.shape
    values = np.asarray(np.memmap(place.directory / "packed.bin", place.rows.values.dtype, "r", shape=shape))
    offsets = place.rows.offsets.tolist()
    return lambda batch: [values[offsets[i] : offsets[i + 1]] for i in batch.numbers]


MEMCPY = Way("memcpy", "memcpy, reused buffer", FLOOR, "", per_thread(Memcpy), order=in_number_order, states=("warm",))
_PACKED = Way("memmap", "bare np.memmap, reused buffer", BARE, "packed", lambda _: [])
PACKED_WAYS = [
    replace(_PACKED, open=per_thread(lambda place: Filled(place.buffer(), _mapped_parts(place)))),
    replace(
        _PACKED,
        id="memmap-fresh",
        name="bare np.memmap, fresh arrays",
        open=per_thread(lambda place: Concatenated(_mapped_parts(place))),
    ),
]
