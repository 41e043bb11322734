"""p-values of several comparisons that are read together: each corrected for how many there are."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from ensemble.evaluation.bootstrap import Comparison, Difference


def holm(p_values: np.ndarray) -> np.ndarray:
    """Return (M,) p-values adjusted by Holm's step-down method; NaN stays NaN and counts as no comparison.

    The smallest p-value is multiplied by M, the next by M - 1, and so on; each is at least as large as those before it,
    and at most 1. The chance of any false claim among the M stays at the level, however the comparisons depend on one
    another (Holm 1979, "A simple sequentially rejective multiple test procedure").
    """
    adjusted = np.full(len(p_values), np.nan)
    defined = np.flatnonzero(~np.isnan(p_values))
    order = defined[np.argsort(p_values[defined], kind="stable")]
    steps = p_values[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted


def corrected(systems: Sequence[Mapping[str, Difference]]) -> list[dict[str, Difference]]:
    """Return the differences of several systems to one, by score, with `p_holm` over the systems of each score.

    A single system needs no correction: its `p_holm` is its p.
    """
    rows = [dict(row) for row in systems]
    for score in dict.fromkeys(name for row in rows for name in row):
        scored_rows = [row for row in rows if score in row]
        adjusted = holm(np.array([row[score].p for row in scored_rows]))
        for row, p in zip(scored_rows, adjusted.tolist(), strict=True):
            row[score] = replace(row[score], p_holm=p)
    return rows


def corrected_comparisons(comparisons: Mapping[str, Comparison | None]) -> dict[str, Comparison]:
    """Return the comparisons of several systems with one, by system, each score's p-values corrected over them."""
    defined = {name: own for name, own in comparisons.items() if own is not None}
    adjusted = corrected([own.differences for own in defined.values()])
    return {
        name: replace(own, differences=differences)
        for (name, own), differences in zip(defined.items(), adjusted, strict=True)
    }
