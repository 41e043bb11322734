"""One safetensors file: a tensor per utterance and layer, named KEY/LAYER; bfloat16 as its own BF16.

Names are free text there, so that keys need no encoding. The layers' names are in the metadata `medusa_layers`; in
a file without it, and without layers given, a tensor's whole name is the key. A layer's `where` is what names end in,
behind the last `/`.
"""

import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from featurestore.errors import StoreError
from featurestore.interchange.base import (
    Loaded,
    Selection,
    Source,
    Written,
    as_layers,
    check_regular,
    check_shape,
    group_by_utterance,
    joined,
    read_values,
    replacing,
    told_layers,
    told_spec,
)
from featurestore.runtime.json_text import read_json

resumable = False
STORED_AS = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "BF16": "<u2"}
READ_AS = {"F16": "float16", "F32": "float32", "F64": "float64", "BF16": "bfloat16"}
WRITTEN_AS = {"float16": "F16", "float32": "F32", "bfloat16": "BF16", "int8": "F16"}
MAX_HEADER_BYTES = 100_000_000  # more is refused by the reference implementation


@contextmanager
def read(path: Path, layers: Mapping[str, str], flatten: bool) -> Iterator[Source]:
    """Open the tensors of the file, in its order; the reference implementation judges the header first."""
    header, start = _header(path)
    metadata = header.pop("__metadata__", None) or {}
    names = sorted(header, key=lambda name: (header[name]["data_offsets"], name))
    if not names:
        raise StoreError(f"{path} holds no tensors.")
    layers = layers or told_layers(metadata.get("medusa_layers"))
    grouped = group_by_utterance(names, layers, str(path))
    entries = list(grouped or names)

    def load_tensor(name: str, layer_names: Sequence[str]) -> Loaded:
        place, entry = f"{path}, {name!r}", header[name]
        if entry["dtype"] not in STORED_AS:
            raise StoreError(f"{place}: values of {entry['dtype']}; {', '.join(STORED_AS)} expected.")
        shape = tuple(entry["shape"])
        check_shape(shape, layer_names, place)
        array = read_values(path, STORED_AS[entry["dtype"]], start + entry["data_offsets"][0], shape, place)
        if entry["dtype"] == "BF16":
            array = (array.astype(np.uint32) << 16).view(np.float32)
        return Loaded(as_layers(array, layer_names), READ_AS[entry["dtype"]])

    def load(i: int) -> Loaded:
        if not grouped:
            return load_tensor(entries[i], tuple(layers))
        missing = sorted(set(layers) - set(grouped[entries[i]]))
        if missing:
            raise StoreError(f"{path}: utterance {entries[i]!r} lacks the layers {', '.join(missing)}.")
        return joined({layer: load_tensor(grouped[entries[i]][layer], (layer,)) for layer in layers})

    keys = [name.rpartition("/")[2] for name in entries] if flatten else entries
    yield Source(keys, lambda i: f"{path}, {entries[i]!r}", load, spec=told_spec(metadata.get("medusa_spec")))


def _header(path: Path) -> tuple[dict[str, Any], int]:
    """Return the header's record of the tensors, and where their bytes start; StoreError when the file is damaged."""
    from safetensors import SafetensorError, safe_open

    check_regular(path)
    try:
        with safe_open(path, framework="numpy"):
            pass
        with open(path, "rb") as file:
            (n_bytes,) = struct.unpack("<Q", file.read(8))
            return read_json(file.read(n_bytes)), 8 + n_bytes
    except (SafetensorError, OSError, ValueError) as error:
        raise StoreError(f"{path} can't be read as safetensors: {error}.") from error


def occupied(target: Path, layers: Sequence[str]) -> list[Path]:
    """Return the file itself, where it is."""
    return [target] if target.exists() else []


def write(chosen: Selection, target: Path, resume: bool) -> Written:
    """Return the file, whole or not at all.

    Memory holds its header and one utterance. StoreError: a header of over 100 MB.
    """
    spec = chosen.features.spec
    itemsize = np.dtype(chosen.dtype).itemsize if spec.dtype != "bfloat16" else 2
    header: dict[str, Any] = {"__metadata__": chosen.metadata()}
    first = 0
    for key, n_rows in zip(chosen.keys, chosen.features.lengths(chosen.keys).tolist(), strict=True):
        for layer in chosen.layers:
            last = first + n_rows * spec.dim * itemsize
            entry = {"dtype": WRITTEN_AS[spec.dtype], "shape": [n_rows, spec.dim], "data_offsets": [first, last]}
            header[f"{key}/{layer}"] = entry
            first = last
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_HEADER_BYTES:
        raise StoreError(
            f"{len(chosen.keys)} utterances x {len(chosen.layers)} layers need a header of {len(text)} bytes, and "
            f"safetensors reads {MAX_HEADER_BYTES} at most; export fewer utterances or layers at a time, or as hdf5."
        )
    with replacing(target) as (temporary,), open(temporary, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        _write_rows(chosen, file)
    return Written(done=len(chosen.keys))


def _write_rows(chosen: Selection, file: BinaryIO) -> None:
    for i, key in enumerate(chosen.keys):
        for layer in chosen.layers:
            rows = chosen.rows(key, layer)
            if chosen.features.spec.dtype == "bfloat16":  # read as float32, of which the lower half is zeros
                rows = (rows.view(np.uint32) >> 16).astype("<u2")
            file.write(rows.tobytes())
        chosen.progress(i + 1, len(chosen.keys))
