"""What a member learns from, read in batches from the store."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepser.targets import Targets
from featurestore.loader import BatchLoader, FeatureRef
from featurestore.store import FeatureStore
from featurestore.torch_loader import TensorLoader

Indices = NDArray[np.int64]
Rows = list[tuple[Tensor, Tensor]]  # per feature set: values (L, sum T, D) float32, offsets (B + 1,) int64

CPU = torch.device("cpu")


@dataclass(frozen=True)
class TrainingData:
    """What a member learns from: a store's feature sets and a corpus's targets, addressed by index into `targets`."""

    store: FeatureStore
    refs: tuple[FeatureRef, ...]
    targets: Targets
    _loaders: dict[tuple[int, str], BatchLoader] = field(default_factory=dict, init=False, repr=False, compare=False)

    def read(
        self, batches: Sequence[Indices], stride: int, device: torch.device = CPU
    ) -> Generator[tuple[Indices, Rows], None, None]:
        """Each batch's indices and its rows per feature set on `device`, valid until the next batch is asked for.

        Values are float32 (L, sum T, D), copied to another device as float16 where that loses nothing; offsets int64.
        """
        keys = [[self.targets.keys[i] for i in batch] for batch in batches]
        loader = self._loader(stride, self._dtype(stride, device)).over(keys)
        for batch, rows in zip(batches, TensorLoader(loader, device), strict=True):
            yield batch, [(values.float(), offsets) for values, offsets in rows]

    def _loader(self, stride: int, dtype: str) -> BatchLoader:
        """Kept from epoch to epoch: opening a set anew would check its rows again and touch fresh memory."""
        if (stride, dtype) not in self._loaders:
            self._loaders[stride, dtype] = BatchLoader(self.store, self.refs, [], stride=stride, dtype=dtype)
        return self._loaders[stride, dtype]

    def _dtype(self, stride: int, device: torch.device) -> str:
        if device.type == "cpu" or stride > 1:
            return "float32"
        return "float16" if all(self.store[ref.name].spec.dtype == "float16" for ref in self.refs) else "float32"

    def lengths(self) -> Indices:
        """(N,) rows of each utterance in the first feature set; batches of like length pad less."""
        return self.store[self.refs[0].name].lengths(list(self.targets.keys))
