"""What is wrong with a manifest's parts: who and what is in two of them, what can't be read, what nobody agreed on."""

import dataclasses
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurestore.corpus.agreement import fleiss_kappa, krippendorff_interval, krippendorff_nominal
from featurestore.corpus.audio_digest import Content, audio_contents
from featurestore.corpus.division import Division, audio_places, known_speakers, part_name, real_paths
from featurestore.corpus.manifest import Manifest
from featurestore.corpus.overlap import (
    PART_COLUMNS,
    Items,
    Overlap,
    Repeat,
    bare_key,
    bare_text,
    find_overlap,
    find_repeats,
    in_order,
)
from featurestore.corpus.pieces import END, START, same_or_overlapping
from featurestore.corpus.protocol import SHARED, ProtocolReport, check_division
from featurestore.corpus.speakers import SpeakerReport, speaker_report
from featurestore.corpus.splits import label_names
from featurestore.corpus.votes import are_counts, consensus
from featurestore.errors import ConfigError
from featurestore.runtime.jsonable import jsonable

KINDS = ("utterance", "speaker", "audio", "text")
LEAKS = SHARED  # a text is none: acted corpora share their sentences by design
DURATION_SLACK_S = 0.05


@dataclass(frozen=True)
class Part:
    """One split or fold, or the utterances that are in none (name "")."""

    name: str
    n_utterances: int
    n_speakers: int
    n_unknown_speakers: int  # utterances whose speaker is missing or "Unknown"
    n_timed: int  # utterances whose duration is known
    hours: float  # of these; this and the next three: NaN where there are none
    shortest_s: float
    median_s: float
    longest_s: float
    classes: dict[str, int]
    n_unlabelled: int


@dataclass(frozen=True)
class Agreement:
    """How many voted for the scheme's classes, and how far they agree; NaN where nothing is known."""

    n_ratings: int  # votes for the scheme's classes; where it has none, ratings
    n_annotators: int | None  # None where the manifest has vote counts alone, or annotators without a name
    n_rated: int
    n_tied: int  # this and the next: by the vote_<class> columns where there are any, secondary labels included
    n_label_against_plurality: int  # utterances labelled otherwise than their votes say
    fleiss_kappa: float
    krippendorff_nominal: float
    krippendorff_interval: dict[str, float]  # of each attribute


