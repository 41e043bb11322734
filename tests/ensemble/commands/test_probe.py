"""`medusa probe` and what its members then go through: fit-meta, evaluate, predict, export."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import ensemble.prediction.predict
from deepser.members.folds import plan_folds
from deepser.probes.fit import System
from deepser.probes.rows import Source
from ensemble.commands.fit_deepser import warn_of_confounding
from ensemble.evaluation.bootstrap import Interval
from ensemble.experiments.probe_report import ProbeRow, _layer_tables
from ensemble.prediction.model import Model
from ensemble.report.collect import PageOptions, collect
from ensemble.report.runs import find_runs
from ensemble.report.scores import Scoring
from featurestore.corpus.manifest import Manifest
from featurestore.store.feature_store import FeatureStore
from tests.helpers.interrupts import interrupted_at_call
from tests.helpers.made_once import copy_of, made_once
from tests.helpers.small_corpus import copy_clips, medusa
from tests.helpers.synthetic_corpus import CLASSES, corpus


@pytest.fixture(scope="module")
def probed(demo_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty-eight clips, log-mel frames and their means, a plain probe and a speaker-adapted one."""
    return copy_of(made_once(tmp_path_factory, "probed", lambda here: probe(demo_corpus, here)), tmp_path_factory)


def probe(demo_corpus: Path, root: Path) -> None:
    copy_clips(demo_corpus, root / "clips")
    medusa("prepare", "ravdess", "--root", root / "clips", "-o", root / "corpus.csv")
    place = ("-m", root / "corpus.csv", "-s", root / "store")
    medusa("featurize", "--encoder", "logmel", "--name", "frames", *place)
    medusa("featurize", "--encoder", "logmel", "--pool", "mean", "--name", "means", "--dtype", "float32", *place)
    common = (*place, "--runs", root / "runs", "--cv", "fold", "--device", "cpu")
    medusa("probe", *common, "--name", "plain", "--json", root / "plain.json", "--heat-map", root / "plain.svg")
    medusa("probe", *common, "--name", "own", "--normalise", "speaker", "--heat-map", root / "own.png")
    adapted = (
        "--features",
        "means",
        "--name",
        "net-own",
        "--normalise",
        "speaker",
        "--preset",
        "small",
        "--epochs",
        "2",
    )
    (root / "net-own.txt").write_text(medusa("fit-deepser", *common, *adapted).stdout)
    members = ("--meta", "soft", "--members", "plain,own,net-own")
    (root / "meta.txt").write_text(medusa("fit-meta", *place, "--runs", root / "runs", "--cv", "fold", *members).stdout)


def test_the_table_of_layers_shows_a_perfect_score_and_the_sign_of_a_ccc() -> None:
    values = (1.0, 0.5784, -0.0504)
    rows = [
        ProbeRow(
            System(f"set@{layer}", np.zeros((1, 1), np.float32), False, 1, Source("set", f"layer_{layer:02d}")),
            "all folds",
            {"ccc": Interval(value, value, value)},
        )
        for layer, value in enumerate(values)
    ]
    (table,) = _layer_tables(rows, "ccc")
    cells = [str(next(iter(column.cells))) for column in table.columns[1:]]
    assert cells == ["1.000", ".578", "-.050"]


def test_the_table_says_which_score_is_nested_and_gives_intervals(probed: Path) -> None:
    common = ("-m", probed / "corpus.csv", "-s", probed / "store", "--runs", probed / "runs", "--cv", "fold")
    out = medusa("probe", *common, "--name", "again", "--no-combine", "--solver", "linear", "--device", "cpu").stdout
    assert "nested" in out
    assert "95 % by speaker" in out
    assert "frames@0" in out
    assert "adapted" not in out


def test_json_holds_every_system_choice_and_interval(probed: Path) -> None:
    record = json.loads((probed / "plain.json").read_text())
    names = {system["name"] for system in record["systems"]}
    assert names == {"nested", "frames@0", "means@0", "all 2 layers"}
    for system in record["systems"]:
        low, high = system["intervals"]["uar"]
        assert low <= system["scores"]["uar"] <= high
        assert system["nested"] == (system["name"] == "nested")
        assert system["speaker_adapted"] is False
    assert [each["fold"] for each in record["passes"]] == sorted({each["fold"] for each in record["passes"]})
    assert (probed / "plain.svg").read_text().startswith("<?xml")
    assert (probed / "own.png").read_bytes().startswith(b"\x89PNG")


