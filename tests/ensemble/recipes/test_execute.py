"""`medusa run`, whole: on real audio and encoders, repeated, changed, and killed."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from featurestore.store.feature_store import FeatureStore
from tests.helpers.messages import mentions
from tests.helpers.small_corpus import copy_clips, medusa
from tests.helpers.small_text_encoder import save_text_encoder

REPO = Path(__file__).resolve().parents[3]
pytestmark = pytest.mark.slow
SMALL = ["d=16", "n-heads=2", "epochs=2", "stage2-epochs=1", "precision=float32"]
STEPS = ["prepare", "featurize/tiny-hubert", "featurize/tiny-wavlm", "featurize/mel",
         "members/m1", "members/m2", "members/m3", "meta", "compare", "evaluate/meta"]  # fmt: skip
SHOWN = dict.fromkeys(STEPS[-2:], "shows results")


@pytest.fixture(scope="module")
def corpus(demo_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_clips(demo_corpus, tmp_path_factory.mktemp("corpus") / "ravdess")


def call(corpus: Path, directory: Path, *options: str) -> list[str]:
    """Return the tiny recipe on 48 clips with members that hardly learn."""
    settings = [f"corpus={corpus}", *(f"members.defaults.{each}" for each in SMALL), "evaluate.bootstrap=20"]
    return ["run", "tiny", "-o", str(directory), *(part for each in settings for part in ("--set", each)), *options]


@pytest.fixture(scope="module")
def undisturbed(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("run") / "out"
    output = medusa(*call(corpus, directory)).stdout
    assert re.findall(r"^\[\d+/10\] ([^:]+):", output, re.MULTILINE) == STEPS
    return directory


def fingerprints(directory: Path) -> dict[str, str]:
    store = FeatureStore.open(directory / "store")
    return {name: store[name].spec.fingerprint for name in store.names()}


def states(expected: str) -> dict[str, str]:
    return dict(re.findall(r"^(?:\[\d+/\d+\] )?([\w/.-]+): (.+)$", expected, re.MULTILINE))


def test_a_dry_run_prints_what_would_be_done_and_does_nothing(corpus: Path, undisturbed: Path, tmp_path: Path) -> None:
    output = medusa(*call(corpus, tmp_path / "new", "--dry-run")).stdout
    assert states(output) == dict.fromkeys(STEPS[:-2], "not done yet") | SHOWN
    assert output.count("$ medusa ") == len(STEPS)
    assert not (tmp_path / "new").exists()
    step_states = states(medusa(*call(corpus, undisturbed, "--dry-run")).stdout)
    assert step_states == dict.fromkeys(STEPS[:-2], "done") | SHOWN


def test_it_makes_scores_a_picture_a_summary_and_a_model(corpus: Path, undisturbed: Path) -> None:
    scores = json.loads((undisturbed / "scores-meta.json").read_text())["all folds"]
    summary = (undisturbed / "summary.md").read_text()
    assert f"| meta (soup) | {scores['classification']['macro_f1']:.3f} |" in summary
    for step in STEPS:
        assert f"| {step} |" in summary
    best = json.loads((undisturbed / "comparison.json").read_text())["parts"]["all folds"]["top-2"]["soft vote"]
    _, compared = [line for line in summary.splitlines() if "| soft vote | " in line]
    assert f" {best['scores']['macro_f1']:.3f} " in compared
    assert "| fusion | macro-F1, 3 | macro-F1, top-2 |" in summary
    assert (undisturbed / "confusion-meta.png").read_bytes().startswith(b"\x89PNG")
    page = (undisturbed / "report.html").read_text()
    assert all(f'"{step}"' in page for step in STEPS)
    clip = next(corpus.glob("Actor_04/*.ogg"))
    medusa("predict", clip, "--model", undisturbed / "runs" / "meta", "-o", undisturbed / "p.csv")
    assert (undisturbed / "p.csv").read_text().splitlines()[1].startswith(str(clip))


def test_what_is_done_is_skipped_and_what_changed_is_not(corpus: Path, undisturbed: Path, tmp_path: Path) -> None:
    before = fingerprints(undisturbed)
    output = medusa(*call(corpus, undisturbed)).stdout
    assert output.count("done before") == len(STEPS) - 2
    assert output.count("$ medusa ") == 2
    changed = states(medusa(*call(corpus, undisturbed, "--dry-run", "--set", "members.m2.seed=9")).stdout)
    assert {step: why for step, why in changed.items() if why != "done"} == SHOWN | {
        "members/m2": "its settings changed"
    }
    refused = medusa(*call(corpus, undisturbed, "--set", "members.m2.seed=9"), exit_code=2)
    assert mentions(refused.stderr, "seed", 2, 9, "--again")
    assert states(medusa(*call(corpus, undisturbed, "--dry-run")).stdout)["members/m2"] == "was cut off"
    medusa(*call(corpus, undisturbed))
    assert fingerprints(undisturbed) == before


def test_a_member_is_done_again_from_its_start_with_what_hangs_on_it(corpus: Path, undisturbed: Path) -> None:
    before = fingerprints(undisturbed)
    anew = ["--set", "members.m3.seed=8"]
    output = states(medusa(*call(corpus, undisturbed, "--again", "members/m3", *anew)).stdout)
    assert output["members/m3"] == "asked for again"
    assert output["meta"] == "posteriors/m3 changed"
    assert output["members/m1"] == "done before"
    medusa(*call(corpus, undisturbed, "--again", "members/m3"))
    assert fingerprints(undisturbed) == before


def test_what_is_missing_is_made_again_alone(corpus: Path, undisturbed: Path) -> None:
    before = fingerprints(undisturbed)
    FeatureStore.open(undisturbed / "store").remove("posteriors/m1")
    output = medusa(*call(corpus, undisturbed, "--only", "members")).stdout
    assert states(output)["members/m1"] == "posteriors/m1 is not what it made"
    assert "[1/3] members/m1" in output
    assert output.count("done before") == 2
    assert fingerprints(undisturbed) == before
    members = "members/m1", "members/m2"
    for only in (["--only", ",".join(members)], ["--only", members[0], "--only", members[1]]):
        assert list(states(medusa(*call(corpus, undisturbed, *only)).stdout)) == list(members)
    for options in ([], ["--dry-run"]):
        assert "no-such" in medusa(*call(corpus, undisturbed, "--only", "no-such", *options), exit_code=2).stderr
    output = medusa(*call(corpus, undisturbed, "--only", "members", "--again", "members/m2", "--dry-run")).stdout
    assert states(output) == {"members/m1": "done", "members/m2": "asked for again", "members/m3": "done"}


def test_a_manifest_that_was_edited_is_not_overwritten(corpus: Path, tmp_path: Path) -> None:
    medusa(*call(corpus, tmp_path, "--only", "prepare"))
    manifest = tmp_path / "manifest.csv"
    edited = "\n".join(manifest.read_text().splitlines()[:-1]) + "\n"
    manifest.write_text(edited)
    output = medusa(*call(corpus, tmp_path, "--only", "prepare"), exit_code=2).stderr
    assert "was changed since" in output
    assert manifest.read_text() == edited
    manifest.unlink()
    medusa(*call(corpus, tmp_path, "--only", "prepare"))
    assert len(manifest.read_text().splitlines()) == 49


def test_the_recipes_are_listed() -> None:
    output = medusa("run", "--list").stdout
    for name in ("medusa14", "medusa14-small", "srpol-task1", "srpol-task2", "baseline", "tiny"):
        assert name in output
    assert "medusa run --list" in medusa("run", exit_code=2).stderr


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_killed_again_and_again_it_comes_to_the_same(corpus: Path, undisturbed: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    # A sign of each kind of work: features on their way, a member in training, the fusion begun.
    signs = ["store/tiny-hubert/.tmp-*", "runs/m1/fold-1/checkpoint.safetensors", "runs/m2/fold-*/model.safetensors",
             "steps/meta.json"]  # fmt: skip
    command = [sys.executable, str(REPO / "cli.py"), *call(corpus, out)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    for sign in signs:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment)
        deadline = time.monotonic() + 240
        while not list(out.glob(sign)) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        assert process.poll() is None, (sign, process.stderr and process.stderr.read())
        process.send_signal(signal.SIGKILL)
        process.communicate()
    output = medusa(*call(corpus, out)).stdout
    assert states(output)["meta"] in ("was cut off", "not done yet", "done before")
    assert states(output)["members/m1"] == "done before"
    assert fingerprints(out) == fingerprints(undisturbed)
    assert (out / "scores-meta.json").read_bytes() == (undisturbed / "scores-meta.json").read_bytes()


@pytest.mark.parametrize("name", ["unicamp-small", "abhinaya-small"])
def test_the_systems_of_the_challenge_run_to_their_scores(corpus: Path, tmp_path: Path, name: str) -> None:
    """Cross-attention over audio, text and functionals with a forest on logits; a majority vote of five members."""
    settings = [f"corpus={corpus}", "folds=2", "epochs=1", "members.defaults.d=16", "members.defaults.n-heads=2"]
    if name == "unicamp-small":
        pytest.importorskip("opensmile", reason="unicamp-small needs the extra opensmile")
        settings.append(f"text={save_text_encoder(tmp_path / 'bert')}")
    directory = tmp_path / "out"
    medusa("run", name, "-o", str(directory), *(part for each in settings for part in ("--set", each)))
    scores = json.loads((directory / "scores-meta.json").read_text())
    assert "macro" in json.dumps(scores)
    assert "meta" in (directory / "summary.md").read_text()
    n_members = {"unicamp-small": 2, "abhinaya-small": 5}[name]
    posteriors = [each for each in FeatureStore.open(directory / "store").names() if each.startswith("posteriors/")]
    assert len(posteriors) >= n_members + 1
