"""The speakers that are kept from training to choose an epoch, where a corpus has such as can choose one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurestore.corpus.splits import deal
from featurestore.runtime.wording import first_names

LEAST, MOST = 0.5, 2.0  # of the share asked for: a part that is smaller or larger is not used
N_SEARCHED = 256  # speakers among whom the part is searched for; of more, it is dealt
LIMITS = (0.25, 0.5, 1.0, MOST)  # a part is searched for among speakers of at most so many times the part's size
CONCENTRATION = 0.1  # what a part of one speaker costs; of n equal ones it is 1 / n of that
N_SWAPS = 200  # at most: the search improves the part until nothing does, usually a few times
_STREAM = 17  # separates this random stream from others of the same seed
NAMED = 5


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Which of N training utterances are held out: mask (N,) bool, all False where `why_not` says why there is none.

    speakers: who, by the names of the groups; share_asked: the share asked for; classes: held-out utterances of each
    class, by its code.
    """

    mask: NDArray[np.bool_]
    speakers: tuple[str, ...]
    share_asked: float
    classes: dict[int, int]
    why_not: str = ""

    @property
    def share(self) -> float:
        """Of the training utterances."""
        return float(self.mask.mean()) if len(self.mask) else 0.0

    def to_dict(self, names: Sequence[str]) -> dict[str, Any]:
        """Return JSON values. names: of the classes, by code."""
        return {
            "utterances": int(self.mask.sum()),
            "of": len(self.mask),
            "share": round(self.share, 4),
            "asked": self.share_asked,
            "speakers": list(self.speakers),
            "classes": {names[code]: n for code, n in self.classes.items()},
            "why_not": self.why_not,
        }


def choose_held_out(
    groups: Sequence[str], share: float, *, labels: NDArray[np.integer] | None = None, seed: int = 0
) -> HeldOut:
    """Choose whole groups (speakers) of N utterances, as near to `share` of them and of each class as groups allow.

    groups: (N,) names. labels: (N,) class codes, -1 for none; None: classes don't matter. Several small groups are
    preferred to a large one, ties go by the seed. No part is chosen that is smaller than half the share or larger than
    twice, or that lacks a class of two groups or more. A pure function of its arguments.
    """
    names, group_of = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    codes = np.full(len(group_of), -1) if labels is None else np.asarray(labels)
    occurring = np.unique(codes[codes >= 0])
    counts = np.zeros((len(names), 1 + len(occurring)))  # (G, 1 + C): utterances, and those of each class
    counts[:, 0] = np.bincount(group_of, minlength=len(names))
    np.add.at(counts, (group_of[codes >= 0], 1 + np.searchsorted(occurring, codes[codes >= 0])), 1.0)
    fits = counts[:, 0] <= MOST * share * len(group_of)
    if fits.sum() > N_SEARCHED:
        rows = np.flatnonzero(fits[group_of])
        shares = (share * len(group_of), max(len(rows) - share * len(group_of), 1.0))
        dealt = deal(names[group_of[rows]].tolist(), shares, seed=seed, labels=codes[rows])
        chosen = np.zeros(len(names), bool)
        chosen[group_of[rows[dealt == 0]]] = True
    else:
        chosen = _search(counts, share, seed)
    mask = chosen[group_of]
    part = counts[chosen].sum(0)
    why = _why_not(counts, part, share, len(group_of))
    if why:
        return HeldOut(np.zeros(len(group_of), bool), (), share, {}, why)
    classes = {int(code): int(n) for code, n in zip(occurring, part[1:], strict=True)}
    return HeldOut(mask, tuple(names[chosen].tolist()), share, classes)


