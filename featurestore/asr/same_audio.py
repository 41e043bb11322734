"""Whether transcripts are of the audio that a manifest means: by what was recorded of it, else by lengths."""

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from featurestore.asr.source import Transcript
from featurestore.audio import SAMPLE_RATE_HZ, decode, duration_s
from featurestore.corpus.manifest import Manifest
from featurestore.errors import AudioError, StoreError, TranscriptError
from featurestore.format.identity import UNKNOWN, Identities, Identity, IdentityColumns, from_arrays
from featurestore.runtime.json_text import read_json
from featurestore.sets.sources import Mismatch, compare, compare_headers

N_FILES = 64  # whose headers are read, or that are decoded, spread over the corpus
# How far a length by a header or a manifest may lie from that of the samples before the samples are counted.
APART_S, APART_SHARE = 0.1, 0.01
N_NAMED = 3  # utterances in a message
DIGESTS = ("digest", "file_digest")
REMEDY = (
    "They are another corpus's whose ids are the same, or the files have changed. Write to another file with "
    "--output, or remove the table to transcribe again."
)


def refuse_other_audio(
    rows: Mapping[str, Transcript], manifest: Manifest, path: Path, *, every_file: bool = False
) -> None:
    """Raise TranscriptError where audio has another length than what was transcribed under its id, or other samples.

    Samples are compared where a transcript records its audio and the file's size, date or piece is another now: of
    some files, spread over the corpus, or of every_file. Lengths are the manifest's, else those by the headers of some
    files; of what seems to differ the samples are counted. Files that can't be reached are not compared, unless the
    manifest tells their length.
    """
    recorded_s = np.array([rows[key].duration_s if key in rows else np.nan for key in manifest.keys], np.float64)
    held = np.flatnonzero(recorded_s > 0)  # not NaN
    if not len(held):
        return
    in_manifest = manifest.has("duration_s")
    lengths_s = np.asarray(manifest.column("duration_s"), np.float64) if in_manifest else recorded_s
    if in_manifest:
        held = held[_apart(lengths_s[held], recorded_s[held])]
    places = np.linspace(0, len(held) - 1, min(N_FILES, len(held))).astype(np.int64)
    others = []
    for i in held[np.unique(places)].tolist():
        now_s = _length_s(manifest, i, float(recorded_s[i]))
        now_s = float(lengths_s[i]) if now_s is None and in_manifest else now_s
        if now_s is not None and _apart(np.array([now_s]), recorded_s[[i]])[0]:
            others.append(f"{manifest.keys[i]!r} ({now_s:.3f} s; transcribed were {recorded_s[i]:.3f} s)")
    if others:
        more = f" and {len(others) - N_NAMED:,} more of those compared" if others[N_NAMED:] else ""
        raise TranscriptError(
            f"{path} has transcripts of these ids, made from other audio: {', '.join(others[:N_NAMED])}{more}. {REMEDY}"
        )
    mismatches = _other_samples(rows, manifest, every_file)
    if mismatches:
        more = f" and {len(mismatches) - N_NAMED:,} more of those compared" if mismatches[N_NAMED:] else ""
        named = ", ".join(f"{each.key!r} ({each.now}; transcribed: {each.recorded})" for each in mismatches[:N_NAMED])
        raise TranscriptError(f"{path} has transcripts of these ids, made from other audio: {named}{more}. {REMEDY}")


class AudioRecords:
    """What transcripts record of their audio, as `sets.sources` compares it with files; those that record nothing lack.

    rows: by utterance.
    """

    def __init__(self, rows: Mapping[str, Transcript]) -> None:
        self._rows = rows

    def missing(self, keys: Iterable[str]) -> list[str]:
        """Return the keys of which nothing is recorded."""
        return [key for key in keys if key not in self._rows or not self._rows[key].audio]

    def identities(self, keys: Sequence[str]) -> Identities:
        """Return what was recorded of these keys."""
        columns = IdentityColumns()
        for key in keys:
            columns.append(identity_of(self._rows[key].audio))
        return from_arrays([columns.arrays(len(keys)) or len(keys)])

    def durations_s(self, keys: Sequence[str]) -> np.ndarray:
        """Return their lengths, float64 (n,)."""
        return np.array([self._rows[key].duration_s for key in keys], np.float64)


def audio_record(identity: Identity | None) -> str:
    """Return the JSON text of what an utterance's samples were decoded from; "" of None."""
    if identity is None:
        return ""
    fields = {name: _recorded(value) for name, value in dataclasses.asdict(identity).items()}
    return json.dumps({name: value for name, value in fields.items() if value is not None}, ensure_ascii=False)


def identity_of(text: str) -> Identity:
    """Return the inverse of `audio_record`; ValueError when it is no such text."""
    try:
        fields: dict[str, Any] = dict(read_json(text))
        return Identity(**fields | {name: bytes.fromhex(fields[name]) for name in DIGESTS if name in fields})
    except (TypeError, AttributeError, StoreError) as error:
        raise ValueError(str(error)) from None


def _recorded(value: bytes | float | str) -> str | float | None:
    """Return a field of an identity as JSON, None where it is at its default."""
    if isinstance(value, bytes):
        return value.hex() or None
    return None if value in ("", UNKNOWN) or value != value else value


def _other_samples(rows: Mapping[str, Transcript], manifest: Manifest, every_file: bool) -> list[Mismatch]:
    if not manifest.has("path"):
        return []
    sources = {
        key: source
        for key, source in zip(manifest.keys, manifest.audios, strict=True)
        if source is not None and key in rows and rows[key].audio
    }
    records = AudioRecords(rows)
    if every_file:
        return compare(sources, records).mismatches
    return compare_headers(list(sources), list(sources.values()).__getitem__, records).mismatches


def _apart(now_s: np.ndarray, recorded_s: np.ndarray) -> np.ndarray:
    """(n,) bool; False where a length is not known."""
    apart: np.ndarray = np.abs(now_s - recorded_s) > APART_S + APART_SHARE * now_s
    return apart


def _length_s(manifest: Manifest, i: int, recorded_s: float) -> float | None:
    """Return the length of row i's audio: by its header where that is the recorded one, else by its samples.

    None where it can't be read.
    """
    source = manifest.audios[i] if manifest.has("path") else None
    if source is None:
        return None
    try:
        by_header = duration_s(source)
        if not _apart(np.array([by_header]), np.array([recorded_s]))[0]:
            return by_header
        return len(decode(source)) / SAMPLE_RATE_HZ
    except (AudioError, OSError):
        return None
