"""What failed in a long job: counts by reason for the terminal, and a table of all of it beside the output."""

import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from featurestore.runtime.durable import replace_text

Failures = Sequence[tuple[str, str]]  # (file or utterance id, reason)

DEFAULT_TABLE = Path("medusa.failed.csv")
MOST_KIND_CHARACTERS = 120
NUMBER = re.compile(r"\d[\d.,]*(?<=\d)")


def table_of(output: Path | str | None) -> Path:
    """Return the path of a job's list of failures: `x.failed.csv` beside an output x.csv; None or a URL: here."""
    if output is None or "://" in str(output):
        return DEFAULT_TABLE
    place = Path(output)
    name = place.stem if place.suffix in (".csv", ".parquet", ".jsonl", ".json") else place.name
    return place.with_name(f"{name}.failed.csv") if name else DEFAULT_TABLE


def write_failures(path: Path, failed: Failures) -> None:
    """Write every failure, a row each (name, reason), whole or not at all; OSError."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("name", "reason"))
    writer.writerows(failed)
    replace_text(path, text.getvalue())


def by_reason(failed: Failures) -> list[tuple[str, int]]:
    """Return the kinds of reasons with their numbers, the most frequent first."""
    return Counter(_kind(name, reason) for name, reason in failed).most_common()


def _kind(name: str, reason: str) -> str:
    """Return the first sentence of a reason, without the file that it names, and with N for its numbers."""
    place, colon, cause = reason.partition(": ")
    named = colon and ("/" in place or "\\" in place or name in place or Path(place.split(", ")[0]).suffix)
    sentence = NUMBER.sub("N", cause if named else reason).split(". ")[0].rstrip(".")
    return sentence if len(sentence) <= MOST_KIND_CHARACTERS else sentence[:MOST_KIND_CHARACTERS] + "..."
