"""One system's predictions of some utterances, wherever they come from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ensemble.evaluation.align import some
from featurestore.corpus.cross_corpus import CrossCorpus
from featurestore.corpus.division import PartRecord
from featurestore.errors import AlignmentError

ADAPTED_NOTE = "speaker-adapted: its models read each speaker's other, unlabelled clips, also of the judged part"
CORPUS_NOTE = "normalised by corpus: by the mean and deviation of all of its clips, those of the judged part included"


@dataclass(frozen=True)
class System:
    """One system's predictions for N utterances.

    predicted: (N,) int64 into `classes`, None where attributes alone are predicted; probabilities: (N, C) float32,
    rows sum to one, None where classes alone are known; values: (N, A) float32 on each attribute's own scale.
    fold_column: the manifest's column that it was cross-validated over, "" where there is none. made_on: the fold and
    label of each utterance when it was made, None where that is not recorded. stored: it is a set of posteriors in a
    store. corpora: that it learned from and was tested on, where it was made by corpora. notes: what
    reading it had to assume. attribute_ranges: (low, high) of the attributes whose scale is recorded.
    """

    name: str
    keys: tuple[str, ...]
    classes: tuple[str, ...]
    predicted: np.ndarray | None
    probabilities: np.ndarray | None
    attributes: tuple[str, ...]
    values: np.ndarray
    fold_column: str = ""
    notes: tuple[str, ...] = ()
    made_on: PartRecord | None = None
    stored: bool = False
    corpora: CrossCorpus | None = None
    attribute_ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def of(self, keys: Sequence[str]) -> "System":
        """Return the same for these keys, in their order; AlignmentError lists the keys that are missing."""
        if tuple(keys) == self.keys:
            return self
        row_of = {key: n for n, key in enumerate(self.keys)}
        missing = [key for key in keys if key not in row_of]
        if missing:
            chosen = set(keys)
            surplus = [key for key in self.keys if key not in chosen]
            raise AlignmentError(
                f"{self.name!r} misses {some(missing)}" + (f", has besides {some(surplus)}" if surplus else "") + ". "
                "Predict the missing ones, or choose the utterances that are predicted (--split).",
                {self.name: missing},
                {self.name: surplus} if surplus else {},
            )
        rows = np.array([row_of[key] for key in keys], np.int64)
        return replace(
            self,
            keys=tuple(keys),
            predicted=None if self.predicted is None else self.predicted[rows],
            probabilities=None if self.probabilities is None else self.probabilities[rows],
            values=self.values[rows],
        )

    def among(self, classes: Sequence[str]) -> "System":
        """Return the same with these classes, in their order; AlignmentError when it predicts others or lacks one.

        Classes that are left over are left out of the probabilities, which are normalised again.
        """
        if self.predicted is None or tuple(classes) == self.classes:
            return self
        missing = [name for name in classes if name not in self.classes]
        surplus = [name for name in self.classes if name not in classes]
        if missing:
            raise AlignmentError(
                f"{self.name!r} predicts {', '.join(self.classes)}, but not {', '.join(missing)}, which the label "
                "scheme has; score it against a manifest of the classes that it knows.",
                {self.name: missing},
                {self.name: surplus} if surplus else {},
            )
        columns = [self.classes.index(name) for name in classes]
        probabilities = None
        if self.probabilities is not None:
            chosen = self.probabilities[:, columns]
            total = chosen.sum(1, keepdims=True)
            probabilities = np.where(total > 0, chosen / np.maximum(total, 1e-30), 1 / len(columns)).astype(np.float32)
            predicted = probabilities.argmax(1)
        else:
            place = np.full(len(self.classes), -1, np.int64)
            place[columns] = np.arange(len(columns))
            predicted = place[self.predicted]
            if (predicted < 0).any():
                row = int(np.flatnonzero(predicted < 0)[0])
                raise AlignmentError(
                    f"{self.name!r} predicts {self.classes[self.predicted[row]]!r} for {self.keys[row]!r}, which is "
                    f"none of {', '.join(classes)}; predict one of these.",
                    surplus={self.name: surplus},
                )
        notes = (*self.notes, f"classes left out: {', '.join(surplus)}") if surplus else self.notes
        return replace(self, classes=tuple(classes), predicted=predicted, probabilities=probabilities, notes=notes)
