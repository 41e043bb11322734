"""Files of one JSON object per line, plain or gzipped, whose problems are named by line."""

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from featurestore.errors import ManifestError
from featurestore.runtime.json_text import read_json


def json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (`file:line`, object) of each line that isn't blank; ManifestError for a file of another kind."""
    if not path.is_file():
        raise ManifestError(f"{path} is not a file; expected one of JSON lines (.jsonl, .jsonl.gz). Check the path.")
    number = 0
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    record = read_json(line, object_pairs_hook=_once)
                    if not isinstance(record, dict):
                        raise ValueError(f"found {type(record).__name__}")
                    yield f"{path}:{number}", record
    except (ValueError, OSError, EOFError) as error:  # a UnicodeDecodeError is a ValueError
        raise ManifestError(f"{path}:{number}: expected one JSON object per line ({error}). Write it again.") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the object of the pairs.

    ValueError for a name that stands in it twice, of which json would keep the last.
    """
    record = dict(pairs)
    if len(record) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} stands in it twice")
    return record


def field(place: str, record: dict[str, Any], *names: str) -> Any:
    """Return a field of a record, or of a record in it; ManifestError names the line and the fields there are."""
    value: Any = record
    for i, name in enumerate(names):
        if not isinstance(value, dict) or name not in value:
            actual = f"only {', '.join(map(repr, value))}" if isinstance(value, dict) else f"{value!r}"
            raise ManifestError(f"{place}: no field {'.'.join(names[: i + 1])!r}, {actual}.")
        value = value[name]
    return value
