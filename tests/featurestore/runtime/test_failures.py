"""Failures of long jobs: grouped by reason, and written to a table beside the output."""

import csv
from pathlib import Path

import pytest

from featurestore.runtime.failures import DEFAULT_TABLE, by_reason, table_of, write_failures


def test_reasons_are_counted_without_the_files_and_numbers_in_them() -> None:
    failed = [
        (f"clip{i}", f"/data/x y/clip{i}.wav: truncated, the header promises {i * 1000:,} bytes. Copy it.")
        for i in range(30)
    ]
    failed += [("a", "a.mp3, 3 to 4.5 s: the piece lies beyond the recording, which has 2.5 s. Mend its ends.")]
    failed += [("b", "out of memory: split it"), ("c", "out of memory: split it")]
    assert by_reason(failed) == [
        ("truncated, the header promises N bytes", 30),
        ("out of memory: split it", 2),
        ("the piece lies beyond the recording, which has N s", 1),
    ]


def test_the_table_holds_every_failure_as_it_was_given(tmp_path: Path) -> None:
    failed = [("größe, 1.wav", 'no "audio"\nat all'), ("=b", "")]
    write_failures(tmp_path / "new" / "x.csv", failed)
    with open(tmp_path / "new" / "x.csv", newline="", encoding="utf-8") as file:
        assert [tuple(row) for row in csv.reader(file)] == [("name", "reason"), *failed]


@pytest.mark.parametrize(
    ("output", "table"),
    [
        ("runs/out.csv", "runs/out.failed.csv"), ("store", "store.failed.csv"), ("a.b/s.v1", "a.b/s.v1.failed.csv"),
        (None, str(DEFAULT_TABLE)), ("s3://bucket/store", str(DEFAULT_TABLE)),
    ],
)  # fmt: skip
def test_the_table_stands_beside_the_output(output: str | None, table: str) -> None:
    assert table_of(output) == Path(table)
