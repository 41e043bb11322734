"""Writing a table of transcripts so that no crash costs more than what was being transcribed."""

import dataclasses
import json
from collections.abc import Mapping, Set
from pathlib import Path
from types import TracebackType

from featurestore.asr.source import Transcript, TranscriptSource
from featurestore.asr.transcripts import (
    Transcripts,
    journal_path,
    parse_journal,
    part_path,
    parts_of,
    read_file,
    read_source,
    read_table,
    source_path,
)
from featurestore.errors import TranscriptError
from featurestore.featurize.sharding import Shard
from featurestore.runtime.durable import replace_text, writing
from featurestore.runtime.journal import Journal

SUFFIXES = (".csv", ".parquet")


class TranscriptWriter:
    """Adds transcripts to a table: `with TranscriptWriter(path, source) as writer`, then `append`.

    Entering reads what is there (`keys`), refuses a table of another source, and locks it against other runs. What is
    appended is in the journal at once; leaving, also by an exception, folds the journal into the table. made_with:
    versions and the like, for the record beside the table. shard: write the table of this part of the corpus, beside
    `path`; without it the tables of parts are folded into the one at `path`, too, and stay where they are.
    """

    def __init__(
        self,
        path: Path | str,
        source: TranscriptSource,
        made_with: Mapping[str, str] | None = None,
        shard: Shard | None = None,
    ) -> None:
        table_path = Path(path)
        self.path = table_path if shard is None else part_path(table_path, shard.number, shard.count)
        self._is_part = shard is not None
        self._others = [other for other in (table_path, *parts_of(table_path)) if other != self.path]
        self.source = source
        self.made_with = dict(made_with or {})
        if self.path.suffix not in SUFFIXES:
            raise TranscriptError(f"{self.path}: expected a name that ends in .csv or .parquet.")

    def __enter__(self) -> "TranscriptWriter":
        self._table = read_table(self.path) if self.path.exists() else Transcripts((), self.source.identity, self.path)
        if self._table.identity != self.source.identity:
            self._refuse(self._table.identity, read_source(source_path(self.path)))
        self._elsewhere = self._read_others()
        self._journal = Journal(journal_path(self.path), TranscriptError)
        try:
            self._resume()
        except BaseException:
            self._journal.close()
            raise
        return self

    def _resume(self) -> None:
        """Take over the journal of a run that could not fold it."""
        journal = parse_journal(self._journal.path, self._journal.lines)
        if journal is None:
            self._journal.append([self.source.to_json()])
        else:
            source, rows = journal
            if source.identity != self.source.identity:
                self._refuse(source.identity, source)
            self._table.rows |= {row.key: row for row in rows}
        self._n_known = 0 if journal is not None and journal[1] else len(self._table)
        if not self._is_part:
            self._table.rows = self._elsewhere | self._table.rows

    def _read_others(self) -> dict[str, Transcript]:
        """Return what the tables beside this one have: a part's the whole one and the other parts, else the parts."""
        rows: dict[str, Transcript] = {}
        for path in self._others:
            transcripts = read_file(path)
            if transcripts is None:
                continue
            if transcripts.identity != self.source.identity:
                self._refuse(transcripts.identity, transcripts.settings, path)
            rows |= transcripts.rows
        return rows

    def _refuse(self, identity: str, stored: TranscriptSource | None, path: Path | None = None) -> None:
        listed = "; ".join(stored.differences(self.source)) if stored is not None else ""
        raise TranscriptError(
            f"{path or self.path} holds transcripts of {identity}, asked are those of {self.source.identity}"
            f"{f' ({listed})' if listed else ''}. Write to another file with --output, or remove this one."
        )

    @property
    def rows(self) -> Mapping[str, Transcript]:
        """The transcripts that there are, by utterance: in the table, in the journal, or in another part's."""
        return self._table.rows | self._elsewhere

    @property
    def keys(self) -> Set[str]:
        """The utterances that have a transcript."""
        return self.rows.keys()

    def append(self, row: Transcript) -> None:
        """Add one transcript, durable against the end of this process at once, against the machine's within 2 s."""
        self._journal.append([dataclasses.asdict(row)])
        self._table.rows[row.key] = row

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            changed = len(self._table) != self._n_known
            if changed:
                self._journal.sync()
                self._table.write()
            if len(self._table) and (changed or not source_path(self.path).exists()):
                record = {**self.source.to_json(), "made_with": self.made_with}
                text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
                with writing(source_path(self.path), TranscriptError):
                    replace_text(source_path(self.path), text)
            self._journal.remove()
        finally:
            self._journal.close()
