"""Transcripts of a corpus: a table keyed by utterance, what made it, and the journal of a run that has not ended.

`transcripts.csv` (or .parquet) has a row for each utterance, sorted by utterance_id: text, language, avg_logprob,
no_speech_prob, duration_s, and `model`, the identity of what made it, the same in all rows; of `transcribe --words`
also `words`, JSON such as [[" Kids", 0.5, 0.82], ...] with start and end in seconds; `audio` is JSON of what the
samples were decoded from (digests, the file's size and date, piece, decoder). `transcripts.source.json` says in full
what that identity stands for. While a run lasts, `transcripts.csv.journal` has a line of JSON for each new utterance,
so that a crash costs one; the next run, or a reader, takes it for a part of the table. Several processes that share a
corpus (`--shard`) each write a table of their own beside it, `transcripts.2-of-8.csv`, with a journal and a source of
its own; who reads `transcripts.csv` reads them, too.
"""

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from featurestore.asr.same_audio import identity_of, refuse_other_audio
from featurestore.asr.source import PROVENANCE, Transcript, TranscriptSource, Word
from featurestore.corpus.manifest import Manifest
from featurestore.corpus.tables import read_table_file, write_table_file
from featurestore.encoders.token_times import timed
from featurestore.errors import TranscriptError
from featurestore.runtime.journal import read_lines
from featurestore.runtime.json_text import read_json

NUMBERS = ("avg_logprob", "no_speech_prob", "duration_s")
COLUMNS = ("utterance_id", "text", "language", *NUMBERS, "model")
WORDS, AUDIO = "words", "audio"
FIELDS = [field.name for field in fields(Transcript)]
DECIMALS = 4
JOURNAL = ".journal"


class Transcripts(Mapping[str, str]):
    """A table of transcripts: a mapping from utterance id to text, with what made it.

    settings: what the identity stands for; None where only the identity is known.
    """

    def __init__(
        self,
        rows: Iterable[Transcript],
        identity: str,
        path: Path | str = "transcripts",
        settings: TranscriptSource | None = None,
    ) -> None:
        self.rows = {row.key: row for row in rows}
        self.identity = identity
        self.path = Path(path)
        self.settings = settings

    @classmethod
    def read(cls, path: Path | str) -> "Transcripts":
        """Read a .csv or .parquet table, the tables of its parts, and the journals beside them.

        TranscriptError when one isn't a table of transcripts, or the parts are of different models or settings.
        """
        path = Path(path)
        merged: Transcripts | None = None
        for table in map(read_file, (path, *parts_of(path))):
            if merged is None:
                merged = table
            elif table is not None:
                merged.add(table)
        if merged is None:
            raise TranscriptError(f"{path} does not exist. Write it with `medusa transcribe -o {path}`.")
        merged.path = path
        return merged

    def add(self, other: "Transcripts") -> None:
        """Take over the transcripts of another table that this one lacks; TranscriptError when made otherwise."""
        if other.identity != self.identity:
            raise TranscriptError(
                f"{other.path} is of {other.identity}, but what stands beside it for {self.path} of {self.identity}. "
                "Remove the one that does not belong there, or write to another file with --output."
            )
        self.rows = other.rows | self.rows

    def __getitem__(self, key: str) -> str:
        return self.rows[key].text

    def __iter__(self) -> Iterator[str]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def source(self) -> str:
        """The entry for these texts in a text encoder's FeatureSpec.source."""
        return f"transcripts:{self.identity}"

    def provenance(self) -> dict[str, Any]:
        """Return the record for a feature set of these texts: the settings of the model that made them."""
        return {} if self.settings is None else {PROVENANCE: self.settings.to_json()}

    def of(self, manifest: Manifest) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        """Return (key, text) of utterances with a transcript, be it empty, and (key, reason) of the others.

        TranscriptError when no utterance has one, or some are of other audio.
        """
        refuse_other_audio(self.rows, manifest, self.path)
        texts = [(key, self[key]) for key in manifest.keys if key in self.rows]
        if not texts:
            examples = ", ".join(map(repr, manifest.keys[:3]))
            raise TranscriptError(
                f"{self.path} has no transcript of any of the {len(manifest):,} utterances of {manifest.name} (such as "
                f"{examples}). Give the manifest that it was made from, or run `medusa transcribe` on this one."
            )
        reason = f"no transcript in {self.path}; run `medusa transcribe` for it."
        return texts, [(key, f"{key}: {reason}") for key in manifest.keys if key not in self.rows]

    def timed(self) -> "TimedTranscripts":
        """Return the texts with the times of their words; TranscriptError where a transcript has none."""
        lacking = next((key for key, row in self.rows.items() if row.words is None), None)
        if lacking is not None:
            raise TranscriptError(
                f"{self.path} has no times of words (of {lacking!r} and maybe others); write a table with `medusa "
                "transcribe --words`."
            )
        return TimedTranscripts(self)

    def write(self) -> None:
        """Replace the table at `path`, sorted by key: the same transcripts are the same bytes, however they came."""
        rows = [self.rows[key] for key in sorted(self.rows)]
        columns = {
            "utterance_id": pa.array([row.key for row in rows], pa.string()),
            "text": pa.array([row.text for row in rows], pa.string()),
            "language": pa.array([row.language for row in rows], pa.string()),
            **{name: pa.array([_rounded(getattr(row, name)) for row in rows], pa.float64()) for name in NUMBERS},
            "model": pa.array([self.identity] * len(rows), pa.string()),
        }
        if any(row.words is not None for row in rows):
            columns[WORDS] = pa.array([_written(row.words) for row in rows], pa.string())
        if any(row.audio for row in rows):
            columns[AUDIO] = pa.array([row.audio or None for row in rows], pa.string())
        write_table_file(pa.table(columns), self.path)


