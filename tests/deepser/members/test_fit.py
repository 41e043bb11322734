"""Fitting a member: it learns, judges only what it did not see, resumes to the same weights, and refuses a mix-up."""

import dataclasses
import json
import signal
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from safetensors.numpy import load_file

from deepser.config import MemberConfig, from_dict, to_dict
from deepser.members.folds import plan_folds
from deepser.members.member import Member
from deepser.members.run_directory import fitting_alone
from deepser.members.scales import ranges_of
from deepser.training.targets import Targets
from featurestore.corpus.manifest import LabelScheme, Manifest
from featurestore.errors import ConfigError, ManifestError, StoreError
from featurestore.store.feature_store import FeatureStore
from tests.deepser.conftest import Fitted
from tests.helpers.fitting import fit_member
from tests.helpers.synthetic_corpus import CLASSES, corpus, member
from tests.helpers.warm_python import WarmProcess, run_warm

REPO = Path(__file__).resolve().parents[3]


def weights(directory: Path) -> dict[str, dict[str, np.ndarray]]:
    return {p.parent.name: load_file(p) for p in sorted(directory.glob("fold-*/model.safetensors"))}


def same(a: dict[str, dict[str, np.ndarray]], b: dict[str, dict[str, np.ndarray]]) -> bool:
    return a.keys() == b.keys() and all((a[f][n] == b[f][n]).all() for f in a for n in a[f])


def test_a_member_learns_and_writes_out_of_fold_posteriors(fitted: Fitted) -> None:
    store, manifest = fitted.store, fitted.manifest
    posteriors = store["posteriors/m"]
    assert posteriors.spec.columns == (*CLASSES, "attr:arousal")
    assert ranges_of(posteriors) == {"arousal": manifest.scheme.attributes["arousal"]}
    assert dict(posteriors.spec.extra)["oof"] == "fold"
    targets = Targets.from_manifest(manifest)
    rows = np.stack([posteriors.array(key, "posteriors")[0] for key in targets.keys])
    labelled = targets.labels >= 0
    assert (rows[labelled, :3].argmax(1) == targets.labels[labelled]).mean() > 0.8
    np.testing.assert_allclose(rows[:, :3].sum(1), 1, rtol=1e-5)
    assert ((rows[:, 3] > 1) & (rows[:, 3] < 7)).all()
    history = [json.loads(line) for line in (fitted.directory / "fold-0" / "metrics.jsonl").read_text().splitlines()]
    assert [row["stage"] for row in history] == ["stage1"] * 3 + ["stage2"] * 2
    assert history[-1]["loss"] < history[0]["loss"]
    assert not list(fitted.directory.glob("fold-*/checkpoint*"))
    assert fitted.load().config == member()


def test_two_processes_do_not_fit_in_one_run_directory(fitted: Fitted) -> None:
    store, manifest, plan, directory = fitted.store, fitted.manifest, fitted.plan, fitted.directory
    before = weights(directory)
    with fitting_alone(directory), pytest.raises(ConfigError, match=rf"{directory} is in use.*--name"):
        fit_member(store, manifest, member(), plan, directory, overwrite=True)
    assert same(weights(directory), before)
    next(directory.glob("fold-*/model.safetensors")).unlink()
    with fitting_alone(directory), pytest.raises(ConfigError, match="is in use"):
        fit_member(store, manifest, member(), plan, directory)


def test_each_fold_is_judged_by_the_model_that_did_not_learn_it(fitted: Fitted) -> None:
    store, manifest, plan, loaded = fitted.store, fitted.manifest, fitted.plan, fitted.load()
    from deepser.training import train as trainer
    from deepser.training.data import TrainingData
    from deepser.training.processes import World

    data = TrainingData(store, loaded.refs, Targets.from_manifest(manifest))
    network = loaded.new_network()
    import torch

    network.load_state_dict({k: torch.from_numpy(v) for k, v in weights(fitted.directory)["fold-1"].items()})
    judged = plan.judged_at(1)
    ((logits, _),) = trainer.predict([network], [data], judged, [loaded.config.train], World())
    stored = np.stack([store["posteriors/m"].array(manifest.keys[i], "logits")[0, :3] for i in judged])
    np.testing.assert_allclose(stored, logits, rtol=1e-5, atol=1e-5)
    assert not set(judged) & set(plan.train_at(1))


def test_same_seed_same_weights_and_another_seed_others(fitted: Fitted, tmp_path: Path) -> None:
    for name, seed in (("b", 0), ("c", 1)):
        fit_member(fitted.store, fitted.manifest, member(name, seed=seed), fitted.plan, tmp_path / name)
    assert same(weights(fitted.directory), weights(tmp_path / "b"))
    assert not same(weights(fitted.directory), weights(tmp_path / "c"))


