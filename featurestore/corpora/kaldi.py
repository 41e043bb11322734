"""A Kaldi data directory: `wav.scp`, and if there `segments`, `utt2spk`, `spk2gender`, `text`, `utt2emo`, `utt2dur`.

Of `reco2file_and_channel` the channel is kept, so that where a file has several it can be said that they are averaged.
"""

import math
from pathlib import Path
from typing import Any

from featurestore.corpora.assemble import of_columns
from featurestore.corpus.manifest import LabelScheme, Manifest
from featurestore.errors import ManifestError

COLUMN_OF = {"utt2spk": "speaker", "text": "text", "utt2emo": "label", "utt2dur": "duration_s"}
CHANNELS = "reco2file_and_channel"
GENDERS = {"m": "male", "f": "female"}


def read_kaldi(root: Path, *, audio: Path | None = None, check_audio: bool = True) -> Manifest:
    """Return the manifest of the utterances of `wav.scp`, or of `segments`, which are pieces of its recordings.

    audio: where relative paths start, by default the working directory, as in Kaldi. Columns: utterance_id, path,
    start_s and end_s of pieces, channel, speaker, gender, label, text, duration_s; an utterance may be missing from the
    files of all but the first. ManifestError names file and line: pipes instead of files, segments that are no two
    times, ids that repeat or are unknown.
    """
    paths = _table(root / "wav.scp")
    for place, path in paths.values():
        if path.endswith("|"):
            raise ManifestError(f"{place}: {path!r} is a command, expected a file. Write its output to a file first.")
    columns: dict[str, Any] = {"utterance_id": list(paths), "path": [path for _, path in paths.values()]}
    listed_in, recordings = "wav.scp", list(paths)
    if (root / "segments").exists():
        columns, recordings = _pieces(root / "segments", {key: path for key, (_, path) in paths.items()})
        listed_in = "segments"
    if (root / CHANNELS).exists():
        channels = {key: value.split()[-1] for key, (_, value) in _table(root / CHANNELS).items()}
        columns["channel"] = [channels.get(recording) for recording in recordings]
    keys = set(columns["utterance_id"])
    for name, column in COLUMN_OF.items():
        if (root / name).exists():
            entries = _table(root / name, empty=name == "text")
            for key, (place, _) in entries.items():
                if key not in keys:
                    raise ManifestError(f"{place}: {key!r} is not in {listed_in}. Run utils/fix_data_dir.sh {root}.")
            columns[column] = [entries[key][1] if key in entries else None for key in columns["utterance_id"]]
    if (root / "spk2gender").exists() and "speaker" in columns:
        gender_of = {}
        for speaker, (place, gender) in _table(root / "spk2gender").items():
            if gender not in GENDERS:
                raise ManifestError(f"{place}: unknown gender {gender!r}, expected m or f.")
            gender_of[speaker] = GENDERS[gender]
        columns["gender"] = [gender_of.get(speaker or "") for speaker in columns["speaker"]]
    labels = sorted({label for label in columns.get("label", []) if label})
    notes = [] if labels else [f"no labels: {root / 'utt2emo'} is not there"]
    return of_columns(
        columns, LabelScheme(tuple(labels)), Path(".") if audio is None else audio, root.resolve().name,
        source=root / listed_in, check_audio=check_audio, notes=notes,
    )  # fmt: skip


def _pieces(path: Path, recordings: dict[str, str]) -> tuple[dict[str, Any], list[str]]:
    """Return the columns of a `segments` file: utterance, path, start, end (-1: the file's end); the recordings."""
    of_rows = []
    columns: dict[str, Any] = {name: [] for name in ("utterance_id", "path", "start_s", "end_s")}
    for key, (place, text) in _table(path).items():
        recording, *times = text.split()
        if recording not in recordings:
            raise ManifestError(f"{place}: recording {recording!r} is not in wav.scp. Run utils/fix_data_dir.sh.")
        try:
            if "_" in "".join(times):  # Python reads 1_0 as ten
                raise ValueError
            start, end = map(float, times)
            if not math.isfinite(start) or not math.isfinite(end):
                raise ValueError
        except ValueError:
            raise ManifestError(
                f"{place}: expected a recording, a start and an end in seconds, found {text!r}."
            ) from None
        ends = (key, recordings[recording], start, None if end == -1 else end)
        for name, value in zip(columns, ends, strict=True):
            columns[name].append(value)
        of_rows.append(recording)
    return columns, of_rows


def _table(path: Path, empty: bool = False) -> dict[str, tuple[str, str]]:
    """Key -> (`file:line`, the rest of its line)."""
    if not path.is_file():
        raise ManifestError(f"{path} is not a file; a Kaldi data directory has one. Check --root.")
    entries: dict[str, tuple[str, str]] = {}
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path} is not UTF-8 ({error}). Convert it.") from None
    for number, line in enumerate(lines, 1):
        if not line.strip() and number == len(lines):
            break
        key, *values = line.split(None, 1) or [""]
        value = values[0].strip() if values else ""
        if not key or not (value or empty):
            raise ManifestError(f"{path}:{number}: expected an id, a space and a value, found {line.strip()!r}.")
        if key in entries:
            raise ManifestError(f"{path}:{number}: {key!r} has a line already. Run utils/fix_data_dir.sh.")
        entries[key] = (f"{path}:{number}", value)
    return entries
