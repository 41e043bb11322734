"""The check of a corpus's division, made before scores of systems on it are printed."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from deepser.members.folds import outside_folds
from ensemble.evaluation.parts import left_out
from ensemble.evaluation.posteriors import posteriors_name
from ensemble.evaluation.sounds import known_sounds
from ensemble.evaluation.system import System
from ensemble.evaluation.systems import corpora_of, fold_column, made_on
from featurestore.corpus.cross_corpus import TRAIN, CrossCorpus, shared_names
from featurestore.corpus.division import Division, PartRecord, part_name
from featurestore.corpus.manifest import Manifest
from featurestore.corpus.overlap import Items
from featurestore.corpus.protocol import (
    ERROR,
    NOTE,
    WARNING,
    Finding,
    ProtocolReport,
    check_division,
    compare_record,
)
from featurestore.corpus.splits import label_names
from featurestore.runtime.wording import counted
from featurestore.store.feature_store import FeatureStore

OTHER_CORPORA = "other corpora"  # the kind of finding of predictions by models of other corpora than those named
LEARNED = "learned"  # the kind of finding of predictions by models that learned from other utterances of a split
LEFT_OUT = "left out"  # the kind of finding of corpora to learn from that are predicted in part
OTHER_PARTS = "other parts"  # the kind of finding of predictions that were made on another division


@dataclass(frozen=True)
class Made:
    """What a system's predictions were made on.

    column: of its folds, "" for splits or where it isn't known. record: the fold and label of each utterance, None
    where it is not recorded, as in predictions that an earlier version stored. corpora: trained on and tested on.
    """

    column: str
    record: PartRecord | None
    corpora: CrossCorpus | None = None


def made_of(store: FeatureStore, names: Iterable[str]) -> dict[str, Made]:
    """Return what posteriors were made on, by their names in the store; the names may lack "posteriors/"."""
    set_names = [posteriors_name(store, name) for name in names]
    return {name: Made(fold_column(store, name), made_on(store, name), corpora_of(store, name)) for name in set_names}


def check_systems(
    manifest: Manifest,
    systems: Iterable[System],
    cv: str | None = None,
    *,
    split: str | None = None,
    store: FeatureStore | None = None,
) -> ProtocolReport:
    """Return the report of `check_protocol` on open systems, over the folds of the first, by which they are scored.

    store: its records of the audio show equal sound; without it, equal paths do.
    """
    systems = list(systems)
    folds_of_first = next((each.fold_column for each in systems[:1] if split is None), "")
    folds_of_first = folds_of_first if manifest.has(folds_of_first) else ""
    stored = [each for each in systems if each.stored]
    made = {each.name: Made(each.fold_column, each.made_on, each.corpora) for each in stored}
    sounds = () if store is None else known_sounds(store, manifest, [each.name for each in stored])
    report = check_protocol(manifest, cv or folds_of_first or None, made, sounds=sounds)
    unscored = (
        None if cv or folds_of_first or split else left_out(manifest, {each.name: set(each.keys) for each in systems})
    )
    if unscored is None:
        return report
    return replace(report, findings=(*report.findings, Finding(LEFT_OUT, NOTE, unscored, 1, 0)))


def check_protocol(
    manifest: Manifest,
    cv: str | None = None,
    made: Mapping[str, Made] | None = None,
    *,
    sounds: Items = (),
) -> ProtocolReport:
    """Return the problems of the parts that are scored, and of the data that the systems were made on.

    cv: the fold column; without it the column `split` counts, else `fold`. made: by system, see `made_of`. Predictions
    that were made on other labels, or over other folds in a column of the same name, are an error; those over the folds
    of another column are a warning, and these folds are checked, too. So are scores of a split by models that were
    cross-validated, and learned from it. sounds: (N,) digests of the decoded samples, see
    `sounds.known_sounds`; else equal paths are equal sound. Where splits are corpora, they are named so, and what their
    labels and speakers' names have in common is checked, too.
    """
    made = made or {}
    column = cv or next((name for name in ("split", "fold") if manifest.has(name)), None)
    if column is None:
        division = Division(manifest.keys, [""] * len(manifest), "", label_names(manifest) or ())
        report = ProtocolReport("", len(manifest), 0, ())
    else:
        corpora = CrossCorpus.of_manifest(manifest) if column == "split" else None
        division = Division.of_manifest(
            manifest, column, audio=sounds, parts=corpora.part_names(manifest) if corpora else None,
            learned=corpora.learned if corpora else None,
        )  # fmt: skip
        report = check_division(division)
        if column != "split":
            report = replace(report, findings=(*report.findings, *_outside(manifest, column, sounds)))
        if corpora is not None:
            others = [each for name, own in made.items() for each in _other_corpora(corpora, own, name)]
            report = replace(report, findings=(*others, *report.findings, *_across_corpora(division)))
    findings = [each for name, own in made.items() for each in _compared(division, own, name)]
    if column == "split" and division.learned is None:
        findings += [each for name, own in made.items() for each in _learned_from(division, own, name)]
    for own in sorted({each.column for each in made.values()} - {column or "", ""}):
        if manifest.has(own):  # folds that models were trained over leak whatever the spread is over
            findings += check_division(Division.of_manifest(manifest, own, audio=sounds)).findings
    unrecorded = [name for name, own in made.items() if own.record is None]
    if unrecorded:
        message = f"no record of the folds and labels that {', '.join(unrecorded)} were made on, so it can't be checked"
        findings.append(Finding("no record", NOTE, message, len(unrecorded), 0, tuple(unrecorded)))
    return replace(report, findings=(*findings, *report.findings))


def _learned_from(division: Division, made: Made, name: str) -> list[Finding]:
    """Return the splits other than train that models learned from, fold by fold, if a system was cross-validated."""
    if not made.column or made.record is None:
        return []
    record = made.record
    learned = {key for key, part in zip(record.keys, record.parts, strict=True) if part}
    if any(label is not None for label in record.labels):  # nothing is learned of a hidden test set
        learned -= {key for key, label in zip(record.keys, record.labels, strict=True) if label is None}
    split_of = zip(division.keys, division.parts, strict=True)
    counts = Counter(split for key, split in split_of if split not in ("", TRAIN) and key in learned)
    if not counts:
        return []
    splits = ", ".join(counts)
    message = (
        f"{name} was cross-validated over {made.column!r}, and each of its models learned from other folds' utterances "
        f"of {splits}: its scores there are out of fold, not those of a held-out split (--cv {made.column})"
    )
    return [Finding(LEARNED, WARNING, message, len(counts), sum(counts.values()), tuple(counts), dict(counts))]


def _outside(manifest: Manifest, column: str, sounds: Items) -> list[Finding]:
    """Return what utterances outside the folds, which all folds' models judge, have in common with the folds."""
    outside = outside_folds(manifest, column)
    if not outside.any():
        return []
    splits = manifest.column("split").tolist()
    parts = [part_name(split) if out else TRAIN for split, out in zip(splits, outside.tolist(), strict=True)]
    report = check_division(Division.of_manifest(manifest, "split", parts=parts, audio=sounds, learned={TRAIN}))
    return [each for each in report.findings if each.parts]  # what is not of parts was found with the folds


