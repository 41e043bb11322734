"""emotion2vec's layout, which fairseq's examples have too: NAME.npy, all rows one after the other, and NAME.lengths.

The lengths are one per line. Utterances are known by their order alone, so keys come from a file beside it: NAME.keys
(ours: a key per line, encoded as a path, blanks too), else NAME.emo (lines of key and label), else NAME.tsv
(fairseq's manifest: a root, then lines of path, tab and frames). A layer's `where` is the NAME of its files below the
source, taken as a directory. Writing puts one layer into NAME.*, several into NAME/LAYER.*, and adds .emo where every
utterance has a label.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from featurestore.errors import ConfigError, StoreError
from featurestore.interchange.base import (
    Loaded,
    Selection,
    Source,
    Written,
    as_layers,
    check_regular,
    float_dtype,
    joined,
    read_values,
    replacing,
)
from featurestore.interchange.names import key_line, path_key
from featurestore.interchange.npy import read_header, write_header

resumable = False
SUFFIXES = (".lengths", ".keys", ".emo", ".npy")


@contextmanager
def read(path: Path, layers: Mapping[str, str], flatten: bool) -> Iterator[Source]:
    """Open the utterances of PATH.npy (the suffix may be given or not), in their order."""
    if len(layers) > 1 and not all(layers.values()):
        raise ConfigError(f"Layers {', '.join(layers)}: name the files of each, as LAYER=NAME.")
    base = _prefix(path)
    prefixes = {layer: base / where if where else base for layer, where in layers.items()} or {"": base}
    arrays = {layer: _open(prefix) for layer, prefix in prefixes.items()}
    prefix = next(iter(prefixes.values()))
    keys, notes = _keys(prefix, flatten)
    for layer, (_, _, _, offsets) in arrays.items():
        if len(offsets) - 1 != len(keys):
            lengths = _with(prefixes[layer], ".lengths")
            raise StoreError(f"{lengths} has {len(offsets) - 1} lines, but there are {len(keys)} keys of {prefix}.")
        if _keys(prefixes[layer], flatten)[0] != keys:
            raise StoreError(f"{prefix} and {prefixes[layer]} are of different utterances, or in another order.")

    def place_of(i: int) -> str:
        return f"{_with(prefix, '.npy')}, utterance {i + 1} ({keys[i]!r})"

    def load(i: int) -> Loaded:
        parts = {}
        for layer, (start, dtype, dim, offsets) in arrays.items():
            first, shape = start + int(offsets[i]) * dim * dtype.itemsize, (int(offsets[i + 1] - offsets[i]), dim)
            rows = read_values(_with(prefixes[layer], ".npy"), dtype.str, first, shape, place_of(i)).astype(dtype.name)
            parts[layer] = Loaded(as_layers(rows, (layer,) if layer else ()), dtype.name)
        return parts[""] if "" in parts else joined(parts)

    yield Source(keys, place_of, load, notes=notes)


def _prefix(path: Path) -> Path:
    return path.with_suffix("") if path.suffix == ".npy" else path


def _with(prefix: Path, suffix: str) -> Path:
    return prefix.with_name(prefix.name + suffix)


def _open(prefix: Path) -> tuple[int, np.dtype[Any], int, np.ndarray]:
    """Where the rows (sum T, D) start in their file, their dtype, D, and the utterances' offsets int64 (N + 1,)."""
    path = _with(prefix, ".npy")
    for suffix in (".npy", ".lengths"):
        check_regular(_with(prefix, suffix))
    try:
        with open(path, "rb") as file:
            shape, fortran, dtype = read_header(file, path)
            start = file.tell()
        lines = _lines(_with(prefix, ".lengths"))
    except OSError as error:
        raise StoreError(f"{error.filename} can't be read: {error.strerror or error}.") from error
    float_dtype(dtype, str(path))
    if len(shape) != 2 or fortran:
        raise StoreError(f"{path}: an array of shape {shape}; the rows of all utterances, (sum T, D), expected.")
    bad = [i for i, line in enumerate(lines) if not (line.isascii() and line.isdecimal() and len(line) < 19)]
    if bad:
        place = f"{_with(prefix, '.lengths')}, line {bad[0] + 1}"
        raise StoreError(f"{place}: {lines[bad[0]]!r}; a number of rows expected.")
    lengths = [int(line) for line in lines]
    if sum(lengths) != shape[0]:
        raise StoreError(f"{path} has {shape[0]} rows, but the lengths beside it add up to {sum(lengths)}.")
    return start, dtype, shape[1], np.cumsum([0, *lengths], dtype=np.int64)


