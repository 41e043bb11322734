"""Options that a command takes in dataclasses."""

from dataclasses import dataclass
from typing import Annotated

from typer.testing import CliRunner

from featurestore.terminal import option_groups, reads, say, typer_app, writes


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
    done = CliRunner().invoke(app, ["--place", "out", "--corpus", "x", "-f", "5", "--quick"])
    assert done.output.strip() == "Reading(corpus='x', fold=5) Writing(place='out') True"


def test_the_default_of_a_field_is_that_of_its_option() -> None:
    done = CliRunner().invoke(app, ["--place", "out", "--corpus", "x"])
    assert done.output.strip() == "Reading(corpus='x', fold=3) Writing(place='out') False"


def test_a_field_without_default_is_a_required_option() -> None:
    done = CliRunner().invoke(app, ["--corpus", "x"])
    assert done.exit_code == 2
    assert "--place" in done.output