def _other_corpora(corpora: CrossCorpus, made: Made, name: str) -> list[Finding]:
    """Compare the corpora that a score is headed by with those that a system learned from."""
    if made.corpora is None:
        return []
    learned = made.corpora.train
    if set(learned) == set(corpora.train):
        return []
    if set(learned) < set(corpora.train):
        message = f"{name} learned from {', '.join(learned)} alone"
        return [Finding(OTHER_CORPORA, NOTE, message, 1, 0, (name,))]
    train = ",".join(dict.fromkeys((*corpora.train, *learned)))
    message = f"{name} learned from {', '.join(learned)}, not from {', '.join(corpora.train)} alone"
    test = [each for each in corpora.test if each not in learned]
    if test:
        message += f"; leave --train-on and --test-on out, or give --train-on {train} --test-on {','.join(test)}"
    return [Finding(OTHER_CORPORA, ERROR, message, 1, 0, (name,))]


def _across_corpora(division: Division) -> list[Finding]:
    """Return what two sides' corpora may share under other names: people, and classes in another letter case."""
    findings = []
    sides: dict[str, set[str]] = {}
    for part, label in zip(division.parts, division.labels, strict=False):
        if label is not None:
            sides.setdefault(part, set()).add(label)
    names = sorted(set().union(*sides.values())) if sides else []
    twins = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :] if a.casefold() == b.casefold()]
    if twins:
        pairs_text = ", ".join(f"{a} and {b}" for a, b in twins)
        message = (
            f"classes that differ in letter case alone are two classes: {pairs_text}; `medusa prepare join --merge`"
        )
        findings.append(Finding("class", WARNING, message, len(twins), 0, tuple(twins[0])))
    common = set.intersection(*sides.values()) if sides else set()
    if len(sides) > 1 and common != set(names):
        message = (
            f"{len(common)} of {len(names)} classes occur on both sides ({', '.join(sorted(common)) or 'none'}); "
            "`medusa prepare join --common-classes` leaves the others out of both, `--merge` gives classes one name"
        )
        findings.append(Finding("label scheme", NOTE, message, len(names) - len(common), 0))
    people = shared_names(division.speakers, division.parts) if len(division.speakers) else []
    if people:
        message = (
            f"{counted(len(people), 'speaker name')} on both sides ({', '.join(people[:5])}), taken for different "
            "people; if they are the same, join the corpora as one"
        )
        findings.append(Finding("speaker name", NOTE, message, len(people), 0, tuple(people[:5])))
    return findings


def _compared(division: Division, made: Made, name: str) -> list[Finding]:
    """Compare the utterances of a division with a record, as far as it has them."""
    if made.record is None:
        return []
    row = {key: i for i, key in enumerate(made.record.keys)}
    pairs = [(i, row[key]) for i, key in enumerate(division.keys) if key in row]
    keys, then = [division.keys[i] for i, _ in pairs], [made.record.parts[j] for _, j in pairs]
    labels, labels_then = [division.labels[i] for i, _ in pairs] if len(division.labels) else [], []
    if labels and any(label is not None for label in made.record.labels):  # earlier ensembles recorded no plurality
        # No score is reported of a label that is hidden now, and no model learned one of an utterance without a fold.
        labels_then = [
            now if now is None or not made.record.parts[j] else made.record.labels[j]
            for now, (_, j) in zip(labels, pairs, strict=True)
        ]
    # Splits say nothing of folds, nor folds of splits; there is nothing to compare but labels.
    over_folds = made.column and division.column not in ("split", "")
    now = [division.parts[i] for i, _ in pairs] if over_folds else then
    part = Division(keys, now, division.column, labels)
    findings = compare_record(part, PartRecord(keys, then, labels_then, f"{name} was"))
    if made.column == division.column:
        return findings
    moved = f"{name} was cross-validated over {made.column!r}, a spread over {division.column!r} is not over its folds"
    return [
        replace(each, severity=WARNING, message=f"{moved} ({each.message})") if each.kind == OTHER_PARTS else each
        for each in findings
    ]
