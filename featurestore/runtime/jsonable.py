"""Reports as values that strict JSON can hold."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def jsonable(value: Any) -> Any:
    """Return nested values with keys as text, tuples and other iterables as lists, and NaN as None.

    Dataclasses become objects of their fields.
    """
    if isinstance(value, str | int) or value is None:
        return value
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: jsonable(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, Iterable):
        return [jsonable(item) for item in value]
    return value


def json_fields(report: "DataclassInstance") -> dict[str, Any]:
    """Return a dataclass, and those inside it, as JSON objects of their fields; see `jsonable`."""
    fields_of_report: dict[str, Any] = jsonable(report)
    return fields_of_report
