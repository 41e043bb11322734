"""Epoch orders as pure functions of (labels, seed, epoch): the same call gives the same order on every machine."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]

# Separates the random streams that share a (seed, epoch): an order must not echo the weights' or MixUp's draws.
_SHUFFLED, _BALANCED, _HELD_OUT, _FOLDS = 1, 2, 3, 4


def shuffled(n: int, *, seed: int, epoch: int) -> Indices:
    """Every one of n clips once, in a new order each epoch; (n,) int64."""
    return np.random.default_rng((_SHUFFLED, seed, epoch)).permutation(n).astype(np.int64)


def balanced_subset(
    labels: NDArray[np.integer], *, seed: int, epoch: int, no_consensus_share: float = 0.125
) -> Indices:
    """As many clips of each class as the rarest has, drawn anew each epoch and shuffled (MEDUSA, stage 2).

    `labels` (N,) int, -1 for clips without consensus, of which `no_consensus_share` of the balanced count joins.
    Classes without a clip are left out. Returns int64 indices into `labels`.
    """
    rng = np.random.default_rng((_BALANCED, seed, epoch))
    members = [np.flatnonzero(labels == c) for c in np.unique(labels[labels >= 0])]
    if not members:
        return np.zeros(0, np.int64)
    n_each = min(len(m) for m in members)
    chosen = [rng.choice(m, n_each, replace=False) for m in members]
    open_clips = np.flatnonzero(labels < 0)
    n_open = min(len(open_clips), round(no_consensus_share * n_each * len(members)))
    chosen.append(rng.choice(open_clips, n_open, replace=False))
    return rng.permutation(np.concatenate(chosen)).astype(np.int64)


def balanced_held_out(labels: NDArray[np.integer], *, seed: int, n_sets: int = 10) -> list[Indices]:
    """The balanced sets whose mean macro-F1 selects a model: the same `n_sets` draws for every epoch and member."""
    return [
        balanced_subset(labels, seed=seed + _HELD_OUT * 7919, epoch=i, no_consensus_share=0.0) for i in range(n_sets)
    ]


def batches(
    order: Indices, batch_size: int, *, lengths: NDArray[np.integer] | None = None, pool: int = 16
) -> list[Indices]:
    """Cuts an order into batches of `batch_size`, the last one shorter.

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


def group_folds(groups: Sequence[str], n_folds: int, *, seed: int = 0) -> Indices:
    """A fold per clip, (N,) int64 in [0, n_folds), such that no group (speaker) is in two folds.

    Groups are dealt largest first to the fold that has the fewest clips; ties are broken by a seeded draw.
    """
    names, which = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    rng = np.random.default_rng((_FOLDS, seed))
    sizes = np.bincount(which, minlength=len(names))
    jitter = rng.permutation(len(names))
    order = sorted(range(len(names)), key=lambda g: (-sizes[g], jitter[g]))
    load = np.zeros(n_folds, np.int64)
    fold_of = np.zeros(len(names), np.int64)
    for group in order:
        fold_of[group] = int(load.argmin())
        load[fold_of[group]] += sizes[group]
    return fold_of[which].astype(np.int64)
