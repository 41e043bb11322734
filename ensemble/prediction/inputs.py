"""What to predict: files, folders and patterns, as a manifest under the files' own names."""

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from featurestore.corpora.assemble import audio_files
from featurestore.corpus.manifest import Manifest
from featurestore.errors import ConfigError

# What a folder is searched for: what libsndfile reads and people name so. A file that is named itself may be anything.
SUFFIXES = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".au", ".caf", ".w64", ".sph")
PATTERN = frozenset("*?[")
STDIN = "-"


def find_files(places: Iterable[Path | str], listed: Iterable[str] = ()) -> list[str]:
    """Audio files, each once, in the order of the places: a file; a folder, with all below it; a pattern; "-".

    A pattern is `*.wav`, or `calls/**/*.flac` for all depths. listed: the lines that "-" stands for, each a place. A
    file that isn't there stays in the list, to fail by itself; a folder or pattern without audio is a ConfigError.
    """
    found: dict[str, None] = {}
    for place in places:
        text = os.fspath(place)
        if text == STDIN:
            lines = [line.rstrip("\r\n") for line in listed]
            found |= dict.fromkeys(name for line in lines if line.strip() for name in _files_at(line))
        else:
            found |= dict.fromkeys(_files_at(text))
    return list(found)


def _files_at(place: str) -> Iterator[str]:
    if os.path.isdir(place):
        names = [os.fspath(path) for path in audio_files(Path(place), SUFFIXES)]
        if not names:
            raise ConfigError(f"{place} holds no audio ({', '.join(SUFFIXES)}); name the files themselves.")
        yield from names
    elif PATTERN & set(place) and not os.path.exists(place):
        names = sorted(name for name in glob.iglob(place, recursive=True) if not os.path.isdir(name))
        if not names:
            raise ConfigError(f"{place} matches no file; ** stands for folders of any depth.")
        yield from names
    else:
        yield place


def files_manifest(files: Sequence[Path | str], text: str | None = None) -> Manifest:
    """A manifest of audio files under their own names, each once; `text` is what is said in all of them."""
    names = list(dict.fromkeys(os.fspath(file) for file in files))
    if not names:
        raise ConfigError("No file to predict; name one or more audio files, or a manifest.")
    columns = {"utterance_id": names, "path": names} | ({} if text is None else {"text": [text] * len(names)})
    try:
        table = pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})
    except UnicodeEncodeError:
        bad = next(name for name in names if not name.isprintable())
        raise ConfigError(f"{bad!r}: a file name that is not UTF-8 can't be a key; rename the file.") from None
    return Manifest(table, root=".", name="files")
