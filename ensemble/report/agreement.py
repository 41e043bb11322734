"""How far annotators agree, beside how far systems agree with an annotator."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ensemble.evaluation.system import System
from featurestore.corpus.audit import agreement_of, primary_votes
from featurestore.corpus.manifest import Manifest
from featurestore.corpus.votes import are_counts
from featurestore.runtime.jsonable import json_fields, jsonable


def annotator_agreement(manifest: Manifest, systems: Sequence[System]) -> dict[str, Any] | None:
    """Return the annotators' agreement and each system's; None where there are no counts of votes.

    "pairs": the share of equal labels among pairs of annotators of one utterance, the mean over the utterances with two
    votes or more; a system's "share" is that of the annotators who gave the class that it predicts, the mean over those
    of the same utterances that it predicts, beside the annotators' own on exactly these.
    """
    notes: list[str] = []
    agreement = agreement_of(manifest, notes)
    votes = primary_votes(manifest)  # a second label of an annotator is nobody else's
    if agreement is None or votes is None or not are_counts(votes):
        return None
    n = votes.sum(1)
    several = n > 1
    if not several.any():
        return None
    pairs = np.zeros(len(votes))
    pairs[several] = ((votes**2).sum(1) - n)[several] / (n * (n - 1))[several]
    row = {key: i for i, key in enumerate(manifest.keys)}
    rows = []
    for system in systems:
        if system.predicted is None:
            continue
        keys = [key for key in system.keys if key in row and several[row[key]]]
        if not keys:
            continue
        of_keys = system.of(keys).among(manifest.scheme.classes)
        indices = np.array([row[key] for key in keys])
        share = votes[indices, of_keys.predicted] / n[indices]
        rows.append({
            "name": system.name, "n": len(keys), "share": float(share.mean()), "pairs": float(pairs[indices].mean()),
        })  # fmt: skip
    values: dict[str, Any] = jsonable({
        "annotators": json_fields(agreement), "pairs": float(pairs[several].mean()), "n": int(several.sum()),
        "systems": rows, "notes": notes,
    })  # fmt: skip
    return values
