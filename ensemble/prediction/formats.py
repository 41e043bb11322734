"""How predictions are written: a table (CSV, JSON lines) with a row each, or a timeline (RTTM, Audacity's labels).

RTTM is NIST's Rich Transcription Time Marked format (Rich Transcription 2009 evaluation plan, appendix A): ten fields
between blanks, `<NA>` for none. A label stands where the speaker's name does.
"""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from ensemble.prediction.pieces import Piece
from ensemble.prediction.timeline import Turn, turns
from featurestore.audio import without_audio_suffix
from featurestore.errors import ConfigError
from featurestore.runtime.durable import replace_file, writing

CSV, JSONL, RTTM, AUDACITY = "csv", "jsonl", "rttm", "audacity"
FORMATS = (CSV, JSONL, RTTM, AUDACITY)
OF_SUFFIX = {".csv": CSV, ".jsonl": JSONL, ".rttm": RTTM}  # a .txt may be anything: Audacity's labels are asked for

Record = tuple[Mapping[str, Any], Piece | None]  # a row by column, and the piece that it is of


def format_of(output: Path | None, format: str | None) -> str:
    """Return the format asked for, else the one of the output's suffix; ConfigError for no such format."""
    if format is not None:
        if format not in FORMATS:
            raise ConfigError(f"--format {format}: expected one of {', '.join(FORMATS)}.")
        return format
    if output is None:
        return CSV
    if output.suffix not in OF_SUFFIX:
        raise ConfigError(
            f"{output}: expected an output name that ends in {', '.join(OF_SUFFIX)}, or a --format, found "
            f"{output.suffix or 'none'!r}."
        )
    return OF_SUFFIX[output.suffix]


def write_file(path: Path, format: str, columns: Sequence[str], records: Iterable[Record]) -> None:
    """Write records, each with the piece that it is of (a timeline needs it), whole or not at all; see `write_text`.

    ConfigError where the file can't be written.
    """

    def fill(file: IO[bytes]) -> None:
        # A file name that is not UTF-8 keeps its bytes.
        text = io.TextIOWrapper(file, "utf-8", "surrogateescape", newline="")
        write_text(text, format, columns, records)
        text.detach()

    with writing(path, ConfigError, "Choose another output path."):
        replace_file(path, fill)


def write_text(file: IO[str], format: str, columns: Sequence[str], records: Iterable[Record]) -> None:
    """Write records to an open text file; ConfigError: labels of Audacity, of several recordings."""
    if format == CSV:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(row for row, _ in records)
    elif format == JSONL:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row, _ in records)
    else:
        timeline = _turns(records)
        check_recordings(format, [turn.path for turn in timeline])
        lines = _rttm_lines(timeline) if format == RTTM else map(_audacity_line, timeline)
        file.writelines(lines)


def check_recordings(format: str, paths: Iterable[Path]) -> None:
    """Raise ConfigError where the format can't hold so many recordings: Audacity's labels don't name theirs."""
    recordings = list(dict.fromkeys(paths))
    if format == AUDACITY and len(recordings) > 1:
        raise ConfigError(
            f"Audacity's labels name no recording, and there are {len(recordings):,} ({recordings[0]}, "
            f"{recordings[1]}, ...). Predict one at a time, or write csv, jsonl or rttm."
        )


def _turns(records: Iterable[Record]) -> list[Turn]:
    pieces, labels, confidences = [], [], []
    for row, piece in records:
        if piece is None:
            raise ConfigError("A timeline (rttm, audacity) is of recordings, and the manifest has no path; write csv.")
        pieces.append(piece)
        labels.append(row["label"])
        confidences.append(row[f"p_{row['label']}"])
    return turns(pieces, labels, confidences)


def _rttm_lines(timeline: Sequence[Turn]) -> Iterator[str]:
    """Yield lines such as `SPEAKER call 1 2.000 4.000 <NA> <NA> angry 0.812 <NA>`.

    The second field is the recording's name without folders and suffix, or its path where two have the same name;
    blanks become _.
    """
    names = {turn.path: without_audio_suffix(turn.path.name) for turn in timeline}
    n_called = Counter(names.values())
    for turn in timeline:
        name = names[turn.path]
        if n_called[name] > 1:
            name = without_audio_suffix(turn.path.as_posix())
        name, label = (re.sub(r"\s", "_", text) for text in (name, turn.label))
        times = f"{seconds(turn.start_s)} {seconds(turn.length_s)}"
        yield f"SPEAKER {name} 1 {times} <NA> <NA> {label} {turn.confidence:.3f} <NA>\n"


def _audacity_line(turn: Turn) -> str:
    return f"{seconds(turn.start_s)}\t{seconds(turn.end_s)}\t{turn.label}\n"


def seconds(value: float) -> str:
    """Return seconds with a point and three decimals or as many as there are, six at most: 2.000, 3.503562."""
    text = f"{value:.6f}"
    return text.rstrip("0") if not text.endswith("000") else text[:-3]
