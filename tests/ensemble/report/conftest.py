"""A run of hostile strings, its collected payload, and its page in a real Chromium."""

from pathlib import Path

import pytest

from ensemble.report.collect import Collected, PageOptions, collect
from ensemble.report.page import write_page
from ensemble.report.runs import Runs, find_runs
from ensemble.report.scores import Scoring
from ensemble.report.sound import audio_of
from tests.helpers.report_runs import SYSTEMS, hostile_run


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of a run whose strings are all markup."""
    return hostile_run(tmp_path_factory.mktemp("report") / "run")


@pytest.fixture(scope="session")
def runs(run: Path) -> Runs:
    return find_runs(SYSTEMS, run / "manifest.csv", run / "store")


@pytest.fixture(scope="session")
def collected(runs: Runs) -> Collected:
    options = PageOptions(Scoring(n_resamples=50), maps=("meta", "tone"), probes=(runs.manifest.parent / "probe.json",),
                    title="<b>title</b>")  # fmt: skip
    return collect(runs, options)


@pytest.fixture(scope="session")
def html(run: Path, collected: Collected) -> Path:
    """Return the page as a file beside the run, its clips inside."""
    path = run / "report.html"
    write_page(path, collected.payload, audio_of(collected.rows, "embed", path, first=collected.hardest))
    return path