class TimedTranscripts:
    """Transcripts as what `token_times.TokenTimes` reads: each text with its words and the utterance's length."""

    def __init__(self, transcripts: Transcripts) -> None:
        self._transcripts = transcripts
        self.source = transcripts.source
        self.provenance = transcripts.provenance

    def of(self, manifest: Manifest) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        """Return (key, text with words) and (key, reason), as `Transcripts.of` does."""
        texts, failed = self._transcripts.of(manifest)
        rows = ((key, self._transcripts.rows[key]) for key, _ in texts)
        return [(key, timed(row.text, row.words or (), row.duration_s)) for key, row in rows], failed


def journal_path(path: Path) -> Path:
    """Where the journal of a table lies."""
    return path.with_name(path.name + JOURNAL)


def source_path(path: Path) -> Path:
    """Return the file with the full description of a table's origin."""
    return path.with_name(f"{path.stem}.source.json")


def part_path(path: Path, number: int, count: int) -> Path:
    """Where part `number` of `count` of a table is written: `transcripts.2-of-8.csv` of `transcripts.csv`."""
    return path.with_name(f"{path.stem}.{number}-of-{count}{path.suffix}")


def parts_of(path: Path) -> list[Path]:
    """Return the tables of a table's parts, by name, also those that are a journal yet."""
    name = re.compile(re.escape(path.stem) + r"\.\d+-of-\d+" + re.escape(path.suffix))
    listed = (entry.name.removesuffix(JOURNAL) for entry in path.parent.glob(f"*{path.suffix}*"))
    return [path.with_name(found) for found in sorted(set(listed)) if name.fullmatch(found)]


def read_file(path: Path) -> Transcripts | None:
    """Return one table with the journal beside it, without those of its parts; None where neither has a row or source.

    TranscriptError when it isn't a table of transcripts, or table and journal are of different models or settings.
    """
    journal = read_journal(journal_path(path))
    if not path.exists():
        return None if journal is None else Transcripts(journal[1], journal[0].identity, path, journal[0])
    transcripts = read_table(path)
    recorded = read_source(source_path(path)) if journal is None else journal[0]
    if recorded is not None and recorded.identity == transcripts.identity:
        transcripts.settings = recorded
    if journal is not None:
        if journal[0].identity != transcripts.identity:
            raise TranscriptError(
                f"{journal_path(path)} is of {journal[0].identity}, but {path} of {transcripts.identity}. Remove the "
                "one that does not belong there."
            )
        transcripts.rows |= {row.key: row for row in journal[1]}
    return transcripts


