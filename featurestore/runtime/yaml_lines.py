"""YAML whose every value knows its line, so that an error can name it."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from featurestore.errors import ConfigError

MAX_NODES = 10_000  # of one recipe, with what its aliases stand for
MAX_DATA_NODES = 1_000_000  # of a corpus's own description, such as audformat's db.yaml with a value for each speaker


@dataclass(frozen=True)
class Entry:
    """A value and where it stands: a text, a bool, None, a list of texts, or entries by key."""

    value: Any
    place: str

    @property
    def entries(self) -> "dict[str, Entry]":
        """Return the entries by key; ConfigError when the value has no keys."""
        if not isinstance(self.value, dict):
            raise ConfigError(f"{self.place}: expected keys with values, found {shown(self.value)}.")
        return self.value

    @property
    def text(self) -> str:
        """Return the text; ConfigError when the value is of another kind."""
        if not isinstance(self.value, str):
            raise ConfigError(f"{self.place}: expected a text or a number, found {shown(self.value)}.")
        return self.value

    @property
    def texts(self) -> list[str]:
        """Return the texts of a list, or of one text with commas between them."""
        if isinstance(self.value, list):
            return self.value
        return [part.strip() for part in self.text.split(",") if part.strip()]


def read_tree(path: Path, *, trusted: bool = False) -> Entry:
    """Read a YAML file in UTF-8; ConfigError names the file, and the line where there is one.

    trusted: a file of the program's own. libyaml reads it ten times as fast; one nested 100,000 deep would end the
    process.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} can't be read ({error}); expected a YAML file in UTF-8.") from None
    return tree_of(text, path.name, trusted=trusted)


def tree_of(text: str, name: str, *, trusted: bool = False) -> Entry:
    """Read YAML from a text; name: what errors call it, a file's name or an option. trusted: see `read_tree`."""
    try:
        node = _compose(text, name, trusted=trusted)
        _check_size(node, name)
        return _tree(node, name)
    except RecursionError:
        raise ConfigError(f"{name}: nested too deeply; no section is that deep.") from None


def plain_yaml(text: str, name: str) -> Any:
    """Return a YAML text as plain values; ConfigError where it is none, too deep, or its aliases multiply."""
    try:
        node = _compose(text, name)
        _check_size(node, name, MAX_DATA_NODES)
        return yaml.SafeLoader("").construct_document(node)
    except RecursionError:
        raise ConfigError(f"{name}: nested too deeply.") from None
    except (yaml.YAMLError, ValueError) as error:  # a date that is none
        raise ConfigError(f"{name}: not YAML ({str(error).splitlines()[0]}).") from None


def shown(value: Any) -> str:
    """Return a value as an error shows it."""
    if isinstance(value, dict):
        return f"the keys {', '.join(value)}" if value else "no keys"
    return "nothing" if value is None else repr(value)


def unknown_key(place: str, key: str, keys: Sequence[str], noun: str = "key") -> ConfigError:
    """Return the error for a key that means nothing, with near ones."""
    near = difflib.get_close_matches(key, keys, cutoff=0.6)
    hint = f"did you mean {' or '.join(near)}?" if near else f"expected one of {', '.join(keys)}."
    return ConfigError(f"{place}: unknown {noun} {key!r}; {hint}")


def _compose(text: str, name: str, *, trusted: bool = False) -> yaml.Node:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader) if trusted else yaml.SafeLoader
    try:
        node = yaml.compose(text, Loader=loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{name}, line {mark.line + 1}" if mark is not None else name
        raise ConfigError(f"{place}: not YAML ({getattr(error, 'problem', None) or error}).") from None
    return yaml.MappingNode("tag:yaml.org,2002:map", []) if node is None else node


def _check_size(node: yaml.Node, name: str, most: int = MAX_NODES) -> None:
    """Raise ConfigError where aliases, each with all that it names, multiply to more than `most` values."""
    sizes: dict[int, int] = {}

    def size(each: yaml.Node) -> int:
        if id(each) not in sizes:
            sizes[id(each)] = most + 1  # an alias inside what it names has no end
            below = [part for pair in each.value for part in pair] if isinstance(each, yaml.MappingNode) else each.value
            sizes[id(each)] = 1 + (sum(map(size, below)) if isinstance(below, list) else 0)
        return sizes[id(each)]

    if size(node) > most:
        raise ConfigError(f"{name}: its aliases stand for more than {most:,} values; write them out.")


def _tree(node: yaml.Node, name: str, depth: int = 0) -> Entry:
    """Return a node with all below it; scalars stay as they are written, since commands read texts ("1e-5", "006")."""
    place = _place(node, name)
    if isinstance(node, yaml.MappingNode):
        if depth > 3:
            raise ConfigError(f"{place}: keys within keys within keys; no section is that deep.")
        entries: dict[str, Entry] = {}
        for key_node, value in node.value:
            key_place = _place(key_node, name)
            if not isinstance(key_node, yaml.ScalarNode):
                raise ConfigError(f"{key_place}: a key must be a name.")
            if key_node.value in entries:
                raise ConfigError(f"{key_place}: {key_node.value!r} stands twice; keep one.")
            entries[key_node.value] = Entry(_tree(value, name, depth + 1).value, key_place)
        return Entry(entries, place)
    if isinstance(node, yaml.SequenceNode):
        if not all(isinstance(item, yaml.ScalarNode) for item in node.value):
            raise ConfigError(f"{place}: expected a list of plain values.")
        return Entry([item.value for item in node.value], place)
    if node.tag.endswith(":null"):
        return Entry(None, place)
    if node.tag.endswith(":bool"):
        return Entry(node.value.lower() in ("true", "yes", "on"), place)
    return Entry(node.value, place)


def _place(node: yaml.Node, name: str) -> str:
    """Where a node stands; what an option of the command line gives has no lines."""
    return name if name.startswith("--") or node.start_mark is None else f"{name}, line {node.start_mark.line + 1}"
