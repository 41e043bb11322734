"""Check a division of a corpus before a number that is measured on it is printed.

`check_division` is the one place that knows what is wrong with folds or splits. Whatever prints a score calls it, shows
`ProtocolReport.lines()`, stores `to_dict()`, and calls `refuse(strict=...)`.
"""

import dataclasses
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from featurestore.corpus.division import Division, PartRecord
from featurestore.corpus.manifest import Manifest
from featurestore.corpus.overlap import N_EXAMPLES, SPELLINGS, Items, Overlap, alike, bare_key, find_overlap, in_order
from featurestore.errors import ProtocolError
from featurestore.runtime.html import html_table
from featurestore.runtime.wording import counted

ERROR, WARNING, NOTE = "error", "warning", "note"
SHARED = ("utterance", "speaker", "audio")  # kinds of things that must not be in two parts
N_PAIRS, N_NAMES = 6, 5
__all__ = [
    "Division", "Finding", "PartRecord", "ProtocolReport", "check_division", "check_manifest", "compare_record"
]  # fmt: skip
WHAT = {"utterance": "utterance id", "speaker": "speaker", "audio": "identical recording"}


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a division.

    kind: utterance, speaker or audio (shared by parts); class (missing in a part, or everywhere); unknown speaker; and,
    compared with a record, other keys, other parts or other labels. severity: "error" where the numbers do not mean
    what they are called, "warning" where they are too good or incomplete, "note" otherwise.
    """

    kind: str
    severity: str
    message: str
    n_items: int  # speakers, recordings, ids or classes
    n_utterances: int
    names: tuple[str, ...] = ()  # the first few of the items
    parts: dict[str, int] = field(default_factory=dict)  # "1, 2" or "test" -> items


@dataclass(frozen=True)
class ProtocolReport:
    """What `check_division` found; an empty report is a clean one."""

    column: str
    n_utterances: int
    n_parts: int
    findings: tuple[Finding, ...]
    overlaps: tuple[Overlap, ...] = ()  # the shared items in full, for `audit`

    @property
    def clean(self) -> bool:
        """Nothing leaks, no class is missing in a part, and any predictions belong to this division."""
        return not any(finding.severity != NOTE for finding in self.findings)

    def lines(self, notes: bool = True) -> list[str]:
        """Return a line for each finding, such as `warning: 3 speakers (120 utterances) in ...`."""
        return [f"{each.severity}: {each.message}" for each in self.findings if notes or each.severity != NOTE]

    def _repr_html_(self) -> str:
        """Return the findings, or that there are none, as a table for notebooks."""
        rows = [[each.severity, each.message] for each in self.findings] or [["clean", "nothing leaks, no class lacks"]]
        return html_table(("", "finding"), rows, f"division by {self.column or 'nothing'}, {self.n_parts} parts")

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON types."""
        return {
            "column": self.column,
            "utterances": self.n_utterances,
            "parts": self.n_parts,
            "clean": self.clean,
            "findings": [{**dataclasses.asdict(each), "names": list(each.names)} for each in self.findings],
        }

    def refuse(self, strict: bool = False) -> None:
        """Raise ProtocolError with the counts if a finding is an error or, with `strict`, a warning."""
        severities = (ERROR, WARNING) if strict else (ERROR,)
        wrong = [each.message for each in self.findings if each.severity in severities]
        if wrong:
            of_other = any(each.severity == ERROR for each in self.findings)
            remedy = " Fit again with this manifest, or give the manifest (and fold column) that it was made with."
            raise ProtocolError("; ".join(wrong) + "." + (remedy if of_other else ""))