SCRIPT = """
import sys; sys.path.insert(0, sys.argv[2])
from pathlib import Path
from tests.helpers.synthetic_corpus import member
from tests.helpers.fitting import fit_member
from deepser.members.folds import plan_folds
from featurestore.corpus.manifest import LabelScheme, Manifest
from featurestore.store.feature_store import FeatureStore
d = Path(sys.argv[1]); m = Manifest.read(d / "m.csv")
k = member("k", select="macro_f1", dev_fraction=0.3)
fit_member(FeatureStore.open(d / "store"), m, k, plan_folds(m, cv="fold"), d / "k",
           progress=lambda fold, done, n, what: print(fold, done, flush=True))
"""


@pytest.mark.slow
@pytest.mark.parametrize("kills", [(27,), (13, 40, 27)], ids=["once", "often"])
def test_killed_anywhere_it_resumes_to_the_weights_of_an_undisturbed_run(
    tmp_path: Path, kills: tuple[int, ...]
) -> None:
    """Each number: the steps that a process does before it is killed."""
    store, manifest = corpus(tmp_path)
    manifest.write(tmp_path / "m.csv")
    manifest = Manifest.read(tmp_path / "m.csv")
    config = member("k", select="macro_f1", dev_fraction=0.3)
    fit_member(store, manifest, config, plan_folds(manifest, cv="fold"), tmp_path / "undisturbed")
    store.remove("posteriors/k")
    for lines in kills:
        process = WarmProcess(SCRIPT, tmp_path, REPO)
        for _ in range(lines):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.close()
    finished = run_warm(SCRIPT, tmp_path, REPO)
    assert finished.returncode == 0, finished.stderr
    assert same(weights(tmp_path / "k"), weights(tmp_path / "undisturbed"))
    assert len(FeatureStore.open(tmp_path / "store")["posteriors/k"]) == len(manifest)


def test_a_finished_member_is_not_fitted_again(fitted: Fitted) -> None:
    steps: list[int] = []
    started = time.perf_counter()
    fit_member(
        fitted.store, fitted.manifest, member(), fitted.plan, fitted.directory, progress=lambda *a: steps.append(1)
    )
    assert not steps, f"trained again for {time.perf_counter() - started:.1f} s"


def encode_again(store: FeatureStore, name: str, key: str) -> None:
    """Write a set of the same specification anew, in which one utterance has other rows."""
    features = store[name]
    spec, rows = features.spec, {each: [features.array(each, layer).copy() for layer in features.layers]
                                 for each in features}  # fmt: skip
    rows[key] = [layer + 1 for layer in rows[key]]
    store.remove(name)
    with store.writer(name, spec) as writer:
        for each, layers in rows.items():
            writer.append(each, layers)


def test_a_member_whose_features_were_encoded_again_is_neither_finished_nor_continued(fitted: Fitted) -> None:
    store, directory, before = fitted.store, fitted.directory, weights(fitted.directory)
    encode_again(store, "first", fitted.manifest.keys[3])
    for _ in ("finished", "continued"):
        with pytest.raises(ConfigError, match=rf"'first' are not those.*{directory} learned from.*--overwrite"):
            fit_member(store, fitted.manifest, member(), fitted.plan, directory)
        (directory / "fold-1" / "model.safetensors").unlink(missing_ok=True)
    fit_member(store, fitted.manifest, member(), fitted.plan, directory, overwrite=True)
    assert not same(before, weights(directory))
    fit_member(store, fitted.manifest, member(), fitted.plan, directory)


def test_a_run_begun_before_rows_were_recorded_goes_on(fitted: Fitted) -> None:
    path, before = fitted.directory / "config.json", weights(fitted.directory)
    saved = json.loads(path.read_text())
    assert sorted(saved.pop("rows")) == ["first", "second"]
    path.write_text(json.dumps(saved))
    next(fitted.directory.glob("fold-1/model.safetensors")).unlink()
    fit_member(fitted.store, fitted.manifest, member(), fitted.plan, fitted.directory)
    assert same(before, weights(fitted.directory))


def test_damaged_weights_are_named_where_they_are_read(fitted: Fitted, tmp_path: Path) -> None:
    path = fitted.directory / "fold-1" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ConfigError, match=r"fold-1.model\.safetensors is damaged"):
        fitted.load().predict(fitted.store, fitted.manifest.keys[:2])
    (tmp_path / "store" / "posteriors").rename(tmp_path / "gone")  # so that fitting again has something to do
    with pytest.raises(ConfigError, match=r"fold-1.model\.safetensors is damaged"):
        fit_member(FeatureStore.open(tmp_path / "store"), fitted.manifest, member(), fitted.plan, fitted.directory)


