"""Who chose the epochs or rounds that were kept, in words."""

from collections.abc import Mapping
from typing import Any

from featurestore.corpus.held_out import sentence

SHOWN = 6  # folds that are named one by one


def held_out_lines(name: str, folds: Mapping[str, Any]) -> list[str]:
    """Return a line for each fold or pass of a record of held-out speakers, or one for many that are alike.

    folds: by name what `featurestore.corpus.held_out.HeldOut.to_dict` gives.
    """
    without = {fold: record for fold, record in folds.items() if record["why_not"]}
    held_out = {fold: record for fold, record in folds.items() if not record["why_not"]}
    lines = []
    if len(held_out) > SHOWN:
        shares = [record["share"] for record in held_out.values()]
        speakers = [len(record["speakers"]) for record in held_out.values()]
        lines.append(
            f"{name}: {min(speakers):,} to {max(speakers):,} speakers ({min(shares):.1%} to {max(shares):.1%} of the "
            f"training utterances) of each of {len(held_out):,} fits are held out; the run directory names them"
        )
    else:
        lines += [f"{name}, {_fit(fold)}: {sentence(record)}" for fold, record in held_out.items()]
    reasons: dict[str, list[str]] = {}
    for fold, record in without.items():
        reasons.setdefault(sentence(record), []).append(_fit(fold))
    return [*lines, *(f"note: {name}, {', '.join(of)}: {reason}" for reason, of in reasons.items())]


def _fit(name: str) -> str:
    """Return the name of a fit: a member's as its fold's, a meta-classifier's pass in words."""
    return name if " " in name or name in ("all", "train", "development") else f"fold {name}"