@dataclass(frozen=True)
class AuditReport:
    """What an audit found."""

    name: str
    n_utterances: int
    parts: dict[str, list[Part]]  # by column; one part "all" where there is neither split nor fold
    protocols: list[ProtocolReport]  # of each column of parts
    overlaps: list[Overlap]
    speakers: SpeakerReport | None  # None where no speaker or no label is known
    repeats: list[Repeat]
    unreadable: list[tuple[str, str]]  # utterance and reason
    constant: list[str]  # utterances whose samples all have one value: silence that nobody recorded
    agreement: Agreement | None
    notes: list[str]

    @property
    def leaks(self) -> list[Overlap]:
        """The overlaps that spoil what is measured."""
        return [overlap for overlap in self.overlaps if overlap.leak]

    @property
    def clean(self) -> bool:
        """Nothing leaks, and every audio file can be decoded."""
        return not self.leaks and not self.unreadable

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON types, NaN as None."""
        protocols = [protocol.to_dict() for protocol in self.protocols]
        report: dict[str, Any] = jsonable({"clean": self.clean, **dataclasses.asdict(self), "protocols": protocols})
        return report


def audit(
    manifest: Manifest,
    *,
    leaks: Sequence[str] = LEAKS,
    audio: bool = True,
    recorded: Mapping[str, Content] | None = None,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> AuditReport:
    """Look for what the parts of `split` and of `fold` share, for files that can't be decoded, and for agreement.

    leaks: the KINDS whose overlap is leakage (see `find_overlap`). audio: decode every file, in `workers` threads, and
    compare the samples; else see only whether the files are there, and compare their paths. recorded: contents by key
    that need no decoding, as a store recorded them. progress(done, total)
    counts files. ConfigError: an unknown kind.
    """
    unknown = sorted(set(leaks) - set(KINDS))
    if unknown:
        raise ConfigError(f"Unknown kind of overlap {', '.join(unknown)}; expected some of {', '.join(KINDS)}.")
    paths = _paths(manifest)
    contents = (
        audio_contents(manifest, recorded=recorded, workers=workers, progress=progress)
        if audio
        else _contents_by_presence(manifest)
    )
    durations, notes = _durations(manifest, contents)
    sounds = [content.digest or path for content, path in zip(contents, paths, strict=True)]
    items: dict[str, Items] = {
        "utterance": [bare_key(key) for key in manifest.keys],
        "speaker": _speakers(manifest),
        "audio": same_or_overlapping(sounds, audio_places(manifest)) if manifest.has_pieces else sounds,
        "text": [bare_text(text) for text in manifest.texts] if manifest.has("text") else [None] * len(manifest),
    }
    parts = {column: _part_names(manifest, column) for column in PART_COLUMNS if manifest.has(column)}
    protocols: list[ProtocolReport] = []
    overlaps: list[Overlap] = []
    for column, names in parts.items():
        division = Division.of_manifest(manifest, column, parts=names, audio=items["audio"])
        protocols.append(check_division(division, leaks=leaks))
        overlaps += protocols[-1].overlaps
        texts = find_overlap(
            "text", column, items["text"], names, manifest.keys, harmful="text" in leaks, learned=division.learned_from
        )
        overlaps += [] if texts is None else [texts]
    labels = _labels(manifest)
    twice = [
        find_repeats(kind, repeated, list(parts.values()), manifest.keys, labels)
        for kind, repeated in (("utterance", items["utterance"]), ("audio", sounds))
    ]
    agreement = agreement_of(manifest, notes)
    if not parts:
        notes.append("neither a split nor a fold column, so nothing can leak; `medusa split` makes them")
    return AuditReport(
        name=manifest.name,
        n_utterances=len(manifest),
        parts={column: part_summaries(manifest, column, durations) for column in parts or ["all"]},
        protocols=protocols,
        overlaps=overlaps,
        speakers=speaker_report(manifest),
        repeats=[repeat for repeats in twice for repeat in repeats],
        unreadable=[(key, c.problem) for key, c in zip(manifest.keys, contents, strict=True) if c.problem],
        constant=[key for key, c in zip(manifest.keys, contents, strict=True) if c.constant],
        agreement=agreement,
        notes=notes,
    )


def part_summaries(manifest: Manifest, column: str, durations_s: NDArray[np.float64] | None = None) -> list[Part]:
    """Return a summary of each part of a column, in their order; "all": one of the whole manifest.

    durations_s (N,), NaN where unknown; None takes the manifest's own.
    """
    if durations_s is None:
        durations_s = manifest.column("duration_s") if manifest.has("duration_s") else np.full(len(manifest), np.nan)
    names = np.array(["all"] * len(manifest) if column == "all" else _part_names(manifest, column), object)
    speakers, labels = np.array(_speakers(manifest), object), np.array(_labels(manifest), object)
    return [_part(name, names == name, speakers, labels, durations_s, manifest) for name in in_order(set(names))]


def _part(
    name: str,
    in_part: NDArray[np.bool_],
    speakers: NDArray[Any],
    labels: NDArray[Any],
    durations_s: NDArray[np.float64],
    manifest: Manifest,
) -> Part:
    seconds = durations_s[in_part][~np.isnan(durations_s[in_part])]
    has_lengths = len(seconds) > 0
    part_speakers, counts = speakers[in_part].tolist(), Counter(labels[in_part].tolist())
    return Part(
        name=name,
        n_utterances=int(in_part.sum()),
        n_speakers=len(set(part_speakers) - {None}),
        n_unknown_speakers=part_speakers.count(None),
        n_timed=len(seconds),
        hours=float(seconds.sum() / 3600) if has_lengths else float("nan"),
        shortest_s=float(seconds.min()) if has_lengths else float("nan"),
        median_s=float(np.median(seconds)) if has_lengths else float("nan"),
        longest_s=float(seconds.max()) if has_lengths else float("nan"),
        classes={label: counts[label] for label in manifest.scheme.classes},
        n_unlabelled=counts[None],
    )


def agreement_of(manifest: Manifest, notes: list[str]) -> Agreement | None:
    """Agreement of the ratings, else of the vote counts; None, and a note, where there are but shares.

    A note, too, where annotators rated an utterance more than once.
    """
    classes, ratings = manifest.scheme.classes, manifest.ratings
    counts = primary_votes(manifest)
    if counts is None:
        return None
    if ratings is None and not are_counts(counts):
        notes.append("the votes are shares, not counts, so no agreement follows from them")
        return None
    if ratings is not None and (n_again := ratings.n_again):
        notes.append(
            f"{n_again:,} ratings are of utterances that their annotator had rated before; each counts, and agreement "
            "takes them for another annotator's"
        )
    agreed = consensus(counts if manifest.votes is None else manifest.votes)
    index = {name: c for c, name in enumerate(classes)}
    labels = np.array([-1 if label is None else index[label] for label in _labels(manifest)])
    against = (labels >= 0) & (agreed.labels >= 0) & (labels != agreed.labels)
    by_attribute = (
        {}
        if ratings is None
        else {name: krippendorff_interval(ratings.values[:, a], ratings.key_of)
              for a, name in enumerate(ratings.attributes)}
    )  # fmt: skip
    return Agreement(
        n_ratings=len(ratings) if ratings is not None and not classes else int(counts.sum()),
        n_annotators=None if ratings is None else ratings.n_annotators,
        n_rated=int((~agreed.unrated).sum()),
        n_tied=int(agreed.tied.sum()),
        n_label_against_plurality=int(against.sum()),
        fleiss_kappa=fleiss_kappa(counts),
        krippendorff_nominal=krippendorff_nominal(counts),
        krippendorff_interval=by_attribute,
    )


def primary_votes(manifest: Manifest) -> NDArray[np.float64] | None:
    """Return (N, C): one vote for each annotator of an utterance, of the ratings, else the vote columns; else None."""
    if manifest.ratings is None:
        return manifest.votes
    return manifest.ratings.renamed(manifest.scheme.corpus_labels).counts(manifest.scheme.classes)


def _durations(manifest: Manifest, contents: Sequence[Content]) -> tuple[NDArray[np.float64], list[str]]:
    """Return (N,) seconds as decoded, else as in the manifest, and a note where the two differ."""
    decoded = np.array([content.duration_s for content in contents])
    if not manifest.has("duration_s"):
        return decoded, []
    given_s = manifest.column("duration_s")
    wrong = np.flatnonzero(np.abs(decoded - given_s) > DURATION_SLACK_S)
    notes = []
    if len(wrong):
        first = wrong[0]
        notes.append(
            f"duration_s is wrong for {len(wrong):,} utterances, the first {manifest.keys[first]}: "
            f"{given_s[first]:.2f} s in the manifest, {decoded[first]:.2f} s decoded"
        )
    return np.where(np.isnan(decoded), given_s, decoded), notes


def _paths(manifest: Manifest) -> list[str | None]:
    """Return (N,) where each utterance's sound lies, with the ends of a piece; None for no path."""
    if not manifest.has("path"):
        return [None] * len(manifest)
    paths = real_paths(manifest)
    if not manifest.has_pieces:
        return paths
    ends = zip(manifest.column(START), manifest.column(END), strict=True)
    return [None if path is None else f"{path} {low:g} {high:g}" for path, (low, high) in zip(paths, ends, strict=True)]


def _contents_by_presence(manifest: Manifest) -> list[Content]:
    root = os.path.abspath(manifest.root)
    named = manifest.column("path").tolist() if manifest.has("path") else [None] * len(manifest)
    paths = [None if path is None else os.path.normpath(os.path.join(root, path)) for path in named]
    missing = [path for path in paths if path is not None and not os.path.isfile(path)]
    problems = {
        path: f"{path}: no such file. Check the path; in a manifest, its column path and the corpus root."
        for path in missing
    }
    return [Content(problem="" if path is None else problems.get(path, "")) for path in paths]


def _part_names(manifest: Manifest, column: str) -> list[str]:
    return [part_name(name) for name in manifest.column(column).tolist()]


def _labels(manifest: Manifest) -> list[str | None]:
    return label_names(manifest) or [None] * len(manifest)


def _speakers(manifest: Manifest) -> Items:
    return known_speakers(manifest) or [None] * len(manifest)
