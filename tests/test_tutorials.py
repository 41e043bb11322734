"""README and tutorials run as they are printed, in an empty directory, and print what they show.

Their Python makes the folder, then comes every command.
"""

import csv
import re
import shlex
import shutil
from pathlib import Path

import pytest

from featurestore import Manifest
from tests.helpers.small_corpus import medusa

REPO = Path(__file__).resolve().parents[1]
DOCS = REPO / "docs"
BLOCK = re.compile(r"```(python|console)\n(.*?)```", re.DOTALL)
SHOWN = re.compile(r"```text\n(.*?)```", re.DOTALL)
NUMBER = re.compile(r"[-+]?\d+(?:[.,]\d+)*")
SCORE = re.compile(r"[-+]?\d\.\d{3,}")
TOLERANCE = 0.03  # of a score: processors without bfloat16 train in float32


def follow(page: str, *, before: str = "") -> tuple[list[str], str]:
    """Run a page's blocks in their order, up to the first command of that name.

    Return the commands that ran, and what they printed.
    """
    commands: list[str] = []
    printed = ""
    for kind, block in BLOCK.findall(page):
        if kind == "python":
            exec(block, {})
            continue
        for line in block.strip().splitlines():
            program, *arguments = shlex.split(line)
            if program == "cp":
                shutil.copytree(REPO / arguments[1], arguments[2])
                continue
            assert program == "medusa"
            if arguments[0] == before:
                return commands, printed
            result = medusa(*arguments)
            printed += result.stdout + result.stderr
            commands.append(arguments[0])
    return commands, printed


def plain(text: str) -> str:
    """Return a text without the rules of its tables, a blank between words."""
    return " ".join(text.replace("\u2500", "").split())


def check_shown(page: str, printed: str) -> None:
    """Assert that each output that a page shows was printed: the words as they are, scores within `TOLERANCE`."""
    printed = plain(printed)
    masked, numbers = NUMBER.sub("#", printed), NUMBER.findall(printed)
    for block in map(plain, SHOWN.findall(page)):
        place = masked.find(NUMBER.sub("#", block))
        assert place >= 0, f"not printed: {block}"
        first = masked[:place].count("#")
        for i, shown in enumerate(NUMBER.finditer(block)):
            is_p = block[: shown.start()].endswith((" p ", " Holm "))  # which a score's last digit may change much
            if SCORE.fullmatch(shown[0]) and not is_p:
                now = numbers[first + i]
                assert abs(float(shown[0]) - float(now)) <= TOLERANCE, f"{shown[0]} is {now} now: {block}"


def read(page: str) -> str:
    return (DOCS / page).read_text(encoding="utf-8")


def test_a_page_that_shows_other_words_or_scores_than_are_printed_is_found() -> None:
    printed = "all folds\n system      UAR\n\u2500\u2500\u2500\u2500\n nested    0.581\n p 0.074\nwrote table.md\n"
    for shown in ("system UAR\n nested 0.581", "nested 0.560\n p 0.5", "wrote table.md"):
        check_shown(f"```text\n{shown}\n```\n", printed)
    for shown in ("nested 0.540", "nested -0.581", "system WAR", "wrote table.csv"):
        with pytest.raises(AssertionError):
            check_shown(f"```text\n{shown}\n```\n", printed)


@pytest.mark.parametrize(("page", "commands"), [
    ("tutorial.md", ["prepare", "split", "audit"]), ("tutorial-recording.md", ["prepare", "split"]),
])  # fmt: skip
def test_the_table_that_a_tutorial_writes_becomes_a_manifest_of_four_folds(
    page: str, commands: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ran, _ = follow(read(page), before="featurize")
    assert ran == commands
    manifest = Manifest.read("corpus.csv")
    assert len(manifest) == 384
    assert sorted(set(manifest.column("fold"))) == ["1", "2", "3", "4"]
    assert manifest.has_pieces == (page == "tutorial-recording.md")


@pytest.mark.slow
def test_a_folder_and_a_table_become_a_table_for_a_paper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = read("tutorial.md")
    commands, printed = follow(page)
    assert len(commands) == 10
    check_shown(page, Path("labels.csv").read_text() + printed)
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
    page = read("tutorial-recording.md")
    commands, _ = follow(page)
    assert len(commands) == 8
    check_shown(page, "\n".join(Path(name).read_text() for name in ("segments.csv", "table.md", "windows.csv")))
    assert Path("windows.png").stat().st_size > 0
    with open("windows.csv", newline="") as file:
        first = next(csv.DictReader(file))
    assert (first["file"], first["start_s"], first["end_s"]) == ("sessions/Actor_01.flac", "0.0", "4.0")
    assert len(Path("segments-predicted.csv").read_text().splitlines()) == 17
    assert len(Path("speech.csv").read_text().splitlines()) > 10


@pytest.mark.slow
def test_the_readmes_folder_becomes_the_scores_that_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = (REPO / "README.md").read_text(encoding="utf-8")
    page = page[page.index("## Your own folder") : page.index("## In Python")]
    commands, printed = follow(page)
    assert commands == ["prepare", "featurize", "probe", "predict"]
    check_shown(page, printed)
