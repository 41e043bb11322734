"""Training the linear meta-classifier and the small MLP on out-of-fold posteriors (MEDUSA, stages 3 and 4)."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import brentq
from torch import Tensor

from deepser.training.targets import Targets
from ensemble.evaluation.align import Aligned, column_names, differences
from ensemble.fusion.config import MetaConfig, joins_attributes
from ensemble.fusion.linear import LinearSeeds, prepare
from ensemble.fusion.seed_training import Rows, Scorer, train_seeds
from ensemble.fusion.state import LINEAR, MLP, MetaState
from featurestore.errors import AlignmentError, ConfigError, ManifestError
from featurestore.runtime.device import one_thread

GAINS = (0.1, 1000.0)  # the least and the greatest sharpening of the mean that a start may have


@torch.no_grad()
def fit_meta(
    aligned: Aligned, targets: Targets, config: MetaConfig | None = None, held_out: np.ndarray | None = None
) -> LinearSeeds:
    """Return a linear meta-classifier per seed, trained in one batched optimisation on out-of-fold posteriors.

    Each seed has its own start, its own balanced subsets and batches and its own early stopping, so its weights are
    those it would get alone (to float32 rounding). held_out: (N,) bool, rows that choose each seed's best round and are
    not trained on; needed for config.select "macro_f1" and not allowed for "last".
    Raises AlignmentError when targets and posteriors are of other utterances or columns.
    """
    config = config or MetaConfig()
    if config.hidden:
        raise ConfigError(f"A linear meta-classifier has no hidden units, found {config.hidden}; fit_mlp has.")
    task = _Task.of(aligned, targets, config, held_out)
    network = _Linear([_departures(config, *task.start.shape)], task.start, task.mask)
    # A step takes 0.3 ms, less than it costs to wake the other threads (30 ms on shared cores).
    with one_thread():
        history, scores = train_seeds(network, task.rows, task.labels, config, task.scorer)
        in_soup: tuple[int, ...] = ()
        if config.soup == "greedy":
            assert task.scorer is not None
            in_soup = greedy_soup(network, scores, task.scorer)
    weight = network.weight.transpose(1, 2)
    tensors = {"weight": weight[:, :-1].contiguous(), "bias": weight[:, -1].contiguous()}
    members, classes = aligned.members, targets.classes
    state = MetaState(LINEAR, config, members, classes, _ranges(targets), tensors, tuple(history))
    return LinearSeeds(state, in_soup)


@torch.no_grad()
def fit_mlp(aligned: Aligned, targets: Targets, config: MetaConfig, held_out: np.ndarray | None = None) -> MetaState:
    """Fit as `fit_meta` does, with config.hidden ReLU units beside the linear map, which learn the difference."""
    if not config.hidden:
        raise ConfigError("An MLP needs hidden units; set hidden, or use fit_meta.")
    task = _Task.of(aligned, targets, config, held_out)
    n_outputs, n_inputs = task.start.shape
    draws = [torch.Generator().manual_seed(seed) for seed in config.seeds]
    first = torch.stack([torch.randn(config.hidden, n_inputs, generator=g) for g in draws]) / n_inputs**0.5
    # From zero, the network starts as the linear map does.
    second = torch.zeros(len(config.seeds), n_outputs, config.hidden)
    if task.mask is not None:
        first *= task.mask[0] if targets.classes else task.mask[-1]
    network = _Mlp(
        [_departures(config, n_outputs, n_inputs), first, second], task.start, task.mask, len(targets.classes)
    )
    with one_thread():
        history, _ = train_seeds(network, task.rows, task.labels, config, task.scorer)
    tensors = {"weight": network.weight, "hidden": network.parameters[1], "output": network.parameters[2]}
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    return MetaState(MLP, config, aligned.members, targets.classes, _ranges(targets), tensors, tuple(history))


def greedy_soup(network: "_Linear", scores: np.ndarray, scorer: Scorer) -> tuple[int, ...]:
    """Return the seeds whose average is taken: best first, each kept if the score holds.

    Wortsman et al. 2022, recipe 1.
    """
    order = np.argsort(-scores, kind="stable").tolist()
    weight, chosen, best = network.weight, order[:1], float(scores[order[0]])
    for seed in order[1:]:
        mean = weight[[*chosen, seed]].mean(0, keepdim=True)
        score = float(scorer(_Linear([torch.zeros_like(mean)], mean[0], None))[0])
        if score >= best:
            chosen, best = [*chosen, seed], score
    return tuple(sorted(chosen))


def starting_point(inputs: Tensor, targets: Targets, config: MetaConfig, n_members: int, train: np.ndarray) -> Tensor:
    """Return (C + A, F): the fixed weights from which seeds depart; zeros for config.start "random".

    "soft_vote" is gain * (mean over members), whose argmax is the soft vote's; the gain is the one number that fits the
    rows `train` of inputs (N, F) best, each class weighing the same. An attribute is twice the members' mean on -1..1:
    the slope that gives the mean back through the sigmoid, at the middle of the scale.
    """
    n_classes, n_outputs = len(targets.classes), len(targets.classes) + len(targets.attributes)
    start = inputs.new_zeros(n_outputs, inputs.shape[1])
    if config.start == "soft_vote":
        labels = targets.labels[train]
        mean = inputs[:, :-1].view(len(inputs), n_members, n_outputs)[..., :n_classes].mean(1)
        scale = torch.full((n_outputs,), 2.0)
        scale[:n_classes] = _gain(mean[train].T.contiguous(), targets.soft[train], labels)
        start[:, :-1] = (scale.diag() / n_members).repeat(1, n_members)
    return start


def _gain(mean: Tensor, soft: np.ndarray, labels: np.ndarray) -> float:
    """Return the g of softmax(g * mean) with the least cross-entropy to the soft labels.

    mean: (C, N). soft: (N, C). Classes are balanced.
    """
    if not (labels >= 0).any():
        return 1.0
    counts = np.bincount(labels[labels >= 0], minlength=len(mean))
    weight = torch.from_numpy(np.where(labels >= 0, 1 / counts[labels].clip(1), 0))
    by_votes = (mean * torch.from_numpy(soft).T).sum(0)
    total = torch.from_numpy(soft.sum(1))

    def slope(log_gain: float) -> float:  # of the cross-entropy, which is convex in the gain
        expected = ((mean * float(np.exp(log_gain))).softmax(0) * mean).sum(0)
        return float((weight * (expected * total - by_votes)).sum())

    low, high = np.log(GAINS)
    if slope(low) >= 0 or slope(high) <= 0:
        return GAINS[0] if slope(low) >= 0 else GAINS[1]
    return float(np.exp(brentq(slope, low, high, xtol=1e-4)))


@dataclass(frozen=True)
class _Task:
    """What training needs besides a network. start, mask: (C + A, F); labels: (N,) of the training rows."""

    rows: Rows
    labels: np.ndarray
    start: Tensor
    mask: Tensor | None
    scorer: Scorer | None

    @classmethod
    def of(cls, aligned: Aligned, targets: Targets, config: MetaConfig, held_out: np.ndarray | None) -> "_Task":
        _check(aligned, targets, config, held_out)
        n_classes, ranges = len(targets.classes), targets.attribute_ranges
        inputs = prepare(aligned.values, n_classes, ranges, constant=True)
        train = np.flatnonzero(targets.usable if held_out is None else targets.usable & ~held_out)
        labels = targets.labels[train]
        if not (labels >= 0).any() and np.isnan(targets.attribute_values[train]).all():
            raise ManifestError(
                "No training utterance has a label, so nothing can be fitted; check the split and folds."
            )
        rows = Rows.of(inputs, targets.soft, targets.attribute_values, ranges)
        scorer = None if held_out is None else Scorer(inputs, rows, targets.labels, held_out, config)
        if len(train) < len(inputs):
            rows = Rows(rows.values[train], rows.n_inputs, rows.n_classes, rows.n_attributes)
        start = starting_point(inputs, targets, config, len(aligned.members), train)
        mask = None if joins_attributes(config.inputs) else _own_kind(len(aligned.members), n_classes, len(ranges))
        return cls(rows, labels, start, mask, scorer)


class _Linear:
    """weight (S, C + A, F) = start + departure; mask: which weights there are."""

    def __init__(self, parameters: list[Tensor], start: Tensor, mask: Tensor | None) -> None:
        self.parameters, self.start, self.mask = parameters, start, mask
        if mask is not None:
            parameters[0] *= mask

    @property
    def weight(self) -> Tensor:
        return self.parameters[0] + self.start

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        return torch.matmul(self.weight, x), None

    def backward(self, x: Tensor, hidden: Tensor | None, upstream: Tensor) -> list[Tensor]:
        gradient = torch.bmm(upstream, x)
        return [gradient if self.mask is None else gradient * self.mask]


class _Mlp(_Linear):
    """The linear map plus second (S, C + A, H) times ReLU of first (S, H, F) times x.

    Under a mask the hidden units read and serve the classes alone (the attributes, where there are no classes).
    """

    def __init__(self, parameters: list[Tensor], start: Tensor, mask: Tensor | None, n_classes: int) -> None:
        super().__init__(parameters, start, mask)
        self.n_served = n_classes or len(start)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        hidden = torch.matmul(self.parameters[1], x).relu_()
        return torch.matmul(self.weight, x) + torch.matmul(self.parameters[2], hidden), hidden

    def backward(self, x: Tensor, hidden: Tensor | None, upstream: Tensor) -> list[Tensor]:
        assert hidden is not None
        gradients = super().backward(x, None, upstream)
        by_hidden = torch.bmm(self.parameters[2].transpose(1, 2), upstream) * (hidden > 0)
        first, second = torch.bmm(by_hidden, x), torch.bmm(upstream, hidden.transpose(1, 2))
        if self.mask is not None:
            first *= self.mask[0]
            second[:, self.n_served :] = 0
        return [*gradients, first, second]


def _departures(config: MetaConfig, n_outputs: int, n_inputs: int) -> Tensor:
    """Return (S, C + A, F): what each seed adds to the starting point before its first step."""
    # torch.nn.Linear draws from U(-1, 1) / sqrt(F), whose deviation this is.
    std = config.start_std if config.start == "soft_vote" else 1 / (3 * n_inputs) ** 0.5
    draws = [torch.randn(n_inputs, n_outputs, generator=torch.Generator().manual_seed(s)) for s in config.seeds]
    return (torch.stack(draws) * std).transpose(1, 2).contiguous()


def _own_kind(n_members: int, n_classes: int, n_attributes: int) -> Tensor | None:
    """Return (C + A, F): 1 where an output reads a column of its own kind or the bias; None for a single kind."""
    if not n_classes or not n_attributes:
        return None
    kinds = torch.tensor([1.0] * n_classes + [0.0] * n_attributes)
    is_same_kind = (kinds[:, None] == kinds[None]).float()
    return torch.cat([is_same_kind.repeat(1, n_members), torch.ones(len(kinds), 1)], 1)


def _ranges(targets: Targets) -> dict[str, tuple[float, float]]:
    return dict(zip(targets.attributes, targets.attribute_ranges, strict=True))


def _check(aligned: Aligned, targets: Targets, config: MetaConfig, held_out: np.ndarray | None) -> None:
    if aligned.keys != targets.keys:
        missing, surplus = differences(aligned.keys, targets.keys)
        raise AlignmentError(
            "Posteriors and targets are of different utterances or orders; load them for the same keys.",
            {"posteriors": missing} if missing else {},
            {"posteriors": surplus} if surplus else {},
        )
    expected = column_names(targets.classes, targets.attributes)
    if aligned.columns != expected:
        missing, surplus = differences(aligned.columns, expected)
        raise AlignmentError(
            f"Posteriors have columns {', '.join(aligned.columns)}, targets {', '.join(expected)}; "
            "both must be of one label scheme.",
            {"posteriors": missing} if missing else {},
            {"posteriors": surplus} if surplus else {},
        )
    if config.select == "last" and held_out is not None:
        raise ConfigError('Held-out rows choose nothing under select="last"; train on them or use select="macro_f1".')
    if config.select == "macro_f1":
        judged = None if held_out is None else targets.labels[held_out] >= 0
        if judged is not None and not (targets.labels >= 0).any():
            judged = ~np.isnan(targets.attribute_values[held_out]).all(1)
        if judged is None or not judged.any():
            raise ConfigError('select="macro_f1" needs held-out rows with labels; give held_out, or use select="last".')
