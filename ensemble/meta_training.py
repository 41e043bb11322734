"""Training the linear meta-classifier: all seeds at once, each on its own balanced subsets (MEDUSA, stage 3)."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from deepser.device import one_thread
from deepser.samplers import balanced_subset
from deepser.targets import Targets
from ensemble.align import Aligned, AlignmentError, column_names
from ensemble.config import MetaConfig
from ensemble.meta import MetaClassifier, prepare, to_scale
from featurestore.errors import ConfigError, ManifestError
from featurestore.splits import balanced_sets


@torch.no_grad()
def fit_meta(
    aligned: Aligned, targets: Targets, config: MetaConfig | None = None, held_out: np.ndarray | None = None
) -> MetaClassifier:
    """A linear meta-classifier per seed, trained in one batched optimisation on out-of-fold posteriors.

    Each seed has its own start, its own balanced subsets and batches and its own early stopping, so its weights are
    those it would get alone (to float32 rounding). held_out: (N,) bool, rows that choose each seed's best round and are
    not trained on; needed for config.select "macro_f1" and not allowed for "last".
    Raises AlignmentError when targets and posteriors are of other utterances or columns.
    """
    config = config or MetaConfig()
    _check(aligned, targets, config, held_out)
    n_classes, ranges = len(targets.classes), targets.attribute_ranges
    inputs = prepare(aligned.values, n_classes, ranges)
    inputs = torch.cat([inputs, inputs.new_ones(len(inputs), 1)], 1)  # the bias is the weight of a constant column
    train = np.flatnonzero(targets.usable if held_out is None else targets.usable & ~held_out)
    labels = targets.labels[train]
    if not (labels >= 0).any():
        raise ManifestError("No training utterance has a label, so nothing can be fitted; check the split and folds.")
    rows = _Rows(
        inputs[train], torch.from_numpy(targets.soft[train]), torch.from_numpy(targets.attribute_values[train]), ranges
    )
    scorer = None if held_out is None else _Scorer(inputs, targets.labels, held_out, n_classes, config.n_held_out_sets)
    # A step takes 0.3 ms, less than it costs to wake the other threads (30 ms on shared cores).
    with one_thread():
        weight, history = _train(rows, labels, config, len(aligned.members), scorer)
    return MetaClassifier(
        config=config,
        members=aligned.members,
        classes=targets.classes,
        attributes=dict(zip(targets.attributes, ranges, strict=True)),
        weight=weight[:, :-1].contiguous(),
        bias=weight[:, -1].contiguous(),
        history=tuple(history),
    )


@dataclass(frozen=True)
class _Rows:
    """Training rows: inputs x (N, F), soft (N, C), attributes (N, A) with NaN, and each attribute's (low, high)."""

    x: Tensor
    soft: Tensor
    attributes: Tensor
    ranges: tuple[tuple[float, float], ...]


def _train(
    rows: _Rows, labels: np.ndarray, config: MetaConfig, n_members: int, scorer: "_Scorer | None"
) -> tuple[Tensor, list[dict[str, object]]]:
    """The seeds' weights (S, F, C + A) and, where there is a scorer, every round's scores."""
    start = starting_point(rows, labels, config, n_members)
    departure = _departures(config, *start.shape)
    optimizer = torch.optim.AdamW([departure], lr=config.lr, weight_decay=config.weight_decay)
    # The start is a candidate too: on the held-out rows a soup's seeds are never worse than the soft vote.
    best, best_score = (
        departure.clone(),
        np.full(len(config.seeds), -1.0) if scorer is None else scorer(departure + start),
    )
    history: list[dict[str, object]] = [] if scorer is None else [{"round": 0, "macro_f1": best_score.tolist()}]
    waited = np.zeros(len(config.seeds), np.int64)
    epoch = 0
    for round_ in range(1, config.rounds + 1):
        n_steps = 0
        while n_steps < config.steps_per_round:
            order = _orders(labels, config, epoch)
            for batch in order.split(config.batch_size, dim=1):
                departure.grad = gradient(rows, batch, departure + start, config)
                optimizer.step()
                n_steps += 1
            epoch += 1
        if scorer is None:
            continue
        score = scorer(departure + start)
        running = waited < config.patience
        better = running & (score > best_score)
        best_score = np.where(better, score, best_score)
        best[torch.from_numpy(better)] = departure[torch.from_numpy(better)]
        waited = np.where(better, 0, waited + 1)
        history.append({"round": round_, "macro_f1": score.tolist()})
        if (waited >= config.patience).all():
            break
    return (departure if scorer is None else best) + start, history


def gradient(rows: _Rows, batch: Tensor, weight: Tensor, config: MetaConfig) -> Tensor:
    """Gradient (S, F, C + A) of 1.5 * cross-entropy to the votes + 0.4 * mean squared error of the known attributes.

    batch: (S, B) int64 rows; weight: (S, F, C + A). Written out, it takes a third of autograd's time at these sizes; a
    test holds it to autograd.
    """
    x, soft = rows.x[batch], rows.soft[batch]
    outputs = torch.bmm(x, weight)
    n_classes = soft.shape[2]
    # A row without votes (soft all zero) has no cross-entropy and so no gradient.
    by_class = outputs[..., :n_classes].softmax(2) * soft.sum(2, keepdim=True) - soft
    back = by_class * (config.classification_weight / batch.shape[1])
    if rows.ranges:
        target = rows.attributes[batch]
        known = ~target.isnan()
        z = outputs[..., n_classes:]
        width = z.new_tensor([high - low for low, high in rows.ranges])
        error = torch.where(known, to_scale(z, rows.ranges) - target, 0)
        slope = width * z.sigmoid() * (1 - z.sigmoid())
        n_known = known.sum((1, 2), keepdim=True).clamp(min=1)
        back = torch.cat([back, 2 * config.attribute_weight * error * slope / n_known], 2)
    return torch.bmm(x.transpose(1, 2), back)


