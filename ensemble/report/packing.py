"""Arrays as text inside JSON, small enough for a page of many utterances."""

import base64
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

# By NumPy's kind and size: what `assets/core.js` reads back as a typed array, little-endian.
TYPES = ("u1", "u2", "i2", "i4", "f4")
PROBABILITY_STEPS = 10_000  # a probability is kept to four digits


def pack(values: np.ndarray, dtype: str) -> dict[str, str]:
    """Return an array of any shape as {"type", "base64"}, flattened row by row; dtype: one of TYPES.

    OverflowError for a whole number that the type can't hold.
    """
    assert dtype in TYPES
    array = np.ascontiguousarray(values)
    if dtype != "f4" and array.size:
        ends = np.iinfo(dtype)
        if array.min() < ends.min or array.max() > ends.max:
            raise OverflowError(f"{array.min()} to {array.max()} do not fit into {dtype}.")
    return {"type": dtype, "base64": base64.b64encode(array.astype(f"<{dtype}").tobytes()).decode("ascii")}


def pack_probabilities(values: np.ndarray) -> dict[str, str]:
    """Return probabilities as whole numbers of 1 / PROBABILITY_STEPS."""
    return pack(np.rint(np.asarray(values, np.float64) * PROBABILITY_STEPS), "u2")


def pack_names(names: Sequence[str | None]) -> dict[str, Any]:
    """Return (N,) names as {"values", "codes"}: each distinct name once, sorted; the code of None is -1."""
    values = sorted({name for name in names if name is not None}, key=natural)
    code = {name: i for i, name in enumerate(values)}
    return {"values": values, "codes": pack(np.array([-1 if n is None else code[n] for n in names], np.int64), "i4")}


def natural(name: str) -> tuple[bool, int, str]:
    """Return a key that sorts 2 before 10, and numbers before words."""
    return not name.isdecimal(), int(name) if name.isdecimal() else 0, name


def embedded_json(value: Any) -> bytes:
    """Return strict JSON in UTF-8 that may stand inside a <script> element: no "<" in it ends or opens anything.

    A lone surrogate, of a file name that is not UTF-8, stays as its escape.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":  # they occur in strings alone
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text.encode("utf-8", "backslashreplace")
