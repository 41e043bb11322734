"""Whether pieces lie within their recordings: far beyond the end, a table's times are in another unit than seconds."""

from contextlib import suppress
from pathlib import Path

import numpy as np

from featurestore.audio import duration_s, stated_duration_s
from featurestore.audio.pieces import SLACK_S
from featurestore.corpus.division import real_paths
from featurestore.corpus.manifest import Manifest
from featurestore.corpus.pieces import END, START
from featurestore.errors import AudioError, ManifestError
from featurestore.runtime.wording import first_names

FAR_S, FAR_SHARE = 1.0, 0.1  # beyond the end, by both of which a time is no rounded one
UNITS = {"milliseconds": 1e3, "samples": 48e3, "microseconds": 1e6, "nanoseconds": 1e9}
N_DECODED, DECODED_BYTES = 5, 64 << 20  # recordings that don't state their length, and how large they may be
N_SHOWN = 5


def check_ends(manifest: Manifest, *, some_may_fail: bool = False) -> list[str]:
    """Return notes on pieces that end behind their recordings, which will fail; ManifestError for ends far beyond.

    some_may_fail: ends far beyond are an error only where they are more than half, as times in another unit are.
    Of recordings whose length is found by decoding alone a few are decoded; those that can't be read are passed over.
    """
    if not manifest.has_pieces:
        return []
    starts, ends = manifest.column(START), manifest.column(END)
    lasts = np.fmax(starts, ends)
    lengths = _lengths(manifest)
    late = lasts - lengths
    beyond = np.flatnonzero((late > SLACK_S) | (starts >= lengths))
    far = np.flatnonzero((late > FAR_S) & (late > FAR_SHARE * lengths))
    most = len(far) > len(manifest) / 2
    if most or (len(far) and not some_may_fail):
        i = int(far[0])
        unit = _unit(lasts, lengths) if most else ""
        names = first_names([manifest.keys[row] for row in far.tolist()], N_SHOWN)
        raise ManifestError(
            f"Manifest {manifest.name}: {len(far):,} of {len(manifest):,} utterances lie far beyond their recordings: "
            f"{names}; {starts[i]:.12g} to {'the end' if np.isnan(ends[i]) else f'{ends[i]:.12g}'} s of "
            f"{manifest.audio_path(i)}, which has {lengths[i]:.3f} s. "
            f"Expected seconds{f'; as {unit} all would lie within them' if unit else ''}. Mend the table."
        )
    if not len(beyond):
        return []
    names = first_names([manifest.keys[i] for i in beyond.tolist()], N_SHOWN)
    return [f"{len(beyond):,} utterances lie beyond the end of their recording, and will fail: {names}"]


def whole_files_twice(manifest: Manifest) -> list[str]:
    """Return a note on files that several utterances are the whole of, so that these have the same features."""
    if not manifest.has("path"):
        return []
    rows: dict[str, list[int]] = {}
    for i, (audio, path) in enumerate(zip(manifest.audios, real_paths(manifest), strict=True)):
        if path is not None and isinstance(audio, Path):  # no piece
            rows.setdefault(path, []).append(i)
    shared = [manifest.keys[i] for of in rows.values() if len(of) > 1 for i in of]
    if not shared:
        return []
    return [
        f"{len(shared):,} utterances share their file with another, and each is the whole of it "
        f"({first_names(shared, N_SHOWN)}); if they are pieces of it, the table needs {START} and {END}"
    ]


def _lengths(manifest: Manifest) -> np.ndarray:
    """Return (N,) seconds of each utterance's recording, NaN where they aren't known without decoding."""
    lengths: dict[str | None, float] = {None: np.nan}
    paths = manifest.column("path").tolist()
    n_decoded = 0
    for path in paths:
        if path in lengths:
            continue
        lengths[path] = np.nan
        file = manifest.root / path
        with suppress(AudioError):
            seconds = stated_duration_s(file)
            if seconds is None and n_decoded < N_DECODED and file.stat().st_size <= DECODED_BYTES:
                n_decoded += 1
                seconds = duration_s(file)
            lengths[path] = np.nan if seconds is None else seconds
    return np.array([lengths[path] for path in paths])


def _unit(lasts: np.ndarray, lengths: np.ndarray) -> str:
    """Return the unit in which all pieces would lie within their recordings, "" for none."""
    comparable = ~np.isnan(lasts) & ~np.isnan(lengths)
    return next(
        (unit for unit, n in UNITS.items() if np.all(lasts[comparable] / n <= lengths[comparable] + SLACK_S)), ""
    )
