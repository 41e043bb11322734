"""Batches of rows from several feature sets, aligned by key, read ahead by a background thread."""

import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from queue import Empty, Full, Queue

import numpy as np

from featurestore.errors import StoreError
from featurestore.featureset import FeatureSet
from featurestore.packed import Packed
from featurestore.store import FeatureStore

# Batches whose rows the kernel is told of before they are read: cold reads went from 0.68 to 1.9 GB/s with four.
ANNOUNCED_BATCHES = 4

# What the background thread hands over: a batch, an error to raise, or None at the end.
_Item = list[Packed] | BaseException | None


@dataclass(frozen=True)
class FeatureRef:
    """Which layers of which feature set to read; no layers stands for all that the set has."""

    name: str
    layers: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> "FeatureRef":
        """ "whisper-base@3+4" -> layers layer_03 and layer_04 of whisper-base; "logmel" -> every layer of logmel."""
        name, separator, chosen = text.partition("@")
        layers = tuple(f"layer_{int(part):02d}" if part.isdecimal() else part for part in chosen.split("+"))
        if not name or (separator and not all(layers)) or len(set(layers)) != len(layers):
            raise StoreError(
                f"{text!r} names no features: expected NAME or NAME@LAYER+LAYER, such as whisper-base@3+4."
            )
        return cls(name, layers if separator else ())

    def __str__(self) -> str:
        short = [layer.removeprefix("layer_").lstrip("0") or "0" for layer in self.layers if _is_number(layer)]
        chosen = short if len(short) == len(self.layers) else list(self.layers)
        return f"{self.name}@{'+'.join(chosen)}" if chosen else self.name

    def resolve(self, features: FeatureSet) -> tuple[str, ...]:
        """The layers' array names in `features`; StoreError when one is not there."""
        for layer in self.layers:
            if layer not in features.layers:
                raise StoreError(f"Feature set {self.name!r} has no {layer!r}; it has {', '.join(features.layers)}.")
        return self.layers or features.layers


class BatchLoader:
    """Reads `batches` (sequences of keys) from `store`, one item per batch: a Packed for each of `refs`.

    A Packed's values are (L, sum T', D) float32, its layers in the reference's order, T' = ceil(T / stride) rows per
    utterance (means over `stride` rows). Row counts may differ between sets; utterances and their order are the same.

    The arrays of a batch are reused: they are valid until the next batch is asked for. A background thread reads up to
    `prefetch` batches ahead (0: none, the consumer reads) and announces the next ones to the kernel; what it raises,
    such as a StoreError for a missing key, is raised in the consumer. Iterating again reads `batches` again.
    """

    def __init__(
        self,
        store: FeatureStore,
        refs: Sequence[FeatureRef],
        batches: Iterable[Sequence[str]],
        *,
        stride: int = 1,
        prefetch: int = 4,
    ) -> None:
        if not refs:
            raise StoreError("A loader needs one feature set or more; none was given.")
        if stride < 1 or prefetch < 0:
            raise StoreError(f"stride is {stride}, prefetch {prefetch}: at least 1 and 0 are needed.")
        self.sets = [store[ref.name] for ref in refs]
        self.layers = [ref.resolve(features) for ref, features in zip(refs, self.sets, strict=True)]
        self.batches = batches
        self.stride = stride
        self.prefetch = prefetch

    def __len__(self) -> int:
        """Number of batches, where `batches` knows it."""
        return len(self.batches)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[list[Packed]]:
        if not self.prefetch:
            yield from self._read_all(n_slots=1)
            return
        queue: Queue[_Item] = Queue(self.prefetch)
        stop = threading.Event()
        # One slot for each batch in the queue, one for the consumer's, one for the batch that is being read.
        work = self._read_all(n_slots=self.prefetch + 2)
        thread = threading.Thread(target=_produce, args=(work, queue, stop), name="medusa-loader", daemon=True)
        thread.start()
        try:
            while (item := queue.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            stop.set()
            while thread.is_alive():  # it may be waiting for room in the queue
                try:
                    queue.get_nowait()
                except Empty:
                    thread.join(timeout=0.05)

    def _read_all(self, n_slots: int) -> Iterator[list[Packed]]:
        slots = [[_Buffer() for _ in self.sets] for _ in range(n_slots)]
        for i, keys in enumerate(self._announced()):
            yield [
                self._read(features, layers, keys, buffer)
                for features, layers, buffer in zip(self.sets, self.layers, slots[i % n_slots], strict=True)
            ]

    def _announced(self) -> Iterator[Sequence[str]]:
        """The batches, each announced to the kernel some batches before its turn."""
        coming: deque[Sequence[str]] = deque()
        for keys in self.batches:
            for features, layers in zip(self.sets, self.layers, strict=True):
                for layer in layers:
                    features.announce(keys, layer)
            coming.append(keys)
            if len(coming) > ANNOUNCED_BATCHES:
                yield coming.popleft()
        yield from coming

    def _read(self, features: FeatureSet, layers: Sequence[str], keys: Sequence[str], buffer: "_Buffer") -> Packed:
        from featurestore.kernels import n_pooled, pool_rows

        offsets = np.zeros(len(keys) + 1, dtype=np.int64)
        np.cumsum(n_pooled(features.lengths(keys), self.stride), out=offsets[1:])
        values = buffer.take((len(layers), int(offsets[-1]), features.dim))
        bounds = offsets.tolist()
        for out, layer in zip(values, layers, strict=True):
            # Straight from the map: widened and pooled in one pass, without a copy of the stored rows.
            stored, scales = features.stored_rows(keys, layer)
            for i, rows in enumerate(stored):
                pool_rows(rows, self.stride, out[bounds[i] : bounds[i + 1]], scales and scales[i])
        return Packed(values, offsets)


class _Buffer:
    """Memory that is used again for each batch and grows when one needs more: fresh pages cost half the speed."""

    def __init__(self) -> None:
        self._values = np.empty(0, dtype=np.float32)

    def take(self, shape: tuple[int, ...]) -> np.ndarray:
        size = int(np.prod(shape))
        if size > self._values.size:
            self._values = np.empty(size + size // 4, dtype=np.float32)
        return self._values[:size].reshape(shape)


def _produce(work: Iterator[list[Packed]], queue: "Queue[_Item]", stop: threading.Event) -> None:
    def put(item: _Item) -> bool:
        while not stop.is_set():
            try:
                queue.put(item, timeout=0.1)
            except Full:
                continue
            return True
        return False

    try:
        for item in work:
            if not put(item):
                return
        put(None)
    except BaseException as error:
        put(error)


def _is_number(layer: str) -> bool:
    return layer.startswith("layer_") and layer.removeprefix("layer_").isdecimal()
