"""Options that a command takes in dataclasses."""

import os
import pty
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest
from rich.progress import TextColumn
from rich.table import Table
from typer.testing import CliRunner

from featurestore.terminal import bar, console, option_groups, reads, say, say_failures, typer_app, writes
from tests.helpers.messages import mentions


@dataclass(frozen=True)
class Reading:
    corpus: Annotated[str, reads("Corpus.")]
    fold: Annotated[int, reads("Fold.", "--fold", "-f", min=0)] = 3


@dataclass(frozen=True)
class Writing:
    place: Annotated[str, writes("Place.")]


app = typer_app()


@app.command()
@option_groups
def work(reading: Reading, writing: Writing, quick: bool = False) -> None:
    say(f"{reading} {writing} {quick}")


def test_each_field_is_an_option_and_the_command_gets_the_dataclasses() -> None:
    result = CliRunner().invoke(app, ["--place", "out", "--corpus", "x", "-f", "5", "--quick"])
    assert result.output.strip() == "Reading(corpus='x', fold=5) Writing(place='out') True"


def test_the_default_of_a_field_is_that_of_its_option() -> None:
    result = CliRunner().invoke(app, ["--place", "out", "--corpus", "x"])
    assert result.output.strip() == "Reading(corpus='x', fold=3) Writing(place='out') False"


def test_a_field_without_default_is_a_required_option() -> None:
    result = CliRunner().invoke(app, ["--corpus", "x"])
    assert result.exit_code == 2
    assert "--place" in result.output


def test_an_option_of_one_text_that_is_given_twice_is_warned_of() -> None:
    once = ["--place", "out", "--corpus", "x", "--quick", "--quick", "-f", "1", "--fold", "2"]
    result = CliRunner().invoke(app, once)
    assert "fold=2" in result.stdout
    assert result.stderr == ""
    result = CliRunner().invoke(app, [*once, "--corpus=y"])
    assert "corpus='y'" in result.stdout
    assert mentions(result.stderr, "warning", "corpus", 2, "y")


@pytest.mark.parametrize("notebook", [False, True])
def test_a_bar_moves_on_a_terminal_and_not_in_a_notebook(monkeypatch: pytest.MonkeyPatch, notebook: bool) -> None:
    master, slave = pty.openpty()
    monkeypatch.delenv("JPY_PARENT_PID", raising=False)
    monkeypatch.setenv("TERM", "xterm-color")
    if notebook:
        monkeypatch.setenv("JPY_PARENT_PID", "1")
    with os.fdopen(slave, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        with bar("work", 2) as show:
            show(1, 2)
        say("done", "red", stderr=True)
        is_wide = console(stderr=True).width > 100
    shown = b""
    while b"done" not in shown:  # a terminal gives what is there, which may be a part
        shown += os.read(master, 100_000)
    os.close(master)
    assert (b"\x1b[" in shown) is not notebook
    assert is_wide is notebook


def test_brackets_are_text_in_lines_tables_and_bars(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("[speaker]", "label", title="[fold] 1")
    table.add_row("[b]anna", "happy [laughter]")
    console().print(table, "pip install 'medusa-ser[bench]'")
    say("take[final].wav")
    shown = capsys.readouterr().out
    for text in ("[speaker]", "[fold] 1", "[b]anna", "happy [laughter]", "medusa-ser[bench]", "take[final].wav"):
        assert text in shown
    with bar("corpus[1]", 2, "{task.fields[rate]} [x]") as show:
        rendered = [column(show.task).plain for column in show._bar.columns if isinstance(column, TextColumn)]
    assert rendered[0] == "corpus[1]"
    assert " [x]" in rendered


def test_each_failure_has_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    say_failures([(f"f{i}.wav", f"f{i}.wav: the file is empty.") for i in range(100)], tmp_path / "out.csv")
    printed = capsys.readouterr().err.splitlines()
    assert printed == [f"failed: f{i}.wav: the file is empty." for i in range(100)]
    assert not list(tmp_path.iterdir())


def test_of_very_many_failures_reasons_are_counted_and_a_table_has_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = [
        (f"f{i}.wav", f"f{i}.wav: the file is {'empty' if i % 4 else 'no audio'}. Mend it.") for i in range(10_000)
    ]
    say_failures(failed, tmp_path / "out.csv")
    printed = capsys.readouterr().err
    table = tmp_path / "out.failed.csv"
    assert printed.count("failed: ") == 20
    assert "9,980 more" in printed
    assert str(table) in printed
    assert "7,500  the file is empty" in printed
    assert "2,500  the file is no audio" in printed
    assert len(table.read_text().splitlines()) == 10_001


def test_a_table_that_cannot_be_written_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    say_failures([(f"{i}", "no audio") for i in range(101)], tmp_path / "file" / "out.csv")
    printed = capsys.readouterr().err
    assert "can't be written" in printed
    assert "101  no audio" in printed
