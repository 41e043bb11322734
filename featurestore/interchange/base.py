"""What the interchange formats share: what a source holds, what is to be written, and how arrays become layers."""

import json
import math
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from featurestore.errors import StoreError
from featurestore.format.spec import FeatureSpec
from featurestore.runtime import durable
from featurestore.runtime.durable import reason_of, writing
from featurestore.runtime.json_text import read_json
from featurestore.sets.feature_set import FeatureSet

DEFAULT_LAYER = "features"
# How rows of each stored dtype are read, and so exported: bfloat16 exactly, int8 dequantised.
READ_AS = {"float16": "float16", "float32": "float32", "bfloat16": "float32", "int8": "float16"}
READABLE = ("float16", "float32", "float64")

Failures = list[tuple[str, str]]


@dataclass(frozen=True)
class Loaded:
    """One utterance of a source: rows (T, D) by layer, and their dtype there (float16, float32, float64, bfloat16)."""

    layers: dict[str, np.ndarray]
    dtype: str


@dataclass(frozen=True)
class Source:
    """N utterances somewhere, by position; nothing is read before `load`.

    keys: their keys, in the source's order; the same one may come twice. place_of: the file or dataset of one, for
    messages. load: read one; StoreError names what is wrong with it. failed: (file, reason) of what has no key.
    notes: what the user should know. spec: of the set that an export of ours wrote there, where it is recorded.
    """

    keys: list[str]
    place_of: Callable[[int], str]
    load: Callable[[int], Loaded]
    failed: Failures = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    spec: FeatureSpec | None = None


@dataclass(frozen=True)
class Selection:
    """What is to be written: utterances and layers of a feature set, with labels by key where there are any.

    By the record of an earlier export that is gone on with: known, the keys that the set has of the same data still;
    anew, those that it has of other data now, whose files are replaced.
    """

    features: FeatureSet
    keys: Sequence[str]
    layers: tuple[str, ...]
    labels: Mapping[str, str] = field(default_factory=dict)
    progress: Callable[[int, int], None] = lambda done, total: None
    known: frozenset[str] = frozenset()
    anew: frozenset[str] = frozenset()

    @property
    def dtype(self) -> str:
        """The numpy dtype of `rows`."""
        return READ_AS[self.features.spec.dtype]

    def rows(self, key: str, layer: str) -> np.ndarray:
        """Return the rows (T, D), C-contiguous, little-endian."""
        return np.ascontiguousarray(self.features.array(key, layer), dtype=np.dtype(self.dtype).newbyteorder("<"))

    def metadata(self) -> dict[str, str]:
        """Return what formats with room for it record: the specification, and the names of layers."""
        spec = json.dumps(self.features.spec.to_json(), sort_keys=True)
        return {"medusa_layers": json.dumps(self.layers), "medusa_spec": spec}


@dataclass
class Written:
    """What came of a `write`: utterances written, those that lay there already, failures, and notes."""

    done: int = 0
    skipped: int = 0
    failed: Failures = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Format(Protocol):
    """A module of this package. layers: {name: where it lies}, "" where that was not given; the module says what it is.

    resumable: whether a `write` that was cut short can go on. occupied: what a `write` to `target` would replace.
    """

    resumable: bool

    def read(self, path: Path, layers: Mapping[str, str], flatten: bool) -> AbstractContextManager[Source]: ...
    def occupied(self, target: Path, layers: Sequence[str]) -> list[Path]: ...
    def write(self, chosen: Selection, target: Path, resume: bool) -> Written: ...


def float_dtype(dtype: np.dtype[Any], place: str) -> str:
    """Return the dtype's name; StoreError unless it is one of READABLE."""
    if dtype.name not in READABLE or dtype.kind != "f":
        hint = " (bfloat16 as numpy saves it? save it as float32)" if dtype.kind == "V" else ""
        raise StoreError(f"{place}: values of {dtype}{hint}; {', '.join(READABLE)} expected.")
    return dtype.name


