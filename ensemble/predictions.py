"""What a model says of new utterances, as a table for the terminal, CSV or JSON lines."""

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featurestore.errors import ConfigError
from featurestore.table_files import replace_file

if TYPE_CHECKING:
    from rich.table import Table

SUFFIXES = (".csv", ".jsonl")


@dataclass(frozen=True)
class Predictions:
    """Predictions of N utterances, in the order they were asked for, and the utterances that have none.

    probabilities: (N, C) float32, rows sum to one. attribute_values: (N, A) float32 on each attribute's own scale.
    member_posteriors: (M, N, C + A) float32, what each member said. failed: (key, reason).
    """

    keys: tuple[str, ...]
    classes: tuple[str, ...]
    attributes: tuple[str, ...]
    probabilities: np.ndarray
    attribute_values: np.ndarray
    members: tuple[str, ...]
    member_posteriors: np.ndarray
    failed: tuple[tuple[str, str], ...] = ()

    @property
    def labels(self) -> list[str]:
        """The most probable class of each utterance."""
        return [self.classes[c] for c in self.probabilities.argmax(1)]

    def rows(self) -> Iterator[dict[str, Any]]:
        """One flat record per utterance: file, label, p_<class>..., attr_<attribute>..."""
        for n, (key, label) in enumerate(zip(self.keys, self.labels, strict=True)):
            row: dict[str, Any] = {"file": key, "label": label}
            row |= {f"p_{name}": _short(p) for name, p in zip(self.classes, self.probabilities[n], strict=True)}
            row |= {
                f"attr_{name}": _short(v) for name, v in zip(self.attributes, self.attribute_values[n], strict=True)
            }
            yield row

    def write(self, path: Path | str) -> None:
        """Write a .csv or .jsonl, whole or not at all; utterances that failed are not in it."""
        path = Path(path)
        check_output(path)
        text = self._jsonl() if path.suffix == ".jsonl" else self._csv()
        # A file name that isn't UTF-8 keeps its bytes.
        replace_file(path, lambda file: file.write(text.encode("utf-8", "surrogateescape")))

    def _csv(self) -> str:
        columns = ["file", "label", *(f"p_{name}" for name in self.classes)]
        columns += [f"attr_{name}" for name in self.attributes]
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows())
        return text.getvalue()

    def _jsonl(self) -> str:
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in self.rows())


def check_output(path: Path) -> None:
    """ConfigError for a file name whose suffix says no known format: told before the work, not after it."""
    if path.suffix not in SUFFIXES:
        raise ConfigError(
            f"{path}: expected an output name that ends in {' or '.join(SUFFIXES)}, found {path.suffix or 'none'!r}."
        )


def predictions_table(predictions: Predictions) -> "Table":
    """File, label, each class's probability in per cent (the largest bold), attributes."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("file", overflow="fold")
    table.add_column("label", no_wrap=True)
    for name in predictions.classes:
        table.add_column(f"{name} %", justify="right")
    for name in predictions.attributes:
        table.add_column(name, justify="right")
    for n, (key, label) in enumerate(zip(predictions.keys, predictions.labels, strict=True)):
        top = predictions.probabilities[n].argmax()
        cells = [
            Text(f"{100 * p:.0f}", style="bold" if c == top else "") for c, p in enumerate(predictions.probabilities[n])
        ]
        values = [Text(f"{value:.2f}") for value in predictions.attribute_values[n]]
        table.add_row(Text(key), Text(label, style="bold"), *cells, *values)
    return table


def _short(value: Any) -> float:
    """float32's own digits, not those of its nearest double."""
    return float(f"{value:.6g}")
