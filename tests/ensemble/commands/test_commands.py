"""`medusa evaluate` and `medusa submit`, on posteriors and on files."""

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from featurestore.corpus.manifest import LabelScheme, Manifest
from featurestore.store.feature_store import FeatureStore
from tests.helpers.messages import mentions
from tests.helpers.small_corpus import medusa


@pytest.fixture
def given(store: FeatureStore, write: Callable, corpus, tmp_path: Path) -> list[str | Path]:
    """Members of 600 utterances in a store, and the options that name it and their manifest."""
    write(corpus)
    gender = ["female" if int(s[1:]) % 2 else "male" for s in corpus.manifest.column("speaker")]
    table = corpus.manifest.to_arrow().append_column("gender", [gender])
    Manifest(table, corpus.manifest.scheme).write(tmp_path / "m.csv")
    return ["-m", tmp_path / "m.csv", "-s", store.path]


def refused(*arguments: str | Path) -> str:
    output = medusa(*arguments, exit_code=2).stderr.strip()
    assert output.startswith("error: ")
    assert len(output.splitlines()) == 1
    return output


def test_evaluate_prints_and_writes_all_that_is_requested(given: list[str | Path], tmp_path: Path) -> None:
    options = ["--against", "m1", "--by", "gender", "--calibration", "--bootstrap", "50", "--split", "test"]
    files = ["--json", tmp_path / "e.json", "--confusion", tmp_path / "c.png", "--reliability", tmp_path / "r.png"]
    output = medusa("evaluate", "m0", *given, *options, *files).stdout
    scores = json.loads((tmp_path / "e.json").read_text())["test"]
    assert f"{scores['classification']['macro_f1']:.3f}" in output
    assert "fitted on development" in output
    assert "female" in output
    assert scores["groups"]["gaps"]["uar"]["interval"]["low"] < scores["groups"]["gaps"]["uar"]["interval"]["high"]
    assert scores["against"]["second"] == "posteriors/m1"
    assert 0 < scores["against"]["differences"]["macro_f1"]["p"] <= 1
    for name in ("c.png", "c-arousal.png", "r.png"):
        assert f"wrote {tmp_path / name}" in output
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_evaluate_is_the_same_twice_and_each_part_has_its_pictures(given: list[str | Path], tmp_path: Path) -> None:
    options = ["--bootstrap", "50", "--reliability", tmp_path / "r.png"]
    first, second = (medusa("evaluate", "m0", *given, *options).stdout for _ in range(2))
    assert first == second
    assert {path.name for path in tmp_path.glob("r*.png")} == {"r-train.png", "r-development.png", "r-test.png"}
    other_seed = medusa("evaluate", "m0", *given, *options, "--seed", "1").stdout
    assert first != other_seed


def test_mistakes_are_one_line(given: list[str | Path], tmp_path: Path) -> None:
    assert "does not exist" in refused("evaluate", tmp_path / "none.csv", *given)
    assert "posteriors/m9" in refused("evaluate", "m0", "--against", "m9", *given)
    assert "'sex'" in refused("evaluate", "m0", "--by", "sex", *given)
    (tmp_path / "p.csv").write_text("FileName,EmoClass\nx.wav,A\n")
    assert "'x.wav'" in refused("evaluate", tmp_path / "p.csv", *given)
    (tmp_path / "p.csv").write_text("FileName,EmoClass\nü 0000/clip,A\n")
    assert "misses" in refused("evaluate", tmp_path / "p.csv", *given, "--split", "train")
    assert "takes 1 resample" in refused("evaluate", "m0", "--against", "m1", "--bootstrap", "0", *given)
    assert "no arousal" not in refused("submit", "task2", "m0", *given, "-o", tmp_path / "t.csv")
    assert "give it with --manifest" in refused("submit", "check", tmp_path / "p.csv", "--split", "test")
    assert not (tmp_path / "t.csv").exists()


def test_submit_writes_a_file_that_check_accepts_and_evaluate_reads(given: list[str | Path], tmp_path: Path) -> None:
    part = [*given[:2], "--split", "test"]
    output = medusa("submit", "task1", "m0", *given, "--split", "test", "-o", tmp_path / "t.csv").stdout
    assert mentions(output, "120 rows", "task1")
    assert mentions(medusa("submit", "check", tmp_path / "t.csv", *part).stdout, "valid", "task1", "120 rows")
    assert "120 rows" in medusa("submit", "check", tmp_path / "t.csv", "--rows", "120").stdout
    assert mentions(refused("submit", "check", tmp_path / "t.csv"), "3,200", 120)
    assert "missing" in refused("submit", "check", tmp_path / "t.csv", *given[:2])


def test_a_test_part_without_labels_is_submitted(store: FeatureStore, write: Callable, corpus, tmp_path: Path) -> None:
    write(corpus)
    keys = corpus.manifest.keys[:50]
    blind = Manifest(pa.table({"utterance_id": keys, "path": [f"{i}.wav" for i in range(50)]}), LabelScheme())
    blind.write(tmp_path / "blind.csv")
    inputs = ["-m", tmp_path / "blind.csv", "-s", store.path]
    medusa("submit", "task1", "m0", *inputs, "-o", tmp_path / "t.csv")
    lines = (tmp_path / "t.csv").read_text().splitlines()
    expected = ["ASHN"[c] for c in corpus.logits[0, :50].argmax(1)]
    assert lines[1:] == [f"{i}.wav,{letter}" for i, letter in enumerate(expected)]


def test_evaluate_of_posteriors_and_a_file_makes_one_table_whose_suffix_is_the_format(
    given: list[str | Path], tmp_path: Path
) -> None:
    medusa("submit", "task1", "m1", *given, "--split", "test", "-o", tmp_path / "t.csv")
    options = ["evaluate", "m0", "m1", tmp_path / "t.csv", *given, "--split", "test", "--bootstrap", "50"]
    output = medusa(*options, "-o", tmp_path / "t.tex", "--json", tmp_path / "t.json").stdout
    scores = json.loads((tmp_path / "t.json").read_text())["test"]
    m1, of_file = (each["scores"] for each in scores["systems"][1:])
    assert m1["macro_f1"] == of_file["macro_f1"]
    assert f"{m1['macro_f1'][0]:.3f}" in output
    assert "\\toprule" in (tmp_path / "t.tex").read_text()
    printed = medusa(*options, "--format", "csv").stdout
    assert printed.splitlines()[0].startswith("part,system,reference,")
    assert len(printed.splitlines()) == 4
    medusa(*options, "-o", tmp_path / "new" / "t.md", "--against", "m1")
    assert "| minus m1 |" in (tmp_path / "new" / "t.md").read_text()


def test_what_a_table_can_not_hold_is_refused(given: list[str | Path], tmp_path: Path) -> None:
    assert "named twice" in refused("evaluate", "m0", "m0", *given)
    assert "--by" in refused("evaluate", "m0", "m1", *given, "--by", "gender")
    assert ".tex" in refused("evaluate", "m0", "m1", *given, "-o", tmp_path / "t.docx")
    assert "--common" in refused("evaluate", "m0", *given, "--common")
    (tmp_path / "p.csv").write_text("FileName,EmoClass\nü 0000/clip,A\n")
    assert "p.csv 1 of 360" in refused("evaluate", "m0", tmp_path / "p.csv", *given)
