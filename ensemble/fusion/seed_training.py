"""Training the seeds of a meta-classifier at once: their steps are stacked, each seed has its own balanced subsets.

Everything that isn't the network is here: rows, loss, AdamW, rounds, held-out scores, early stopping.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from deepser.scores.counts import MIN_PAIRS, macro_f1
from deepser.training.samplers import balanced_subsets, shuffled
from ensemble.fusion.config import MetaConfig
from featurestore.corpus.splits import balanced_sets


class Network(Protocol):
    """A network per seed, all in one: every parameter has the seeds (S) as its first axis."""

    parameters: list[Tensor]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Map (F, N) for all seeds or (S, F, B) -> outputs (S, C + A, B), and the state that `backward` needs."""
        ...

    def backward(self, x: Tensor, hidden: Tensor | None, upstream: Tensor) -> list[Tensor]:
        """Map (S, B, F) inputs, the loss's gradient by the outputs (S, C + A, B) -> its gradient by every parameter."""
        ...


@dataclass(frozen=True)
class Rows:
    """Training rows, all that a step reads of one of them side by side, so that a batch is one gather.

    values: (N, F + C + 2A + 1) float32: the inputs, of which the last is 1 (its weight is the bias); the votes'
    distribution; each attribute as a share of its range and what its error weighs, both 0 where it is unknown; and the
    number of known attributes. Indexing three tables with x[batch] took six times as long as all else of a step.
    """

    values: Tensor
    n_inputs: int
    n_classes: int
    n_attributes: int

    @classmethod
    def of(
        cls, inputs: Tensor, soft: np.ndarray, attributes: np.ndarray, ranges: tuple[tuple[float, float], ...]
    ) -> "Rows":
        """Return inputs (N, F) float32.

        Soft (N, C); attributes (N, A), NaN where unknown; (low, high) of each attribute.
        """
        low, high = torch.tensor(ranges, dtype=inputs.dtype).reshape(-1, 2).T
        target = (torch.from_numpy(attributes).to(inputs.dtype) - low) / (high - low)
        has_target = (~target.isnan()).to(inputs.dtype)
        votes = torch.from_numpy(soft).to(inputs.dtype)
        parts = [inputs, votes, target.nan_to_num(0), has_target * (high - low) ** 2, has_target.sum(1, keepdim=True)]
        return cls(torch.cat(parts, 1), inputs.shape[1], soft.shape[1], attributes.shape[1])

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Map (S, B) int64 rows -> inputs (S, B, F) and goals (S, C + 2A + 1, B)."""
        rows = self.values.index_select(0, index.reshape(-1)).view(*index.shape, -1)
        return rows[..., : self.n_inputs], rows[..., self.n_inputs :].transpose(1, 2).contiguous()


def loss_gradient(outputs: Tensor, goals: Tensor, rows: Rows, config: MetaConfig) -> Tensor:
    """Gradient (S, C + A, B) of 1.5 * cross-entropy to the votes + 0.4 * mean squared error of the known attributes.

    outputs: (S, C + A, B). Written out, and with the classes on an axis before the utterances (a softmax over a short
    last axis is ten times as slow), a step takes a fifth of autograd's time; a test holds it to autograd.
    """
    n_classes, n_attributes = rows.n_classes, rows.n_attributes
    soft = goals[:, :n_classes]
    # A row without votes (soft all zero) has no cross-entropy and so no gradient.
    by_class = outputs[:, :n_classes].softmax(1) * soft.sum(1, keepdim=True) - soft
    by_class *= config.classification_weight / outputs.shape[2]
    if not n_attributes:
        return by_class
    target, weight = torch.split(goals[:, n_classes:-1], n_attributes, 1)
    share = outputs[:, n_classes:].sigmoid()
    n_known = goals[:, -1:].sum(2, keepdim=True).clamp_(min=1)
    error = (share - target) * weight * (share * (1 - share))
    return torch.cat([by_class, error * (2 * config.attribute_weight / n_known)], 1)


class AdamW:
    """torch.optim.AdamW's arithmetic, in place, in a quarter of its time at these sizes; a test holds it to torch's."""

    def __init__(self, parameters: list[Tensor], lr: float, weight_decay: float) -> None:
        self.parameters, self.lr, self.weight_decay = parameters, lr, weight_decay
        self.moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in parameters]
        self.n_steps = 0

    def step(self, gradients: list[Tensor]) -> None:
        self.n_steps += 1
        rate, spread = self.lr / (1 - 0.9**self.n_steps), (1 - 0.999**self.n_steps) ** 0.5
        for p, g, (first, second) in zip(self.parameters, gradients, self.moments, strict=True):
            first.lerp_(g, 1 - 0.9)
            second.mul_(0.999).addcmul_(g, g, value=1 - 0.999)
            p.mul_(1 - self.lr * self.weight_decay).addcdiv_(first, second.sqrt().div_(spread).add_(1e-8), value=-rate)


def train_seeds(
    network: Network, rows: Rows, labels: np.ndarray, config: MetaConfig, scorer: "Scorer | None" = None
) -> tuple[list[dict[str, object]], np.ndarray]:
    """Train the network's parameters in place; with a scorer each seed keeps those of its best round.

    labels: (N,) int64, -1 without consensus. Returns every round's scores, and each seed's best (S,); none without a
    scorer. The start is a candidate too: on the held-out rows a seed is never worse than where it began.
    """
    optimizer = AdamW(network.parameters, config.lr, config.weight_decay)
    best, best_score = [p.clone() for p in network.parameters], np.zeros(0)
    history: list[dict[str, object]] = []
    if scorer is not None:
        best_score = scorer(network)
        history.append({"round": 0, "macro_f1": best_score.tolist()})
    waited = np.zeros(len(config.seeds), np.int64)
    epoch = 0
    for round_ in range(1, config.rounds + 1):
        n_steps = 0
        while n_steps < config.steps_per_round:
            for index in torch.split(_orders(labels, config, epoch), config.batch_size, dim=1):
                x, goals = rows.batch(index)
                outputs, hidden = network.forward(x.transpose(1, 2))
                optimizer.step(network.backward(x, hidden, loss_gradient(outputs, goals, rows, config)))
                n_steps += 1
            epoch += 1
        if scorer is None:
            continue
        score = scorer(network)
        better = (waited < config.patience) & (score > best_score)
        best_score = np.where(better, score, best_score)
        chosen = torch.from_numpy(better)
        for kept_best, current in zip(best, network.parameters, strict=True):
            kept_best[chosen] = current[chosen]
        waited = np.where(better, 0, waited + 1)
        history.append({"round": round_, "macro_f1": score.tolist()})
        if (waited >= config.patience).all():
            break
    if scorer is not None:
        for p, kept_best in zip(network.parameters, best, strict=True):
            p.copy_(kept_best)
    return history, best_score


def _orders(labels: np.ndarray, config: MetaConfig, epoch: int) -> Tensor:
    """Return (S, n): each seed's balanced subset for this epoch; all rows, shuffled, where none has a label."""
    if not (labels >= 0).any():
        return torch.from_numpy(np.stack([shuffled(len(labels), seed=seed, epoch=epoch) for seed in config.seeds]))
    share = config.no_consensus_share
    return torch.from_numpy(balanced_subsets(labels, seeds=config.seeds, epoch=epoch, no_consensus_share=share))


