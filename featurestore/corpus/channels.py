"""A column that says which channel of its file an utterance is: channels are averaged, so that it can't be followed."""

from pathlib import Path

import soundfile

from featurestore.corpus import arrow
from featurestore.corpus.manifest import Manifest
from featurestore.corpus.strange_places import plain_name
from featurestore.runtime.wording import first_names

NAMES = ("channel", "channel_id", "audio_channel", "channel_idx", "channel_index")
N_OPENED = 5  # files
N_SHOWN = 5


def averaged_channels(manifest: Manifest) -> list[str]:
    """Return a note where the manifest names channels and a file, of a few that are opened, has several."""
    column = next((name for name in manifest.columns if plain_name(name) in NAMES), None)
    if column is None or not manifest.has("path"):
        return []
    table = manifest.to_arrow()
    if arrow.nested_problems(table, (column,)):
        return []
    values, paths = arrow.as_strings(table.column(column)).to_pylist(), table.column("path").to_pylist()
    named = dict.fromkeys(path for path, value in zip(paths, values, strict=True) if path and value is not None)
    for path in list(named)[:N_OPENED]:
        n_channels = _n_channels(manifest.root / path)
        if n_channels > 1:
            channels = first_names(sorted(set(values) - {None}), N_SHOWN)
            return [
                f"column {column!r} ({channels}) is not followed: {path} has {n_channels} channels, and all "
                "utterances have their mean; write each channel to a file of its own if only one is meant"
            ]
    return []


def _n_channels(path: Path) -> int:
    """Return the channels of a file that soundfile reads, 1 of others."""
    try:
        return int(soundfile.info(str(path)).channels)
    except (soundfile.SoundFileError, OSError):
        return 1