def check_shape(shape: tuple[int, ...], names: Sequence[str], place: str) -> None:
    """Raise StoreError unless an array of this shape is one utterance: (T, D), (D,) or (L, T, D)."""
    if len(shape) not in (1, 2, 3) or shape[-1] == 0:
        raise StoreError(f"{place}: an array of shape {shape}; (T, D), (D,) or (L, T, D) expected.")
    n_layers = shape[0] if len(shape) == 3 else 1
    if n_layers == 0 or (names and n_layers != len(names)):
        named_layers = f"; the {len(names)} layers {', '.join(names)} were given" if names else ""
        raise StoreError(f"{place}: an array of shape {shape}, so {n_layers} layers{named_layers}.")


def as_layers(array: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Return (T, D); (D,), a pooled vector or one frame, as one row; or (L, T, D) as L layers, numbered or named."""
    if array.ndim < 3:
        return {(names[0] if names else DEFAULT_LAYER): np.atleast_2d(array)}
    numbered = [f"layer_{i:02d}" for i in range(len(array))] if len(array) > 1 else [DEFAULT_LAYER]
    return dict(zip(names or numbered, array, strict=True))


def joined(parts: Mapping[str, Loaded]) -> Loaded:
    """Join layers that were read one by one, (T, D) each, to one utterance, in a dtype that holds all."""
    layers = {name: next(iter(part.layers.values())) for name, part in parts.items()}
    dtypes = {part.dtype for part in parts.values()}
    return Loaded(layers, dtypes.pop() if len(dtypes) == 1 else "float64" if "float64" in dtypes else "float32")


def group_by_utterance(names: Sequence[str], layers: Mapping[str, str], place: str) -> dict[str, dict[str, str]]:
    """Return {utterance: {layer: name}} of "utterance/layer" names; empty when no name ends in one of the layers."""
    endings = {ending or layer: layer for layer, ending in layers.items()}
    files_of_key: dict[str, dict[str, str]] = {}
    for name in names:
        utterance, slash, ending = name.rpartition("/")
        if slash and ending in endings:
            files_of_key.setdefault(utterance, {})[endings[ending]] = name
    if not files_of_key and any(layers.values()):
        raise StoreError(
            f"{place}: no name ends in {' or '.join(f'/{ending}' for ending in endings)}; there is "
            f"{', '.join(repr(name) for name in names[:3]) or 'nothing'}."
        )
    return files_of_key


def told_layers(metadata: Any) -> dict[str, str]:
    """Return the layers that `Selection.metadata` recorded, or none."""
    try:
        names = read_json(metadata)
    except (TypeError, ValueError):
        return {}
    good = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return dict.fromkeys(names, "") if good else {}


def told_spec(metadata: Any) -> FeatureSpec | None:
    """Return the specification that `Selection.metadata` recorded, or None."""
    try:
        return FeatureSpec.from_json(read_json(metadata))
    except (TypeError, ValueError, StoreError):
        return None


@contextmanager
def replacing(*paths: Path) -> Iterator[list[Path]]:
    """Replace as `durable.replacing` does; StoreError where the files can't be written."""
    with writing(paths[0], StoreError, ""), durable.replacing(*paths) as temporary:
        yield temporary


def check_regular(path: Path) -> None:
    """Raise StoreError unless there is a file of bytes at `path`: reading a pipe or a device may wait for ever."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise StoreError(f"{path} can't be read: {reason_of(error)}.") from error
    if not stat.S_ISREG(mode):
        raise StoreError(f"{path} is no regular file, so it is not read; give a file of features.")


def check_bytes(n_bytes: int, place: str) -> None:
    """Raise StoreError for an array that this machine's memory can't hold, before it is asked for."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if n_bytes > memory:
        raise StoreError(
            f"{place}: an array of {n_bytes:,} bytes is declared, and this machine has {memory:,} bytes of memory: the "
            "file is damaged, or holds more than one utterance."
        )


def read_values(path: Path, dtype: str, start: int, shape: tuple[int, ...], place: str) -> np.ndarray:
    """Return an array that lies at a byte of a file; StoreError when the file has become shorter than it was."""
    count = math.prod(shape)
    try:
        values = np.fromfile(path, dtype, count, offset=start)
    except OSError as error:
        raise StoreError(f"{place} can't be read: {reason_of(error)}.") from error
    if len(values) != count:
        raise StoreError(f"{place}: the file became shorter while it was read.")
    return values.reshape(shape)