def test_the_page_of_a_probe_holds_the_scores_of_its_layers_without_being_requested(probed: Path) -> None:
    saved = json.loads((probed / "plain.json").read_text())
    expected = {each["name"]: each["scores"]["uar"] for each in saved["systems"]}
    runs = find_runs([str(probed / "runs" / "plain")], probed / "corpus.csv", probed / "store")
    payload = collect(runs, PageOptions(Scoring(0))).payload["probes"]
    (part,) = payload[0]["parts"].values()
    assert (part["sets"], part["layers"]) == (["frames", "means"], ["0"])
    assert part["values"] == [[expected["frames@0"]], [expected["means@0"]]]
    assert part["nested"] == expected["nested"]
    assert (probed / "runs" / "plain" / "scores.json").read_text() == (probed / "plain.json").read_text()
    tables = collect(runs, PageOptions(Scoring(0), probes=(probed / "plain.json",))).payload["probes"]
    assert [table["file"] for table in tables] == [str(probed / "plain.json")]  # once


@pytest.mark.parametrize("fault", ["another probe's", "another fit", "cut off", "of no fit", "model gone"])
def test_scores_that_are_not_of_the_probe_beside_them_are_an_error_that_names_the_file(
    probed: Path, tmp_path: Path, fault: str
) -> None:
    runs = Path(shutil.copytree(probed / "runs", tmp_path / "runs"))
    scores_file = runs / "plain" / "scores.json"
    if fault == "another probe's":
        shutil.copy(runs / "own" / "scores.json", scores_file)
    elif fault == "another fit":  # its run directory is whole, but the store holds posteriors of the first one
        shutil.rmtree(runs / "plain")
        shutil.copytree(runs / "own", runs / "plain")
    elif fault == "cut off":
        scores_file.write_bytes(scores_file.read_bytes()[:-100])
    elif fault == "of no fit":
        scores_file.write_text(json.dumps({**json.loads(scores_file.read_text()), "fit": None}))
    else:
        (runs / "plain" / "fold-all" / "model.safetensors").unlink()
    place = ("-m", probed / "corpus.csv", "-s", probed / "store", "-o", tmp_path / "page.html", "--bootstrap", "0")
    result = medusa("report", runs / "plain", *place, exit_code=2)
    assert (
        str(scores_file if fault != "model gone" else runs / "plain" / "fold-all" / "model.safetensors")
        in result.stderr
    )
    assert not (tmp_path / "page.html").exists()


def test_a_probe_that_can_not_be_saved_leaves_no_scores_of_the_one_before(probed: Path, tmp_path: Path) -> None:
    runs = Path(shutil.copytree(probed / "runs", tmp_path / "runs"))
    shutil.rmtree(runs / "plain" / "fold-all")
    (runs / "plain" / "fold-all").touch()  # where the model is to stand
    place = ("-m", probed / "corpus.csv", "-s", probed / "store", "--runs", runs, "--cv", "fold", "--name", "plain")
    medusa("probe", *place, "--no-combine", "--solver", "linear", "--device", "cpu", exit_code=2)
    assert not (runs / "plain" / "scores.json").exists()


def test_posteriors_are_out_of_fold_and_evaluate_says_that_they_are_adapted(probed: Path) -> None:
    store = FeatureStore.open(probed / "store")
    assert dict(store["posteriors/own"].spec.extra)["adapted"] == "speaker"
    assert dict(store["posteriors/meta"].spec.extra)["adapted"] == "speaker"
    assert "adapted" not in dict(store["posteriors/plain"].spec.extra)
    assert len(store["posteriors/own"]) == 48
    common = ("-m", probed / "corpus.csv", "-s", probed / "store", "--bootstrap", "50")
    assert "speaker-adapted" in medusa("evaluate", "own", *common).stdout
    assert "speaker-adapted" in medusa("evaluate", "meta", *common).stdout
    assert "speaker-adapted" not in medusa("evaluate", "plain", *common).stdout


