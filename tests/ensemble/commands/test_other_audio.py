"""Ids, lengths and labels of one corpus, samples of another: no command scores or learns from the wrong audio."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from tests.helpers.small_corpus import FAST, medusa

KEYS = [f"DC_a{i:02d}" for i in range(12)]


def corpus(root: Path, name: str) -> Path:
    """Twelve clips of half a second by four speakers, whose samples depend on the name alone."""
    rng = np.random.default_rng(len(name))
    (root / name).mkdir()
    for key in KEYS:
        soundfile.write(root / name / f"{key}.wav", 0.1 * rng.standard_normal(8000), 16_000)
    frame = pd.DataFrame({"utterance_id": KEYS, "path": [f"{name}/{key}.wav" for key in KEYS]})
    frame["label"] = ["sad", "angry"] * 6
    frame["speaker"] = [f"s{i // 3}" for i in range(12)]
    frame["fold"] = [str(i // 6) for i in range(12)]
    frame.to_csv(root / f"{name}.csv", index=False)
    return root / f"{name}.csv"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("other")
    inputs = ("-m", corpus(root, "own"), "-s", root / "store")
    corpus(root, "other")
    medusa("featurize", "--encoder", "logmel", *inputs)
    runs = ("--runs", root / "runs", "--device", "cpu", "--network", "unimodal", *FAST)
    for name in ("m1", "m2"):
        medusa("fit-deepser", "--features", "logmel", *inputs, "--cv", "fold", "--name", name, *runs)
    medusa("probe", "--features", "logmel", *inputs, "--cv", "fold", "--name", "probed", *runs[:2])
    medusa("fit-meta", "--members", "m1,probed", *inputs, "--cv", "fold", "--name", "fused", *runs[:2])
    return root


@pytest.mark.parametrize(
    "command",
    [
        ("evaluate", "m1"),
        ("evaluate", "probed"),
        ("evaluate", "fused"),
        ("evaluate", "m1", "m2"),
        ("report", "m1", "-o", "page.html", "--audio", "none"),
        ("submit", "task1", "m1", "-o", "task1.csv"),
        ("submit", "task1", "fused", "-o", "task1.csv"),
        ("compare", "--members", "m1,m2", "--cv", "fold"),
        ("fit-meta", "--members", "m1,m2", "--cv", "fold", "--name", "meta"),
        ("probe", "--features", "logmel", "--cv", "fold", "--name", "probe"),
        ("fit-deepser", "--features", "logmel", "--cv", "fold", "--name", "m3"),
        ("ablate", "--features", "logmel", "--cv", "fold", "--set", "network.kind=unimodal"),
    ],
    ids=lambda command: "-".join(command[:3]),
)
def test_samples_of_another_corpus_of_equal_ids_and_lengths_are_refused(
    place: Path, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    refused = medusa(*command, "-m", "other.csv", "-s", "store", exit_code=2).stderr
    assert "12 of these ids" in refused
    assert "'DC_a00' (0.500 s" in refused
    assert not (place / "page.html").exists()
    assert not (place / "task1.csv").exists()


def test_a_copy_of_the_corpus_with_other_dates_is_the_same_corpus(place: Path) -> None:
    (place / "copy").mkdir(exist_ok=True)
    for clip in (place / "own").iterdir():
        shutil.copyfile(clip, place / "copy" / clip.name)
    (place / "copy.csv").write_text((place / "own.csv").read_text().replace("own/", "copy/"))
    medusa("evaluate", "m1", "-m", place / "copy.csv", "-s", place / "store", "--bootstrap", "0")
