"""Whether transcripts are of the audio that a manifest means, as far as lengths show it."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from featurestore.asr.source import Transcript
from featurestore.audio import SAMPLE_RATE_HZ, decode, duration_s
from featurestore.corpus.manifest import Manifest
from featurestore.errors import AudioError, TranscriptError

N_FILES = 64  # whose headers are read, or that are decoded, spread over the corpus
# How far a length by a header or a manifest may lie from that of the samples before the samples are counted.
APART_S, APART_SHARE = 0.1, 0.01
N_NAMED = 3  # utterances in a message


def refuse_other_audio(rows: Mapping[str, Transcript], manifest: Manifest, path: Path) -> None:
    """Raise TranscriptError where audio has another length than what was transcribed under its id.

    Lengths are the manifest's, else those by the headers of some files; of what seems to differ the samples are
    counted. Files that can't be reached are not compared, unless the manifest tells their length.
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
            f"{path} has transcripts of these ids, made from other audio: {', '.join(others[:N_NAMED])}{more}. "
            "They are another corpus's whose ids are the same, or the files have changed. Write to another file with "
            "--output, or remove the table to transcribe again."
        )


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
