"""MEDUSA's Table 3 on any corpus: ways of fusing against sets of members, every figure from utterances held out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from deepser.scores.metrics import ScoreRow
from ensemble.evaluation.bootstrap import Interval
from ensemble.evaluation.posteriors import adapted_notes
from ensemble.fusion.cross_fit import cross_fit, one_speaker_notes
from ensemble.fusion.division import divide, members_of
from ensemble.fusion.fit_report import technique_intervals, technique_rows, worth_scoring
from ensemble.fusion.problem import load_problem, unread_classes
from ensemble.fusion.selection import Rule, everyone, greedy, top
from ensemble.fusion.techniques import Technique
from featurestore.corpus.manifest import Manifest
from featurestore.errors import ConfigError
from featurestore.runtime.jsonable import jsonable
from featurestore.store.feature_store import FeatureStore

GREEDY, WITH_REPLACEMENT = "greedy", "greedy, repl."


@dataclass(frozen=True)
class Comparison:
    """parts[part][column][row]: a way of fusing's scores; chosen[column][pass]: the members it was made of there.

    Columns are named as they are shown: "14", "top-7", "greedy". attribute_rows: rows that have no word on classes.
    """

    members: tuple[str, ...]
    fitted_on: str
    n_fitted: int
    in_sample: bool
    notes: tuple[str, ...]
    parts: dict[str, dict[str, dict[str, ScoreRow]]]
    chosen: dict[str, dict[str, tuple[str, ...]]]
    attribute_rows: tuple[str, ...] = ()
    # By part, column and row: 95 % intervals of its scores by resampling speakers, the same draws for every row.
    intervals: dict[str, dict[str, dict[str, dict[str, Interval]]]] = field(default_factory=dict)
    n_resamples: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-able values."""
        parts = {
            part: {column: {name: row.to_dict() for name, row in rows.items()} for column, rows in columns.items()}
            for part, columns in self.parts.items()
        }
        values: dict[str, Any] = jsonable(
            {
                "members": self.members,
                "fitted_on": self.fitted_on,
                "n_fitted": self.n_fitted,
                "in_sample": self.in_sample,
                "notes": self.notes,
                "chosen": self.chosen,
                "attribute_rows": self.attribute_rows,
                "parts": parts,
                "n_resamples": self.n_resamples,
                "intervals": {
                    part: {column: {name: _ends(own) for name, own in rows.items()} for column, rows in columns.items()}
                    for part, columns in self.intervals.items()
                },
            }
        )
        return values  # fmt: skip


def columns_of(
    n_members: int, tops: Sequence[int] | None = None, greedily: bool = False, replacement: bool = False
) -> dict[str, Rule]:
    """Return the rules by the name of their column. tops: how many members; None: the proportions of Table 3.

    Those are all members, half of them and five in fourteen. ConfigError for more members than there are.
    """
    if tops is None:
        tops = [n_members, n_members // 2, round(n_members * 5 / 14)]
    columns: dict[str, Rule] = {}
    for k in tops:
        if k > n_members or (k < 1 and len(tops) == 1):
            raise ConfigError(f"The top {k} can't be chosen of {n_members} members; name fewer in --top.")
        if k == n_members:
            columns[str(k)] = everyone
        elif k > 0:
            columns[f"top-{k}"] = top(k)
    if greedily:
        columns[WITH_REPLACEMENT if replacement else GREEDY] = greedy(replacement)
    return columns


def compare(
    store: FeatureStore,
    manifest: Manifest,
    members: Sequence[str],
    techniques: Sequence[Technique],
    columns: Mapping[str, Rule],
    *,
    folds: str | None = None,
    in_sample: bool = False,
    n_resamples: int = 0,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> Comparison:
    """Score every technique over every selection of members, with intervals by speaker where n_resamples > 0.

    Nested: the utterances that are scored take no part in choosing members, rounds or weights; see
    `ensemble.fusion.division.divide` for which those are. AlignmentError when a member lacks an utterance, ConfigError
    for in-sample posteriors that aren't asked for.
    """
    names = members_of(store, members)
    division = divide(store, manifest, names, folds, in_sample)
    problem = load_problem(store, division.manifest, names, logits=any(each.logits for each in techniques))
    judged = cross_fit(problem, division, columns, techniques, keep_fit=False, progress=progress)
    parts: dict[str, dict[str, dict[str, ScoreRow]]] = {}
    ends: dict[str, dict[str, dict[str, dict[str, Interval]]]] = {}
    for part in division.parts:
        rows = division.rows(part)
        of_part, folds_of_rows = problem.rows(rows), division.folds_of(part)
        if not worth_scoring(of_part):
            continue
        parts[part], ends[part] = {}, {}
        for column in columns:
            parts[part][column], ends[part][column] = {}, {}
            for each in techniques:
                fused = judged.predictions[column, each.name][part]
                parts[part][column] |= {row.name: row for row in technique_rows(of_part, each, fused, folds_of_rows)}
                if n_resamples:
                    ends[part][column] |= technique_intervals(of_part, each, fused, n_resamples, seed)
    chosen = {
        column: {each: tuple(names[m] for m in selection.members) for each, selection in passes.items()}
        for column, passes in judged.chosen.items()
    }
    return Comparison(
        members=names,
        fitted_on=division.fitted_on,
        n_fitted=division.n_fitted,
        in_sample=bool(division.in_sample),
        notes=(
            *division.notes,
            *adapted_notes(store, names),
            *unread_classes(store, manifest, names),
            *one_speaker_notes(problem, [each for each in division.passes if each.judge], techniques),
        ),
        parts=parts,
        chosen=chosen,
        attribute_rows=tuple(each.name for each in techniques if not each.classes),
        intervals=ends,
        n_resamples=n_resamples,
    )


def _ends(intervals: Mapping[str, Interval]) -> dict[str, list[float]]:
    return {name: [own.value, own.low, own.high] for name, own in intervals.items()}
