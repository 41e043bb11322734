"""What exported utterances were made from: a Parquet table beside the rows, which an import takes over.

No interchange format has a place for it. The table lies in a directory as `medusa-sources.parquet`, beside a file as
`FILE.sources.parquet`, with a row for each utterance: utterance_id, duration_s, and the fields of `Identity`
(FORMAT.md, 3.6), digests in hexadecimal. Its schema's metadata `medusa_spec` is the set's specification, and
`medusa_layers` the names of the layers that were exported. Other tools need not know it.
"""

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from math import isnan, nan
from pathlib import Path
from typing import Any

from featurestore.errors import StoreError
from featurestore.format.identity import UNKNOWN, Identity
from featurestore.format.spec import FeatureSpec
from featurestore.interchange.base import check_regular, told_layers, told_spec
from featurestore.runtime.durable import replace_file, writing
from featurestore.sets.feature_set import FeatureSet

SPEC, LAYERS = "medusa_spec", "medusa_layers"
IN_DIRECTORY, BESIDE = "medusa-sources.parquet", ".sources.parquet"
_DIGESTS = ("digest", "file_digest")
_NUMBERS = ("n_bytes", "mtime_ns")
_NAMES = tuple(field.name for field in fields(Identity))
NO_ORIGINS = (
    "The source doesn't record durations, or what its utterances were made from, so this set's ids can't be compared "
    "with audio or text later."
)


@dataclass(frozen=True)
class Origin:
    """Duration in s (NaN: unknown) and identity of an utterance."""

    duration_s: float = nan
    identity: Identity | None = None


def place_of(path: Path) -> Path:
    """Return the path of the table of a source or target."""
    return path / IN_DIRECTORY if path.is_dir() else path.with_name(path.name.removesuffix(".npy") + BESIDE)


def write_origins(features: FeatureSet, keys: Sequence[str], layers: Sequence[str], target: Path) -> bool:
    """Write what the set records of these keys and layers beside `target`, and return whether it records anything.

    Where it doesn't, a table that an earlier export left there is removed.
    """
    path = place_of(target)
    durations_s, identities = features.durations_s(keys), features.identities(keys)
    recorded = identities.recorded
    if not (recorded.any() or (durations_s == durations_s).any()):
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        return False
    import pyarrow as pa
    from pyarrow import parquet

    columns: dict[str, Any] = {"utterance_id": pa.array(list(keys), pa.string())}
    columns["duration_s"] = pa.array(durations_s, pa.float64(), from_pandas=True)
    each = [identities[i] if known else Identity() for i, known in enumerate(recorded.tolist())]
    for name in _NAMES:
        values = [_cell(name, getattr(one, name)) for one in each]
        kind = pa.int64() if name in _NUMBERS else pa.float64() if name.endswith("_s") else pa.string()
        columns[name] = pa.array(values, kind)
    metadata = {SPEC: json.dumps(features.spec.to_json(), sort_keys=True), LAYERS: json.dumps(list(layers))}
    table = pa.table(columns).replace_schema_metadata(metadata)
    with writing(path, StoreError, ""):
        replace_file(path, lambda file: parquet.write_table(table, file))
    return True


def of_same_and_other_data(
    features: FeatureSet, origins: Mapping[str, Origin | None]
) -> tuple[frozenset[str], list[str]]:
    """Return which keys a record has of the same data as the set, and, in order, which of other data.

    Samples or texts that one decoder read are compared, as far as both are recorded; the other keys are in neither.
    """
    recorded = {key: origin.identity for key, origin in origins.items() if origin is not None and origin.identity}
    same, other = set(), []
    identities = features.identities(list(recorded))
    for i, (key, theirs) in enumerate(recorded.items()):
        own = identities[i]
        if not own.digest or not theirs.digest or own.decoder != theirs.decoder:
            continue
        if own.digest == theirs.digest:
            same.add(key)
        else:
            other.append(key)
    return frozenset(same), other


def read_origins(source: Path) -> dict[str, Origin]:
    """Return the records of the table beside a source, by key; {} where there is none. StoreError: it is damaged."""
    path = place_of(source)
    if not path.exists():
        return {}
    import pyarrow as pa
    from pyarrow import parquet

    check_regular(path)
    try:
        rows = parquet.read_table(path).select(["utterance_id", "duration_s", *_NAMES]).to_pylist()
        return {str(row["utterance_id"]): _origin(row) for row in rows}
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, StoreError) as error:
        raise StoreError(
            f"{path} can't be read as the record of what {source.name} was made from: {error}. Export again, or remove "
            "that file to import the rows without it."
        ) from None


def spec_beside(source: Path) -> FeatureSpec | None:
    """Return the specification that the table beside a source records; None where there is none."""
    return told_spec(_metadata(source).get(SPEC.encode()))


def layers_beside(source: Path) -> list[str]:
    """Return the names of the layers that the table beside a source records; none where it doesn't."""
    return list(told_layers(_metadata(source).get(LAYERS.encode())))


def _metadata(source: Path) -> Mapping[bytes, bytes]:
    path = place_of(source)
    if not path.exists():
        return {}
    from pyarrow import parquet

    check_regular(path)
    return parquet.read_schema(path).metadata or {}


def _cell(name: str, value: Any) -> Any:
    """Return a field of an identity as a cell, None where it is not recorded."""
    if name in _DIGESTS:
        return value.hex() or None
    if name in _NUMBERS:
        return None if value == UNKNOWN else value
    return None if value == "" or (isinstance(value, float) and isnan(value)) else value


def _origin(row: Mapping[str, Any]) -> Origin:
    fields = {name: row[name] for name in _NAMES if row[name] is not None}
    for name in _DIGESTS:
        if name in fields:
            fields[name] = bytes.fromhex(fields[name])
    duration_s = nan if row["duration_s"] is None else float(row["duration_s"])
    return Origin(duration_s, Identity(**fields) if fields else None)
