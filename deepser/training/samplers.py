"""Epoch orders as pure functions of (labels, seed, epoch): the same call gives the same order on every machine."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from deepser.config import StageConfig
from featurestore.corpus.splits import balanced_draw, class_members

Indices = NDArray[np.int64]

# Separates the random streams that share a (seed, epoch): an order must not echo the weights' or MixUp's draws.
_SHUFFLED, _BALANCED, _INVERSE, _VIEWS = 1, 2, 3, 4


def epoch_order(
    stage: StageConfig, labels: NDArray[np.integer], *, seed: int, epoch: int, no_consensus_share: float = 0.125
) -> Indices:
    """Return the clips of one epoch of a stage, in order, as int64 indices into `labels`.

    labels: (N,), -1 for clips without consensus.
    """
    n = stage.samples_per_epoch
    if stage.sampler == "inverse-frequency":
        return inverse_frequency(
            labels, n or len(labels), seed=seed, epoch=epoch, no_consensus_share=no_consensus_share
        )

    def draw(epoch: int) -> Indices:
        if stage.sampler == "shuffled":
            return shuffled(len(labels), seed=seed, epoch=epoch)
        return balanced_subset(labels, seed=seed, epoch=epoch, no_consensus_share=no_consensus_share)

    return fixed_size(draw, n, epoch) if n else draw(epoch)


def shuffled(n: int, *, seed: int, epoch: int) -> Indices:
    """Every one of n clips once, in a new order each epoch; (n,) int64."""
    return np.random.default_rng((_SHUFFLED, seed, epoch)).permutation(n).astype(np.int64)


def balanced_subset(
    labels: NDArray[np.integer], *, seed: int, epoch: int, no_consensus_share: float = 0.125
) -> Indices:
    """Draw as many clips of each class as the rarest has, anew each epoch, and shuffle them (MEDUSA, stage 2).

    `labels` (N,) int, -1 for clips without consensus, of which `no_consensus_share` of the balanced count joins.
    Classes without a clip are left out. Returns int64 indices into `labels`.
    """
    subset: Indices = balanced_subsets(labels, seeds=[seed], epoch=epoch, no_consensus_share=no_consensus_share)[0]
    return subset


def balanced_subsets(
    labels: NDArray[np.integer], *, seeds: Sequence[int], epoch: int, no_consensus_share: float = 0.125
) -> Indices:
    """Return `balanced_subset` of several seeds, (S, n) int64, with one look-up of the classes' clips."""
    members, open_clips = class_members(labels), np.flatnonzero(labels < 0)
    if not members:
        return np.zeros((len(seeds), 0), np.int64)
    orders = []
    for seed in seeds:
        rng = np.random.default_rng((_BALANCED, seed, epoch))
        chosen = balanced_draw(members, rng)
        n_open = min(len(open_clips), round(no_consensus_share * len(chosen[0]) * len(chosen)))
        chosen.append(rng.choice(open_clips, n_open, replace=False))
        orders.append(rng.permutation(np.concatenate(chosen)))
    return np.stack(orders).astype(np.int64)


def inverse_frequency(
    labels: NDArray[np.integer], n: int, *, seed: int, epoch: int, no_consensus_share: float = 0.125
) -> Indices:
    """Draw n clips with replacement, of class c with probability proportional to 1 / f_c: all classes alike.

    `labels` (N,) int, -1 for clips without consensus: those are drawn `no_consensus_share` as often as all others
    together. Returns int64 indices into `labels`.
    """
    counts = np.bincount(labels[labels >= 0])
    weights = np.zeros(len(labels))
    weights[labels >= 0] = 1 / (np.count_nonzero(counts) * counts[labels[labels >= 0]])
    n_open = int((labels < 0).sum())
    weights[labels < 0] = no_consensus_share / max(n_open, 1)
    if not weights.sum():
        return np.zeros(0, np.int64)
    rng = np.random.default_rng((_INVERSE, seed, epoch))
    return rng.choice(len(labels), n, p=weights / weights.sum()).astype(np.int64)


def fixed_size(draw: Callable[[int], Indices], n: int, epoch: int) -> Indices:
    """Epoch `epoch` of n clips each, cut from draw(0), draw(1), ... laid end to end; draws must be of one size.

    So with draws of every clip each clip has its turn before any has the next, however long an epoch is.
    """
    size = len(draw(0))
    if not size:
        return np.zeros(0, np.int64)
    first, last = epoch * n // size, -(-(epoch + 1) * n // size)
    start = epoch * n - first * size
    return np.concatenate([draw(i) for i in range(first, last)])[start : start + n]


def draw_views(order: Indices, available: NDArray[np.bool_], share: float, *, seed: int, epoch: int) -> Indices:
    """Return an order of which each clip is, with probability `share`, one of its views, each as likely; int64.

    available (V, N): which views utterance i has. Clip k * N + i is utterance i in view k, counted from 1; a clip
    without views stays as it is.
    """
    rng = np.random.default_rng((_VIEWS, seed, epoch))
    drawn, place = rng.random(len(order)) < share, rng.random(len(order))
    of_clip = available[:, order]
    nth = np.floor(place * of_clip.sum(0)).astype(np.int64)
    view = 1 + (np.cumsum(of_clip, 0) > nth).argmax(0)
    rows: Indices = order + available.shape[1] * np.where(drawn & of_clip.any(0), view, 0)
    return rows


def batches(
    order: Indices, batch_size: int, *, lengths: NDArray[np.integer] | None = None, pool: int = 16
) -> list[Indices]:
    """Cut an order into batches of `batch_size`, the last one shorter.

    With `lengths` (N,), each run of `pool` batches is sorted by length first, so that a batch holds clips of like
    length (less padding) while the draw stays random; the batches of a run are dealt out in a fixed interleaved order.
    """
    if lengths is None:
        return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    result: list[Indices] = []
    for start in range(0, len(order), pool * batch_size):
        run = order[start : start + pool * batch_size]
        cut = batches(run[np.argsort(lengths[run], kind="stable")], batch_size)
        deal = np.random.default_rng(int(run[0])).permutation(len(cut))
        result.extend(cut[i] for i in deal)
    return result