def _keys(prefix: Path, flatten: bool) -> tuple[list[str], list[str]]:
    """Return keys, and notes on what was left out."""
    keys, emo, tsv = (_with(prefix, suffix) for suffix in (".keys", ".emo", ".tsv"))
    if keys.exists():
        return [path_key(line) for line in _lines(keys)], []
    if emo.exists():
        lines = [line.split() for line in _lines(emo)]
        if not all(lines):
            raise StoreError(f"{emo}, line {lines.index([]) + 1} is empty; a key and a label expected.")
        return [line[0] for line in lines], [f"The labels of {emo} are no features; a manifest can hold them."]
    if tsv.exists():
        paths = [line.split("\t")[0] for line in _lines(tsv)[1:]]
        return [path_key(os.path.splitext(path)[0], flatten) for path in paths], []
    raise StoreError(
        f"{prefix}: utterances are known by their order alone. Put a list of their keys beside it: {keys.name} (a key "
        f"per line), {emo.name} (key and label) or {tsv.name} (fairseq's manifest)."
    )


def _lines(path: Path) -> list[str]:
    """Return the lines of a text file, without the end of the last one."""
    try:
        lines = path.read_bytes().decode().split("\n")
    except UnicodeDecodeError as error:
        raise StoreError(f"{path} is not utf-8: {error}.") from None
    return [line.removesuffix("\r") for line in (lines[:-1] if lines[-1] == "" else lines)]


def occupied(target: Path, layers: Sequence[str]) -> list[Path]:
    """Return the files of the names that `write` would use."""
    names = [_with(prefix, suffix) for prefix in _targets(target, layers) for suffix in SUFFIXES]
    return [path for path in names if path.exists()]


def _targets(target: Path, layers: Sequence[str]) -> list[Path]:
    return [_prefix(target)] if len(layers) == 1 else [_prefix(target) / layer for layer in layers]


def write(chosen: Selection, target: Path, resume: bool) -> Written:
    """Return the files of each layer, whole or not at all."""
    names = [key_line(key) for key in chosen.keys]
    labels = [key_line(chosen.labels[key]) for key in chosen.keys if chosen.labels.get(key)]
    lengths = chosen.features.lengths(chosen.keys)
    texts = {".lengths": [str(n) for n in lengths], ".keys": names}
    if labels and len(labels) == len(names):
        texts[".emo"] = [f"{name}\t{label}" for name, label in zip(names, labels, strict=True)]
    suffixes = [*texts, ".npy"]
    for n, (layer, prefix) in enumerate(zip(chosen.layers, _targets(target, chosen.layers), strict=True)):
        with replacing(*(_with(prefix, suffix) for suffix in suffixes)) as paths:
            for lines, path in zip(texts.values(), paths, strict=False):
                path.write_bytes("".join(f"{line}\n" for line in lines).encode())
            _write_rows(chosen, layer, int(lengths.sum()), paths[-1], n * len(names))
    partly = 0 < len(labels) < len(names)
    return Written(done=len(names), notes=["Some utterances have no label, so no .emo was written."] if partly else [])


def _write_rows(chosen: Selection, layer: str, n_rows: int, path: Path, done: int) -> None:
    dtype = np.dtype(chosen.dtype).newbyteorder("<")
    with open(path, "wb") as file:
        write_header(file, dtype, (n_rows, chosen.features.dim))
        for i, key in enumerate(chosen.keys):
            file.write(chosen.rows(key, layer).tobytes())
            chosen.progress(done + i + 1, len(chosen.layers) * len(chosen.keys))
