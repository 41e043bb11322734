"""What a corpus labels: class names and attribute scales, in the corpus's own order."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from featurestore.corpus.arrow import as_strings
from featurestore.errors import ManifestError
from featurestore.runtime.json_text import read_json

ATTRIBUTE_RANGE = (1.0, 7.0)  # MSP-Podcast's seven-point scales, assumed where a table says nothing


@dataclass(frozen=True)
class LabelScheme:
    """What a corpus labels: its classes in their order, and its attributes with their (low, high) ends, in theirs.

    corpus_labels: the corpus's own labels and the class that each became; None where it stands for no class.
    """

    classes: tuple[str, ...] = ()
    attributes: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    corpus_labels: Mapping[str, str | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.classes:
            if not isinstance(name, str) or not name or self.classes.count(name) > 1:
                raise ManifestError(f"Classes must be distinct names, found {name!r} in {list(self.classes)}.")
        for name, (low, high) in self.attributes.items():
            if not low < high:
                raise ManifestError(f"Attribute {name!r}: expected a range low < high, found {low} to {high}.")
        for label, target in self.corpus_labels.items():
            if target is not None and target not in self.classes:
                raise ManifestError(f"Label {label!r} can't become {target!r}, which is none of {list(self.classes)}.")

    def to_json(self) -> str:
        """Return the scheme as the JSON text of a `<stem>.scheme.json`."""
        attributes = {name: list(ends) for name, ends in self.attributes.items()}
        fields: dict[str, object] = {"classes": list(self.classes), "attributes": attributes}
        if self.corpus_labels:
            fields["corpus_labels"] = dict(self.corpus_labels)
        return json.dumps(fields, indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, source: str = "label scheme") -> "LabelScheme":
        """Return the inverse of `to_json`; ManifestError names `source` when it is not such JSON."""
        try:
            fields = read_json(text)
            unknown = sorted(set(fields) - {"classes", "attributes", "corpus_labels"})
            if unknown:
                raise ValueError(f"unknown fields {unknown}")
            attributes = {str(name): (float(low), float(high)) for name, (low, high) in fields["attributes"].items()}
            return cls(tuple(fields["classes"]), attributes, dict(fields.get("corpus_labels", {})))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ManifestError(
                f'{source}: expected JSON like {{"classes": ["angry", "sad"], "attributes": {{"arousal": [1, 7]}}}}, '
                f"found something else ({type(error).__name__}: {error})."
            ) from None

    @staticmethod
    def sidecar(path: Path) -> Path:
        """Where the scheme of the table at `path` is kept: `<stem>.scheme.json`."""
        return path.with_suffix(".scheme.json")

    @classmethod
    def beside(cls, path: Path) -> "LabelScheme | None":
        """Return the scheme in the sidecar of the table at `path`, None when there is no sidecar."""
        sidecar = cls.sidecar(path)
        try:
            return cls.from_json(sidecar.read_bytes(), str(sidecar)) if sidecar.exists() else None
        except OSError as error:
            raise ManifestError(f"{sidecar} can't be read: {error.strerror or error}.") from None

    @classmethod
    def of_table(cls, table: pa.Table) -> "LabelScheme":
        """Return the classes that the columns imply: vote columns in their order, else the sorted labels.

        Attributes range from 1 to 7.
        """
        votes = [name.removeprefix("vote_") for name in table.column_names if name.startswith("vote_")]
        if not votes and "label" in table.column_names:
            labels = as_strings(table.column("label"))
            votes = sorted(label for label in pc.unique(labels).to_pylist() if label is not None)
        names = [name.removeprefix("attr_") for name in table.column_names if name.startswith("attr_")]
        return cls(tuple(votes), dict.fromkeys(names, ATTRIBUTE_RANGE))
