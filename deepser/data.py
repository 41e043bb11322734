"""What a member learns from, read in batches from the store."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepser.targets import Targets
from featurestore.loader import BatchLoader, FeatureRef
from featurestore.store import FeatureStore

Indices = NDArray[np.int64]
Rows = list[tuple[Tensor, Tensor]]  # per feature set: values (L, sum T, D) float32, offsets (B + 1,) int64


@dataclass(frozen=True)
class TrainingData:
    """What a member learns from: a store's feature sets and a corpus's targets, addressed by index into `targets`."""

    store: FeatureStore
    refs: tuple[FeatureRef, ...]
    targets: Targets

    def read(self, batches: Sequence[Indices], stride: int) -> Iterator[tuple[Indices, Rows]]:
        """Each batch's indices and its rows per feature set: values (L, sum T, D) float32, offsets (B + 1,) int64."""
        keys = [[self.targets.keys[i] for i in batch] for batch in batches]
        for batch, packs in zip(batches, BatchLoader(self.store, self.refs, keys, stride=stride), strict=True):
            yield batch, [(torch.from_numpy(p.values), torch.from_numpy(p.offsets)) for p in packs]

    def lengths(self) -> Indices:
        """(N,) rows of each utterance in the first feature set; batches of like length pad less."""
        return self.store[self.refs[0].name].lengths(list(self.targets.keys))
