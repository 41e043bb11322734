"""Each input's mean and deviation per stored layer and dim, from the training clips alone."""

from typing import Any

import numpy as np

from deepser import samplers
from deepser.config import TrainConfig
from deepser.data import Indices, TrainingData
from deepser.networks.network import Network

N_STATISTICS_CLIPS = 2000  # enough to know a dim's mean and deviation without reading all of a large corpus
BATCH_SIZE = 64


def standardise(network: Network, data: TrainingData, train_at: Indices, config: TrainConfig) -> None:
    """Give a network that standardises its inputs the statistics of (a sample of) the training clips."""
    if not network.standardises:
        return
    sample = np.sort(train_at[samplers.shuffled(len(train_at), seed=0, epoch=0)[:N_STATISTICS_CLIPS]])
    n_rows = [0] * len(data.refs)
    sums: list[Any] = [0.0] * len(data.refs)
    squares: list[Any] = [0.0] * len(data.refs)
    for _, rows in data.read(samplers.batches(sample, BATCH_SIZE), config.stride):
        for i, (values, _) in enumerate(rows):
            values = values.double()
            n_rows[i] += values.shape[1]
            sums[i] = sums[i] + values.sum(1, keepdim=True)
            squares[i] = squares[i] + values.square().sum(1, keepdim=True)
    for i in range(len(data.refs)):
        mean = sums[i] / max(n_rows[i], 1)
        variance = (squares[i] / max(n_rows[i], 1) - mean.square()).clamp(min=0)
        network.set_statistics(i, mean.float(), variance.sqrt().float())