def test_other_settings_in_the_same_place_are_refused_with_the_difference(fitted: Fitted, tmp_path: Path) -> None:
    store, manifest, plan = fitted.store, fitted.manifest, fitted.plan
    with pytest.raises(ConfigError, match=r"batch_size .*8.* 4 .*--overwrite"):
        fit_member(store, manifest, member(batch_size=4), plan, tmp_path / "m")
    fit_member(store, manifest, member(batch_size=4), plan, tmp_path / "m", overwrite=True)
    assert Member.load(tmp_path / "m").config.train.batch_size == 4


def test_a_split_gives_one_model_that_judges_only_the_rest(tmp_path: Path) -> None:
    store, manifest = corpus(tmp_path, attributes=False)
    frame = manifest.to_pandas()
    frame["split"] = ["train" if i % 9 < 6 else "test" for i in range(len(frame))]
    manifest = Manifest.from_pandas(frame)
    fitted = fit_member(store, manifest, member(), plan_folds(manifest), tmp_path / "m")
    judged = set(store["posteriors/m"])
    assert judged == {k for k, s in zip(manifest.keys, frame["split"], strict=True) if s == "test"}
    posteriors, logits = fitted.predict(store, sorted(judged))
    stored = np.stack([store["posteriors/m"].array(k, "posteriors")[0] for k in sorted(judged)])
    np.testing.assert_allclose(posteriors, stored, rtol=1e-4, atol=1e-5)
    assert logits.shape == (len(judged), 3)
    folds = plan_folds(manifest, n_folds=3)
    speakers = manifest.column("speaker")
    assert all(not set(speakers[folds.train_at(f)]) & set(speakers[folds.folds == f]) for f in range(3))
    fit_member(store, manifest, member("three"), folds, tmp_path / "three")
    assert len(store["posteriors/three"]) == len(manifest)


def test_what_could_not_be_stored_is_refused_before_training(fitted: Fitted, tmp_path: Path) -> None:
    store, manifest, plan = fitted.store, fitted.manifest, fitted.plan
    for name in ("../elsewhere", "a b"):
        with pytest.raises(StoreError, match="not allowed"):
            fit_member(store, manifest, member(name), plan, tmp_path / "new")
    other_layers = MemberConfig("m", ("first@1", "second@2"), member().network, member().train)
    with pytest.raises(ConfigError, match=r"extra: .*first@1\+2.*--overwrite"):
        fit_member(store, manifest, other_layers, plan, tmp_path / "elsewhere")
    assert not (tmp_path / "elsewhere").exists()
    fit_member(store, manifest, other_layers, plan, tmp_path / "elsewhere", overwrite=True)


def test_more_folds_than_speakers_are_refused(tmp_path: Path) -> None:
    _, manifest = corpus(tmp_path)
    frame = manifest.to_pandas()
    frame["split"] = "train"
    manifest = Manifest.from_pandas(frame)
    assert len(plan_folds(manifest, n_folds=9).names) == 9
    with pytest.raises(ManifestError, match=r"9 speakers.* 10 folds"):
        plan_folds(manifest, n_folds=10)


def test_a_stage_that_draws_nothing_is_refused(tmp_path: Path) -> None:
    store, manifest = corpus(tmp_path)
    frame = manifest.to_pandas()
    frame[[f"vote_{name}" for name in CLASSES]] = 1
    manifest = Manifest.from_pandas(frame)
    with pytest.raises(ConfigError, match=r"stage2.*no training utterance.*sampler"):
        fit_member(store, manifest, member(), plan_folds(manifest, cv="fold"), tmp_path / "m")


def test_errors_name_the_column_the_set_and_the_remedy(tmp_path: Path) -> None:
    store, manifest = corpus(tmp_path)
    with pytest.raises(ManifestError, match="--cv fold"):
        plan_folds(manifest)
    with pytest.raises(ManifestError, match="folds"):
        plan_folds(manifest, cv="folds")
    frame = manifest.to_pandas()
    frame.loc[3, "utterance_id"] = "stranger"
    renamed = Manifest.from_pandas(frame)
    with pytest.raises(ConfigError, match=r"stranger.*featurize"):
        fit_member(store, renamed, member(), plan_folds(renamed, cv="fold"), tmp_path / "m")
    with pytest.raises(ConfigError, match=r"config\.json"):
        Member.load(tmp_path / "nothing")


