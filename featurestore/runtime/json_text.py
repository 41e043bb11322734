"""JSON that somebody else may have written: whatever is wrong with it is a ValueError."""

import json
from collections.abc import Callable
from typing import Any

MAX_DEPTH = 64  # lists and objects within each other; ours have eight at most


def read_json(text: str | bytes, *, object_pairs_hook: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """Return the value of a JSON text, UTF-8 where it is bytes; ValueError where it is none, or nested too deeply.

    `json.loads` ends in a RecursionError on deep nesting, or passes what recursion over its value then can't walk.
    """
    try:
        value = json.loads(text, object_pairs_hook=object_pairs_hook)
    except RecursionError:
        raise ValueError(f"nested more than {MAX_DEPTH} deep") from None
    n_opened = text.count(b"[") + text.count(b"{") if isinstance(text, bytes) else text.count("[") + text.count("{")
    if n_opened > MAX_DEPTH:
        _check_depth(value)
    return value


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [below for each in level if isinstance(each, (list, dict))
                 for below in (each.values() if isinstance(each, dict) else each)]  # fmt: skip
        if not level:
            return
    raise ValueError(f"nested more than {MAX_DEPTH} deep")
