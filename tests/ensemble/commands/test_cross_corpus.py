"""Training on one corpus of a joined manifest and testing on another: --train-on, --test-on."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ensemble.evaluation.systems import corpora_of
from featurestore.corpus.cross_corpus import CrossCorpus
from featurestore.corpus.join import join_manifests
from featurestore.corpus.manifest import Manifest
from featurestore.errors import ConfigError, ManifestError
from featurestore.format.identity import Identity
from featurestore.format.spec import FeatureSpec
from featurestore.store.feature_store import FeatureStore
from tests.helpers.messages import mentions
from tests.helpers.small_corpus import FAST, medusa

CLASSES = {"first": ("sad", "angry", "calm"), "second": ("sad", "angry", "fear"), "third": ("sad", "angry")}
SHARED_CLIP = 3  # of `second`, the same samples as the one of `first`


@pytest.fixture(scope="module")
def joined(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three corpora of 36 utterances and six speakers in one store and one manifest."""
    root = tmp_path_factory.mktemp("cross")
    rng = np.random.default_rng(1)
    centres = {name: rng.normal(size=8) * 3 for name in ("sad", "angry", "calm", "fear")}
    manifests = {}
    with FeatureStore.create(root / "store").writer(
        "f", FeatureSpec("audio", "f", "none", ("layer_01",), 8, 50.0)
    ) as w:
        for corpus, classes in CLASSES.items():
            labels = [classes[i % len(classes)] for i in range(36)]
            keys = [f"{corpus}{i}" for i in range(36)]
            speakers = [f"{corpus[0]}{i // 6}" for i in range(36)]
            for i, (key, label) in enumerate(zip(keys, labels, strict=True)):
                rows = (centres[label] + rng.normal(size=(6, 8))).astype(np.float32)
                of = "first" if i == SHARED_CLIP and corpus == "second" else corpus
                w.append(key, {"layer_01": rows}, 1.0, Identity(f"{of}{i:010}".encode()[:16].ljust(16), n_bytes=9))
            frame = pd.DataFrame({"utterance_id": keys, "path": [f"{key}.wav" for key in keys], "label": labels})
            frame["speaker"], frame["fold"] = speakers, [str(i % 3 + 1) for i in range(36)]
            manifests[corpus] = Manifest.from_pandas(frame, root=root / corpus)
    join_manifests(manifests).write(root / "joined.csv")
    return root


def fitted(joined: Path, name: str, *options: str, command: str = "fit-deepser", exit_code: int = 0) -> str:
    options_of_all = ("--features", "f", "--name", name, "--runs", joined / "runs", "--device", "cpu")
    fast = ("--network", "unimodal", *FAST) if command == "fit-deepser" else ()
    result = medusa(
        command,
        "-m",
        joined / "joined.csv",
        "-s",
        joined / "store",
        *options_of_all,
        *fast,
        *options,
        exit_code=exit_code,
    )
    return " ".join((result.stdout + result.stderr).split())


def output(*arguments: str | Path) -> str:
    """Return what a command prints, with its warnings, as one line."""
    result = medusa(*arguments)
    return " ".join((result.stdout + result.stderr).split())


def test_a_member_learns_from_one_corpus_and_judges_the_others_each_by_itself(joined: Path) -> None:
    shown = fitted(joined, "a", "--train-on", "first", "--test-on", "second,third")
    assert re.search(r"first, .*second, third: 36 .* 72 ", shown)
    assert "a (second)" in shown
    assert "a (third)" in shown
    store = FeatureStore.open(joined / "store")
    assert len(store["posteriors/a"]) == 72
    assert "first0" not in store["posteriors/a"]
    assert corpora_of(store, "a") == CrossCorpus(("first",), ("second", "third"))


def test_what_the_two_sides_lack_or_share_is_reported_and_refused_with_strict(joined: Path) -> None:
    shown = fitted(joined, "b", "--train-on", "first", "--test-on", "second")
    assert re.search(r"train \(first\)[^;]* fear; test \(second\)[^;]* calm;.* fear", shown)
    assert re.search(r"2 of 4 classes.*\(angry, sad\)", shown)
    assert re.search(r"1 identical recording \(2 utterances\).*\(train \(first\), test \(second\): 1\)", shown)
    strict = fitted(joined, "c", "--train-on", "first", "--test-on", "second", "--strict", exit_code=2)
    assert "1 identical recording" in strict
    assert not (joined / "runs" / "c").exists()


