"""Places that people name on a command line, as audio files: files, folders, patterns, lists."""

import fnmatch
import glob
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from featurestore.audio import AUDIO_SUFFIXES, search
from featurestore.errors import ConfigError

PATTERN = frozenset("*?[")
STDIN = "-"
LISTS = (".txt", ".lst", ".list")  # a file of places, one a line
TABLES = (".csv", ".tsv", ".parquet")


def find_files(places: Iterable[Path | str], listed: Iterable[str] = (), notes: list[str] | None = None) -> list[str]:
    """Return audio files, each once, in the order of the places, see `expanded` and `files_at`.

    A file that isn't there stays in the list, to fail by itself; a folder or pattern without audio is a ConfigError.
    notes: gets a sentence for each folder with files that may be recordings, but don't have a suffix of audio.
    """
    notes = [] if notes is None else notes
    return list(dict.fromkeys(name for place in expanded(places, listed) for name in files_at(place, notes)))


def expanded(places: Iterable[Path | str], listed: Iterable[str] = ()) -> list[str]:
    """Return the places with lists replaced by what they list: "-" by the lines `listed`, a .txt, .lst or .list by its.

    Relative paths in a list start at the working directory. ConfigError: a list that is empty or can't be read.
    """
    paths: list[str] = []
    for place in [os.fspath(place) for place in places]:
        if place == STDIN:
            paths += _lines(listed)
        elif place.lower().endswith(LISTS) and os.path.isfile(place):
            try:
                text = Path(place).read_text(encoding="utf-8-sig", errors="surrogateescape")
            except OSError as error:
                raise ConfigError(f"{place} can't be read: {error.strerror}.") from None
            lines = _lines(text.split("\n"))
            if not lines:
                raise ConfigError(f"{place} lists no file; expected a path in each line.")
            paths += lines
        elif place.lower().endswith(TABLES) and os.path.isfile(place):
            raise ConfigError(f"{place} is a table, no recording; give it with --manifest.")
        else:
            paths.append(place)
    return paths


def files_at(place: str, notes: list[str]) -> Iterator[str]:
    """Yield the audio files of a place: itself; of a folder all below it; of a pattern what it matches.

    A pattern is `*.wav`, or `calls/**/*.flac` for all depths.
    """
    if os.path.isdir(place):
        folder = search(Path(place))
        if left_out := folder.left_out(Path(place)):
            notes.append(f"{place}: {left_out}")
        if not folder.files:
            raise ConfigError(f"{place} holds no audio ({', '.join(AUDIO_SUFFIXES)}); name the files themselves.")
        yield from map(os.fspath, folder.files)
    elif _is_pattern(place):
        names = _matching(place)
        if not names:
            raise ConfigError(f"{place} matches no file; ** stands for folders of any depth.")
        yield from names
    else:
        yield place


def folder_above(places: Sequence[str]) -> str:
    """Return the deepest folder that holds all the places, absolute: of one folder that folder itself."""
    return os.path.commonpath([os.path.abspath(_start_of(place)) for place in places])


def _start_of(place: str) -> str:
    """Return the folder that a place's files lie below: of a pattern what stands before its first wild card."""
    if os.path.isdir(place):
        return place
    if not _is_pattern(place):
        return os.path.dirname(place)
    names = place.split("/")
    first = next(i for i, name in enumerate(names) if PATTERN & set(name))
    return "/".join(names[:first]) or ("/" if place.startswith("/") else ".")


def _is_pattern(place: str) -> bool:
    return bool(PATTERN & set(place)) and not os.path.exists(place)


def _lines(text: Iterable[str]) -> list[str]:
    return [stripped for line in text if (stripped := line.rstrip("\r\n")).strip()]


def _matching(pattern: str) -> list[str]:
    """Return the files that match a pattern, sorted.

    Below a `**` each real file counts once, so that loops of links end.
    """
    head, stars, tail = pattern.partition("**/")
    if not stars or PATTERN & set(head):
        return sorted(name for name in glob.iglob(pattern) if not os.path.isdir(name))
    tail_pattern = re.compile(
        "(?:.*/)?" + "".join(map(_expression, re.findall(r"\*\*/|\*+|\?|\[[^\]]+\]|.", tail, re.DOTALL)))
    )
    base = Path(head or ".")
    if not base.is_dir():
        return []
    paths = [path for path in search(base, ("",)).files if tail_pattern.fullmatch(path.relative_to(base).as_posix())]
    return sorted(os.path.join(head, path.relative_to(base).as_posix()) for path in paths)


def _expression(piece: str) -> str:
    """Return the regular expression of one piece of a pattern."""
    wild = {"**/": "(?:.*/)?", "?": "[^/]"}
    if piece in wild:
        return wild[piece]
    if piece.startswith("*"):
        return "[^/]*"
    if piece.startswith("[") and len(piece) > 1:
        return fnmatch.translate(piece).removeprefix("(?s:").removesuffix(")\\Z")
    return re.escape(piece)
