"""The store for PyTorch: `BatchLoader`'s batches as tensors on a device, and a dataset for torch's own DataLoader."""

import os
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from featurestore.errors import StoreError
from featurestore.loaders.batch_loader import BatchLoader, FeatureRef, row_readers
from featurestore.loaders.row_reader import Buffer
from featurestore.loaders.shared_memory import N_KEPT, SharedMemory
from featurestore.rows.aligned import ALIGNMENT, address_of
from featurestore.rows.packed import Packed
from featurestore.store.feature_store import FeatureStore

# Per feature set: values (L, sum T, D) and offsets (B + 1,) int64.
Tensors = list[tuple[Tensor, Tensor]]


class TensorLoader:
    """A BatchLoader's batches as tensors on `device`: per feature set (values (L, sum T, D), offsets (B + 1,) int64).

    On the CPU they share the loader's buffers and are valid until the next batch is asked for. On a CUDA device the
    loader's threads read into pinned memory, the next batch is copied while the consumer computes with this one, and
    the tensors are the consumer's own; give the loader dtype="float16" to copy half the bytes.
    """

    def __init__(self, loader: BatchLoader, device: torch.device | str = "cpu", *, host_offsets: bool = False) -> None:
        """host_offsets: leave offsets on the host, whose code then knows all lengths without waiting for the device."""
        self.loader = loader
        self.device = torch.device(device)
        self.host_offsets = host_offsets

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Generator[Tensors, None, None]:
        if self.device.type == "cpu":
            return self.loader.read_as(_tensors)
        if self.device.type == "cuda":
            stream = torch.cuda.Stream(self.device)
            copy = partial(CudaCopy, device=self.device, stream=stream, host_offsets=self.host_offsets)
            return copied_ahead(self.loader.read(pinned_memory), copy)
        return self._copied()

    def _copied(self) -> Generator[Tensors, None, None]:
        with closing(self.loader.read_as(_tensors)) as batches:
            for batch in batches:
                yield [(v.to(self.device), o.clone() if self.host_offsets else o.to(self.device)) for v, o in batch]


class Copy(Protocol):
    """A copy of a batch to a device, under way since it was made."""

    def wait(self) -> None:
        """Until it is finished: from then on the batch's arrays may be written again."""

    def take(self) -> Tensors:
        """Return the copy, to be used by the work that the caller queues from now on; doesn't wait."""


class CudaCopy:
    """From pinned memory, on a stream of its own, so that it runs beside the work on the consumer's stream."""

    def __init__(
        self, batch: list[Packed], device: torch.device, stream: torch.cuda.Stream, host_offsets: bool = False
    ) -> None:
        self._device = device
        self._done = torch.cuda.Event(blocking=True)  # sleeps while it waits: the cores are for the reading threads
        with torch.cuda.stream(stream):
            self._tensors = [
                (v.to(device, non_blocking=True), o.clone() if host_offsets else o.to(device, non_blocking=True))
                for v, o in _tensors(batch)
            ]
            self._done.record(stream)

    def wait(self) -> None:
        self._done.synchronize()

    def take(self) -> Tensors:
        consumer = torch.cuda.current_stream(self._device)
        consumer.wait_event(self._done)
        for values, offsets in self._tensors:
            # They belong to the copying stream: without this their memory could be given to its next copy while the
            # consumer's queued work still reads them.
            values.record_stream(consumer)
            if offsets.device.type == "cuda":
                offsets.record_stream(consumer)
        return self._tensors


def copied_ahead(
    batches: Generator[list[Packed], None, None], copy: Callable[[list[Packed]], Copy]
) -> Generator[Tensors, None, None]:
    """Each batch's copy, handed over once the copying of the next one has begun.

    A batch's arrays are let go (by asking for the next one) when their copy is finished, not before.
    """
    ready: Copy | None = None
    under_way: Copy | None = None
    try:
        for batch in batches:
            under_way = copy(batch)
            if ready is not None:
                yield ready.take()
            under_way.wait()
            ready, under_way = under_way, None
        if ready is not None:
            yield ready.take()
    finally:
        if under_way is not None:
            under_way.wait()
        batches.close()


def pinned_memory(n: int, dtype: str) -> np.ndarray:
    """Return an array in page-locked memory, from which a GPU copies by itself; it begins at a multiple of 64 bytes."""
    spare = ALIGNMENT // np.dtype(dtype).itemsize
    memory = torch.empty(n + spare, dtype=getattr(torch, dtype), pin_memory=True).numpy()
    start = -address_of(memory) % ALIGNMENT // memory.itemsize
    return memory[start : start + n]


