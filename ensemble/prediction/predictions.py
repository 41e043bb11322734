"""What a model predicts of new utterances: rows for files, and a table for the terminal."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deepser.scores.probabilities import entropy
from ensemble.prediction.formats import Record, format_of, seconds, write_file
from ensemble.prediction.pieces import Piece
from featurestore.runtime.html import SHOWN_ROWS, html_table
from featurestore.runtime.wording import counted

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Predictions:
    """Predictions of N utterances, in the order they were asked for, and the utterances that have none.

    probabilities: (N, C) float32, rows sum to one. attribute_values: (N, A) float32 on each attribute's own scale.
    member_posteriors: (M, N, C + A) float32, each member's outputs. failed: (key, reason). pieces: where each utterance
    lies, None for a text alone; cut: they are pieces of recordings, and their rows have start and end. speaker_clips:
    (N,) of a speaker-adapted model, the clips by which each one's speaker was normalised; 0: as the training corpus is.
    silent: the utterances whose samples all have one value, such as stereo whose channels cancel each other out.
    """

    keys: tuple[str, ...]
    classes: tuple[str, ...]
    attributes: tuple[str, ...]
    probabilities: np.ndarray
    attribute_values: np.ndarray
    members: tuple[str, ...]
    member_posteriors: np.ndarray
    failed: tuple[tuple[str, str], ...] = ()
    pieces: tuple[Piece | None, ...] = ()
    cut: bool = False
    speaker_clips: np.ndarray | None = None
    silent: tuple[str, ...] = ()

    @classmethod
    def join(cls, parts: "Sequence[Predictions]") -> "Predictions":
        """Return the predictions of one model on several sets of utterances, one after another."""
        return replace(
            parts[0],
            keys=tuple(key for part in parts for key in part.keys),
            probabilities=np.concatenate([part.probabilities for part in parts]),
            attribute_values=np.concatenate([part.attribute_values for part in parts]),
            member_posteriors=np.concatenate([part.member_posteriors for part in parts], 1),
            failed=tuple(failure for part in parts for failure in part.failed),
            pieces=tuple(piece for part in parts for piece in part.pieces),
            silent=tuple(key for part in parts for key in part.silent),
            speaker_clips=None if parts[0].speaker_clips is None else np.concatenate([p.speaker_clips for p in parts]),
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
        member_classes = self.member_posteriors[..., : len(self.classes)]
        information: np.ndarray = np.maximum(entropy(member_classes.mean(0)) - entropy(member_classes).mean(0), 0)
        return information

    @property
    def labels(self) -> list[str]:
        """The most probable class of each utterance."""
        return [self.classes[c] for c in self.probabilities.argmax(1)]

    @property
    def columns(self) -> list[str]:
        """The columns of a row, see `columns_of`."""
        return columns_of(
            self.classes, self.attributes, len(self.members), self.cut, adapted=self.speaker_clips is not None
        )  # fmt: skip

    def rows(self) -> Iterator[dict[str, Any]]:
        """One flat record per utterance, see `columns`."""
        parts = [self.probabilities, self.attribute_values, self.entropy[:, None]]
        if len(self.members) > 1:
            parts += [self.spread, self.disagreement[:, None]]
        names, labels = self.columns, self.labels
        for n, values in enumerate(np.concatenate(parts, 1)):
            place: list[Any] = [self.keys[n], None, None] if self.cut else [self.keys[n]]
            if self.cut and (piece := self.pieces[n]) is not None:
                place = [piece.file, piece.start_s, piece.end_s]
            clips = [] if self.speaker_clips is None else [int(self.speaker_clips[n])]
            yield dict(zip(names, [*place, labels[n], *map(_short, values), *clips], strict=True))

    def _repr_html_(self) -> str:
        """Return the first utterances as a table for notebooks: file, label, probabilities, attributes."""
        heads = ["file", "label", *(f"p {name}" for name in self.classes), *self.attributes]
        values = np.concatenate([self.probabilities, self.attribute_values], 1)[:SHOWN_ROWS]
        rows = [
            [key, label, *(f"{value:.3f}" for value in line)]
            for key, label, line in zip(self.keys, self.labels, values.tolist(), strict=False)
        ]
        caption = f"{counted(len(self.keys), 'prediction')} of {counted(len(self.members), 'member')}"
        caption += f"; {len(self.failed):,} failed" if self.failed else ""
        return html_table(heads, rows, caption, max(0, len(self.keys) - SHOWN_ROWS))

    def records(self) -> Iterator[Record]:
        """Yield each row with the piece that it is of."""
        return zip(self.rows(), self.pieces or [None] * len(self.keys), strict=True)

    def write(self, path: Path | str, format: str | None = None) -> None:
        """Write csv, jsonl, rttm or audacity (default: by the suffix), whole or not at all, without those that failed.

        ConfigError for no such format, a place that can't be written, and Audacity's labels of several recordings.
        """
        path = Path(path)
        write_file(path, format_of(path, format), self.columns, self.records())


def columns_of(
    classes: Sequence[str], attributes: Sequence[str], n_members: int, cut: bool = False, *, adapted: bool = False
) -> list[str]:
    """Return the columns of a row: file, label, p_<class>, attr_<attribute>, entropy.

    Of several members their spread too.

    That is sd_<class> and sd_attr_<attribute>, the standard deviation over members, and disagreement. cut: behind the
    file stand start_s and end_s of the piece of it. adapted: speaker_clips is the last, see `Predictions`.
    """
    named = [*classes, *(f"attr_{name}" for name in attributes)]
    spread = [*(f"sd_{name}" for name in named), "disagreement"] if n_members > 1 else []
    place = ["file", *(("start_s", "end_s") if cut else ())]
    last = ["speaker_clips"] if adapted else []
    return [*place, "label", *(f"p_{c}" for c in classes), *named[len(classes) :], "entropy", *spread, *last]


def predictions_table(predictions: Predictions) -> "Table":
    """Return a table of file, label, each class's probability in per cent (the largest bold), attributes.

    The directory that all files are in stands above the table, not in every row.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    cut = predictions.cut
    files = [row["file"] for row in predictions.rows()] if cut else predictions.keys
    directories = {os.path.dirname(key) for key in files}
    alike = len(files) > 1 and len({os.path.isabs(each) for each in directories}) == 1
    directory = os.path.commonpath(directories) if alike else ""
    directory = f"{directory}/" if directory.strip("/") else ""
    title = Text(f"files in {directory}") if directory else None
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left")
    table.add_column("file", overflow="fold")
    for name in ("from", "to") if cut else ():
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("label", no_wrap=True)
    for name in predictions.classes:
        table.add_column(f"{name} %", justify="right")
    for name in predictions.attributes:
        table.add_column(name, justify="right")
    several = len(predictions.members) > 1
    if several:
        table.add_column("differ", justify="right")  # `disagreement`: how far the members differ
    spread, disagreement = predictions.spread[:, len(predictions.classes) :], predictions.disagreement
    for n, (key, label) in enumerate(zip(files, predictions.labels, strict=True)):
        top = predictions.probabilities[n].argmax()
        cells = [
            Text(f"{100 * p:.0f}", style="bold" if c == top else "") for c, p in enumerate(predictions.probabilities[n])
        ]
        values = [
            Text(f"{value:.2f} ± {deviation:.2f}" if several else f"{value:.2f}")
            for value, deviation in zip(predictions.attribute_values[n], spread[n], strict=True)
        ]
        values += [Text(f"{disagreement[n]:.2f}")] if several else []
        ends = _ends(predictions.pieces[n]) if cut else []
        table.add_row(Text(key.removeprefix(directory)), *ends, Text(label, style="bold"), *cells, *values)
    return table


def _ends(piece: Piece | None) -> list[str]:
    """Start and end of a piece, "" where it has none."""
    ends = (None, None) if piece is None else (piece.start_s, piece.end_s)
    return ["" if end is None else seconds(end) for end in ends]


def _short(value: Any) -> float:
    """Format a float32 by its own digits, not those of its nearest double."""
    return float(f"{value:.6g}")
