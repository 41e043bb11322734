"""Sound tracks of containers that may have several: the first one is read, and said so where it is not the only one."""

from collections.abc import Iterable
from pathlib import Path

from featurestore.audio import ffmpeg
from featurestore.audio.layout import layout_of
from featurestore.audio.parts import FFMPEG
from featurestore.audio.suffixes import VIDEO_SUFFIXES
from featurestore.errors import AudioError

MAY_HAVE_SEVERAL = (*VIDEO_SUFFIXES, ".mka", ".m4a", ".m4b", ".weba")
N_SHOWN = 3


def tracks_of(path: Path | str) -> list[str]:
    """Return the sound tracks of a container, in order; `decode` reads the first. One for a file of sound alone."""
    path = Path(path)
    first = layout_of(path).parts[0]
    return ["sound"] if first.decoder != FFMPEG or first.format else ffmpeg.tracks(path, first)


def several_tracks(files: Iterable[Path | str]) -> list[str]:
    """Return a note on the files, by their suffixes containers, of whose sound tracks the first alone is read."""
    several: list[str] = []
    for file in files:
        if not str(file).lower().endswith(MAY_HAVE_SEVERAL):
            continue
        try:
            tracks = tracks_of(file)
        except AudioError:
            continue  # reported where it is decoded
        if len(tracks) > 1:
            several.append(f"{file} ({tracks[0]}; not {', '.join(tracks[1:])})")
    if not several:
        return []
    more = f" and {len(several) - N_SHOWN:,} more" if len(several) > N_SHOWN else ""
    return [
        f"the first of several sound tracks is read of {len(several):,} files: {', '.join(several[:N_SHOWN])}{more}"
    ]
