"""Learning from augmented views: what is drawn, read and asked; no clip from beyond the training part; resumable."""

import json
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from deepser.config import StageConfig, TrainConfig
from deepser.members.fit import fit_members
from deepser.members.folds import FoldPlan, plan_folds
from deepser.members.presets import PRESETS
from deepser.training import samplers
from deepser.training.data import TrainingData
from deepser.training.losses import confusion_factors
from deepser.training.processes import World
from deepser.training.targets import Targets
from deepser.training.together import sharing
from deepser.training.views import Views, by_view, resolve_views
from featurestore.augment.mixing import mixed_from
from featurestore.augment.views import parse_views
from featurestore.corpus.manifest import Manifest
from featurestore.errors import ConfigError, StoreError
from featurestore.loaders.batch_loader import FeatureRef
from featurestore.store.feature_store import FeatureStore
from tests.helpers.fitting import fit_member
from tests.helpers.made_once import made_once
from tests.helpers.synthetic_corpus import corpus, member
from tests.helpers.synthetic_views import LABELS, add_views
from tests.helpers.warm_python import WarmProcess

REPO = Path(__file__).resolve().parents[3]
REFS = (FeatureRef("first", ("layer_01", "layer_02")), FeatureRef("words", ("layer_01",)), FeatureRef("second"))


@pytest.fixture(scope="session")
def _made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_once(tmp_path_factory, "with_views", _make)


def _make(directory: Path) -> None:
    store, manifest = corpus(directory)
    manifest.write(directory / "m.csv")
    add_views(store, Manifest.read(directory / "m.csv"), lacking=7)


@pytest.fixture
def made(_made_once: Path, tmp_path: Path) -> tuple[FeatureStore, Manifest]:
    """Return a copy: `tmp_path` holds store and m.csv."""
    shutil.copytree(_made_once, tmp_path, dirs_exist_ok=True)
    return FeatureStore.open(tmp_path / "store"), Manifest.read(tmp_path / "m.csv")


def data_of(store: FeatureStore, manifest: Manifest, labels: tuple[str, ...] = LABELS) -> TrainingData:
    refs = tuple(FeatureRef(ref.name, ref.resolve(store[ref.name])) for ref in REFS)
    views = Views.of(store, refs, labels, manifest.keys)
    return TrainingData(store, refs, Targets.from_manifest(manifest), views)


