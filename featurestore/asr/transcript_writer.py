"""Writing a table of transcripts so that no crash costs more than what was being transcribed."""

import contextlib
import dataclasses
import fcntl
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from featurestore.asr.transcript_source import Transcript, TranscriptSource
from featurestore.asr.transcripts import Transcripts, journal_path, read_journal, read_source, read_table, source_path
from featurestore.errors import TranscriptError
from featurestore.table_files import replace_file

SUFFIXES = (".csv", ".parquet")
SYNC_S = 2.0  # a crash of the machine costs at most the utterances of so many seconds; one of the process, none


class TranscriptWriter:
    """Adds transcripts to a table: `with TranscriptWriter(path, source) as writer`, then `append`.

    Entering reads what is there (`keys`), refuses a table of another source, and locks it against other runs. What is
    appended is in the journal at once; leaving, also by an exception, folds the journal into the table. made_with:
    versions and the like, for the record beside the table.
    """

    def __init__(self, path: Path | str, source: TranscriptSource, made_with: Mapping[str, str] | None = None) -> None:
        self.path = Path(path)
        self.source = source
        self.made_with = dict(made_with or {})
        if self.path.suffix not in SUFFIXES:
            raise TranscriptError(f"{self.path}: expected a name that ends in .csv or .parquet.")

    def __enter__(self) -> "TranscriptWriter":
        self._table = read_table(self.path) if self.path.exists() else Transcripts((), self.source.identity, self.path)
        if self._table.identity != self.source.identity:
            self._refuse(self._table.identity, read_source(source_path(self.path)))
        self._file = _locked(journal_path(self.path))
        try:
            self._resume()
        except BaseException:
            os.close(self._file)
            raise
        return self

    def _resume(self) -> None:
        """Take over the journal of a run that could not fold it, cut off behind its last whole line."""
        journal = read_journal(journal_path(self.path))
        if journal is None:
            os.ftruncate(self._file, 0)
            os.write(self._file, _line(self.source.to_json()))
        else:
            source, rows, n_bytes = journal
            if source.identity != self.source.identity:
                self._refuse(source.identity, source)
            os.ftruncate(self._file, n_bytes)
            self._table.rows |= {row.key: row for row in rows}
        os.lseek(self._file, 0, os.SEEK_END)
        self._n_known = 0 if journal is not None and journal[1] else len(self._table)
        self._synced_at = time.monotonic()

    def _refuse(self, identity: str, stored: TranscriptSource | None) -> None:
        listed = "; ".join(stored.differences(self.source)) if stored is not None else ""
        raise TranscriptError(
            f"{self.path} holds transcripts of {identity}, asked are those of {self.source.identity}"
            f"{f' ({listed})' if listed else ''}. Write to another file with --output, or remove this one."
        )

    @property
    def keys(self) -> Mapping[str, str]:
        """The utterances that have a transcript, in the table or in the journal."""
        return self._table

    def append(self, row: Transcript) -> None:
        """Add one transcript, durable against the end of this process at once, against the machine's within 2 s."""
        os.write(self._file, _line(dataclasses.asdict(row)))
        self._table.rows[row.key] = row
        if time.monotonic() - self._synced_at > SYNC_S:
            os.fsync(self._file)
            self._synced_at = time.monotonic()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            changed = len(self._table) != self._n_known
            if changed:
                os.fsync(self._file)
                self._table.write()
            if len(self._table) and (changed or not source_path(self.path).exists()):
                record = {**self.source.to_json(), "made_with": self.made_with}
                told = (json.dumps(record, indent=2, ensure_ascii=False) + "\n").encode()
                replace_file(source_path(self.path), lambda file: file.write(told))
            journal_path(self.path).unlink()
        finally:
            os.close(self._file)


def _locked(path: Path) -> int:
    """The journal's file descriptor, held by this process alone until it is closed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            raise TranscriptError(f"{path} is in use: another run writes to this table. Wait until it ends.") from None
        except OSError:  # a file system without locks
            return file
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file), os.stat(path)):
                return file
        os.close(file)  # the run that held it folded it between our opening and locking it


def _line(values: dict[str, Any]) -> bytes:
    return (json.dumps(values) + "\n").encode()