def test_scores_of_rows_normalised_by_corpus_say_so_as_do_those_of_an_ensemble(probed: Path, tmp_path: Path) -> None:
    store = Path(shutil.copytree(probed / "store", tmp_path / "store"))
    common = ("-m", probed / "corpus.csv", "-s", store, "--runs", tmp_path / "runs", "--cv", "fold")
    choices = ("--features", "means", "--normalise", "corpus", "--no-combine", "--solver", "linear", "--device", "cpu")
    medusa("probe", *common, "--name", "by-corpus", *choices)
    medusa("fit-meta", *common, "--name", "both", "--meta", "soft", "--members", "plain,by-corpus")
    for name in ("by-corpus", "both", "plain"):
        output = medusa("evaluate", name, "-m", probed / "corpus.csv", "-s", store, "--bootstrap", "50").stdout
        assert ("normalised by corpus" in output) == (name != "plain")


def test_a_speaker_adapted_model_predicts_by_speaker_and_says_where_it_falls_back(probed: Path, tmp_path: Path) -> None:
    clips, model = probed / "clips", probed / "runs" / "own"
    by_folder = medusa("predict", clips, "--model", model, "--speaker-of", "folder", "-o", tmp_path / "a.csv")
    assert "speaker" not in by_folder.stderr
    nobody = medusa("predict", clips, "--model", model, "-o", tmp_path / "b.csv")
    assert "--speaker-of" in nobody.stderr
    few = medusa("predict", clips / "Actor_01", "--model", model, "--speaker-of", "file", "-o", tmp_path / "c.csv")
    assert re.search(r"8 of 8 speakers.* 5 clips", few.stderr)
    a, b, c = (pd.read_csv(tmp_path / name) for name in ("a.csv", "b.csv", "c.csv"))
    columns = [name for name in a.columns if name.startswith("p_")]
    assert len(a) == len(b) == 48
    assert np.abs(a[columns].to_numpy() - b[columns].to_numpy()).max() > 0.01
    expected = b[b["file"].isin(c["file"])].sort_values("file")[columns].to_numpy()
    np.testing.assert_allclose(c.sort_values("file")[columns].to_numpy(), expected, atol=5e-6)


def test_a_network_over_rows_normalised_by_speaker_says_so_wherever_its_scores_stand(probed: Path) -> None:
    output = (probed / "net-own.txt").read_text()
    assert "net-own (all folds, speaker-adapted)" in output
    assert "scores are speaker-adapted" in output
    config = json.loads((probed / "runs" / "net-own" / "config.json").read_text())
    assert config["member"]["train"]["normalise"] == "speaker"
    assert config["normalisation"]["n_groups"] == 6
    table = (probed / "meta.txt").read_text()
    for row in ("own, speaker-adapted", "net-own, speaker-adapted", "soft vote, speaker-adapted"):
        assert row in table
    assert "plain, speaker-adapted" not in table
    rows = json.loads((probed / "runs" / "meta" / "report.json").read_text())["parts"]["all folds"]
    assert rows[-1]["name"] == "soft vote, speaker-adapted"


def test_a_row_of_a_speaker_adapted_model_says_by_how_many_clips_its_speaker_was_normalised(
    probed: Path, tmp_path: Path
) -> None:
    clips, model = probed / "clips", probed / "runs" / "net-own"
    medusa("predict", clips, "--model", model, "--speaker-of", "folder", "-o", tmp_path / "a.csv")
    medusa("predict", clips / "Actor_01", "--model", model, "-o", tmp_path / "b.csv")
    assert set(pd.read_csv(tmp_path / "a.csv")["speaker_clips"]) == {8}
    assert set(pd.read_csv(tmp_path / "b.csv")["speaker_clips"]) == {0}
    medusa("predict", clips / "Actor_01", "--model", probed / "runs" / "plain", "-o", tmp_path / "c.csv")
    assert "speaker_clips" not in pd.read_csv(tmp_path / "c.csv").columns