def check_division(
    division: Division, record: PartRecord | None = None, *, leaks: Collection[str] = SHARED
) -> ProtocolReport:
    """Return the problems of a division of a corpus, and of predictions that were made on `record`.

    Found are speakers, utterance ids and identical recordings in two parts, with their numbers (a leak where a model
    learns from one of the parts); classes that are missing in a part or have no utterance at all; utterances whose
    speaker is unknown; and predictions that were made on other utterances, parts or labels. leaks: the kinds of SHARED
    whose overlap is a warning; the others are notes. A pure function of its arguments.
    """
    items: dict[str, Items] = {
        "utterance": [bare_key(key) for key in division.keys],
        "speaker": division.speakers,
        "audio": division.audio,
    }
    overlaps = [
        find_overlap(
            kind, division.column, of_kind, division.parts, division.keys, harmful=kind in leaks,
            learned=division.learned_from,
        )
        for kind, of_kind in items.items() if len(of_kind)
    ]  # fmt: skip
    shared = tuple(overlap for overlap in overlaps if overlap is not None)
    findings = [_of_overlap(overlap) for overlap in shared] + _missing_classes(division) + _unknown_speakers(division)
    findings += _speakers_alike(division, WARNING if "speaker" in leaks else NOTE)
    if record is not None:
        findings = compare_record(division, record) + findings
    rank = (ERROR, WARNING, NOTE)
    findings.sort(key=lambda finding: rank.index(finding.severity))
    return ProtocolReport(division.column, len(division.keys), len(set(division.parts) - {""}), tuple(findings), shared)


def check_manifest(
    manifest: Manifest,
    column: str,
    record: PartRecord | None = None,
    *,
    audio: Items = (),
    leaks: Collection[str] = SHARED,
) -> ProtocolReport:
    """Return the problems of the parts that a column of a manifest makes; see `check_division`."""
    return check_division(Division.of_manifest(manifest, column, audio=audio), record, leaks=leaks)


def _of_overlap(overlap: Overlap) -> Finding:
    pairs = [f"{pair}: {n:,}" for pair, n in overlap.pairs.items()]
    more = f" and {len(pairs) - N_PAIRS:,} more pairs" if len(pairs) > N_PAIRS else ""
    names = tuple(overlap.examples)
    if overlap.kind != "speaker":  # a digest or a folded id says nothing to a reader
        names = tuple(key for places in overlap.examples.values() for keys in places.values() for key in keys[:1])
    message = (
        f"{counted(overlap.n_items, WHAT[overlap.kind])} ({counted(overlap.n_utterances, 'utterance')}) in more than "
        f"one {overlap.column} ({'; '.join(pairs[:N_PAIRS])}{more}), such as {', '.join(names[:N_NAMES])}"
    )
    severity = WARNING if overlap.leak else NOTE
    return Finding(
        overlap.kind, severity, message, overlap.n_items, overlap.n_utterances, names[:N_NAMES], overlap.pairs
    )


def _missing_classes(division: Division) -> list[Finding]:
    """Return findings for classes that some part lacks; a part without any label (a hidden test set) lacks none."""
    labelled: dict[str, Counter[str]] = {}
    for (part, label), n in Counter(zip(division.parts, division.labels, strict=False)).items():
        if part and label is not None:
            labelled.setdefault(part, Counter())[label] = n
    total: Counter[str] = sum(labelled.values(), Counter())
    if not total:
        return []
    classes = list(division.classes) or sorted(total)
    findings = []
    lacking = {
        part: [name for name in classes if total[name] and not counts[name]] for part, counts in labelled.items()
    }
    lacking = {part: lacking[part] for part in in_order(lacking) if lacking[part]}
    if lacking:
        names = [name for name in classes if any(name in of for of in lacking.values())]
        unlearned = [name for name in names if _is_unlearned(name, labelled, division.learned_from)]
        lacks = [f"{part} has no {', '.join(of)}" for part, of in lacking.items()]
        more = f" and {len(lacks) - N_PAIRS:,} more {division.column}s" if len(lacks) > N_PAIRS else ""
        message = (
            f"{counted(len(lacking), division.column)} of {len(labelled):,} without a class that others have: "
            f"{'; '.join(lacks[:N_PAIRS])}{more}"
        )
        if unlearned and division.learned_from is None:  # the other folds' models do, and are not tested on it
            message += f"; the model that is tested on {', '.join(unlearned)} has not learned it"
        elif unlearned:
            message += f"; no model learns {', '.join(unlearned)}"
        counts = {part: len(of) for part, of in lacking.items()}
        n = sum(total[name] for name in names)
        findings.append(Finding("class", WARNING, message, len(names), n, tuple(names), counts))
    nowhere = [name for name in classes if not total[name]]
    if nowhere:
        message = f"no labelled utterance of {', '.join(nowhere)}, which the label scheme has"
        findings.append(Finding("class", NOTE, message, len(nowhere), 0, tuple(nowhere)))
    return findings


