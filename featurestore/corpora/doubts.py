"""What in a manifest is allowed and yet looks like a mistake; `prepare` prints it as notes, whatever the corpus."""

import shlex
from collections import Counter

import numpy as np

from featurestore.corpora.assemble import named, two_genders
from featurestore.corpus.join import CORPUS
from featurestore.corpus.manifest import Manifest
from featurestore.corpus.overlap import SPELLINGS, alike
from featurestore.corpus.splits import UNKNOWN_SPEAKERS

NO_SPEAKERS = "no column of speakers: parts and intervals would go by utterance, which flatters scores"
# What other tools write where there is nothing.
ABSENT = ("nan", "none", "null", "n/a", "na", "<na>", "-", "?", "unknown", "xxx")


def doubts(manifest: Manifest) -> list[str]:
    """Return a note for names that differ in `SPELLINGS` alone, of classes, speakers and folds.

    Also for classes and speakers that are called as what is missing, labels that votes contradict, speakers of two
    genders or of several corpora, no column of speakers, and a single class.
    """
    notes = []
    for names in alike(manifest.scheme.classes):
        names_text = " and ".join(map(repr, names))
        merges = " ".join(f"--merge {_quoted(f'{name}={names[0]}')}" for name in names[1:])
        notes.append(f"classes {names_text} differ in {SPELLINGS} alone: {merges}")
    absent = [name for name in manifest.scheme.classes if name.strip().casefold() in ABSENT]
    if absent:
        absent_text = ", ".join(map(repr, absent))
        notes.append(f"{absent_text}: taken for a class; where it stands for no label: --drop '{','.join(absent)}'")
    speakers = manifest.column("speaker").tolist() if manifest.has("speaker") else []
    for name, n in Counter(name for name in speakers if name not in UNKNOWN_SPEAKERS).items():
        if n > 1 and str(name).strip().casefold() in ABSENT:
            notes.append(
                f"speaker {name!r} of {n:,} utterances: taken for one person; leave the cell empty, or write Unknown, "
                "where nobody knows who speaks"
            )
    is_labelled = bool(manifest.scheme.classes or manifest.scheme.attributes)
    if is_labelled and not manifest.has("speaker") and not any(NO_SPEAKERS in note for note in manifest.notes):
        notes.append(NO_SPEAKERS)
    for column in ("speaker", "fold"):
        groups = alike(str(name) for name in manifest.column(column).tolist()) if manifest.has(column) else []
        if groups:
            group_text = " and ".join(map(repr, groups[0]))
            more = f", and {len(groups) - 1} more" if len(groups) > 1 else ""
            notes.append(f"{column}s {group_text}{more} differ in {SPELLINGS} alone; each is taken for itself")
    if manifest.has("label"):
        occurring = Counter(label for label in manifest.labels if label is not None)
        if len(occurring) == 1:
            notes.append(f"a single class, {next(iter(occurring))!r}; check which column or folder holds the labels")
        n, voted = _outvoted(manifest)
        if n:
            notes.append(
                f"{n:,} of {voted:,} labels got fewer votes than another class; soft targets are the votes, and scores "
                "are of the labels"
            )
    if manifest.has("speaker") and manifest.has("gender"):
        of_two_genders = two_genders(manifest.column("speaker").tolist(), manifest.column("gender").tolist())
        if of_two_genders:
            notes.append(
                f"{named('speakers have two genders', of_two_genders)}; where numbers start anew for each gender, "
                "`prepare csv --column speaker=GENDER+SPEAKER` joins the two columns"
            )
    if manifest.has("speaker") and manifest.has(CORPUS):
        of_corpora: dict[str, set[str]] = {}
        for speaker, corpus in zip(speakers, manifest.column(CORPUS).tolist(), strict=True):
            if speaker not in UNKNOWN_SPEAKERS and corpus is not None:
                of_corpora.setdefault(speaker, set()).add(str(corpus))
        shared = [speaker for speaker, corpora in of_corpora.items() if len(corpora) > 1]
        if shared:
            notes.append(
                f"{named('speakers are in several corpora', shared)}; each is taken for one person: where they are "
                f"several, `prepare csv --column speaker={CORPUS}+SPEAKER` tells them apart"
            )
    return notes


def _quoted(text: str) -> str:
    """Return a text in quotes for a shell, though it needs none."""
    return shlex.quote(text) if "'" in text else f"'{text}'"


def _outvoted(manifest: Manifest) -> tuple[int, int]:
    """Return the numbers of labels that are outvoted by another class, and of labels with votes."""
    votes = manifest.votes
    if votes is None:
        return 0, 0
    index = {name: c for c, name in enumerate(manifest.scheme.classes)}
    rows = [
        (own, index[label])
        for own, label in zip(np.nan_to_num(votes), manifest.labels, strict=True)
        if label is not None and own.any()
    ]
    return sum(bool(own[c] < own.max()) for own, c in rows), len(rows)