def test_draws_are_pinned_and_only_of_views_that_are_there() -> None:
    order, n = samplers.shuffled(40, seed=0, epoch=0), 40
    available = np.ones((3, n), bool)
    available[0, :20] = available[:, 5] = False
    drawn = samplers.draw_views(order, available, 0.5, seed=0, epoch=0)
    assert drawn[:6].tolist() == PINNED
    np.testing.assert_array_equal(drawn % n, order)
    np.testing.assert_array_equal(drawn, samplers.draw_views(order, available, 0.5, seed=0, epoch=0))
    all_drawn = [samplers.draw_views(order, available, 1.0, seed=1, epoch=e) for e in range(200)]
    for clips in all_drawn:
        view, clip = np.divmod(clips, n)
        assert (view[clip != 5] > 0).all()
        assert view[clip == 5] == 0
        assert available[view[view > 0] - 1, clip[view > 0]].all()
    counts = np.bincount(np.concatenate([clips[order >= 20] // n for clips in all_drawn]), minlength=4)
    assert counts[0] == 0
    np.testing.assert_allclose(counts[1:] / counts.sum(), 1 / 3, atol=0.03)
    assert not (samplers.draw_views(order, available, 0.0, seed=0, epoch=0) // n).any()
    share = np.mean([(samplers.draw_views(order, available, 0.3, seed=2, epoch=e) >= n).mean() for e in range(200)])
    assert share == pytest.approx(0.3 * 39 / 40, abs=0.02)


PINNED = [9, 23, 17, 108, 0, 87]


def test_clips_are_read_as_one_by_one_and_texts_of_mixed_ones_joined(made: Any) -> None:
    store, manifest = made
    data, n = data_of(store, manifest), len(manifest)
    rng = np.random.default_rng(0)
    existing = np.flatnonzero(np.concatenate([np.ones(n, bool), *data.views.exists]))
    batches = [by_view(rng.choice(existing, size, replace=False), n) for size in (1, 30, 200, 5)]
    partner = dict(zip(manifest.keys, mixed_from(store, "mix1", manifest.keys), strict=True))
    sets = {name: store[name] for name in store.names()}
    for stride in (1, 3):
        lengths = data.lengths()
        with data.open_batches(batches, stride) as opened:
            for batch, rows in zip(batches, opened, strict=True):
                for (values, offsets), ref in zip(rows, data.refs, strict=True):
                    for i, clip in enumerate(batch.tolist()):
                        key, view = manifest.keys[clip % n], clip // n
                        result = values[:, offsets[i] : offsets[i + 1]].numpy()
                        keys, name = [key], ref.name if not view else f"{ref.name}+{LABELS[view - 1]}"
                        if ref.name == "words":
                            name, with_it = "words", partner[key]
                            keys += [with_it[0]] if view and LABELS[view - 1] == "mix1" and with_it else []
                        for layer, of_layer in zip(ref.layers, result, strict=True):
                            parts = [sets[name].array(k, layer).astype(np.float32) for k in keys]
                            pooled = [
                                np.stack([p[t : t + stride].mean(0) for t in range(0, len(p), stride)]) for p in parts
                            ]
                            np.testing.assert_allclose(of_layer, np.concatenate(pooled), rtol=2e-6, atol=1e-6)
                    if ref.name == "first" and stride == 1:
                        np.testing.assert_array_equal(lengths[batch], np.diff(offsets.numpy()))


def test_targets_of_mixed_clips_are_the_mean_of_both_and_missing_where_one_is(made: Any) -> None:
    store, manifest = made
    data, n = data_of(store, manifest), len(manifest)
    targets, views = data.targets, data.views
    soft, values = views.soft(targets.soft), views.attributes(targets.attribute_values)
    np.testing.assert_array_equal(soft[:n], targets.soft)
    np.testing.assert_array_equal(soft[2 * n :], np.tile(targets.soft, (2, 1)))  # noise changes no label
    partner = views.partner[0]
    np.testing.assert_allclose(soft[n : 2 * n], (targets.soft + targets.soft[partner]) / 2)
    mean = (targets.attribute_values + targets.attribute_values[partner]) / 2
    np.testing.assert_allclose(values[n : 2 * n], mean)
    assert np.isnan(values[n : 2 * n]).sum() > np.isnan(targets.attribute_values).sum()
    one_hot = views.soft(targets.one_hot)[n : 2 * n]
    open_clips = targets.labels < 0
    assert not one_hot[open_clips | open_clips[partner]].any()
    assert (one_hot[~(open_clips | open_clips[partner])].sum(1) == 1).all()


def test_no_mixed_clip_holds_an_utterance_from_beyond_the_training_part(made: Any) -> None:
    store, manifest = made
    data = data_of(store, manifest)
    speakers = manifest.column("speaker")
    train_at = np.flatnonzero(~np.isin(speakers, ["s1", "s4"]))
    available = data.views.available(train_at)
    mixed = np.flatnonzero(available[0])
    assert set(data.views.partner[0, mixed]) <= set(train_at)
    held_out = set(range(len(manifest))) - set(train_at)
    assert {i for i in range(len(manifest)) if data.views.partner[0, i] in held_out} == set(
        np.flatnonzero(~available[0])
    )
    assert available[1].sum() == len(manifest) - 7
    assert available[2].all()
    fold = manifest.column("fold")
    assert all(fold[i] == fold[p] for i, p in enumerate(data.views.partner[0]))


def everything(name: str) -> Any:
    stages = (
        StageConfig("a", "inverse-frequency", 0.5, 2, 3e-3, samples_per_epoch=40),
        StageConfig("b", "balanced", 0.0, 2, 3e-3, confusion_exponent=1.0),
    )
    settings: dict[str, object] = {"stages": stages, "views": ("all",), "view_share": 0.6, "accumulate": 2}
    config = member(name, **settings, select="macro_f1", dev_fraction=0.3)
    return replace(config, features=("first@1+2", "words", "second@2"))


def weights(directory: Path) -> dict[str, np.ndarray]:
    return {f"{p.parent.name}/{k}": v for p in sorted(directory.glob("fold-*/model.safetensors"))
            for k, v in load_file(p).items()}  # fmt: skip


SCRIPT = """
import sys; sys.path[:0] = sys.argv[2:3]
from pathlib import Path
from tests.deepser.training.test_views import everything
from tests.helpers.fitting import fit_member
from deepser.members.folds import plan_folds
from featurestore.corpus.manifest import Manifest
from featurestore.store.feature_store import FeatureStore
d = Path(sys.argv[1]); m = Manifest.read(d / "m.csv")
fit_member(FeatureStore.open(d / "store"), m, everything("k"), plan_folds(m, cv="fold"), d / "k",
           progress=lambda fold, done, n, what: print(fold, done, flush=True))
"""


@pytest.mark.slow
@pytest.mark.parametrize("kills", [(20,), (7, 20)], ids=["once", "twice"])
def test_killed_anywhere_it_resumes_to_the_weights_of_an_undisturbed_run(
    made: Any, tmp_path: Path, kills: tuple[int, ...]
) -> None:
    store, manifest = made
    plan = plan_folds(manifest, cv="fold")
    fit_member(store, manifest, everything("whole"), plan, tmp_path / "whole")
    for lines in kills:
        process = WarmProcess(SCRIPT, tmp_path, REPO)
        for _ in range(lines):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.close()
    fit_member(store, manifest, everything("k"), plan, tmp_path / "k")
    undisturbed, resumed = weights(tmp_path / "whole"), weights(tmp_path / "k")
    assert undisturbed.keys() == resumed.keys()
    for name, value in undisturbed.items():
        np.testing.assert_array_equal(resumed[name], value, err_msg=name)


@pytest.mark.slow
def test_members_that_share_a_stream_draw_the_same_clips_as_alone(made: Any, tmp_path: Path) -> None:
    store, manifest = made
    plan = FoldPlan(("all",), np.zeros(len(manifest), int), "test")
    first = everything("first")
    second = replace(first, name="second", features=("second@1", "words"), train=replace(first.train, seed=4))
    clean = replace(first, name="clean", train=replace(first.train, views=()))
    configs = sharing([first, second, clean])
    fit_members(store, manifest, configs, plan, [tmp_path / "together" / c.name for c in configs])
    for config in configs:
        into = FeatureStore.create(tmp_path / f"alone-{config.name}")
        fit_member(store, manifest, config, plan, tmp_path / "alone" / config.name, into=into)
        separate, together = (weights(tmp_path / way / config.name) for way in ("alone", "together"))
        for name, value in separate.items():
            np.testing.assert_array_equal(together[name], value, err_msg=f"{config.name} {name}")


PROCESS = """
import sys; sys.path[:0] = sys.argv[2:3]
from pathlib import Path
from tests.deepser.training.test_views import in_processes
from deepser.training.processes import joined
with joined("cpu") as world:
    in_processes(Path(sys.argv[1]), world)
"""


def in_processes(directory: Path, world: World) -> None:
    """Fit without dropout in the processes of `world`; each writes which clips it read."""
    store, manifest = FeatureStore.open(directory / "store"), Manifest.read(directory / "m.csv")
    config = everything("m")
    # Steps so short that rounding stays rounding: of a gradient that is zero but for it, Adam makes a whole step.
    stages = tuple(replace(stage, lr=1e-4) for stage in config.train.stages)
    config = replace(
        config, network=replace(config.network, dropout=0.0), train=replace(config.train, stages=stages)
    )  # fmt: skip
    log: list[list[int]] = []

    class Logged(TrainingData):
        def open_batches(self, batches: Any, *further: Any) -> Any:
            log.extend(batch.tolist() for batch in batches)
            return super().open_batches(batches, *further)

    plan = FoldPlan(("all",), np.zeros(len(manifest), int), "test")
    run = directory / f"of-{world.size}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("deepser.members.fit.TrainingData", Logged)
        into = FeatureStore.open_or_create(directory / f"posteriors-{world.size}-{world.rank}")
        fit_members(store, manifest, [config], plan, [run], world=world, into=into)
    (directory / f"read-{world.size}-{world.rank}.json").write_text(json.dumps(log))


@pytest.mark.slow
def test_two_processes_draw_the_clips_of_one_and_learn_the_same(made: Any, tmp_path: Path) -> None:
    in_processes(tmp_path, World())
    script = tmp_path / "script.py"
    script.write_text(PROCESS)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    places = [str(tmp_path), str(REPO)]
    process = subprocess.run([*command, *places], capture_output=True, text=True, timeout=600)
    assert process.returncode == 0, process.stderr
    by_one, first, second = (
        [clip for batch in json.loads((tmp_path / f"read-{which}.json").read_text()) for clip in batch]
        for which in ("1-0", "2-0", "2-1")
    )
    n = len(made[1])
    # What standardises the inputs is read by the first process, what is learned and judged is shared out.
    assert sorted(by_one) == sorted(first + second)
    assert max(by_one) >= n
    by_one_rows, by_two_rows = (
        [json.loads(row) for row in (tmp_path / f"of-{n}" / "fold-all" / "metrics.jsonl").read_text().splitlines()]
        for n in (1, 2)
    )
    np.testing.assert_allclose([row["loss"] for row in by_two_rows], [row["loss"] for row in by_one_rows], rtol=2e-3)
    one_by_one = weights(tmp_path / "of-1")
    for name, value in weights(tmp_path / "of-2").items():
        np.testing.assert_allclose(value, one_by_one[name], atol=5e-3, err_msg=name)


def test_views_change_the_weights_and_stand_in_config_json(made: Any, tmp_path: Path) -> None:
    store, manifest = made
    plan = plan_folds(manifest, cv="fold")
    stages = (StageConfig("a", "shuffled", 0.5, 1, 3e-3),)
    for name, labels, share in (("clean", (), 0.5), ("none", ("noise1",), 0.0), ("noise", ("noise1",), 0.5)):
        config = member(name, stages=stages, views=labels, view_share=share)
        fit_member(store, manifest, config, plan, tmp_path / name)
    clean, zero_share, noise = (weights(tmp_path / name) for name in ("clean", "none", "noise"))
    assert all((clean[name] == zero_share[name]).all() for name in clean)
    assert any((clean[name] != noise[name]).any() for name in clean)
    record = json.loads((tmp_path / "noise" / "config.json").read_text())["views"]
    assert set(record["sets"]) == {"first+noise1", "second+noise1"}
    assert record["utterances"] == {"noise1": len(manifest) - 7}
    assert "views" not in json.loads((tmp_path / "clean" / "config.json").read_text())
    # Clips that came to the view since would be drawn now.
    add = store["first"]
    (view,) = parse_views(["noise"])
    for name in ("first", "second"):
        with store.writer(f"{name}+noise1", view.spec(store[name].spec)) as writer:
            key = manifest.keys[0]
            writer.append(key, [store[name].array(key, layer) for layer in add.layers])
    with pytest.raises(ConfigError, match=r"views\.clips is"):
        fit_member(store, manifest, member("noise", stages=stages, views=("noise1",)), plan, tmp_path / "noise")


def test_judged_utterances_are_read_clean_and_the_fold_beyond_is_never_read(made: Any, tmp_path: Path) -> None:
    """What fold 0's model learns must not change when fold 0's utterances, in every set and view, are others."""
    store, manifest = made
    plan = plan_folds(manifest, cv="fold")
    judged = set(np.asarray(manifest.keys)[plan.judged_at(0)].tolist())
    changed = FeatureStore.create(tmp_path / "other")
    for name in store.names():
        features = store[name]
        with changed.writer(name, features.spec) as writer:
            for key in features:
                change = 5.0 if key in judged and not name.startswith("mixing/") else 0.0
                writer.append(key, [features.array(key, layer) + np.float32(change) for layer in features.layers])
    only_fold_0 = FoldPlan(("0", "rest"), np.where(plan.folds == 0, 0, 1), "test")
    for feature_store, name in ((store, "here"), (changed, "there")):
        fit_member(feature_store, manifest, everything(name), only_fold_0, tmp_path / name)
    of_store, of_changed = weights(tmp_path / "here"), weights(tmp_path / "there")
    is_same = {name: bool((of_store[name] == of_changed[name]).all()) for name in of_store}
    assert all(is_same[name] for name in is_same if name.startswith("fold-0/"))
    assert not all(is_same.values())


def test_what_is_no_view_is_refused_with_what_there_is(made: Any) -> None:
    store, manifest = made
    assert resolve_views(store, ["first@1", "words", "second"], ["all"]) == LABELS
    assert resolve_views(store, ["words"], ["all"]) == ()
    assert resolve_views(store, ["first"], []) == ()
    with pytest.raises(ConfigError, match=r"first\+reverb1.*first.*mix1, noise1, noise2"):
        data_of(store, manifest, ("reverb1",))
    with pytest.raises(ConfigError, match=r"--views noise1: .*audio"):
        Views.of(store, [FeatureRef("words")], ["noise1"], manifest.keys)
    with store.writer(
        "first+few1", parse_views(["few=noise"])[0].spec(replace(store["first"].spec, layers=("layer_09",)))
    ) as writer:
        writer.append("k", [np.zeros((1, store["first"].dim))])
    with pytest.raises(StoreError, match=r"'first\+few1' has no 'layer_01'; it has layer_09"):
        Views.of(store, [FeatureRef("first", ("layer_01",))], ["few1"], manifest.keys)
    clean = store["first"].spec
    (loud,) = parse_views(["loud=noise:snr=0"])
    for name, spec in (
        ("first+plain1", clean),
        ("first+loud1", loud.spec(replace(clean, version=2))),
        ("first+odd1", loud.spec(clean)),
        ("second+odd1", parse_views(["odd=noise:snr=1"])[0].spec(store["second"].spec)),
    ):
        with store.writer(name, spec) as writer:
            writer.append("k", [np.zeros((1, spec.dim))] * 2)
    for label, expected in (("plain1", "no augmentation"), ("loud1", "version: stored 1"), ("odd1", "other views")):
        with pytest.raises(ConfigError, match=expected):
            data_of(store, manifest, (label,))
    store.remove("mixing/mix1")
    with pytest.raises(ConfigError, match="mixing/mix1"):
        data_of(store, manifest, ("mix1",))


def test_settings_of_views_and_confusion_are_checked() -> None:
    with pytest.raises(ConfigError, match="view_share must be 0 to 1"):
        TrainConfig(view_share=1.5)
    with pytest.raises(ConfigError, match="mixup_p must be 0 to 1"):
        TrainConfig(mixup_p=1.01)
    assert TrainConfig(mixup_p=1.0, view_share=1.0).mixup_p == 1.0
    for views in (("all", "noise1"), ("a", "a")):
        with pytest.raises(ConfigError, match=r"views .*once"):
            TrainConfig(views=views)
    weighs = StageConfig("s", "shuffled", 0.0, 1, 1e-3, confusion_exponent=1.0)
    with pytest.raises(ConfigError, match="confusion_exponent"):
        TrainConfig((weighs,), select="last")
    assert PRESETS["srpol-task1"].train.views == ("all",)
    assert PRESETS["srpol-task1"].train.stages[1].confusion_exponent == 0
    assert [s.confusion_exponent for s in PRESETS["srpol-task1-confused"].train.stages] == [0, 1]


def test_confused_classes_weigh_more() -> None:
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, -1])
    predicted = np.array([0, 0, 0, 0, 1, 1, 2, 2, 2, 2, 1, 1, 0])
    factors = confusion_factors(np.eye(4)[predicted], labels, 1.0)
    # F1 is 1, 1/2, 1/2, so 0.1, 0.6, 0.6 over their mean; nothing is known of the fourth.
    np.testing.assert_allclose(factors, [0.3 / 1.3, 1.8 / 1.3, 1.8 / 1.3, 1.0], rtol=1e-6)
    np.testing.assert_allclose(confusion_factors(np.eye(4)[predicted], labels, 0.0), 1.0)
    np.testing.assert_allclose(confusion_factors(np.eye(4)[predicted], labels, 2.0)[0], (0.3 / 1.3) ** 2, rtol=1e-6)


def test_a_stage_that_weighs_confusion_learns_otherwise(made: Any, tmp_path: Path) -> None:
    store, manifest = made
    plan = FoldPlan(("all",), np.zeros(len(manifest), int), "test")
    first = StageConfig("a", "shuffled", 0.0, 1, 1e-5)  # too little to tell the classes apart
    for name, exponent in (("even", 0.0), ("weighed", 2.0)):
        stages = (first, replace(first, name="b", confusion_exponent=exponent))
        fit_member(
            store, manifest, member(name, stages=stages, select="macro_f1", dev_fraction=0.3), plan, tmp_path / name
        )
    even, weighed = (
        [json.loads(line)["loss"] for line in (tmp_path / name / "fold-all" / "metrics.jsonl").read_text().splitlines()]
        for name in ("even", "weighed")
    )
    assert even[0] == weighed[0]
    assert even[1] != weighed[1]
    assert torch.isfinite(torch.tensor(weighed)).all()