class Scorer:
    """Every seed's score on held-out rows: mean macro-F1 over balanced sets of them (MEDUSA's selection).

    Classes without a held-out row are left out. Where no held-out row has a label, the score is the mean CCC.
    inputs: (N, F), of which the held-out rows are kept.
    """

    def __init__(
        self, inputs: Tensor, rows: Rows, labels: np.ndarray, held_out: np.ndarray, config: MetaConfig
    ) -> None:
        self.n_classes, self.n_attributes = rows.n_classes, rows.n_attributes
        scored = np.flatnonzero(held_out & (labels >= 0))
        self.has_labels = len(scored) > 0
        if self.has_labels:
            sets = np.stack(balanced_sets(labels[scored], seed=0, n_sets=config.n_held_out_sets))  # (K, n)
            self.labels = labels[scored][sets]
            # Only what is in a set is worth a forward pass.
            used, places = np.unique(sets, return_inverse=True)
            scored, self.sets = scored[used], places.reshape(sets.shape)
        else:
            scored = np.flatnonzero(held_out)
        self.x = inputs[scored].T.contiguous()  # (F, n)
        goals = rows.values[scored, rows.n_inputs + rows.n_classes : -1].T
        self.target, weight = goals[: self.n_attributes], goals[self.n_attributes :]
        self.known = (weight > 0).double()

    def __call__(self, network: Network) -> np.ndarray:
        """Return a score for each seed, (S,) float64."""
        outputs, _ = network.forward(self.x)
        if self.has_labels:
            predicted = outputs[:, : self.n_classes].argmax(1).numpy()
            scores = macro_f1(predicted[:, self.sets], self.labels[None], self.n_classes, absent="skip")
            mean: np.ndarray = scores.mean(1)
            return mean
        # CCC is the same on shares of the range as on the scale itself.
        return _mean_ccc(outputs[:, self.n_classes :].sigmoid().double(), self.target.double(), self.known)


def _mean_ccc(predicted: Tensor, target: Tensor, has_target: Tensor) -> np.ndarray:
    """Return the mean CCC (S,) of (S, A, n) against (A, n), over the n where has_target (A, n) is 1."""
    n = has_target.sum(1).clamp(min=1)
    mean_x, mean_y = (predicted * has_target).sum(2) / n, (target * has_target).sum(1) / n
    x, y = (predicted - mean_x[..., None]) * has_target, (target - mean_y[:, None]) * has_target
    spread = (x * x).sum(2) / n + (y * y).sum(1) / n + (mean_x - mean_y) ** 2
    ccc = 2 * (x * y).sum(2) / n / spread.clamp(min=1e-12)
    enough = (has_target.sum(1) >= MIN_PAIRS).double()
    return ((ccc * enough).sum(1) / enough.sum().clamp(min=1)).numpy()
