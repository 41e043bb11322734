"""Fitting and selecting pass by pass: what is scored took no part in choosing members, rounds or weights."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ensemble.fusion.division import Division, Pass
from ensemble.fusion.problem import Problem
from ensemble.fusion.selection import Rule, Selection
from ensemble.fusion.state import Prediction
from ensemble.fusion.techniques import Fitted, FittedChoice, Fused, Technique


@dataclass(frozen=True)
class CrossFit:
    """What became of every column (a rule that selects members) and technique.

    predictions[column, technique's name][part]: of the part's utterances, in the order of the division's manifest.
    chosen[column][pass]: the members. fitted[column, name]: of the division's last pass. choices[column, name][pass]:
    what a technique that chooses among others took.
    """

    predictions: dict[tuple[str, str], dict[str, Fused]]
    chosen: dict[str, dict[str, Selection]]
    fitted: dict[tuple[str, str], Fitted]
    choices: dict[tuple[str, str], dict[str, FittedChoice]] = field(default_factory=dict)


def cross_fit(
    problem: Problem,
    division: Division,
    columns: Mapping[str, Rule],
    techniques: Sequence[Technique],
    *,
    keep_fit: bool = True,
    progress: Callable[[str], None] | None = None,
) -> CrossFit:
    """Select and fit on each pass's rows, and return the predictions of the others that it judges.

    problem: of the division's manifest, all members. keep_fit: the last pass is fitted even where it judges nothing.
    """
    say = progress or (lambda _: None)
    passes = [each for each in division.passes if each.judge or (keep_fit and each is division.passes[-1])]
    pieces: dict[tuple[str, str], dict[str, list[tuple[np.ndarray, Fused]]]] = {}
    chosen: dict[str, dict[str, Selection]] = {column: {} for column in columns}
    fitted: dict[tuple[str, str], Fitted] = {}
    choices: dict[tuple[str, str], dict[str, FittedChoice]] = {}
    for each in passes:
        train = problem.rows(each.fit)
        judged = {part: problem.rows(rows) for part, rows in each.judge.items()}
        for column, rule in columns.items():
            selection = rule(train)
            chosen[column][each.name] = selection
            of_selected = train.choose(selection.members)
            for technique in techniques:
                say(f"{each.name}: {technique.name}, {column}")
                fit = technique.fit(of_selected, selection)
                if isinstance(fit, FittedChoice):
                    choices.setdefault((column, technique.name), {})[each.name] = fit
                if each is division.passes[-1]:
                    fitted[column, technique.name] = fit
                parts = pieces.setdefault((column, technique.name), {})
                for part, rows in judged.items():
                    parts.setdefault(part, []).append((each.judge[part], fit.predict(rows.choose(selection.members))))
    predictions = {key: {part: _join(found) for part, found in parts.items()} for key, parts in pieces.items()}
    return CrossFit(predictions, chosen, fitted, choices)


def one_speaker_notes(problem: Problem, passes: Sequence[Pass], techniques: Sequence[Technique]) -> list[str]:
    """Return a note on the fits whose settings were chosen by utterances of the speaker that they learned from."""
    fits = [each.name for each in passes if problem.rows(each.fit).one_group]
    chosen = [each.name for each in techniques if each.chooses]
    if not fits or not chosen:
        return []
    return [
        f"{', '.join(fits)}: all utterances to learn from are of one speaker, so utterances of this same speaker were "
        f"held out to choose settings ({', '.join(chosen)})."
    ]


def _join(pieces: Sequence[tuple[np.ndarray, Fused]]) -> Fused:
    """Return the predictions of several passes as one, in the order of their rows."""
    order = np.argsort(np.concatenate([rows for rows, _ in pieces]))
    fused = [each for _, each in pieces]

    def joined(predictions: Sequence[Prediction]) -> Prediction:
        fields = ("logits", "probabilities", "attributes")
        return Prediction(*(np.concatenate([getattr(p, name) for p in predictions])[order] for name in fields))

    n_seeds = len(fused[0].seeds)
    return Fused(joined([f.whole for f in fused]), tuple(joined([f.seeds[s] for f in fused]) for s in range(n_seeds)))
