"""What predictions were made on, packed to stand in a feature set's provenance: a part and a label for each key."""

import base64
import hashlib
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from featurestore.corpus.division import PartRecord

MADE_ON = "made_on"  # the name in a provenance


def pack(record: PartRecord, column: str) -> dict[str, Any]:
    """Return a record as JSON values: names, and a few bits for each utterance.

    column: what the parts are called, such as "cv:fold". The keys themselves are not stored again: rows are in the
    order of the sorted keys, which the feature set holds, and a digest says whether they are still those.
    """
    order = sorted(range(len(record.keys)), key=lambda i: record.keys[i])
    parts, part = _coded([record.parts[i] for i in order])
    labels, label = _coded([record.labels[i] for i in order] if len(record.labels) else [])
    return {
        "column": column,
        "utterances": len(order),
        "keys": _digest(record.keys[i] for i in order),
        "part_names": parts,
        "parts": part,
        "label_names": labels,
        "labels": label,
    }


def unpack(packed: Mapping[str, Any], keys: Iterable[str], name: str) -> PartRecord | None:
    """Return the record of predictions of these keys, in any order; None where it is of other keys or damaged."""
    ordered = sorted(keys)
    try:
        if packed["utterances"] != len(ordered) or packed["keys"] != _digest(ordered):
            return None
        parts = _decoded(packed["part_names"], packed["parts"], len(ordered))
        labels = _decoded(packed["label_names"], packed["labels"], len(ordered)) if packed["label_names"] else []
        return PartRecord(ordered, [part or "" for part in parts], labels, name)
    except (KeyError, TypeError, ValueError, IndexError, zlib.error):
        return None


def _digest(keys: Iterable[str]) -> str:
    return hashlib.blake2b("\0".join(keys).encode(errors="surrogatepass"), digest_size=8).hexdigest()


def _coded(values: Sequence[str | None]) -> tuple[list[str | None], str]:
    names: list[str | None] = list(dict.fromkeys(values))
    code = {name: i for i, name in enumerate(names)}
    codes = np.array([code[value] for value in values], "<u4")
    return names, base64.b64encode(zlib.compress(codes.tobytes(), 9)).decode("ascii")


def _decoded(names: Sequence[str | None], text: str, n: int) -> list[str | None]:
    codes = np.frombuffer(zlib.decompress(base64.b64decode(text)), "<u4")
    if len(codes) != n:
        raise ValueError(f"{len(codes)} codes for {n} keys")
    return [names[code] for code in codes.tolist()]