def _search(counts: NDArray[np.float64], share: float, seed: int) -> NDArray[np.bool_]:
    """Return (G,) which groups are chosen: the best part that is found among small groups alone, or larger ones too."""
    jitter = np.random.default_rng((_STREAM, seed)).permutation(len(counts))
    order = np.lexsort((jitter, counts[:, 0]))  # small groups first
    sizes, goal = counts[order, 0], share * counts.sum(0)
    pools = {max(int((sizes <= limit * goal[0]).sum()), 1) for limit in LIMITS}
    candidates = [_improved(counts[order[:n]], goal) for n in sorted(pools)]
    inside, _ = min(candidates, key=lambda each: each[1])
    chosen = np.zeros(len(counts), bool)
    chosen[order[: len(inside)][inside]] = True
    return chosen


def _improved(counts: NDArray[np.float64], goal: NDArray[np.float64]) -> tuple[NDArray[np.bool_], float]:
    """Return (K,) which groups are chosen, and its cost: from none on, one is added, dropped or swapped at a time."""
    inside, best = np.zeros(len(counts), bool), np.inf
    for _ in range(len(counts) + N_SWAPS):
        sign = np.where(inside, -1.0, 1.0)
        change, squares = sign[:, None] * counts, sign * counts[:, 0] ** 2  # of adding or dropping a group
        load, square = counts[inside].sum(0), float((counts[inside, 0] ** 2).sum())
        costs = _cost(load + change, square + squares, goal)
        moved, cost = [int(costs.argmin())], float(costs.min())
        if inside.any() and not inside.all():
            out, into = np.flatnonzero(inside), np.flatnonzero(~inside)
            loads = load + change[out][:, None] + change[into][None]
            two = _cost(loads, square + squares[out][:, None] + squares[into][None], goal)
            if two.min() < cost - 1e-12:
                a, b = divmod(int(two.argmin()), len(into))
                moved, cost = [int(out[a]), int(into[b])], float(two.min())
        if cost >= best - 1e-12:
            break
        best = cost
        inside[moved] ^= True
    return inside, best


def _cost(load: NDArray[np.float64], squares: NDArray[np.float64], goal: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (...) how far parts of (..., 1 + C) utterances are from the goal, 0 for one of many groups that meets it.

    squares: (...) the sum over a part's groups of their sizes squared.
    """
    off = (load / np.maximum(goal, 1e-9) - 1) ** 2
    classes = off[..., 1:].mean(-1) if off.shape[-1] > 1 else 0.0
    concentration = squares / np.maximum(load[..., 0], 1) ** 2
    cost: NDArray[np.float64] = off[..., 0] + classes + CONCENTRATION * concentration
    return cost


def _why_not(counts: NDArray[np.float64], part: NDArray[np.float64], share: float, n: int) -> str:
    """Return why a part can't choose an epoch, "" where it can."""
    share_of_part = (part[0] or counts[:, 0].min()) / max(n, 1)
    if not LEAST * share <= share_of_part <= MOST * share:
        sizes = counts[:, 0]
        return (
            f"the speakers that come nearest to {share:.0%} of the training utterances make {share_of_part:.0%} "
            f"({len(sizes):,} speakers of {int(sizes.min()):,} to {int(sizes.max()):,} utterances)"
        )
    shared = (counts[:, 1:] > 0).sum(0) > 1
    lacking = int((shared & (part[1:] == 0)).sum())
    if lacking:
        return f"no such part has all classes; the nearest lacks {lacking} of {len(shared)}"
    emptied = int(((part[1:] == counts[:, 1:].sum(0)) & (part[1:] > 0)).sum())
    if emptied:
        return f"{emptied} of {len(shared)} classes would have no utterance left to learn from"
    return ""


def sentence(saved: dict[str, Any]) -> str:
    """Return a saved `HeldOut` as a sentence without a full stop: who is held out, or why nobody is."""
    if saved["why_not"]:
        return f"nobody is held out and the last epoch is kept: {saved['why_not']}"
    names = [str(name).partition(":")[2] or str(name) for name in saved["speakers"]]
    return (
        f"{saved['utterances']:,} of {saved['of']:,} utterances ({saved['share']:.1%}) are held out: "
        f"{first_names(names, NAMED)}"
    )
