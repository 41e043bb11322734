"""Epoch orders as pure functions of (labels, seed, epoch): the same call gives the same order on every machine."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from featurestore.splits import balanced_draw, class_members

Indices = NDArray[np.int64]

# Separates the random streams that share a (seed, epoch): an order must not echo the weights' or MixUp's draws.
_SHUFFLED, _BALANCED = 1, 2


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
    return balanced_subsets(labels, seeds=[seed], epoch=epoch, no_consensus_share=no_consensus_share)[0]


def balanced_subsets(
    labels: NDArray[np.integer], *, seeds: Sequence[int], epoch: int, no_consensus_share: float = 0.125
) -> Indices:
    """`balanced_subset` of several seeds, (S, n) int64: the clips of each class are looked up once for all."""
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
