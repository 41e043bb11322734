"""Each input's mean and deviation per stored layer and dim, from the training clips alone."""

from collections.abc import Sequence

import torch
from torch import Tensor

from deepser.networks.network import Network
from deepser.training import samplers
from deepser.training.data import CPU, Indices, TrainingData
from deepser.training.together import SharedReader, takes

N_STATISTICS_CLIPS = 2000  # enough to know a dim's mean and deviation without reading all of a large corpus
BATCH_SIZE = 4  # clips; several such batches are read ahead


def standardise(
    networks: Sequence[Network], members: Sequence[TrainingData], train_at: Indices, stride: int, reader: SharedReader
) -> None:
    """Give the networks that standardise their inputs the statistics of (a sample of) the training clips.

    networks, and the data that each reads: all are served by one pass over the clips.
    """
    chosen = [(network, data) for network, data in zip(networks, members, strict=True) if network.standardises]
    if not chosen:
        return
    union = reader.union([data for _, data in chosen])
    means, deviations = _statistics(union, train_at, stride)
    for network, data in chosen:
        for i, (place, layers) in enumerate(takes(data, union)):
            taken_layers = slice(None) if layers is None else layers
            network.set_statistics(i, means[place][taken_layers], deviations[place][taken_layers])


def _statistics(data: TrainingData, train_at: Indices, stride: int) -> tuple[list[Tensor], list[Tensor]]:
    """Per feature set: mean and standard deviation, (L, 1, D) float32 each."""
    sample = train_at[samplers.shuffled(len(train_at), seed=0, epoch=0)[:N_STATISTICS_CLIPS]]
    sample.sort()
    n_rows = [0] * len(data.refs)
    sums: list[list[Tensor]] = [[] for _ in data.refs]
    squares: list[list[Tensor]] = [[] for _ in data.refs]
    clips = samplers.batches(sample, BATCH_SIZE)
    with data.open_batches(clips, stride, CPU) as batches:
        for rows in batches:
            for i, (values, _) in enumerate(rows):
                n_rows[i] += values.shape[1]
                # Each layer on its own: the same sums whatever is read beside it.
                of_batch = [of_layer.double() for of_layer in values]
                sums[i] = _plus(sums[i], [of_layer.sum(0, keepdim=True) for of_layer in of_batch])
                squares[i] = _plus(squares[i], [of_layer.square().sum(0, keepdim=True) for of_layer in of_batch])
    means, deviations = [], []
    for n, of_set, squares_of_set in zip(n_rows, sums, squares, strict=True):
        mean = torch.stack(of_set) / max(n, 1)
        variance = (torch.stack(squares_of_set) / max(n, 1) - mean.square()).clamp(min=0)
        means.append(mean.float())
        deviations.append(variance.sqrt().float())
    return means, deviations


def _plus(sums: list[Tensor], added: list[Tensor]) -> list[Tensor]:
    return [a + b for a, b in zip(sums, added, strict=True)] if sums else added
