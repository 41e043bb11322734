"""What is read: utterances of random rows, the same for every way of keeping them, and the batches asked for."""

from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np

from featurestore.errors import ConfigError
from featurestore.rows.aligned import aligned_empty

FRAME_RATE_HZ = 50.0


@dataclass(frozen=True)
class Shape:
    """Utterances of `mean_s` on average, at 50 rows of `dim` float16 values per second."""

    n_utterances: int
    dim: int
    mean_s: float


@dataclass(frozen=True)
class IoSettings:
    """What is measured. n_utterances: of the widest and longest shape; the others have as many bytes.

    dims, mean_s, threads: every combination is measured. cold: also from disk. write: also writing. readers: ids of the
    ways to measure (see `run.WAYS`); none stands for all.
    """

    n_utterances: int = 600
    dims: tuple[int, ...] = (1024,)
    mean_s: tuple[float, ...] = (5.5,)
    threads: tuple[int, ...] = (1,)
    batch: int = 32
    repeats: int = 5
    seed: int = 0
    cold: bool = False
    write: bool = False
    readers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in ("seed", "cold", "write", "readers"):
                continue
            values = value if isinstance(value, tuple) else (value,)
            if not values or not all(number > 0 for number in values):
                listed = ",".join(str(number) for number in values)
                raise ConfigError(f"bench io: {field.name} is {listed}; it must be more than 0.")

    @property
    def shapes(self) -> list[Shape]:
        """Every combination of dims and mean durations; the same bytes in each."""
        largest = max(self.dims) * max(self.mean_s)
        return [
            Shape(max(1, round(self.n_utterances * largest / (dim * mean_s))), dim, mean_s)
            for dim in self.dims
            for mean_s in self.mean_s
        ]


@dataclass(frozen=True)
class Rows:
    """The rows of all utterances, packed: utterance i has rows offsets[i]:offsets[i + 1] of the values (sum T, D)."""

    values: np.ndarray
    offsets: np.ndarray

    @classmethod
    def random(cls, shape: Shape, seed: int) -> "Rows":
        """Durations as in podcast speech (a gamma distribution, half a second at least), values in [0, 1)."""
        rng = np.random.default_rng(seed)
        durations_s = np.maximum(rng.gamma(2.5, shape.mean_s / 2.5, shape.n_utterances), 0.5)
        offsets = np.concatenate([[0], np.cumsum(np.ceil(durations_s * FRAME_RATE_HZ).astype(np.int64))])
        # Every bit pattern below that of 1.0 is a float16 in [0, 1); a normal distribution takes ten times as long.
        bits = aligned_empty((int(offsets[-1]), shape.dim), "uint16")
        bits[:] = rng.integers(0, 0x3C00, bits.shape, dtype=np.uint16)
        return cls(bits.view(np.float16), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def dim(self) -> int:
        return int(self.values.shape[1])

    @cached_property
    def keys(self) -> list[str]:
        """Each utterance's name, as a corpus has them."""
        return [f"MSP-PODCAST_{number // 100:04d}_{number:06d}" for number in range(len(self))]

    def of(self, i: int) -> np.ndarray:
        return self.values[self.offsets[i] : self.offsets[i + 1]]

    def largest_batch(self, n: int) -> int:
        """Rows that any `n` utterances have at most."""
        return int(np.sort(np.diff(self.offsets))[-n:].sum())

    def batches(self, order: list[int], n: int) -> list["Batch"]:
        """Return the utterances in this order, `n` to a batch."""
        n_rows = np.diff(self.offsets)
        chosen = [order[i : i + n] for i in range(0, len(order), n)]
        return [Batch(numbers, [self.keys[i] for i in numbers], int(n_rows[numbers].sum())) for numbers in chosen]

    def random_batches(self, n: int, seed: int, repeat: int) -> list["Batch"]:
        """Every utterance once, in random batches; the same for each reader of a repeat."""
        return self.batches(np.random.default_rng((seed, repeat)).permutation(len(self)).tolist(), n)


@dataclass(frozen=True)
class Batch:
    """What to read: utterances by number, and the same by key."""

    numbers: list[int]
    keys: list[str]
    n_rows: int
