"""What a model says of new utterances, as a table for the terminal, CSV or JSON lines."""

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from deepser.scores.probabilities import entropy
from featurestore.errors import ConfigError
from featurestore.runtime.durable import replace_file, writing
from featurestore.runtime.html import SHOWN_ROWS, html_table

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

    @classmethod
    def join(cls, parts: "Sequence[Predictions]") -> "Predictions":
        """The predictions of one model on several sets of utterances, one after another."""
        return replace(
            parts[0],
            keys=tuple(key for part in parts for key in part.keys),
            probabilities=np.concatenate([part.probabilities for part in parts]),
            attribute_values=np.concatenate([part.attribute_values for part in parts]),
            member_posteriors=np.concatenate([part.member_posteriors for part in parts], 1),
            failed=tuple(failure for part in parts for failure in part.failed),
        )

    @property
    def spread(self) -> np.ndarray:
        """(N, C + A) float32: standard deviation over the members' own predictions, classes then attributes."""
        deviations: np.ndarray = self.member_posteriors.std(0)
        return deviations

    @property
    def entropy(self) -> np.ndarray:
        """(N,) of the probabilities, in nats: 0 for a certain class, ln(C) where all are alike."""
        return entropy(self.probabilities)

    @property
    def disagreement(self) -> np.ndarray:
        """(N,) mutual information of class and member, in nats: 0 where all members say the same, however unsure.

        It is the entropy of the members' mean less the mean of their entropies (Gal et al. 2017, BALD).
        """
        said = self.member_posteriors[..., : len(self.classes)]
        information: np.ndarray = np.maximum(entropy(said.mean(0)) - entropy(said).mean(0), 0)
        return information

    @property
    def labels(self) -> list[str]:
        """The most probable class of each utterance."""
        return [self.classes[c] for c in self.probabilities.argmax(1)]

    @property
    def columns(self) -> list[str]:
        """The columns of a row, see `columns_of`."""
        return columns_of(self.classes, self.attributes, len(self.members))

    def rows(self) -> Iterator[dict[str, Any]]:
        """One flat record per utterance, see `columns`."""
        parts = [self.probabilities, self.attribute_values, self.entropy[:, None]]
        if len(self.members) > 1:
            parts += [self.spread, self.disagreement[:, None]]
        names, labels = self.columns, self.labels
        for n, values in enumerate(np.concatenate(parts, 1)):
            yield dict(zip(names, [self.keys[n], labels[n], *map(_short, values)], strict=True))

    def _repr_html_(self) -> str:
        """Return the first utterances as a table for notebooks: file, label, probabilities, attributes."""
        heads = ["file", "label", *(f"p {name}" for name in self.classes), *self.attributes]
        values = np.concatenate([self.probabilities, self.attribute_values], 1)[:SHOWN_ROWS]
        rows = [
            [key, label, *(f"{value:.3f}" for value in line)]
            for key, label, line in zip(self.keys, self.labels, values.tolist(), strict=False)
        ]
        caption = f"{len(self.keys):,} predictions of {len(self.members)} members"
        caption += f"; {len(self.failed):,} failed" if self.failed else ""
        return html_table(heads, rows, caption, max(0, len(self.keys) - SHOWN_ROWS))

    def write(self, path: Path | str) -> None:
        """Write a .csv or .jsonl, whole or not at all; utterances that failed are not in it."""
        write_rows(Path(path), self.columns, self.rows())


def columns_of(classes: Sequence[str], attributes: Sequence[str], n_members: int) -> list[str]:
    """The columns of a row: file, label, p_<class>, attr_<attribute>, entropy; of several members their spread too.

    That is sd_<class> and sd_attr_<attribute>, the standard deviation over members, and disagreement.
    """
    named = [*classes, *(f"attr_{name}" for name in attributes)]
    spread = [*(f"sd_{name}" for name in named), "disagreement"] if n_members > 1 else []
    return ["file", "label", *(f"p_{c}" for c in classes), *named[len(classes) :], "entropy", *spread]


def write_rows(path: Path, columns: Sequence[str], rows: Iterable[dict[str, Any]]) -> None:
    """Write records as a .csv or .jsonl, whole or not at all, however many there are."""
    check_output(path)

    def fill(file: IO[bytes]) -> None:
        # A file name that is not UTF-8 keeps its bytes.
        text = io.TextIOWrapper(file, "utf-8", "surrogateescape", newline="")
        if path.suffix == ".csv":
            writer = csv.DictWriter(text, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        else:
            text.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        text.detach()

    with writing(path, ConfigError, "Choose another output path."):
        replace_file(path, fill)


def check_output(path: Path) -> None:
    """ConfigError for a file name whose suffix says no known format: told before the work, not after it."""
    if path.suffix not in SUFFIXES:
        raise ConfigError(
            f"{path}: expected an output name that ends in {' or '.join(SUFFIXES)}, found {path.suffix or 'none'!r}."
        )


def predictions_table(predictions: Predictions) -> "Table":
    """File, label, each class's probability in per cent (the largest bold), attributes.

    The directory that all files are in stands above the table, not in every row.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    directories = {os.path.dirname(key) for key in predictions.keys}
    alike = len(predictions.keys) > 1 and len({os.path.isabs(each) for each in directories}) == 1
    directory = os.path.commonpath(directories) if alike else ""
    directory = f"{directory}/" if directory.strip("/") else ""
    title = Text(f"files in {directory}") if directory else None
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left")
    table.add_column("file", overflow="fold")
    table.add_column("label", no_wrap=True)
    for name in predictions.classes:
        table.add_column(f"{name} %", justify="right")
    for name in predictions.attributes:
        table.add_column(name, justify="right")
    several = len(predictions.members) > 1
    if several:
        table.add_column("differ", justify="right")  # `disagreement`: how far the members differ
    spread, disagreement = predictions.spread[:, len(predictions.classes) :], predictions.disagreement
    for n, (key, label) in enumerate(zip(predictions.keys, predictions.labels, strict=True)):
        top = predictions.probabilities[n].argmax()
        cells = [
            Text(f"{100 * p:.0f}", style="bold" if c == top else "") for c, p in enumerate(predictions.probabilities[n])
        ]
        values = [
            Text(f"{value:.2f} ± {deviation:.2f}" if several else f"{value:.2f}")
            for value, deviation in zip(predictions.attribute_values[n], spread[n], strict=True)
        ]
        values += [Text(f"{disagreement[n]:.2f}")] if several else []
        table.add_row(Text(key.removeprefix(directory)), Text(label, style="bold"), *cells, *values)
    return table


def _short(value: Any) -> float:
    """float32's own digits, not those of its nearest double."""
    return float(f"{value:.6g}")
