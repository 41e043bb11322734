"""The tutorials run as they are printed, in an empty directory: their Python makes the folder, then every command."""

import csv
import re
import shlex
from pathlib import Path

import pytest

from featurestore import Manifest
from tests.helpers.small_corpus import medusa

DOCS = Path(__file__).resolve().parents[1] / "docs"
BLOCK = re.compile(r"```(python|console)\n(.*?)```", re.DOTALL)


def follow(page: str, *, before: str = "") -> list[str]:
    """Run a page's blocks in their order, up to the first command of that name, and return the commands that ran."""
    commands: list[str] = []
    for kind, block in BLOCK.findall((DOCS / page).read_text(encoding="utf-8")):
        if kind == "python":
            exec(block, {})
            continue
        for line in block.strip().splitlines():
            program, *arguments = shlex.split(line)
            assert program == "medusa"
            if arguments[0] == before:
                return commands
            medusa(*arguments)
            commands.append(arguments[0])
    return commands


@pytest.mark.parametrize(("page", "commands"), [
    ("tutorial.md", ["prepare", "split", "audit"]), ("tutorial-recording.md", ["prepare", "split"]),
])  # fmt: skip
def test_the_table_that_a_tutorial_writes_becomes_a_manifest_of_four_folds(
    page: str, commands: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert follow(page, before="featurize") == commands
    manifest = Manifest.read("corpus.csv")
    assert len(manifest) == 384
    assert sorted(set(manifest.column("fold"))) == ["1", "2", "3", "4"]
    assert manifest.has_pieces == (page == "tutorial-recording.md")


@pytest.mark.slow
def test_a_folder_and_a_table_become_a_table_for_a_paper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(follow("tutorial.md")) == 10
    latex = Path("table.tex").read_text()
    assert all(f"\n{name} & " in latex for name in ("probe", "small", "both", "minus probe"))
    assert Path("report.html").stat().st_size > 1_000_000
    assert len(Path("predictions.csv").read_text().splitlines()) == 17


@pytest.mark.slow
def test_segments_of_long_recordings_become_scores_and_a_timeline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("silero_vad", reason="silero-vad is not installed (pip install 'medusa-ser[vad]')")
    monkeypatch.chdir(tmp_path)
    assert len(follow("tutorial-recording.md")) == 8
    assert "| probe |" in Path("table.md").read_text()
    assert Path("windows.png").stat().st_size > 0
    with open("windows.csv", newline="") as file:
        first = next(csv.DictReader(file))
    assert (first["file"], first["start_s"], first["end_s"]) == ("sessions/Actor_01.flac", "0.0", "4.0")
    assert len(Path("segments-predicted.csv").read_text().splitlines()) == 17
    assert len(Path("speech.csv").read_text().splitlines()) > 10
