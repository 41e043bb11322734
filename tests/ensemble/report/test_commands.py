"""`medusa report` as a command: what it writes, what it prints, what it refuses."""

from pathlib import Path

import pytest

from tests.helpers.report_runs import SYSTEMS
from tests.helpers.small_corpus import medusa

FAST = ("--bootstrap", "20", "--projections", "pca")


def test_the_command_writes_the_page_and_prints_what_is_wrong_with_the_folds(run: Path, tmp_path: Path) -> None:
    page = tmp_path / "deep" / "page.html"
    result = medusa("report", *SYSTEMS, "-m", run / "manifest.csv", "-s", run / "store", "-o", page, *FAST)
    assert f"wrote {page}" in result.stdout
    assert "1 speaker" in result.stderr
    assert 2_000_000 < page.stat().st_size < 4_000_000


def test_a_limit_of_clips_inside_the_page_is_kept(run: Path, tmp_path: Path) -> None:
    sizes = []
    for megabytes in ("0", "0.05"):
        page = tmp_path / f"{megabytes}.html"
        medusa("report", "meta", "-m", run / "manifest.csv", "-s", run / "store", "-o", page, *FAST, "--audio", "embed",
               "--audio-mb", megabytes)  # fmt: skip
        sizes.append(page.stat().st_size)
    assert 20_000 < sizes[1] - sizes[0] < 60_000


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["meta", "--audio", "loud"], "--audio"),
        (["meta", "--map", "nothing"], "nothing"),
        (["meta", "--projections", "pca,isomap"], "isomap"),
        (["meta", "--split", "test"], "split"),
        (["meta", "--strict"], "1 speaker"),
        (["nobody"], "nobody"),
        (["meta", "--probe", "gone.json"], "gone.json"),
    ],
)
def test_a_mistake_is_one_line_that_names_it_and_nothing_is_written(
    run: Path, tmp_path: Path, arguments: list[str], named: str
) -> None:
    page = tmp_path / "page.html"
    inputs = ["-m", run / "manifest.csv", "-s", run / "store", "-o", page]
    result = medusa("report", *FAST, *arguments, *inputs, exit_code=2)
    assert named in result.stderr
    assert not page.exists()
