"""Processes that write, read and compact one feature set at the same time: no wrong row, no lost key, no hang."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.small_store import quick_directory

ROOT = Path(__file__).resolve().parents[3]
LONG_S = float(os.environ.get("MEDUSA_STRESS_S", "60"))


@pytest.fixture
def directory() -> Iterator[Path]:
    with quick_directory() as directory:
        yield directory


def stress(directory: Path, start: str, seconds: float, n: int, compactions: int) -> dict[str, int]:
    """`tests/helpers/stress.py` in a process of its own, since this one may have threads, which fork doesn't bear."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    sizes = ["--writers", str(n), "--readers", str(n), "--compactions", str(compactions)]
    command = [
        sys.executable,
        "tests/helpers/stress.py",
        str(directory / "s"),
        "--start",
        start,
        "--seconds",
        str(seconds),
    ]
    process = subprocess.run([*command, *sizes], cwd=ROOT, capture_output=True, text=True, env=environment, check=False)
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""
    record: dict[str, int] = json.loads(process.stdout)
    return record


@pytest.mark.parametrize(
    ("start", "n", "seconds"), [("fork", 8, 1.5), pytest.param("spawn", 2, 1.0, marks=pytest.mark.slow)]
)
def test_writers_readers_and_compactions_at_once(directory: Path, start: str, n: int, seconds: float) -> None:
    output = stress(directory, start, seconds, n, compactions=2)
    assert output["written"] > 0
    assert output["read"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_eight_of_each_for_a_minute(directory: Path, start: str) -> None:
    """MEDUSA_STRESS_S changes the minute. Two compactions, which compete for the same segments."""
    output = stress(directory, start, LONG_S, 8, compactions=2)
    print(output)
    assert output["written"] > 1000
    assert output["read"] > 10_000
    assert output["merged"] > 100