def test_evaluate_knows_the_corpora_of_posteriors_and_takes_them_from_the_options(joined: Path) -> None:
    fitted(joined, "d", "--train-on", "first,second", "--test-on", "third")
    common = ("-m", joined / "joined.csv", "-s", joined / "store", "--bootstrap", "20")
    medusa("evaluate", "d", *common, "--json", joined / "d.json")
    scores = json.loads((joined / "d.json").read_text())
    assert list(scores) == ["third"]
    assert scores["third"]["classification"]["n"] == 36
    narrower = medusa("evaluate", "a", *common, "--train-on", "first", "--test-on", "third").stdout
    assert "a (third)" in narrower
    assert "a (second)" not in narrower
    refused = medusa("evaluate", "a", *common, "--against", "d", exit_code=2).stderr
    assert "different corpora" in refused
    assert "--train-on first,second --test-on third" in refused


def test_scores_are_not_headed_by_corpora_that_a_system_did_not_learn_from(joined: Path) -> None:
    fitted(joined, "h1", "--train-on", "first", "--test-on", "second,third")
    fitted(joined, "h2", "--train-on", "first,second", "--test-on", "third")
    common = ("-m", joined / "joined.csv", "-s", joined / "store", "--bootstrap", "0")
    for systems, train in ((["h1"], "second"), (["h1", "h2"], "first"), (["h2"], "first")):
        refused = medusa("evaluate", *systems, *common, "--train-on", train, "--test-on", "third", exit_code=2).stderr
        assert "learned from first" in refused
        assert "--test-on third" in refused
    compared = ("compare", *common[:4], "--members", "h1,h2", "--train-on", "first", "--test-on", "third")
    assert "learned from first, second" in medusa(*compared, exit_code=2).stderr
    division = ("--train-on", "first,second", "--test-on", "third")
    shown = output("evaluate", "h1", "h2", *common[:4], "--bootstrap", "20", *division)
    assert mentions(shown, "h1", "first alone")
    assert "third: 36 utterances" in shown


def test_a_system_of_folds_over_all_corpora_is_refused_under_corpora(joined: Path) -> None:
    fitted(joined, "hf", "--cv", "fold")
    common = ("-m", joined / "joined.csv", "-s", joined / "store", "--bootstrap", "0")
    refused = medusa("evaluate", "hf", *common, "--train-on", "first", "--test-on", "third", exit_code=2).stderr
    assert mentions(refused, "cross-validated", "'fold'")
    assert "all folds" in medusa("evaluate", "hf", *common).stdout


def test_sound_that_the_corpora_share_is_named_wherever_scores_are_printed(joined: Path) -> None:
    """Posteriors hold the corpus under test alone; the digests of what was learned from are the features'."""
    for name in ("s1", "s2"):
        fitted(joined, name, "--train-on", "first", "--test-on", "second", "--folds", "3")
    common = ("-m", joined / "joined.csv", "-s", joined / "store")
    corpora = ("--train-on", "first", "--test-on", "second")
    for command in (
        ("evaluate", "s1", *common, "--bootstrap", "0"),
        ("evaluate", "s1", "s2", *common, "--bootstrap", "100"),
        ("compare", *common, "--members", "s1,s2", "--rows", "soft", "--top", "2"),
        ("fit-meta", *common, "--members", "s1,s2", "--name", "sm", "--runs", joined / "runs"),
        ("ablate", *common, "--features", "f", "--runs", joined / "runs", *corpora),
        ("submit", "task1", "s1", *common, "-o", joined / "leak.csv"),
        ("report", "s1", *common, "-o", joined / "leak.html", "--audio", "none"),
    ):
        refused = medusa(*command, "--strict", exit_code=2)
        assert "1 identical recording" in " ".join((refused.stdout + refused.stderr).split()), command
    assert "1 identical recording" in output("evaluate", "s1", *common, "--bootstrap", "0")


def test_submit_writes_the_corpora_under_test_alone(joined: Path) -> None:
    """A member over folds predicts the corpus trained on, too, and one that was only tested does not."""
    for name, folds in (("w1", "3"), ("w2", "1")):
        fitted(joined, name, "--train-on", "first", "--test-on", "third", "--folds", folds)
        common = ("-m", joined / "joined.csv", "-s", joined / "store")
        shown = output("submit", "task1", name, *common, "-o", joined / f"{name}.csv")
        assert "trained on first, tested on third" in shown
        assert set(pd.read_csv(joined / f"{name}.csv").FileName) == {f"third{i}.wav" for i in range(36)}