class Utterances(Sequence[dict[str, Any]]):
    """Utterances as `FeatureDataset` returns them; the rows of each feature set lie in one array, in `packs`.

    shared: the memory that these lie in, in a DataLoader's worker.
    """

    def __init__(self, keys: list[str], packs: dict[str, Packed], shared: SharedMemory | None = None) -> None:
        self.keys = keys
        self.packs = packs
        self.shared = shared

    def tensors(self) -> Tensors:
        """Return values and offsets of each feature set, without a copy."""
        if self.shared is None:
            return _tensors(list(self.packs.values()))
        return [(self.shared.tensor(pack.values), self.shared.tensor(pack.offsets)) for pack in self.packs.values()]

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return [self[j] for j in range(len(self))[i]]
        return {"key": self.keys[i], **{name: torch.from_numpy(pack[i]) for name, pack in self.packs.items()}}


class FeatureDataset(Dataset[dict[str, Any]]):
    """Utterances of a store, by index or by key: {"key": the key, "wavlm@6+12": its rows (L, T', D), ...}.

    Each of `refs` is an entry under its own name. keys: which utterances, in which order; by default those of the first
    feature set. StoreError when another lacks some. stride, dtype: as for BatchLoader.

    For torch.utils.data.DataLoader, with `collate` or `pad_batch` as its collate_fn: a batch is gathered at once.
    Worker processes get the dataset by fork, or by path (spawn, forkserver). `BatchLoader` needs no processes and no
    copies between them; this is for training loops that are built around a DataLoader.
    """

    def __init__(
        self,
        store: FeatureStore,
        refs: Sequence[FeatureRef],
        keys: Sequence[str] | None = None,
        *,
        stride: int = 1,
        dtype: str = "float32",
    ) -> None:
        self.readers = dict(zip(map(str, refs), row_readers(store, refs, stride, dtype), strict=True))
        if len(self.readers) < len(refs) or "key" in self.readers:
            raise StoreError(f"Feature sets are distinguished by name: {', '.join(map(str, refs))} has one twice.")
        self._shared: tuple[int, SharedMemory] | None = None  # of a worker, by its process
        self.keys = list(next(iter(self.readers.values())).features if keys is None else keys)
        for reader in self.readers.values():
            reader.features.lengths(self.keys)  # names what is missing

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int | str) -> dict[str, Any]:
        batch: dict[str, Any] = self.__getitems__([index])[0]
        return batch

    def __getitems__(self, indices: Sequence[int | str]) -> Utterances:
        """Several utterances with one gather per feature set and layer; DataLoader asks for batches this way."""
        keys = [i if isinstance(i, str) else self.keys[i] for i in indices]
        shared = None if get_worker_info() is None else self._shared_memory()
        packs = {name: reader.read(keys, shared or Buffer()) for name, reader in self.readers.items()}
        return Utterances(keys, packs, shared)

    def _shared_memory(self) -> SharedMemory:
        """Return the memory of the worker process that this is."""
        if self._shared is None or self._shared[0] != os.getpid():
            self._shared = os.getpid(), SharedMemory(N_KEPT * len(self.readers))
        return self._shared[1]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_shared": None}


def collate(batch: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Utterances as {"keys": [...], name: (values (L, sum T, D), offsets (B + 1,) int64), ...}, one after the other."""
    if isinstance(batch, Utterances):
        return {"keys": batch.keys, **dict(zip(batch.packs, batch.tensors(), strict=True))}
    keys, packs = _packed(batch)
    return {"keys": keys, **dict(zip(packs, _tensors(list(packs.values())), strict=True))}


def pad_batch(batch: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Utterances as {"keys": [...], name: (padded (L, B, max T, D) float32, lengths (B,) int64), ...}, zeros behind."""
    keys, packs = _packed(batch)
    padded = {name: pack.pad() for name, pack in packs.items()}
    return {"keys": keys, **{name: (torch.from_numpy(v), torch.from_numpy(n)) for name, (v, n) in padded.items()}}


def _packed(batch: Sequence[dict[str, Any]]) -> tuple[list[str], dict[str, Packed]]:
    if isinstance(batch, Utterances):
        return batch.keys, batch.packs
    packs = {}
    for name in (name for name in batch[0] if name != "key"):
        rows = [np.asarray(utterance[name]) for utterance in batch]
        offsets = np.cumsum([0, *(part.shape[1] for part in rows)], dtype=np.int64)
        packs[name] = Packed(np.concatenate(rows, axis=1), offsets)
    return [utterance["key"] for utterance in batch], packs


def _tensors(batch: Sequence[Packed]) -> Tensors:
    return [(torch.from_numpy(pack.values), torch.from_numpy(pack.offsets)) for pack in batch]
