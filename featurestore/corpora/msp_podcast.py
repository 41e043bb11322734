"""MSP-Podcast (Lotfian & Busso 2019; Busso et al. 2025), releases 1.6 to 2.0 and that of the 2025 challenge.

    Audios/ (or Audio/)      MSP-PODCAST_0001_0008.wav ...; MSP-PODCAST_test3_0001.wav ..., which have no labels
    Labels/ (labels, label)  labels_consensus.csv ("concensus" before 1.10), labels_detailed.csv
    Transcripts/             MSP-PODCAST_0001_0008.txt ...
    Partitions.txt           `Train; MSP-PODCAST_0001_0008.wav`
    Speaker_ids.txt          `Speaker_30; Male`, then `MSP-PODCAST_0001_0008.wav; 30`

Consensus classes are letters; O is another emotion, X no agreement. Attributes run from 1 to 7.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from featurestore.corpora.assemble import (
    documented_table,
    existing,
    header_durations,
    named,
    numbers,
    of_columns,
    translated,
)
from featurestore.corpora.msp_podcast_votes import read_ratings
from featurestore.corpus.manifest import LabelScheme, Manifest
from featurestore.errors import ManifestError

LETTERS = {
    "A": "angry",
    "S": "sad",
    "H": "happy",
    "U": "surprise",
    "F": "fear",
    "D": "disgust",
    "C": "contempt",
    "N": "neutral",
}
SCHEMES: dict[str, dict[str, str | None]] = {
    "8": {**LETTERS, "O": None, "X": None},
    "9": {**LETTERS, "O": "other", "X": None},
}
ATTRIBUTES = {"arousal": "EmoAct", "valence": "EmoVal", "dominance": "EmoDom"}
LOW, HIGH = 1.0, 7.0
PARTITIONS: dict[str, str | None] = {
    "Train": "train",
    "Development": "development",
    "Validation": "development",
    "Test": "test",
    "Test1": "test1",
    "Test2": "test2",
    "Test3": "test3",
}
GENDERS = {"Male": "male", "Female": "female", "Unknown": None}
UNKNOWN = "Unknown"
TEST3 = "MSP-PODCAST_test3_"


def read_msp_podcast(
    root: Path,
    *,
    scheme: str = "8",
    secondary: float = 0.0,
    transcripts: bool = True,
    check_audio: bool = True,
    durations: bool = False,
) -> Manifest:
    """Return the manifest of every utterance that the consensus labels, Partitions.txt or a test3 file name list.

    scheme: "8" classes, or "9" with "other". Clips without consensus stay, with no label but with their votes.
    secondary: the weight of an annotator's secondary emotions beside the primary one in the vote_<class> columns.
    check_audio: leave out (and note) utterances whose file is not there. durations: read them from the files' headers.
    Columns: utterance_id (the file's name), path, speaker, gender, label, corpus_label, vote_<class>, attr_arousal,
    attr_valence, attr_dominance, text, split, duration_s. ManifestError: another layout, unknown columns or values.
    """
    if scheme not in SCHEMES:
        raise ManifestError(f"MSP-Podcast's scheme is one of {', '.join(SCHEMES)}, found {scheme!r}.")
    letters = SCHEMES[scheme]
    classes = tuple(name for name in letters.values() if name is not None)
    labels = existing(root, ("Labels", "labels", "label"), "folder of labels")
    table = _consensus(existing(labels, ("labels_consensus.csv", "labels_concensus.csv"), "consensus"), letters)
    notes: list[str] = []

    audio = root / ("Audios" if (root / "Audios").is_dir() or not (root / "Audio").is_dir() else "Audio")
    files = _files(audio) if check_audio else set()
    table = _with_unlabelled(table, _partitions(root / "Partitions.txt"), files)
    if check_audio:
        has_audio = np.array([key in files for key in table.column("utterance_id").to_pylist()], bool)
        without_audio = table.filter(pa.array(~has_audio)).column("utterance_id").to_pylist()
        notes += [named("utterances without an audio file left out", without_audio)] if without_audio else []
        table = table.filter(pa.array(has_audio))
        if not table.num_rows:
            raise ManifestError(f"{audio} holds no file that {labels} names. Check --root, or use --no-check-audio.")
    keys = table.column("utterance_id").to_pylist()
    paths = [f"{audio.name}/{key}" for key in keys]
    columns: dict[str, object] = {
        "utterance_id": table.column("utterance_id"),
        "path": pa.array(paths, pa.string()),
        **_speakers(table, keys, root / "Speaker_ids.txt"),
        **{name: table.column(name) for name in ("label", "corpus_label", *(f"attr_{a}" for a in ATTRIBUTES))},
    }

    ratings = None
    if (labels / "labels_detailed.csv").exists():
        ratings, further_notes = read_ratings(labels / "labels_detailed.csv")
        surplus = sorted(set(ratings.keys) - set(keys))
        notes += [*further_notes, *([named("rated files that are no utterances here", surplus)] if surplus else [])]
        ratings = ratings.of_keys(keys)
        unrated = np.bincount(ratings.key_of, minlength=len(keys)) == 0
        for name, votes in zip(classes, ratings.counts(classes, also=secondary).T, strict=True):
            columns[f"vote_{name}"] = pa.array(votes, mask=unrated)
    else:
        notes.append(f"no votes: {labels / 'labels_detailed.csv'} is not there")
    if transcripts:
        columns["text"], further_notes = _transcripts(root / "Transcripts", keys)
        notes += further_notes
    columns["split"] = table.column("split")
    if durations:
        seconds, further_notes = header_durations([root / path for path in paths])
        columns["duration_s"] = pa.array(seconds, pa.float64())
        notes += further_notes
    rules = LabelScheme(classes, dict.fromkeys(ATTRIBUTES, (LOW, HIGH)), letters)
    return of_columns(
        columns, rules, root, "msp-podcast", source=labels, check_audio=False, notes=notes, ratings=ratings
    )


def _consensus(path: Path, letters: dict[str, str | None]) -> pa.Table:
    required = ("FileName", "EmoClass", *ATTRIBUTES.values(), "Split_Set")
    table = documented_table(path, required, ("SpkrID", "Gender"))
    columns = {
        "utterance_id": table.column("FileName"),
        "label": translated(table.column("EmoClass"), letters, path, "EmoClass"),
        "corpus_label": table.column("EmoClass"),
        "split": translated(table.column("Split_Set"), PARTITIONS, path, "Split_Set"),
    }
    for name, column in ATTRIBUTES.items():
        columns[f"attr_{name}"] = numbers(table.column(column), LOW, HIGH, path, column)
    if "SpkrID" in table.column_names:
        speaker = table.column("SpkrID")
        columns["speaker"] = pc.if_else(pc.equal(speaker, UNKNOWN), pa.scalar(None, pa.string()), speaker)
    if "Gender" in table.column_names:
        columns["gender"] = translated(table.column("Gender"), GENDERS, path, "Gender")
    return pa.table(columns)


def _with_unlabelled(table: pa.Table, partitions: dict[str, str], files: set[str]) -> pa.Table:
    """Return the rows for the files of Partitions.txt, and the test3 files, that the consensus does not list."""
    keys = table.column("utterance_id").to_pylist()
    listed = dict(zip(keys, table.column("split").to_pylist(), strict=True))
    differing = [key for key, part in listed.items() if partitions.get(key, part) != part]
    if differing:
        key = differing[0]
        raise ManifestError(
            f"Partitions.txt has {len(differing):,} files in other partitions than the consensus labels, "
            f"{key} in {partitions[key]} instead of {listed[key]}. Take both from one release."
        )
    unlisted = {key: part for key, part in partitions.items() if key not in listed}
    unlisted |= {key: "test3" for key in sorted(files) if key.startswith(TEST3) and key not in listed}
    if not unlisted:
        return table
    rows = pa.table({"utterance_id": list(unlisted), "split": pa.array(list(unlisted.values()), pa.string())})
    return pa.concat_tables([table, rows], promote_options="default")


def _speakers(table: pa.Table, keys: list[str], path: Path) -> dict[str, pa.Array]:
    """Speaker and gender as the consensus has them, from Speaker_ids.txt where it has none."""
    of_file, gender_of = {}, {}
    for place, name, value in _pairs(path):
        if name.startswith("Speaker_"):
            if value not in GENDERS:
                raise ManifestError(f"{place}: unknown gender {value!r}, expected one of {', '.join(GENDERS)}.")
            gender_of[name.removeprefix("Speaker_")] = GENDERS[value]
        elif value != UNKNOWN:
            of_file[name] = value.removeprefix("Speaker_")
    filled = {}
    speakers = table.column("speaker").to_pylist() if "speaker" in table.column_names else [None] * len(keys)
    speakers = [speaker or of_file.get(key) for speaker, key in zip(speakers, keys, strict=True)]
    filled["speaker"] = pa.array(speakers, pa.string())
    genders = table.column("gender").to_pylist() if "gender" in table.column_names else [None] * len(keys)
    genders = [gender or gender_of.get(speaker or "") for gender, speaker in zip(genders, speakers, strict=True)]
    filled["gender"] = pa.array(genders, pa.string())
    return filled


def _partitions(path: Path) -> dict[str, str]:
    partitions = {}
    for place, part, file in _pairs(path):
        split = PARTITIONS.get(part)
        if split is None:
            raise ManifestError(f"{place}: unknown partition {part!r}, expected one of {', '.join(PARTITIONS)}.")
        partitions[file] = split
    return partitions


def _pairs(path: Path) -> Iterator[tuple[str, str, str]]:
    """Yield (`file:line`, left, right) of the lines `left; right`; others are headings. Nothing without a file."""
    if path.exists():
        with open(path, encoding="utf-8-sig", errors="replace") as file:
            for number, line in enumerate(file, 1):
                key, between, value = line.strip().rstrip(";").partition(";")
                if ";" in value:
                    raise ManifestError(f"{path}:{number}: expected two fields with a ; between, found more.")
                if between:
                    yield f"{path}:{number}", key.strip(), value.strip()


def _files(directory: Path) -> set[str]:
    if not directory.is_dir():
        raise ManifestError(f"{directory} is not a directory. Check --root, or use --no-check-audio.")
    return {entry.name for entry in os.scandir(directory)}


def _transcripts(directory: Path, keys: list[str]) -> tuple[pa.Array, list[str]]:
    """Return (N,) the text of each utterance, null where there is none, and notes."""
    if not directory.is_dir():
        return pa.nulls(len(keys), pa.string()), [f"no transcripts: {directory} is not there"]
    file_names = {entry.name for entry in os.scandir(directory)}
    texts: list[str | None] = []
    for key in keys:
        name = f"{os.path.splitext(key)[0]}.txt"
        if name in file_names:
            with open(directory / name, encoding="utf-8", errors="replace") as file:
                texts.append(" ".join(file.read().split()) or None)
        else:
            texts.append(None)
    without = [key for key, text in zip(keys, texts, strict=True) if text is None]
    return pa.array(texts, pa.string()), [named("utterances without a transcript", without)] if without else []
