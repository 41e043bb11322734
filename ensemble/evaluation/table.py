"""Several systems on the same utterances: their scores with intervals, and the paired difference of each to one."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ensemble.evaluation.assess import common_attributes, rare_class_notes, scale_notes, scored, speaker_notes
from ensemble.evaluation.bootstrap import Comparison, Difference, Interval, Scored, Sums, bootstrap, compare
from ensemble.evaluation.multiple import corrected
from ensemble.evaluation.parts import Part, parts_of
from ensemble.evaluation.system import System
from featurestore.corpus.manifest import Manifest
from featurestore.errors import AlignmentError, ConfigError
from featurestore.runtime.html import html_table
from featurestore.runtime.jsonable import jsonable

CLASS_SCORES = ("macro_f1", "macro_f1_present", "uar", "accuracy")
MEAN_CCC, CCC = "mean_ccc", "ccc_"


@dataclass(frozen=True)
class TableRow:
    """One system's scores, and each less that of the reference; a score that a system has not is left out."""

    name: str
    scores: dict[str, Interval]
    differences: dict[str, Difference]

    def score(self, name: str) -> Interval:
        """Return a score with its interval, NaN where the system has none."""
        return self.scores.get(name, Interval(math.nan, math.nan, math.nan))


@dataclass(frozen=True)
class SystemTable:
    """Systems on one part of a corpus.

    reference: the row that differences are to. absent: classes of the scheme without an utterance here, each of which
    counts 0 in macro_f1. attributes: those that mean_ccc is over, the same for every row. notes: what a reader needs
    beside the figures.
    """

    part: str
    reference: str
    n_utterances: int
    n_labelled: int
    n_clusters: int
    n_resamples: int
    absent: tuple[str, ...]
    attributes: tuple[str, ...]
    rows: tuple[TableRow, ...]
    notes: tuple[str, ...]

    @property
    def scores(self) -> tuple[str, ...]:
        """The columns: what some row has; macro-F1 of the classes that occur only where it differs from macro-F1."""
        names = dict.fromkeys(name for row in self.rows for name in row.scores)
        differs = any(
            abs(row.score("macro_f1").value - row.score("macro_f1_present").value) > 1e-9 for row in self.rows
        )
        classes = [name for name in CLASS_SCORES if name in names and (differs or name != "macro_f1_present")]
        concordances = [name for name in names if name.startswith(CCC)]
        return (*classes, *([MEAN_CCC] if MEAN_CCC in names and len(concordances) > 1 else []), *concordances)

    def _repr_html_(self) -> str:
        """Return the scores, the differences to the reference and the notes as tables for notebooks."""
        rows = [[row.name, *(_figure(row.score(name)) for name in self.scores)] for row in self.rows]
        title = f"{self.part}: {self.n_utterances:,} utterances, {self.n_clusters:,} speakers"
        tables = [html_table(("system", *self.scores), rows, title)]
        difference_rows = [
            [row.name, name, f"{d.value:+.3f}", f"{d.low:+.3f} to {d.high:+.3f}", f"{d.p:.3f}", f"{d.p_holm:.3f}"]
            for row in self.rows
            for name, d in row.differences.items()
            if name in self.scores
        ]
        if difference_rows:
            heads = ("system", "score", f"less {self.reference}", "95 % interval", "p", "p, Holm")
            tables.append(html_table(heads, difference_rows, "paired differences"))
        return "".join([*tables, html_table((), [[note] for note in self.notes], "notes") if self.notes else ""])

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON-able values; an undefined figure is null."""
        systems = [
            {
                "system": row.name,
                "scores": {name: [i.value, i.low, i.high] for name, i in row.scores.items()},
                "differences": {
                    name: {"difference": d.value, "low": d.low, "high": d.high, "p": d.p, "p_holm": d.p_holm}
                    for name, d in row.differences.items()
                },
            }
            for row in self.rows
        ]
        fields = {name: getattr(self, name) for name in (
            "part", "reference", "n_utterances", "n_labelled", "n_clusters", "n_resamples", "absent", "attributes",
            "notes",
        )}  # fmt: skip
        values: dict[str, Any] = jsonable(fields | {"systems": systems})
        return values


def _figure(interval: Interval) -> str:
    """Return a score with its interval, as far as they are known."""
    if math.isnan(interval.value):
        return "-"
    return f"{interval.value:.3f}" + (
        "" if math.isnan(interval.low) else f" ({interval.low:.3f} to {interval.high:.3f})"
    )


def tables_of(
    systems: Mapping[str, System],
    manifest: Manifest,
    *,
    reference: str | None = None,
    cv: str | None = None,
    split: str | None = None,
    common: bool = False,
    n_resamples: int = 1000,
    seed: int = 0,
) -> dict[str, SystemTable]:
    """Return a table for each part that every system predicts, see `ensemble.evaluation.parts.parts_of`.

    systems: by the name of their row. reference: the row that differences are to, by default the first. Speakers are
    resampled, with the same draws for every system; p-values are those of `ensemble.evaluation.bootstrap.compare`.
    AlignmentError where the systems predict different utterances of a part, unless common=True asks for those that all
    predict. ManifestError where nothing can be scored.
    """
    names = list(systems)
    reference = names[0] if reference is None else reference
    if reference not in systems:
        raise ConfigError(f"{reference!r} is none of the systems {', '.join(names)}, so nothing differs from it.")
    parts, left_out = _parts(systems, manifest, cv, split, common)
    return {
        part: _table(part, systems, rows, reference, n_resamples, seed, (*notes, *left_out))
        for part, (rows, notes) in parts.items()
    }


def _parts(
    systems: Mapping[str, System], manifest: Manifest, cv: str | None, split: str | None, common: bool
) -> tuple[dict[str, tuple[Manifest, list[str]]], list[str]]:
    """Return the utterances of each part with notes on them, and notes on parts that some system lacks altogether."""
    judged = {name: set(system.keys) for name, system in systems.items()}
    first = next(iter(systems.values()))
    fold_column = first.fold_column if first.fold_column and manifest.has(first.fold_column) else None
    parts = parts_of(manifest, " and ".join(systems), list(judged.values()), cv=cv or fold_column, split=split)
    counts = {
        part: {name: sum(key in own for key in rows.manifest.keys) for name, own in judged.items()}
        for part, rows in parts.items()
    }
    complete = {part: rows for part, rows in parts.items() if all(counts[part].values())}
    left_out = [
        f"{part} is left out: {', '.join(name for name, n in counts[part].items() if not n)} "
        f"{'predict' if list(counts[part].values()).count(0) > 1 else 'predicts'} none of it"
        for part in parts
        if part not in complete
    ]
    if not complete:
        counts_text = "; ".join(f"{part}: {_counts(counts[part], len(rows.manifest))}" for part, rows in parts.items())
        raise AlignmentError(
            f"The systems have no part in common ({counts_text}). "
            "Predict the same utterances with each, or evaluate them one by one."
        )
    return {part: _chosen(part, rows, judged, counts[part], common) for part, rows in complete.items()}, left_out


def _chosen(
    part: str, rows: Part, judged: Mapping[str, set[str]], counts: Mapping[str, int], common: bool
) -> tuple[Manifest, list[str]]:
    n = len(rows.manifest)
    if all(own == n for own in counts.values()):
        return rows.manifest, []
    shared = np.array([all(key in own for own in judged.values()) for key in rows.manifest.keys])
    if not common or not shared.any():
        remedy = "choose a split that all predict whole (--split)"
        remedy += ", or score those that all predict (--common)" if shared.any() else ""
        missing = {
            name: [key for key in rows.manifest.keys if key not in own]
            for name, own in judged.items()
            if counts[name] < n
        }
        raise AlignmentError(
            f"The systems predict different utterances of {part}: {_counts(counts, n)}; {int(shared.sum()):,} are "
            f"predicted by all. Predict the missing ones (the first of {next(iter(missing))} is "
            f"{next(iter(missing.values()))[0]!r}), {remedy}.",
            missing,
        )
    return rows.manifest.rows(shared), [
        f"scored are the {int(shared.sum()):,} of {n:,} utterances that all systems predict ({_counts(counts, n)})"
    ]


def _counts(counts: Mapping[str, int], n: int) -> str:
    return ", ".join(f"{name} {own:,} of {n:,}" for name, own in counts.items())


def _table(
    part: str,
    systems: Mapping[str, System],
    rows: Manifest,
    reference: str,
    n_resamples: int,
    seed: int,
    notes: Sequence[str],
) -> SystemTable:
    judged = {name: _scored(system, rows) for name, system in systems.items()}
    with_attributes = [set(scored_rows.attributes) for scored_rows in judged.values() if scored_rows.attributes]
    shared = set.intersection(*with_attributes) if with_attributes else set()
    mean_of = tuple(name for name in rows.scheme.attributes if name in shared)
    options = {"n_resamples": n_resamples, "seed": seed}
    names: list[str] = []
    intervals: list[dict[str, Interval]] = []
    differences: list[dict[str, Difference]] = []
    for name, scored_rows in judged.items():
        scores = bootstrap(scored_rows.sums(), **options)
        scores.pop(MEAN_CCC, None)
        if mean_of and scored_rows.attributes:
            scores[MEAN_CCC] = bootstrap(_with(scored_rows, mean_of).sums(), **options)[MEAN_CCC]
        pair = scored_rows, judged[reference]
        row_differences = (
            {} if name == reference or not n_resamples else _differences(pair, (name, reference), mean_of, options)
        )
        names.append(name)
        intervals.append(scores)
        differences.append(row_differences)
    table_rows = tuple(map(TableRow, names, intervals, corrected(differences)))
    labels = next(
        (scored_rows.labels for scored_rows in judged.values() if scored_rows.predicted is not None),
        np.empty(0, np.int64),
    )
    classes = next((scored_rows.classes for scored_rows in judged.values() if scored_rows.predicted is not None), ())
    absent = tuple(name for c, name in enumerate(classes) if not (labels == c).any())
    first = next(iter(judged.values()))
    n_clusters = first.n_clusters
    table = SystemTable(
        part, reference, len(rows), int((labels >= 0).sum()), n_clusters, n_resamples, absent, mean_of,
        table_rows, (),
    )  # fmt: skip
    own_notes = [
        f"{name}: {note}"
        for name, scored_rows in judged.items()
        for note in (*scored_rows.notes, *scale_notes(scored_rows))
    ]
    with_classes = next((own for own in judged.values() if own.predicted is not None), first)
    speakers = [*speaker_notes(rows, n_clusters), *rare_class_notes(with_classes)] if n_resamples else []
    return replace(table, notes=(*_explained(table, judged), *notes, *speakers, *own_notes))


def _scored(system: System, rows: Manifest) -> Scored:
    return replace(scored(system, rows, common_attributes(rows, system)), means={})


def _with(rows: Scored, attributes: Sequence[str], classes: bool = True) -> Scored:
    """Return the same with these attributes alone, and without classes where they are not asked for."""
    columns = [rows.attributes.index(name) for name in attributes]
    return replace(
        rows, predicted=rows.predicted if classes else None, attributes=tuple(attributes),
        targets=rows.targets[:, columns], values=rows.values[:, columns],
    )  # fmt: skip


def _differences(
    pair: tuple[Scored, Scored], names: tuple[str, str], mean_of: tuple[str, ...], options: Mapping[str, int]
) -> dict[str, Difference]:
    """Return each score that both have, of the first less the second; mean_of: the attributes of the mean CCC."""
    classes = all(own.predicted is not None for own in pair)
    attributes = tuple(name for name in pair[0].attributes if name in pair[1].attributes)
    differences: dict[str, Difference] = {}
    if classes or attributes:
        differences = _compared(pair, names, attributes, classes, options).differences
    differences.pop(MEAN_CCC, None)
    if mean_of and attributes:
        differences[MEAN_CCC] = _compared(pair, names, mean_of, False, options).differences[MEAN_CCC]
    return differences


def _compared(
    pair: tuple[Scored, Scored], names: tuple[str, str], attributes: tuple[str, ...], classes: bool,
    options: Mapping[str, int],
) -> Comparison:  # fmt: skip
    first, second = (_sums(own, attributes, classes) for own in pair)
    return compare(first, second, names, **options)


def _sums(rows: Scored, attributes: tuple[str, ...], classes: bool) -> Sums:
    return _with(rows, attributes, classes).sums()


def _explained(table: SystemTable, judged: Mapping[str, Scored]) -> list[str]:
    """Return what the figures are of, and what a dash means."""
    notes = []
    if table.n_resamples:
        notes.append(
            f"95 % intervals from {table.n_resamples:,} resamples of {table.n_clusters:,} speakers, the same for every "
            "system"
            + (f"; differences are to {table.reference}, p from swapping the two" if len(table.rows) > 1 else "")
        )
    n_compared = sum(bool(row.differences) for row in table.rows)
    if n_compared > 1:
        notes.append(
            f"Holm: the p-value corrected for the {n_compared} systems that a score is compared in (p_holm in CSV and "
            "JSON); the intervals are not corrected"
        )
    if 0 < table.n_labelled < table.n_utterances:
        notes.append(f"{table.n_utterances - table.n_labelled:,} utterances without a label are left out of classes")
    if table.absent:
        notes.append(
            f"no utterance of {', '.join(table.absent)}: it counts as 0 in macro-F1 and not at all in UAR and macro-F1 "
            "of present classes"
        )
    predicted = dict.fromkeys(name for own in judged.values() for name in own.attributes)
    if table.attributes and len(table.attributes) < len(predicted):
        notes.append(f"mean CCC is over {', '.join(table.attributes)}, which all systems that rate predict")
    undefined = [
        name
        for name in predicted
        if all(math.isnan(row.score(CCC + name).value) for row in table.rows if CCC + name in row.scores)
    ]
    if undefined:
        notes.append(f"CCC of {', '.join(undefined)} is undefined (-): fewer than two utterances are rated")
    lacking = [row.name for row in table.rows if any(name not in row.scores for name in table.scores)]
    if lacking:
        notes.append(f"a dash: {', '.join(lacking)} {'do' if len(lacking) > 1 else 'does'} not predict it")
    return notes
