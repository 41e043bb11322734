"""Reports as values that strict JSON can hold."""

import math
from collections.abc import Iterable, Mapping
from typing import Any


def jsonable(value: Any) -> Any:
    """Return nested values with keys as text, tuples and other iterables as lists, and NaN as None."""
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if isinstance(value, Iterable) and not isinstance(value, str):
        return [jsonable(item) for item in value]
    return value
