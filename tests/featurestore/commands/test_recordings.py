"""Commands that take files and folders in place of a manifest."""

import json
import shutil
from pathlib import Path

import pytest

from featurestore.corpora.audiofolder import read_audiofolder
from featurestore.corpus.manifest import Manifest
from featurestore.store.feature_store import FeatureStore
from tests.helpers.messages import mentions
from tests.helpers.small_corpus import medusa


@pytest.fixture
def calls(demo_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """calls/a.ogg, calls/x/b.ogg, calls/x/c.vox (no audio) and calls/broken.wav in the working directory."""
    clips = sorted((demo_corpus / "Actor_01").glob("*.ogg"))
    (tmp_path / "calls" / "x").mkdir(parents=True)
    shutil.copy(clips[0], tmp_path / "calls" / "a.ogg")
    shutil.copy(clips[1], tmp_path / "calls" / "x" / "b.ogg")
    (tmp_path / "calls" / "x" / "c.vox").touch()
    (tmp_path / "calls" / "broken.wav").write_text("no sound")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "calls"


def test_a_folder_is_featurized_without_a_manifest_and_what_fails_is_named(calls: Path) -> None:
    output = medusa("featurize", "--encoder", "logmel", "calls", exit_code=1)
    assert "store.files.csv" in output.stdout
    assert "c.vox" in output.stdout
    assert "broken.wav" in output.stderr
    assert "2 done" in output.stdout
    manifest = Manifest.read("store.files.csv")
    assert manifest.keys == ["a.ogg", "broken.wav", "x/b.ogg"]
    assert sorted(FeatureStore.open("store")["logmel"]) == ["a.ogg", "x/b.ogg"]
    (calls / "metadata.csv").write_text("file_name,label\na.ogg,sad\nx/b.ogg,angry\n")
    assert read_audiofolder(calls).keys == ["a.ogg", "x/b.ogg"]  # finds the features by its own ids


def test_a_second_run_adds_what_is_new_and_the_manifest_does_the_same(calls: Path) -> None:
    (calls / "broken.wav").unlink()
    medusa("featurize", "--encoder", "logmel", "calls")
    shutil.copy(calls / "a.ogg", calls / "new.ogg")
    output = medusa("featurize", "--encoder", "logmel", calls).stdout
    assert "1 done" in output
    assert "2 there already" in output
    assert "1 new" in output
    assert "3 there already" in medusa("featurize", "--encoder", "logmel", "-m", "store.files.csv").stdout
    assert mentions(medusa("featurize", "--encoder", "logmel", "calls/x").stdout, "store.files.csv", "already")


@pytest.mark.parametrize("option", [["--dry-run"], ["--check", "1"]])
def test_what_encodes_nothing_writes_no_manifest(calls: Path, option: list[str]) -> None:
    (calls / "broken.wav").unlink()
    medusa("featurize", "--encoder", "logmel", "calls", *option)
    assert not Path("store.files.csv").exists()


def test_the_manifest_goes_to_the_file_named(calls: Path) -> None:
    medusa("featurize", "--encoder", "logmel", "calls/a.ogg", "--write-manifest", "mine/list.csv")
    manifest = Manifest.read("mine/list.csv")
    assert manifest.keys == ["a.ogg"]
    assert manifest.audio_path(0).samefile(calls / "a.ogg")
    assert not Path("store.files.csv").exists()


def test_files_and_a_manifest_together_or_neither_are_refused(calls: Path) -> None:
    Path("x.csv").write_text("utterance_id,path\na,calls/a.ogg\n")
    for arguments in (["calls", "-m", "x.csv"], []):
        assert "--manifest" in medusa("featurize", "--encoder", "logmel", *arguments, exit_code=2).stderr
    assert "--manifest" in medusa("featurize", "--encoder", "logmel", "calls", "x.csv", exit_code=2).stderr


def test_audit_reads_a_folder_and_names_what_can_not_be_decoded(calls: Path) -> None:
    shutil.copy(calls / "a.ogg", calls / "again.ogg")
    result = json.loads(medusa("audit", "calls", "--json", exit_code=1).stdout)
    assert result["unreadable"][0][0] == "broken.wav"
    assert sorted(result["repeats"][0]["keys"]) == ["a.ogg", "again.ogg"]
    assert list(Path().glob("*.csv")) == []


def test_commands_that_need_labels_say_that_there_are_none(calls: Path) -> None:
    (calls / "broken.wav").unlink()
    medusa("featurize", "--encoder", "logmel", "--pool", "mean", "calls")
    Path("p.csv").write_text("file,label\na.ogg,sad\n")
    shared = ["-m", "store.files.csv", "-s", "store"]
    for command in (
        ["fit-deepser", "--features", "logmel", *shared],
        ["fit-deepser", "--features", "logmel", "--cv", "fold", *shared],
        ["ablate", "--features", "a,b", *shared],
        ["probe", *shared],
        ["evaluate", "p.csv", *shared],
        ["fit-meta", "--members", "a,b", *shared],
        ["compare", "--members", "a,b", "--cv", "fold", *shared],
    ):
        refused = medusa(*command, exit_code=2).stderr
        assert mentions(refused, "store.files", "no labels", "medusa prepare"), command