def test_configs_survive_json_and_wrong_ones_are_named() -> None:
    config = member()
    assert from_dict(MemberConfig, json.loads(json.dumps(to_dict(config)))) == config
    with pytest.raises(ConfigError, match=r"config\.train: unknown field 'sed'"):
        from_dict(MemberConfig, {**to_dict(config), "train": {"sed": 1}})
    with pytest.raises(ConfigError, match="expected int, found 'many'"):
        from_dict(MemberConfig, {**to_dict(config), "network": {"d": "many"}})
    with pytest.raises(ConfigError, match=r"two or more.*first@1"):
        MemberConfig("one", ("first@1",))
    with pytest.raises(ConfigError, match="multiple of n_heads"):
        from_dict(MemberConfig, {**to_dict(config), "network": {"d": 10, "n_heads": 4}})


def test_where_no_speakers_can_be_held_out_all_epochs_are_trained_and_the_record_says_why(tmp_path: Path) -> None:
    store, manifest = corpus(tmp_path)
    config = member("few", select="macro_f1", dev_fraction=0.05)  # of six speakers one is 17 %
    fit_member(store, manifest, config, plan_folds(manifest, cv="fold"), tmp_path / "few")
    record = json.loads((tmp_path / "few" / "held_out.json").read_text())
    assert set(record) == {"0", "1", "2"}
    assert all("17%" in fold["why_not"] and not fold["speakers"] for fold in record.values())
    rows = [json.loads(line) for line in (tmp_path / "few" / "fold-1" / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == 5  # of three and two epochs
    assert not any(name.startswith("dev_") for row in rows for name in row)


def test_held_out_speakers_are_kept_in_the_run_directory(tmp_path: Path) -> None:
    store, manifest = corpus(tmp_path)
    config = member("held", select="macro_f1", dev_fraction=0.3)
    fit_member(store, manifest, config, plan_folds(manifest, cv="fold"), tmp_path / "held")
    record = json.loads((tmp_path / "held" / "held_out.json").read_text())
    folds = dict(zip(manifest.column("speaker"), manifest.column("fold"), strict=True))
    for fold, part in record.items():
        assert part["utterances"] / part["of"] == pytest.approx(1 / 3)
        assert all(folds[name.removeprefix("s:")] != fold for name in part["speakers"])


def test_an_attribute_that_nobody_rated_in_some_training_part_has_no_output(tmp_path: Path) -> None:
    store, manifest = corpus(tmp_path)
    frame = manifest.to_pandas()
    frame["attr_valence"] = [2.0 if i == 0 else None for i in range(len(frame))]  # of one fold alone
    frame["attr_dominance"] = [float("nan")] * len(frame)
    scheme = LabelScheme(CLASSES, dict.fromkeys(("arousal", "valence", "dominance"), (1.0, 7.0)))
    with_gaps = Manifest(pa.Table.from_pandas(frame, preserve_index=False), scheme)
    fitted = fit_member(store, with_gaps, member("few"), plan_folds(with_gaps, cv="fold"), tmp_path / "few")
    assert fitted.attributes == ("arousal",)
    assert store["posteriors/few"].spec.columns == (*CLASSES, "attr:arousal")


def test_a_clip_that_spoils_the_training_is_named_before_it_and_nothing_is_stored(tmp_path: Path) -> None:
    store, manifest = corpus(tmp_path)
    name = next(ref.partition("@")[0] for ref in member("bad").features)
    spec = dataclasses.replace(store[name].spec, dtype="float32")
    last = manifest.keys[-1]
    rows = {key: np.array(store[name][key], np.float32) for key in manifest.keys}
    store.remove(name)
    with store.writer(name, spec) as writer:
        for key, values in rows.items():
            writer.append(key, dict.fromkeys(spec.layers, values * (1e30 if key == last else 1)))
    with pytest.raises(ConfigError, match=f"'{name}'.*'{last}'"):
        fit_member(store, manifest, member("bad"), plan_folds(manifest, cv="fold"), tmp_path / "bad")
    assert "posteriors/bad" not in store
    assert not list((tmp_path / "bad").glob("fold-*/model.safetensors"))


def test_a_bfloat16_member_judges_attributes_in_float32(tmp_path: Path) -> None:
    store, manifest = corpus(tmp_path)
    config = member("half", precision="bfloat16")
    fit_member(store, manifest, config, plan_folds(manifest, cv="fold"), tmp_path / "half", device="cpu")
    rows = np.concatenate([store["posteriors/half"][key] for key in manifest.keys])
    assert len(np.unique(rows[:, -1])) > 80  # of 90; rounded to eight bits they would be a few dozen
