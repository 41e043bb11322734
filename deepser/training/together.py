"""Members that share one stream of batches: what they must agree in, and reading for all of them at once."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from deepser.config import MemberConfig, TrainConfig
from deepser.training.data import Indices, Rows, TrainingData
from featurestore.loaders.batch_loader import FeatureRef

Take = tuple[int, list[int] | None]  # of a member's feature set: which of the union's, and which layers (None: all)


def sharing(configs: Sequence[MemberConfig]) -> list[MemberConfig]:
    """Return the same members, all drawing their clips by the seed of the first one and cutting batches by its lengths.

    Weights, dropout, MixUp and dropped votes stay each member's own. What the members share is written into their
    configs (train.order_seed, train.bucket_by), so that each one trained alone gives the same weights on a CPU.
    """
    first = configs[0]
    order, lengths = first.train.stream_seed, first.train.bucket_by or _first_set(first)
    shared = []
    for config in configs:
        train = config.train
        if train.stream_seed != order:
            train = replace(train, order_seed=order)
        if (train.bucket_by or _first_set(config)) != lengths:
            train = replace(train, bucket_by=lengths)
        shared.append(replace(config, train=train))
    return shared


def _first_set(config: MemberConfig) -> str:
    return FeatureRef.parse(config.features[0]).name


def stream_key(data: TrainingData, train_at: Indices, dev_at: Indices, config: TrainConfig) -> Any:
    """Return the settings that members must share to share batches; hashable."""
    draws = tuple((stage.sampler, stage.samples_per_epoch) for stage in config.stages)
    cut = (config.batch_size, config.accumulate, config.stride, config.no_consensus_share)
    views = (data.views.identity, config.view_share if data.views.labels else 0.0)
    return (
        config.stream_seed, draws, cut, config.bucket_by or data.refs[0].name, train_at.tobytes(), dev_at.tobytes(),
        views, _normalised(data),
    )  # fmt: skip


def bucket_lengths(data: TrainingData, config: TrainConfig) -> Indices:
    """Return (N,) rows of each utterance in the feature set by whose lengths batches are cut."""
    return data.lengths(config.bucket_by)


@dataclass(frozen=True)
class SharedReader:
    """Reads for several members at once: each feature set one time, in the layers that any of them takes."""

    _unions: dict[tuple[tuple[FeatureRef, ...], str], TrainingData] = field(default_factory=dict)

    @contextmanager
    def open_batches(
        self, members: Sequence[TrainingData], batches: Sequence[Indices], stride: int, device: torch.device
    ) -> Iterator[Iterator[list[Rows]]]:
        """Yield each batch's rows for every member, bit for bit those of its own `TrainingData.open_batches`."""
        union = self.union(members)
        choices = [takes(data, union) for data in members]
        with union.open_batches(batches, stride, device) as read:
            yield ([take_layers(rows, own) for own in choices] for rows in read)

    def union(self, members: Sequence[TrainingData]) -> TrainingData:
        """Return the union of the members' feature sets, each once.

        Kept, so that its buffers and checked rows are used again.

        They are normalised alike.
        """
        layers: dict[str, list[str]] = {}
        for ref in (ref for data in members for ref in data.refs):
            set_layers = layers.setdefault(ref.name, [])
            set_layers.extend(layer for layer in ref.layers if layer not in set_layers)
        refs = tuple(FeatureRef(name, tuple(of_set)) for name, of_set in layers.items())
        if refs == members[0].refs:
            return members[0]
        union = (refs, _normalised(members[0]))
        if union not in self._unions:
            self._unions[union] = replace(members[0], refs=refs)
        return self._unions[union]


def _normalised(data: TrainingData) -> str:
    return "" if data.normalisation is None else data.normalisation.identity


def takes(data: TrainingData, union: TrainingData) -> list[Take]:
    """Where each of a member's feature sets is in the union."""
    places = {ref.name: i for i, ref in enumerate(union.refs)}
    takes: list[Take] = []
    for ref in data.refs:
        union_layers = union.refs[places[ref.name]].layers
        takes.append(
            (
                places[ref.name],
                None if ref.layers == union_layers else [union_layers.index(name) for name in ref.layers],
            )
        )
    return takes


def take_layers(rows: Rows, chosen: Sequence[Take]) -> Rows:
    """Return a member's rows out of those of the union."""
    return [(_layers(rows[place][0], layers), rows[place][1]) for place, layers in chosen]


def _layers(values: torch.Tensor, layers: list[int] | None) -> torch.Tensor:
    if layers is None:
        return values
    if len(layers) == 1:
        return values[layers[0] : layers[0] + 1]
    return torch.cat(
        [values[layer : layer + 1] for layer in layers]
    )  # a list would be copied to the device as an index
