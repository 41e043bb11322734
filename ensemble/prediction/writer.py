"""Writing predictions as they come, so that a stopped run has lost none of them."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ensemble.prediction.formats import Record, write_file
from ensemble.prediction.pieces import Piece
from ensemble.prediction.predictions import Predictions
from featurestore.errors import ConfigError
from featurestore.runtime.journal import Journal
from featurestore.runtime.json_text import read_json

KEY = "utterance_id"  # of a line of the journal, beside the row's columns


class PredictionWriter:
    """Adds predictions to OUTPUT.journal; `finish` makes the table of them.

    identity: of the model and of all that decides its outputs (`Model.identity`). The journal of a run that was
    stopped is gone on with (`done`: the utterances in it); it is a ConfigError where it has another identity, or
    predictions of utterances other than `wanted`.
    """

    def __init__(self, output: Path, identity: dict[str, Any], wanted: Sequence[str]) -> None:
        self.output = output
        self._identity = identity
        self._wanted = wanted

    def __enter__(self) -> "PredictionWriter":
        path = self.output.with_name(f"{self.output.name}.journal")
        self._journal = Journal(path, ConfigError)
        lines = self._journal.lines
        self.done = {_key(line) for line in lines[1:]}
        try:
            self._check(path, lines)
        except BaseException:
            self._journal.close()
            raise
        return self

    def _check(self, path: Path, lines: Sequence[dict[str, Any]]) -> None:
        if not lines:
            self._journal.append([self._identity])
            return
        remedy = "Finish that run with its own arguments, write to another file, or remove this one."
        if lines[0] != self._identity:
            raise ConfigError(
                f"{path} is of a run that was stopped, with another model or other settings "
                f"({_differences(lines[0], self._identity)}). {remedy}"
            )
        unlisted = sorted(self.done - set(self._wanted))
        if unlisted:
            raise ConfigError(
                f"{path} is of a run that was stopped, on other files too ({len(unlisted):,}, such as {unlisted[0]}). "
                f"{remedy}"
            )

    def append(self, predictions: Predictions) -> None:
        """Add predictions, durable when this returns."""
        rows = zip(predictions.keys, predictions.rows(), strict=True)
        self._journal.append({KEY: key, **row} for key, row in rows)
        self._journal.sync()
        self.done |= set(predictions.keys)

    def finish(self, columns: Sequence[str], format: str, pieces: Mapping[str, Piece]) -> None:
        """Write the table of those that have a prediction, in the order of `wanted`, and remove the journal.

        pieces: where utterances lie, by key; of a manifest of texts none.
        """
        write_file(self.output, format, columns, self.records(pieces))
        self._journal.remove()

    def records(self, pieces: Mapping[str, Piece]) -> Iterator[Record]:
        """Yield the row of each utterance that has a prediction, and its piece, in the order of `wanted`."""
        places: dict[str, int] = {}  # where each line begins: the rows of a large corpus would not fit into memory
        with open(self._journal.path, "rb") as file:
            offset = len(file.readline())
            for line in file:
                places[_key(read_json(line))] = offset
                offset += len(line)
            for key in self._wanted:
                if key in places:
                    file.seek(places[key])
                    row = read_json(file.readline())
                    row.pop(KEY, None)
                    yield row, pieces.get(key)

    def __exit__(self, *exc: object) -> None:
        self._journal.close()


def _key(line: Mapping[str, Any]) -> str:
    key: str = line.get(KEY) or line["file"]  # of a journal that the release before began
    return key


def _differences(stored: dict[str, Any], expected: dict[str, Any]) -> str:
    names = [name for name in dict.fromkeys((*stored, *expected)) if stored.get(name) != expected.get(name)]
    return "; ".join(f"{name}: {stored.get(name)!r}, now {expected.get(name)!r}" for name in names)