def test_a_speakers_clips_are_predicted_together_whatever_the_chunk(probed: Path, tmp_path: Path) -> None:
    clips, model = probed / "clips", probed / "runs" / "own"
    arguments = ("predict", clips, "--model", model, "--speaker-of", "folder")
    medusa(*arguments, "-o", tmp_path / "a.csv")
    medusa(*arguments, "-o", tmp_path / "b.csv", "--chunk", "9")
    a, b = (pd.read_csv(tmp_path / name) for name in ("a.csv", "b.csv"))
    assert a["file"].tolist() == b["file"].tolist()
    columns = [name for name in a.columns if name.startswith("p_")]
    np.testing.assert_allclose(a[columns], b[columns], atol=1e-5)


def test_no_clip_is_left_to_itself_where_its_speaker_has_more_than_a_chunk_of_them(
    probed: Path, tmp_path: Path
) -> None:
    """Eight clips in chunks of seven: four and four, and not seven by their speaker and one by the training corpus."""
    arguments = ("predict", probed / "clips" / "Actor_01", "--model", probed / "runs" / "own", "--speaker-of", "folder")
    medusa(*arguments, "-o", tmp_path / "a.csv", "--chunk", "7")
    assert pd.read_csv(tmp_path / "a.csv")["speaker_clips"].tolist() == [4] * 8