def test_a_meta_classifier_learns_from_folds_of_the_corpus_trained_on(joined: Path) -> None:
    for name in ("e1", "e2"):
        fitted(joined, name, "--train-on", "first", "--test-on", "third", "--folds", "3")
    common = ("-m", joined / "joined.csv", "-s", joined / "store")
    meta = ("--runs", joined / "runs", "--members", "e1,e2", "--name", "em", "--seeds", "2", "--rounds", "20")
    shown = medusa("fit-meta", *common, *meta).stdout
    assert "trained on first, tested on third" in shown
    assert corpora_of(FeatureStore.open(joined / "store"), "em") == CrossCorpus(("first",), ("third",))
    assert "em (third)" in medusa("evaluate", "em", *common, "--bootstrap", "0").stdout
    assert "soft vote" in medusa("compare", *common, "--members", "e1,e2", "--rows", "soft", "--top", "2").stdout


def test_a_probe_takes_the_corpora_too(joined: Path) -> None:
    shown = fitted(joined, "p", "--train-on", "first,second", "--test-on", "third", command="probe")
    assert "trained on first, second, tested on third" in shown
    assert set(FeatureStore.open(joined / "store")["posteriors/p"]) == {f"third{i}" for i in range(36)}


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        (("--train-on", "first"), "--test-on"),
        (("--train-on", "first", "--test-on", "first"), "--cv"),
        (("--train-on", "frist", "--test-on", "second"), "did you mean 'first'"),
        (("--train-on", "first", "--test-on", "second", "--cv", "fold"), "--folds"),
        (("--train-on", "first", "--test-on", ","), "names no corpus"),
    ],
)
def test_corpora_that_make_no_sense_are_refused_with_the_remedy(joined: Path, options: tuple, remedy: str) -> None:
    assert remedy in fitted(joined, "x", *options, exit_code=2)
    assert not (joined / "runs" / "x").exists()


def test_a_manifest_that_was_not_joined_is_refused_with_the_command_that_joins() -> None:
    one_corpus = Manifest.from_pandas(pd.DataFrame({"utterance_id": ["a"], "path": ["a.wav"], "label": ["sad"]}))
    with pytest.raises(ManifestError, match="medusa prepare join"):
        CrossCorpus(("a",), ("b",)).divide(one_corpus)


def test_the_same_name_in_another_letter_case_and_of_a_person_on_both_sides_is_reported(tmp_path: Path) -> None:
    from ensemble.evaluation.protocol import check_protocol

    sides = {}
    for corpus, label in {"a": "Neutral", "b": "neutral"}.items():
        frame = pd.DataFrame({"utterance_id": [f"{corpus}1"], "path": [f"{corpus}1.wav"], "label": [label]})
        frame["speaker"] = "01"
        sides[corpus] = Manifest.from_pandas(frame)
    report = check_protocol(CrossCorpus(("a",), ("b",)).divide(join_manifests(sides))).lines()
    assert any("Neutral and neutral" in line and line.startswith("warning") for line in report)
    assert any(mentions(line, "1 speaker name", "both sides", "01") for line in report)


def test_a_rule_is_read_back_whatever_the_corpora_are_called() -> None:
    corpora = CrossCorpus(("a, b", 'c"d'), ("é",))
    assert CrossCorpus.of_rule(corpora.rule) == corpora
    assert CrossCorpus.of_rule(f"{corpora.rule}, 5 speaker-disjoint folds") == corpora
    for rule in ("split", "cv:fold", "corpora ", "corpora {}", "corpora []"):
        assert CrossCorpus.of_rule(rule) is None
    with pytest.raises(ConfigError, match="go together"):
        CrossCorpus.of_options(None, "a")


def test_systems_that_learned_from_different_corpora_are_scored_on_the_one_that_tests_all(joined: Path) -> None:
    """Together they predict the corpora trained on, half each."""
    fitted(joined, "o1", "--train-on", "first", "--test-on", "second,third")
    fitted(joined, "o2", "--train-on", "second", "--test-on", "first,third")
    common = ("-m", joined / "joined.csv", "-s", joined / "store", "--bootstrap", "0")
    refused = " ".join(medusa("evaluate", "o1", "o2", *common, exit_code=2).stderr.split())
    assert "--train-on first,second --test-on third" in refused
    division = ("--train-on", "first,second", "--test-on", "third")
    shown = output("evaluate", "o1", "o2", *common, *division)
    assert "third: 36 utterances" in shown
    assert "train is left out" in shown
    assert shown.count("36 of 72") == 2
    single = output("evaluate", "o1", *common, *division)
    assert "o1 (third)" in single
    assert mentions(single, "posteriors/o1", "36 of 72")
