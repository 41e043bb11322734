"""A corpus divided in parts, as data: who speaks in which part, under which label, with which sound."""

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from featurestore.corpus.manifest import Manifest
from featurestore.corpus.overlap import LEARNED_FROM, Items
from featurestore.corpus.pieces import END, START, overlapping
from featurestore.corpus.splits import UNKNOWN_SPEAKERS, label_names

NO_NAMES = ("", os.curdir, os.pardir)  # last parts of a path that aren't a file's name


@dataclass(frozen=True)
class Division:
    """N utterances and the part of the corpus that each is in; what is not known of them is left empty.

    learned: the parts that models learn from. None stands for train and development where `column` is "split", and for
    every part of any other column: each fold is tested by a model of the others.
    """

    keys: Sequence[str]
    parts: Sequence[str]  # (N,) "" for an utterance in none
    column: str = "fold"  # what the parts are called: fold, split, corpus, or a column of the manifest
    labels: Sequence[str | None] = ()  # (N,) or empty
    speakers: Items = ()  # (N,) or empty, None for an unknown one
    audio: Items = ()  # (N,) or empty: equal strings stand for equal sound (a digest of the samples, else a path)
    classes: Sequence[str] = ()  # of the scheme; empty: the labels that occur
    learned: Collection[str] | None = None

    def __post_init__(self) -> None:
        for name in ("parts", "labels", "speakers", "audio"):
            values = getattr(self, name)
            if len(values) != len(self.keys) and (name == "parts" or len(values)):
                raise ValueError(f"A division of {len(self.keys)} utterances has {len(values)} {name}.")

    @classmethod
    def of_manifest(
        cls,
        manifest: Manifest,
        column: str,
        *,
        parts: Sequence[str] | None = None,
        audio: Items = (),
        learned: Collection[str] | None = None,
    ) -> "Division":
        """Return the division of a manifest by one of its columns, or by (N,) `parts` under that name.

        audio: (N,) digests where they are known; without them utterances with the same path, start and end are the
        same sound. ManifestError: the manifest has no such column and no parts are given.
        """
        if parts is None:
            parts = [part_name(value) for value in manifest.column(column).tolist()]
        return cls(
            keys=manifest.keys,
            parts=parts,
            column=column,
            labels=label_names(manifest) or (),
            speakers=known_speakers(manifest),
            audio=audio or audio_places(manifest),
            classes=manifest.scheme.classes,
            learned=learned,
        )

    @property
    def learned_from(self) -> Collection[str] | None:
        """The parts that models learn from, None for all of them in turn."""
        return LEARNED_FROM if self.learned is None and self.column == "split" else self.learned


@dataclass(frozen=True)
class PartRecord:
    """What predictions were made on: the utterances, the part of each, and its label; kept with the predictions."""

    keys: Sequence[str]
    parts: Sequence[str]  # (N,) the fold whose model predicted it, or its split; "" for none
    labels: Sequence[str | None] = ()  # (N,) or empty where the labels are not recorded
    name: str = "the predictions"

    @classmethod
    def of(cls, division: Division, name: str = "the predictions") -> "PartRecord":
        """Return the record of predictions that are made on a division."""
        return cls(division.keys, division.parts, division.labels, name)


def part_name(value: object) -> str:
    """Return the name of a part as text, "" for an empty cell; 1.0 and "1" are the same fold."""
    if value is None or value != value:
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def known_speakers(manifest: Manifest) -> Items:
    """Return (N,) the speakers, None for an unknown one; () where the manifest has no such column."""
    if not manifest.has("speaker"):
        return ()
    return [None if who in UNKNOWN_SPEAKERS else who for who in manifest.column("speaker").tolist()]


def audio_places(manifest: Manifest) -> Items:
    """Return (N,) where each utterance's sound lies: its real file, for a piece with its ends.

    Pieces of one recording that overlap, also by way of others, lie in one place.
    """
    if not manifest.has("path"):
        return ()
    paths = real_paths(manifest)
    return overlapping(paths, manifest.column(START), manifest.column(END)) if manifest.has_pieces else paths


def real_paths(manifest: Manifest) -> list[str | None]:
    """Return (N,) the file of each utterance without links in its path, so that a file has one name; None for none."""
    real_folder: dict[str, str] = {}  # of a folder as paths name it
    paths: list[str | None] = []
    for path in manifest.column("path").tolist():
        if path is None:
            paths.append(None)
            continue
        start, slash, name = path.rpartition("/")
        folder = start + slash
        if folder not in real_folder:
            real_folder[folder] = os.path.join(os.path.realpath(os.path.join(manifest.root, folder)), "")
        real = real_folder[folder] + name
        paths.append(os.path.realpath(real) if name in NO_NAMES or os.path.islink(real) else real)
    return paths