def test_a_clip_that_failed_before_a_stop_is_predicted_with_its_speakers_others(
    probed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(probed / "clips", tmp_path / "clips")
    model = ("--model", probed / "runs" / "own", "--speaker-of", "folder", "--chunk", "8")
    medusa("predict", tmp_path / "clips", *model, "-o", tmp_path / "whole.csv")
    clip = sorted((tmp_path / "clips" / "Actor_01").iterdir())[3]
    sound = clip.read_bytes()
    clip.write_bytes(b"no sound")
    with monkeypatch.context() as patched:
        interrupted_at_call(patched, ensemble.prediction.predict, "_member_output", 3)
        medusa("predict", tmp_path / "clips", *model, "-o", tmp_path / "p.csv", exit_code=130)
    clip.write_bytes(sound)
    resumed = medusa("predict", tmp_path / "clips", *model, "-o", tmp_path / "p.csv").stdout
    assert re.search("15 were predicted before .* going on with 40", resumed)
    pd.testing.assert_frame_equal(*(pd.read_csv(tmp_path / name) for name in ("p.csv", "whole.csv")), atol=1e-5)


@pytest.mark.parametrize("name", ["own", "net-own"])
def test_a_running_estimate_reads_no_later_clip_and_ends_at_that_of_all_clips(
    probed: Path, tmp_path: Path, name: str
) -> None:
    shutil.copytree(probed / "clips" / "Actor_01", tmp_path / "whole")
    for clip in sorted((tmp_path / "whole").iterdir())[:5]:
        (tmp_path / "begun").mkdir(exist_ok=True)
        shutil.copy(clip, tmp_path / "begun")
    result = {}
    for folder, option in (("whole", "--running"), ("begun", "--running"), ("whole", "--workers=1")):
        arguments = ("predict", tmp_path / folder, "--model", probed / "runs" / name, "--speaker-of", "folder", option)
        medusa(*arguments, "-o", tmp_path / "found.csv")
        result[folder, option] = pd.read_csv(tmp_path / "found.csv")
        (tmp_path / "found.csv").unlink()
    so_far, begun, all_clips = result.values()
    columns = [column for column in all_clips if column.startswith("p_")]
    assert so_far["speaker_clips"].tolist() == [0, *range(2, 9)]
    np.testing.assert_allclose(so_far[columns][:5], begun[columns], atol=1e-5)
    np.testing.assert_allclose(so_far[columns][7:], all_clips[columns][7:], atol=1e-5)
    assert np.abs(so_far[columns][:5].to_numpy() - all_clips[columns][:5].to_numpy()).max() > 1e-3


def test_a_running_estimate_needs_an_adapted_model_and_speakers(probed: Path) -> None:
    clips = probed / "clips" / "Actor_01"
    for model, options in (("plain", ("--speaker-of", "folder")), ("own", ())):
        refused = medusa("predict", clips, "--model", probed / "runs" / model, "--running", *options, exit_code=2)
        assert "--speaker-of" in refused.stderr


@pytest.mark.parametrize("name", ["meta", "plain", "own", "net-own"])
def test_a_probe_and_an_ensemble_of_probes_are_exported(probed: Path, tmp_path: Path, name: str) -> None:
    clip = next((probed / "clips" / "Actor_01").glob("*.ogg"))
    before = Model.load(probed / "runs" / name).predict([clip])
    medusa("export", probed / "runs" / name, "-o", tmp_path / "packed", "-m", probed / "corpus.csv")
    shutil.move(tmp_path / "packed", tmp_path / "moved")
    after = Model.load(tmp_path / "moved").predict([clip])
    np.testing.assert_array_equal(after.probabilities, before.probabilities)
    card = (tmp_path / "moved" / "README.md").read_text()
    assert name == "net-own" or "probe" in card
    assert ("speaker-adapted" in card) == (name != "plain")


def test_mistakes_are_one_message(probed: Path) -> None:
    common = ("-m", probed / "corpus.csv", "-s", probed / "store", "--cv", "fold")
    for arguments, fact in (
        (("--heat-map", "x.jpg"), "x.jpg"),
        (("--normalise", "person"), "person"),
        (("--lambdas", "small"), "--lambdas"),
        (("--features", "posteriors/plain"), "posteriors/plain"),
        (("--name", "meta"), "posteriors/meta"),
        (("--folds", "3"), "--folds"),
        (("--select", "mean_ccc"), "mean_ccc"),
    ):
        assert fact in medusa("probe", *common, *arguments, exit_code=2).stderr


def test_fit_deepser_takes_the_preset_for_small_corpora_says_so_and_names_a_better_probe(probed: Path) -> None:
    common = ("-m", probed / "corpus.csv", "-s", probed / "store", "--runs", probed / "runs", "--cv", "fold")
    result = medusa("fit-deepser", "--features", "frames,means", "--name", "net", *common)
    assert "preset small, for 48 training clips" in result.stdout
    config = json.loads((probed / "runs" / "net" / "config.json").read_text())["member"]
    assert config["network"]["pooling"] == "mean+std"
    settings = ("--d", "16", "--n-heads", "2", "--epochs", "1", "--stage2-epochs", "1", "--select", "last")
    explicit = medusa("fit-deepser", "--features", "frames,means", "--name", "net2", *common, *settings)
    assert "preset small" not in explicit.stdout
    config = json.loads((probed / "runs" / "net2" / "config.json").read_text())["member"]
    assert config["network"]["kind"] == "deepser"


def test_fit_deepser_warns_where_each_speaker_has_an_emotion_of_their_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, manifest = corpus(tmp_path)
    plan = plan_folds(manifest, cv="fold")
    warn_of_confounding(manifest, plan)
    assert capsys.readouterr().err == ""
    frame = manifest.to_arrow().to_pandas()
    votes = frame[[name for name in frame.columns if name.startswith("vote_")]].to_numpy()
    speakers = [f"s{c}{i % 3}" for i, c in enumerate(votes.argmax(1))]
    warn_of_confounding(Manifest.from_pandas(frame.assign(speaker=speakers)), plan)
    assert "--normalise none" in capsys.readouterr().err


def test_a_split_of_votes_without_a_label_is_judged_and_not_scored(tmp_path: Path) -> None:
    store, manifest = corpus(tmp_path, attributes=False)
    frame = manifest.to_arrow().to_pandas()
    frame["split"] = frame["fold"].map({"0": "train", "1": "development", "2": "test"})
    votes = frame[[f"vote_{name}" for name in CLASSES]].to_numpy()
    is_known = (votes.max(1) > 1) & (frame["split"] != "development")
    frame["label"] = [CLASSES[c] if known else None for c, known in zip(votes.argmax(1), is_known, strict=True)]
    Manifest.from_pandas(frame).write(tmp_path / "c.csv")
    command = ("probe", "-m", tmp_path / "c.csv", "-s", store.path, "--features", "first,second")
    output = medusa(*command, "--runs", tmp_path / "runs").stdout
    assert "UAR of each layer, test" in output
    assert "UAR of each layer, development" not in output
    assert not FeatureStore.open(store.path)["posteriors/probe"].missing(
        frame["utterance_id"][frame["split"] != "train"]
    )