def _is_unlearned(name: str, labelled: Mapping[str, Counter[str]], learned: Collection[str] | None) -> bool:
    """Return whether the models that are tested on a class have learned from no utterance of it."""
    having = [part for part, counts in labelled.items() if counts[name]]
    if learned is None:
        return len(having) == 1
    return any(part in learned for part in labelled) and not any(part in learned for part in having)


def _unknown_speakers(division: Division) -> list[Finding]:
    n = sum(who is None for who in division.speakers) if len(division.speakers) else len(division.keys)
    if not n:
        return []
    message = (
        f"{counted(n, 'utterance')} of {len(division.keys):,} without a known speaker, whose parts can't be checked"
    )
    return [Finding("unknown speaker", NOTE, message, n, n)]


def _speakers_alike(division: Division, severity: str) -> list[Finding]:
    """Return findings for speakers of two parts whose names `bare_name` takes for one."""
    places: dict[str, set[str]] = {}
    for who, part in zip(division.speakers, division.parts, strict=False):
        if who is not None and part:
            places.setdefault(who, set()).add(part)
    learned = division.learned_from
    spellings = []
    for group in alike(places):
        parts = set.union(*(places[who] for who in group))
        if len(parts) > 1 and (learned is None or parts & set(learned)):
            spellings.append(group)
    if not spellings:
        return []
    names = {who: None for group in spellings for who in group}
    n = sum(who in names for who in division.speakers)
    message = (
        f"{counted(len(spellings), 'speaker')} ({counted(n, 'utterance')}) in more than one {division.column} whose "
        f"names differ in {SPELLINGS} alone, such as {' and '.join(map(repr, spellings[0]))}"
    )
    return [Finding("speaker name", severity, message, len(spellings), n, tuple(names)[:N_NAMES])]


def compare_record(division: Division, record: PartRecord) -> list[Finding]:
    """Return findings for predictions that were made on other utterances, parts or labels than the division has."""
    row = {key: i for i, key in enumerate(record.keys)}
    rows = [(i, row[key]) for i, key in enumerate(division.keys) if key in row]
    findings = []
    strange = [key for key in division.keys if key not in row]
    if strange:
        message = f"{record.name} made on other utterances: {counted(len(strange), 'utterance')} not among them"
        findings.append(_made_on("other keys", message, strange))
    moved = _moved([(division.parts[i], record.parts[j]) for i, j in rows])
    if moved:
        message = (
            f"{record.name} made on another division: {counted(len(moved), 'utterance')} of {len(rows):,} in another "
            f"{division.column} than then"
        )
        findings.append(_made_on("other parts", message, [division.keys[rows[k][0]] for k in moved]))
    if len(division.labels) and len(record.labels):
        other = [division.keys[i] for i, j in rows if division.labels[i] != record.labels[j]]
        if other:
            message = (
                f"{record.name} made on other labels: {counted(len(other), 'utterance')} of {len(rows):,} with "
                "another label than then"
            )
            findings.append(_made_on("other labels", message, other))
    return findings


def _made_on(kind: str, message: str, keys: Sequence[str]) -> Finding:
    names = tuple(keys[:N_EXAMPLES])
    return Finding(kind, ERROR, f"{message}, such as {', '.join(names)}", len(keys), len(keys), names)


def _moved(pairs: Sequence[tuple[str, str]]) -> list[int]:
    """Return which (part now, part then) leave the one-to-one match of the names: renamed is not moved."""
    match: dict[str, str] = {}
    for (now, then), _ in sorted(
        Counter(pairs).items(), key=lambda each: (-each[1], each[0][0] != each[0][1], each[0])
    ):
        if now not in match and then not in match.values():
            match[now] = then
    return [i for i, (now, then) in enumerate(pairs) if match.get(now) != then]
