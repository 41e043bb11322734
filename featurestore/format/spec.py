"""What the rows of a feature set are: the specification that is stored with them, and its fingerprint."""

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from featurestore.errors import StoreError
from featurestore.rows.rowtypes import ROW_TYPES, RowType

KINDS = ("audio", "text", "posteriors")
DTYPES = tuple(ROW_TYPES)
MAX_DIM = 1 << 24
POOLS = ("none", "mean", "mean+std", "model")
# A segment holds these arrays beside its layers, so that no layer may take one of their names.
RESERVED_LAYERS = ("offsets", "keys", "key_offsets", "key_hashes", "checksums", "durations_s")
RESERVED_ENDINGS = (".scale", ".chunks")

_SAFE_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
_SEGMENT_NAME = re.compile(r"seg-[0-9a-f]{16}")


def check_set_name(name: str) -> str:
    """Return the name itself if it is safe as a relative path; StoreError if not.

    Its parts are of `A-Za-z0-9._+-`, joined by '/'.
    """
    parts = name.split("/")
    if not all(_SAFE_PART.fullmatch(part) for part in parts) or any(_SEGMENT_NAME.fullmatch(part) for part in parts):
        raise StoreError(
            f"Feature-set name {name!r} is not allowed: use letters, digits and . _ + - (each part starting with a "
            "letter or digit), parts joined by '/', no part like 'seg-' and 16 hex digits."
        )
    return name


@dataclass(frozen=True)
class FeatureSpec:
    """What one feature set's rows are; two sets with equal fingerprints may be mixed, others never.

    kind: "audio", "text" or "posteriors". encoder: its name as the user gave it. weights: "sha256:..." or "none".
    layers: array names, each of shape (T, dim) per utterance. frame_rate_hz: 0 when rows are not frames in time.
    window: how long input was cut ("30s+1s", "pad30", "short", ""). source: where a text encoder's text came from.
    columns: the meaning of each dim (posteriors: class names, then "attr:<name>"), or empty.
    version: raised when the code's numbers change. extra: further name-value pairs; a dict is accepted.
    """

    kind: str
    encoder: str
    weights: str
    layers: tuple[str, ...]
    dim: int
    frame_rate_hz: float = 0.0
    dtype: str = "float16"
    pool: str = "none"
    window: str = ""
    source: str = ""
    columns: tuple[str, ...] = ()
    version: int = 1
    extra: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        pairs = self.extra.items() if isinstance(self.extra, Mapping) else self.extra
        normal: dict[str, Any] = {
            "layers": tuple(self.layers),
            "dim": int(self.dim),
            "frame_rate_hz": float(self.frame_rate_hz),
            "columns": tuple(self.columns),
            "extra": tuple(sorted((str(name), str(value)) for name, value in pairs)),
        }
        for name, value in normal.items():
            object.__setattr__(self, name, value)
        self._check()

    def _check(self) -> None:
        for name, allowed in (("kind", KINDS), ("dtype", DTYPES), ("pool", POOLS)):
            value = getattr(self, name)
            if value not in allowed:
                raise StoreError(f"FeatureSpec.{name} is {value!r}; it must be one of {', '.join(allowed)}.")
        if not 1 <= self.dim <= MAX_DIM:
            raise StoreError(f"FeatureSpec.dim is {self.dim}; it must be 1 or more, and at most {MAX_DIM}.")
        if not self.layers or len(set(self.layers)) != len(self.layers):
            raise StoreError(f"FeatureSpec.layers is {self.layers}; it must name one or more layers, each once.")
        for layer in self.layers:
            if not _SAFE_PART.fullmatch(layer) or layer in RESERVED_LAYERS or layer.endswith(RESERVED_ENDINGS):
                raise StoreError(
                    f"Layer name {layer!r} is not allowed: use letters, digits and . _ + - and none of "
                    f"{', '.join(RESERVED_LAYERS)}, nor an ending {' or '.join(RESERVED_ENDINGS)}."
                )
        if self.columns and len(self.columns) != self.dim:
            raise StoreError(f"FeatureSpec.columns names {len(self.columns)} columns; dim is {self.dim}.")

    @property
    def row_type(self) -> RowType:
        """How the rows are stored and read."""
        return ROW_TYPES[self.dtype]

    @property
    def view(self) -> tuple[tuple[str, str], ...]:
        """What `extra` records of an augmented view: its fields `view` and `view_*`; () of a clean set."""
        return tuple(pair for pair in self.extra if pair[0].partition("_")[0] == "view")

    @property
    def fingerprint(self) -> str:
        """16 hex digits of BLAKE2b over the canonical JSON of every field that differs from its default."""
        # Without the fields at their default, a later version can add a field and old sets keep their fingerprint.
        content = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != field.default
        }
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.blake2b(canonical.encode(), digest_size=8).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values; `from_json` is the inverse."""
        values = dataclasses.asdict(self)
        return {**values, "layers": list(self.layers), "columns": list(self.columns), "extra": dict(self.extra)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "FeatureSpec":
        """Read what `to_json` wrote; StoreError names a field that is missing, unknown or of a wrong type."""
        if not isinstance(values, Mapping):
            raise StoreError(f"A feature specification must be a JSON object; found {type(values).__name__}.")
        fields = {field.name: field for field in dataclasses.fields(cls)}
        unknown = sorted(set(values) - set(fields))
        missing = sorted(
            name for name, field in fields.items() if field.default is dataclasses.MISSING and name not in values
        )
        if unknown or missing:
            raise StoreError(
                f"The feature specification has unknown fields {unknown} and lacks {missing}: it is damaged, "
                "or a newer version of medusa-ser wrote it."
            )
        for name, value in values.items():
            expected = _JSON_TYPES[name]
            if not isinstance(value, expected) or isinstance(value, bool):
                raise StoreError(f"Feature specification field {name!r} has the wrong type: {value!r}.")
            if isinstance(value, list) and not all(isinstance(item, str) for item in value):
                raise StoreError(f"Feature specification field {name!r} must hold strings: {value!r}.")
        try:
            return cls(**values)
        except OverflowError as error:
            raise StoreError(f"The feature specification has a number out of range: {error}.") from error

    def differences(self, other: "FeatureSpec") -> list[str]:
        """Each differing field as "dtype: stored float16, asked float32"; self is what is stored."""
        return [
            f"{field.name}: stored {_shown(getattr(self, field.name))}, asked {_shown(getattr(other, field.name))}"
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != getattr(other, field.name)
        ]


_JSON_TYPES: dict[str, Any] = {
    "kind": str,
    "encoder": str,
    "weights": str,
    "layers": list,
    "dim": int,
    "frame_rate_hz": (int, float),
    "dtype": str,
    "pool": str,
    "window": str,
    "source": str,
    "columns": list,
    "version": int,
    "extra": Mapping,
}


def _shown(value: Any) -> str:
    """Return a field's value as an error message shows it: tuples as comma-separated items, long ones shortened."""
    if not isinstance(value, tuple):
        return str(value) if value != "" else "(empty)"
    items = ["=".join(item) if isinstance(item, tuple) else str(item) for item in value]
    if len(items) > 8:
        items = [*items[:4], f"... ({len(items)} in all)", *items[-2:]]
    return ",".join(items) if items else "(none)"