def read_table(path: Path) -> Transcripts:
    """Return the table alone, without the journal."""
    table = read_table_file(path)
    lacking = [name for name in COLUMNS if name not in table.column_names]
    if lacking:
        raise TranscriptError(
            f"{path} lacks the columns {', '.join(lacking)}: `medusa transcribe` did not write it. Texts of another "
            "origin belong into the manifest's text column."
        )
    columns = {name: table.column(name).to_pylist() for name in COLUMNS}
    identities = sorted(set(columns["model"]), key=str)
    if len(identities) != 1 or identities[0] is None:
        raise TranscriptError(
            f"{path}: expected one value in its model column, found {', '.join(map(str, identities)) or 'no row'}. "
            "Transcripts of several models don't go into one table; remove it and transcribe again."
        )
    try:
        rows = [
            Transcript(str(key), text or "", language or "", _number(logprob), _number(no_speech), _number(duration_s))
            for key, text, language, logprob, no_speech, duration_s in zip(
                *(columns[name] for name in COLUMNS[:-1]), strict=True
            )
        ]
        if WORDS in table.column_names:
            words = table.column(WORDS).to_pylist()
            rows = [replace(row, words=_read_words(each, path, row.key)) for row, each in zip(rows, words, strict=True)]
        if AUDIO in table.column_names:
            audio = table.column(AUDIO).to_pylist()
            rows = [replace(row, audio=_checked(each, path, row.key)) for row, each in zip(rows, audio, strict=True)]
    except ValueError as error:
        raise TranscriptError(f"{path}: {error}; expected numbers in {', '.join(NUMBERS)}.") from None
    transcripts = Transcripts(rows, identities[0], path)
    if len(transcripts) != len(rows):
        raise TranscriptError(
            f"{path}: {len(rows) - len(transcripts)} utterances stand there twice. Remove the doubles."
        )
    return transcripts


def read_source(path: Path) -> TranscriptSource | None:
    """Return a table's origin from the file beside it; None where there is none."""
    if not path.exists():
        return None
    try:
        return TranscriptSource.from_json(read_json(path.read_bytes()), str(path))
    except ValueError:
        raise TranscriptError(f"{path} is not JSON. Remove it; the model is still in the table's column.") from None


def read_journal(path: Path) -> tuple[TranscriptSource, list[Transcript]] | None:
    """Return the source of a journal's transcripts, and these, up to a torn line; None where there is none."""
    lines = read_lines(path)
    return None if lines is None else parse_journal(path, lines[0])


def parse_journal(path: Path, lines: Sequence[dict[str, Any]]) -> tuple[TranscriptSource, list[Transcript]] | None:
    """Return the same from the journal's lines; None where there are none."""
    if not lines:
        return None
    source = TranscriptSource.from_json(lines[0], str(path))
    # Words and audio came last; lines of before lack them.
    wrong = next((values for values in lines[1:] if list(values) not in (FIELDS, FIELDS[:-1], FIELDS[:-2])), None)
    if wrong is not None:
        raise TranscriptError(
            f"{path} has a line with the fields {', '.join(wrong)}, expected {', '.join(FIELDS)}: it is damaged, "
            "or a newer version of medusa-ser wrote it. Remove it to transcribe its utterances again."
        )
    return source, [Transcript(**{**values, WORDS: _as_words(values.get(WORDS))}) for values in lines[1:]]


def _checked(text: str | None, path: Path, key: str) -> str:
    try:
        if text:
            identity_of(text)
    except ValueError:
        raise TranscriptError(
            f"{path}: the audio of {key!r} is not the JSON that `medusa transcribe` writes, found {text!r}. Remove the "
            "column to do without."
        ) from None
    return text or ""


def _written(words: Sequence[Word] | None) -> str | None:
    return (
        None if words is None else json.dumps([[w, round(a, 3), round(b, 3)] for w, a, b in words], ensure_ascii=False)
    )


def _as_words(values: Any) -> tuple[Word, ...] | None:
    return None if values is None else tuple((str(word), float(start), float(end)) for word, start, end in values)


def _read_words(text: str | None, path: Path, key: str) -> tuple[Word, ...] | None:
    try:
        return None if not text else _as_words(read_json(text))
    except (ValueError, TypeError):
        raise TranscriptError(
            f"{path}: the words of {key!r} are not a JSON list of [word, start, end]. Run `medusa transcribe --words` "
            "into another file."
        ) from None


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _rounded(value: float) -> float | None:
    return round(value, DECIMALS) if math.isfinite(value) else None
