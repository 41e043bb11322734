"""What a member learns from, read in batches from the store."""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepser.training.targets import Targets
from deepser.training.views import ClipReader, Views, is_audio, view_name
from featurestore.loaders.batch_loader import BatchLoader, FeatureRef
from featurestore.loaders.torch import TensorLoader
from featurestore.store.feature_store import FeatureStore

Indices = NDArray[np.int64]
Rows = list[tuple[Tensor, Tensor]]  # per feature set: values (L, sum T, D) float32, offsets (B + 1,) int64

CPU = torch.device("cpu")


@dataclass(frozen=True)
class TrainingData:
    """What a member learns from: a store's feature sets and a corpus's targets, addressed by index into `targets`.

    With views, an index of N and more is an utterance in a view: see `Views`.
    """

    store: FeatureStore
    refs: tuple[FeatureRef, ...]
    targets: Targets
    views: Views = field(default_factory=Views)
    _loaders: dict[tuple[int, str], BatchLoader] = field(default_factory=dict, init=False, repr=False, compare=False)
    _lengths: dict[str, Indices] = field(default_factory=dict, init=False, repr=False, compare=False)

    @contextmanager
    def open_batches(
        self, batches: Sequence[Indices], stride: int, device: torch.device = CPU
    ) -> Iterator[Iterator[Rows]]:
        """Read batches ahead while the block lasts: an iterator of each one's rows per feature set, on `device`.

        Rows are valid until the next batch is asked for. Values are float32 (L, sum T, D), copied to another device as
        float16 where that loses nothing; offsets int64. Clips in views come sorted by view (`views.by_view`).
        """
        loader = self._loader(stride, self._dtype(stride, device))
        if self.views.labels:
            loader = loader.over([batch.tolist() for batch in batches])
        else:
            loader = loader.over([[self.targets.keys[i] for i in batch] for batch in batches])
        with closing(iter(TensorLoader(loader, device))) as read:
            yield ([(values.float(), offsets) for values, offsets in rows] for rows in read)

    def _loader(self, stride: int, dtype: str) -> BatchLoader:
        """Kept from epoch to epoch: opening a set anew would check its rows again and touch fresh memory."""
        if (stride, dtype) not in self._loaders:
            loader = BatchLoader(self.store, self.refs, [], stride=stride, dtype=dtype)
            if self.views.labels:
                keys = self.targets.keys
                loader = loader.through(
                    [ClipReader.of(self.store, ref, keys, self.views, stride, dtype) for ref in self.refs]
                )
            self._loaders[stride, dtype] = loader
        return self._loaders[stride, dtype]

    def _dtype(self, stride: int, device: torch.device) -> str:
        if device.type == "cpu" or stride > 1:
            return "float32"
        names = [ref.name for ref in self.refs]
        names += [view_name(n, label) for n in names if is_audio(self.store, n) for label in self.views.labels]
        return "float16" if all(self.store[name].spec.dtype == "float16" for name in names) else "float32"

    def lengths(self, name: str = "") -> Indices:
        """(N,) rows of each utterance, and behind them of each clip in a view, in a feature set, by default the first.

        Batches of like length pad less.
        """
        name = name or self.refs[0].name
        if name not in self._lengths:
            self._lengths[name] = self.views.lengths(self.store, name, self.targets.keys)
        return self._lengths[name]
