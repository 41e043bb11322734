"""What a member learns from, read in batches from the store."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepser.training.normalise import TOO_LARGE, Normalisation
from deepser.training.targets import Targets
from deepser.training.views import ClipReader, Views, is_audio, view_name
from featurestore.errors import ConfigError
from featurestore.loaders.batch_loader import BatchLoader, FeatureRef
from featurestore.loaders.torch import TensorLoader
from featurestore.runtime.transfer import is_queued, to_host
from featurestore.store.feature_store import FeatureStore

Indices = NDArray[np.int64]
Rows = list[tuple[Tensor, Tensor]]  # per feature set: values (L, sum T, D) float32, offsets (B + 1,) int64 on the host

CPU = torch.device("cpu")
SCANNED_BYTES = 1 << 30  # of rows that `scan` reads: a second or two
SCANNED_AT_ONCE_BYTES = 16 << 20  # of rows, on average: pooled rows in batches of few clips would take half a minute


@dataclass(frozen=True)
class TrainingData:
    """What a member learns from: a store's feature sets and a corpus's targets, addressed by index into `targets`.

    With views, an index of N and more is an utterance in a view: see `Views`. normalisation: how rows are normalised on
    reading, its statistics prepared for `refs`; None: they are read as they are stored.
    """

    store: FeatureStore
    refs: tuple[FeatureRef, ...]
    targets: Targets
    views: Views = field(default_factory=Views)
    normalisation: Normalisation | None = None
    _loaders: dict[tuple[int, str], BatchLoader] = field(default_factory=dict, init=False, repr=False, compare=False)
    _lengths: dict[str, Indices] = field(default_factory=dict, init=False, repr=False, compare=False)
    _sound: set[int] = field(default_factory=set, init=False, repr=False, compare=False)  # clips that were checked

    @contextmanager
    def open_batches(
        self, batches: Sequence[Indices], stride: int, device: torch.device = CPU
    ) -> Iterator[Iterator[Rows]]:
        """Read batches ahead while the block lasts: an iterator of each one's rows per feature set, on `device`.

        Rows are valid until the next batch is asked for. Values are float32 (L, sum T, D), copied to another device as
        float16 where that loses nothing; offsets int64. Clips in views come sorted by view (`views.by_view`).
        ConfigError names a clip whose rows hold NaN, infinity or values of TOO_LARGE and more, when it is first read.
        """
        loader = self._loader(stride, self._dtype(stride, device))
        loader = loader.over([batch.tolist() for batch in batches])
        with closing(iter(TensorLoader(loader, device, host_offsets=True))) as read:
            rows = self._checked(batches, ([(values.float(), offsets) for values, offsets in rows] for rows in read))
            normalise = self.normalisation
            if normalise is None:
                yield rows
            else:
                yield (normalise.apply(self.refs, clips, own) for clips, own in zip(batches, rows, strict=True))

    def _checked(self, batches: Sequence[Indices], read: Iterator[Rows]) -> Iterator[Rows]:
        for number, (clips, rows) in enumerate(zip(batches, read, strict=True), start=1):
            new = set(clips.tolist()) - self._sound
            if not new:
                yield rows
                continue
            limits = _limits_of(rows)
            # A queued device is asked once it has the step to compute as well, so that it need not stand still.
            late = is_queued(rows[0][0].device) and number < len(batches)
            if late:
                yield rows
            self._check_values(clips, rows, limits)
            self._sound.update(new)
            if not late:
                yield rows

    def _check_values(self, clips: Indices, rows: Rows, limits: Callable[[], NDArray[np.float32]]) -> None:
        """Raise ConfigError where the lowest and highest value of a set (n_sets, 2) show that one is unsound."""
        for i, (low, high) in enumerate(limits().tolist()):
            if not (low > -TOO_LARGE and high < TOO_LARGE):  # also for NaN
                self._refuse(clips, i, *rows[i])

    def _refuse(self, clips: Indices, i: int, values: Tensor, offsets: Tensor) -> None:
        """Raise ConfigError that names clip and feature set of a value that float32 can't square, or no number."""
        worst = values.abs().amax(dim=(0, 2)).nan_to_num(nan=math.inf, posinf=math.inf).cpu()
        row = int(worst.argmax())
        place = int(torch.searchsorted(offsets, row, right=True)) - 1
        view, clip = divmod(int(clips[place]), len(self.targets.keys))
        name = self.refs[i].name
        if view and is_audio(self.store, name):
            name = view_name(name, self.views.labels[view - 1])
        problem = "no number" if math.isinf(float(worst[row])) else f"a value of {float(worst[row]):.6g}"
        raise ConfigError(
            f"Feature set {name!r} holds {problem} for {self.targets.keys[clip]!r}, row {row - int(offsets[place])}: "
            f"NaN, infinity and values beyond {TOO_LARGE:g} spoil a training. Encode this utterance again (medusa "
            f"featurize --again {self.targets.keys[clip]}), import it anew, or leave it out of the manifest."
        )

    def scan(self, stride: int) -> None:
        """Read every utterance once, so that one whose values spoil a training is named before it begins.

        Nothing is read where the rows are more than SCANNED_BYTES: then `open_batches` names it when it is first read.
        """
        n_clips = len(self.targets.keys)
        everyone = np.arange(n_clips)
        readers = self._loader(stride, self._dtype(stride, CPU)).readers
        n_bytes = sum(reader.n_bytes(everyone.tolist()) for reader in readers)
        if n_bytes <= SCANNED_BYTES:
            n_at_once = max(1, SCANNED_AT_ONCE_BYTES * n_clips // max(n_bytes, 1))
            batches = [everyone[start : start + n_at_once] for start in range(0, n_clips, n_at_once)]
            with self.open_batches(batches, stride) as read:
                for _ in read:
                    pass

    def _loader(self, stride: int, dtype: str) -> BatchLoader:
        """Kept from epoch to epoch: opening a set anew would check its rows again and touch fresh memory."""
        if (stride, dtype) not in self._loaders:
            keys = self.targets.keys
            loader = BatchLoader(self.store, self.refs, [], stride=stride, dtype=dtype, keys=keys)
            if self.views.labels:
                loader = loader.through(ClipReader.of_refs(self.store, self.refs, keys, self.views, stride, dtype))
            self._loaders[stride, dtype] = loader
        return self._loaders[stride, dtype]

    def _dtype(self, stride: int, device: torch.device) -> str:
        if device.type == "cpu" or stride > 1:
            return "float32"
        names = [ref.name for ref in self.refs]
        names += [view_name(n, label) for n in names if is_audio(self.store, n) for label in self.views.labels]
        return "float16" if all(self.store[name].spec.dtype == "float16" for name in names) else "float32"

    def lengths(self, name: str = "") -> Indices:
        """Return the rows (N,) of each utterance in a feature set, by default the first, then of each clip in a view.

        Batches of like length pad less.
        """
        name = name or self.refs[0].name
        if name not in self._lengths:
            self._lengths[name] = self.views.lengths(self.store, name, self.targets.keys)
        return self._lengths[name]


def _limits_of(rows: Rows) -> Callable[[], NDArray[np.float32]]:
    """Start to look for each set's lowest and highest value; the function waits for them, (n_sets, 2)."""
    return to_host(torch.stack([_limits(values) for values, _ in rows]))


def _limits(values: Tensor) -> Tensor:
    """Return the lowest and the highest value (2,), NaN where one is; zeros where there is none."""
    return torch.stack(values.aminmax()) if values.numel() else values.new_zeros(2)