def starting_point(rows: _Rows, labels: np.ndarray, config: MetaConfig, n_members: int) -> Tensor:
    """(F, C + A): the fixed weights from which seeds depart; zeros for config.start "random".

    "soft_vote" is gain * (mean over members), whose argmax is the soft vote's; the gain is the one number that fits the
    training rows best, each class weighing the same. An attribute is twice the members' mean on -1..1: the slope that
    gives the mean back through the sigmoid, at the middle of the scale.
    """
    n_classes = rows.soft.shape[1]
    n_outputs = n_classes + len(rows.ranges)
    start = rows.x.new_zeros(rows.x.shape[1], n_outputs)
    if config.start == "soft_vote":
        mean = rows.x[:, :-1].reshape(-1, n_members, n_outputs).mean(1)[:, :n_classes]
        counts = np.bincount(labels[labels >= 0], minlength=n_classes)
        weights = torch.from_numpy(np.where(labels >= 0, 1 / counts[labels].clip(1), 0).astype(np.float32))
        gains = np.geomspace(0.1, 1000, 81)
        costs = [-float((weights * (rows.soft * (g * mean).log_softmax(1)).sum(1)).sum()) for g in gains]
        scale = torch.full((n_outputs,), 2.0)
        scale[:n_classes] = float(gains[int(np.argmin(costs))])
        start[:-1] = (scale.diag() / n_members).repeat(n_members, 1)
    return start


def _departures(config: MetaConfig, n_inputs: int, n_outputs: int) -> Tensor:
    """(S, F, C + A): what each seed adds to the starting point before its first step."""
    # torch.nn.Linear draws from U(-1, 1) / sqrt(F), whose deviation this is.
    std = config.start_std if config.start == "soft_vote" else 1 / (3 * n_inputs) ** 0.5
    draws = [torch.randn(n_inputs, n_outputs, generator=torch.Generator().manual_seed(s)) for s in config.seeds]
    return torch.stack(draws) * std


def _orders(labels: np.ndarray, config: MetaConfig, epoch: int) -> Tensor:
    """(S, n) int64: each seed's own balanced subset for this epoch; all have the same length."""
    share = config.no_consensus_share
    drawn = [balanced_subset(labels, seed=seed, epoch=epoch, no_consensus_share=share) for seed in config.seeds]
    return torch.from_numpy(np.stack(drawn))


class _Scorer:
    """Mean macro-F1 of every seed over balanced held-out sets; classes without a held-out row are left out."""

    def __init__(self, x: Tensor, labels: np.ndarray, held_out: np.ndarray, n_classes: int, n_sets: int) -> None:
        scored = np.flatnonzero(held_out & (labels >= 0))
        self.x, self.n_classes = x[scored], n_classes
        self.sets = np.stack(balanced_sets(labels[scored], seed=0, n_sets=n_sets))  # (K, n)
        self.labels = labels[scored][self.sets]

    def __call__(self, weight: Tensor) -> np.ndarray:
        """(S, F, C + A) -> (S,) float64."""
        logits = torch.einsum("nf,sfc->snc", self.x, weight[..., : self.n_classes])
        return macro_f1(logits.argmax(2).numpy()[:, self.sets], self.labels[None], self.n_classes).mean(1)


def macro_f1(predicted: np.ndarray, labels: np.ndarray, n_classes: int) -> np.ndarray:
    """(..., n) int predictions and labels (broadcast) -> (...) macro-F1 over the classes that occur in the labels."""
    predicted, labels = np.broadcast_arrays(predicted, labels)
    shape, n = predicted.shape[:-1], predicted.shape[-1]
    cells = labels.reshape(-1, n) * n_classes + predicted.reshape(-1, n)
    cells = cells + np.arange(len(cells))[:, None] * n_classes**2
    confusion = np.bincount(cells.ravel(), minlength=len(cells) * n_classes**2).reshape(-1, n_classes, n_classes)
    hits, truth, guess = np.diagonal(confusion, axis1=1, axis2=2), confusion.sum(2), confusion.sum(1)
    f1 = 2 * hits / np.maximum(truth + guess, 1)
    return (f1.sum(1, where=truth > 0) / np.maximum((truth > 0).sum(1), 1)).reshape(shape)


def _check(aligned: Aligned, targets: Targets, config: MetaConfig, held_out: np.ndarray | None) -> None:
    if aligned.keys != targets.keys:
        raise AlignmentError(
            "Posteriors and targets are of different utterances or orders; load them for the same keys."
        )
    expected = column_names(targets.classes, targets.attributes)
    if aligned.columns != expected:
        raise AlignmentError(
            f"Posteriors have columns {', '.join(aligned.columns)}, targets {', '.join(expected)}; "
            "both must be of one label scheme."
        )
    if config.select == "last" and held_out is not None:
        raise ConfigError('Held-out rows choose nothing under select="last"; train on them or use select="macro_f1".')
    if config.select == "macro_f1" and (held_out is None or not (targets.labels[held_out] >= 0).any()):
        raise ConfigError('select="macro_f1" needs held-out rows with labels; give held_out, or use select="last".')
