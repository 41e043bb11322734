"""Keys as names of files and datasets, and back: reversible percent-encoding. Keys are data, never paths.

1. A character that is printable and none of `/`, `\\` and `%` stays; of any other, each utf-8 byte becomes `%` and two
   upper-case hex digits. A leading `.` becomes `%2E`. The empty text becomes `%`.
2. As a path, a key is encoded part by part between its `/`; a directory's ending that is a file's suffix has its dot
   encoded, so that the key `a.npy/b` can lie beside the key `a`.

So no part is empty, `.`, `..`, hidden or absolute: a path made of them never leaves the directory it starts in.
Decoding takes names that were never encoded as well: what is no valid encoding stands for itself.
"""

import re
from pathlib import PurePosixPath
from urllib.parse import unquote_to_bytes

EMPTY = "%"
_UNSAFE = frozenset("/\\%")
_ENCODED = re.compile(r"(?:%[0-9A-Fa-f]{2})+")


def escape(text: str, spaces: bool = False) -> str:
    """Return `text` as one name; with `spaces`, blanks are encoded too, so that the name is one word of a line."""
    escaped = "".join(char if _stays(char, spaces) else _encoded(char) for char in text)
    return _encoded(".") + escaped[1:] if escaped.startswith(".") else escaped or EMPTY


def unescape(name: str) -> str:
    """Return the inverse of `escape`."""
    return "" if name == EMPTY else _ENCODED.sub(_decoded, name)


def key_path(key: str, suffix: str) -> PurePosixPath:
    """Where `key` lies below a directory: "a/b" -> a/b.npy."""
    *directories, name = (escape(part) for part in key.split("/"))
    ending = _encoded(".") + suffix[1:]
    parts = [part.removesuffix(suffix) + ending if part.endswith(suffix) else part for part in directories]
    return PurePosixPath(*parts, name + suffix)


def key_line(key: str) -> str:
    """Return `key` as one word of a line of text; `path_key` is the inverse."""
    return "/".join(escape(part, spaces=True) for part in key.split("/"))


def path_key(path: str, flatten: bool = False) -> str:
    """Return the key of a relative path without suffix, the inverse of `key_path`; flatten: its last part alone."""
    parts = path.split("/")
    return "/".join(unescape(part) for part in (parts[-1:] if flatten else parts))


def _stays(char: str, spaces: bool) -> bool:
    return char.isprintable() and char not in _UNSAFE and not (spaces and char == " ")


def _encoded(char: str) -> str:
    return "".join(f"%{byte:02X}" for byte in char.encode())


def _decoded(match: re.Match[str]) -> str:
    try:
        return unquote_to_bytes(match.group()).decode()
    except UnicodeDecodeError:  # somebody else's percent signs
        return match.group()
