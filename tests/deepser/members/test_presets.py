"""Presets are the published systems' settings; each trains, and single settings can be changed by name."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from deepser.config import MemberConfig, NetworkConfig, TrainConfig, from_dict, to_dict
from deepser.members.folds import plan_folds
from deepser.members.presets import PRESETS, default_preset, find_preset, member_config, parse_changes
from deepser.networks.network import Network
from deepser.scores import metrics
from deepser.training.targets import Targets
from featurestore.corpus.manifest import Manifest
from featurestore.errors import ConfigError
from tests.helpers.fitting import fit_member
from tests.helpers.synthetic_corpus import corpus

DIMS = {"whisper-large-v3": 1280}  # of the published encoders; the others have 1024


def network_of(preset: str) -> Network:
    chosen = PRESETS[preset]
    with torch.device("meta"):
        return Network([(1, DIMS.get(name, 1024)) for name in chosen.features], 8, [(1, 7)] * 3, chosen.network)


def size(preset: str) -> float:
    return sum(p.numel() for p in network_of(preset).parameters()) / 1e6


def test_medusa_is_the_default_and_its_members_are_table_1() -> None:
    assert PRESETS["medusa"].network == NetworkConfig()
    assert PRESETS["medusa"].train == TrainConfig()
    assert PRESETS["medusa-01"].features == ("hubert-large", "roberta-large")
    assert PRESETS["medusa-08"].features == ("wavlm-large", "roberta-large")
    assert PRESETS["medusa-14"].features == ("whisper-large-v3", "wavlm-large", "modernbert-large")
    members = [preset for name, preset in PRESETS.items() if name[-2:].isdecimal()]
    assert len(members) == 14
    assert len({(preset.features, preset.train.seed) for preset in members}) == 14
    for preset in members:
        assert replace(preset.train, seed=0) == TrainConfig()


def test_who_names_no_preset_and_no_setting_gets_the_one_for_the_size_of_the_corpus() -> None:
    assert default_preset(9_999, True) == "small"
    assert default_preset(10_000, True) == "medusa"
    assert default_preset(100, False) == "medusa"
    small = find_preset("small")
    assert (small.network.kind, small.network.pooling, small.train.select) == ("baseline", "mean+std", "last")


def test_srpol_has_about_60_million_parameters() -> None:
    network = network_of("srpol-task1")
    in_lstm = sum(p.numel() for name, p in network.named_parameters() if name.startswith("body.lstm"))
    assert in_lstm == 4 * 2048 * (1028 + 2048 + 2) + 4 * 2048 * (2048 + 2048 + 2) == 58_785_792
    assert 60 < size("srpol-task1") < 67


def test_srpols_phases_are_the_papers() -> None:
    for task, joint in ((1, (0.75, 0.25)), (2, (0.25, 0.75))):
        train = PRESETS[f"srpol-task{task}"].train
        first, second = train.stages
        assert (first.loss.classification_weight, first.loss.attribute_weight) == joint
        assert (first.lr, first.min_lr, first.warmup_epochs, first.schedule) == (2e-5, 1e-7, 3, "cosine")
        assert (first.samples_per_epoch, first.epochs, train.batch_size) == (32_000, 50, 128)
        assert (second.loss.classification_weight > 0) == (task == 1)
        assert (second.loss.attribute_weight > 0) == (task == 2)
    assert PRESETS["srpol-task2"].train.stages[1].loss.attributes == "gaussian-mse"


def test_the_baselines_head_is_the_challenges() -> None:
    head = network_of("baseline-frozen").head
    assert head.dropout.p == 0.5
    d = 1024
    assert size("baseline-frozen") * 1e6 == 1 + (d * d + 2 * d) + (2 * d * d + d) + 2 * d + 11 * (d + 1)
    (stage,) = PRESETS["baseline-frozen"].train.stages
    assert (stage.class_weight_exponent, stage.lr, stage.epochs) == (1.0, 1e-5, 20)
    assert PRESETS["baseline-frozen-task2"].train.stages[0].loss.attributes == "ccc"


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_a_presets_settings_survive_json(name: str) -> None:
    features = PRESETS[name].features or (("a",) if name == "unimodal" else ("a", "b"))
    config = member_config("m", features, PRESETS[name])
    assert from_dict(MemberConfig, json.loads(json.dumps(to_dict(config)))) == config


SMALL = {
    "network.d": 16, "network.n_heads": 2, "network.ff_multiple": 2, "network.lstm_dim": 16, "network.pool_dim": 8,
    "network.dropout": 0.1, "train.stages.*.epochs": 3, "train.stages.*.lr": 1e-2, "train.stages.*.warmup_epochs": 0.5,
    "train.stages.*.samples_per_epoch": 64, "train.batch_size": 8, "train.dev_fraction": 0.3,
    "train.precision": "float32",
}  # fmt: skip
TRAINED = [name for name in PRESETS if not name[-2:].isdecimal()]


@pytest.mark.parametrize("name", TRAINED)
def test_every_preset_learns(name: str, tmp_path: Path) -> None:
    store, manifest = corpus(tmp_path)
    frame = manifest.to_pandas()
    frame["split"] = ["train" if i % 9 < 6 else "test" for i in range(len(frame))]
    manifest = Manifest.from_pandas(frame)
    features = ("first@1+2",) if name == "unimodal" else ("first@1+2", "second@2")
    fitted = fit_member(store, manifest, member_config("m", features, PRESETS[name], SMALL), plan_folds(manifest),
                        tmp_path / "m")  # fmt: skip
    targets = Targets.from_manifest(manifest)
    rows = store["posteriors/m"]
    stored = [i for i, key in enumerate(targets.keys) if key in rows]
    predicted = np.stack([rows.array(targets.keys[i], "posteriors")[0] for i in stored])
    if not name.endswith("task2"):
        labelled = targets.labels[stored] >= 0
        assert (predicted[labelled, :3].argmax(1) == targets.labels[stored][labelled]).mean() > 0.8
    if "baseline" in name and not name.endswith("task2"):
        assert fitted.attributes == (), "an attribute that nothing was learned of is not told"
    else:
        assert metrics.ccc(predicted[:, 3], targets.attribute_values[stored, 0]) > 0.4
    history = [json.loads(line) for line in (tmp_path / "m" / "fold-all" / "metrics.jsonl").read_text().splitlines()]
    rule = "dev_mean_ccc" if name.endswith("task2") else "dev_macro_f1"
    if PRESETS[name].train.select != "last":  # else nothing is held out
        assert all(rule in row for row in history)


def test_changes_go_to_their_path_and_are_checked() -> None:
    preset = find_preset("srpol-task1")
    changes = parse_changes(
        ["train.stages.*.lr=1e-3", "train.stages.1.loss.classes=focal", "network.pooling=mean", "train.select=last"]
    )
    config = member_config("m", ["a", "b"], preset, {"train.seed": 7, **changes})
    assert [stage.lr for stage in config.train.stages] == [1e-3, 1e-3]
    assert [stage.loss.classes for stage in config.train.stages] == ["cross-entropy", "focal"]
    assert (config.train.seed, config.network.pooling, config.train.select) == (7, "mean", "last")
    assert PRESETS["srpol-task1"] == preset
    assert preset.train.stages[0].lr == 2e-5
    for wrong, expected in (
        ("train.stages.2.lr=1", "'2' expected 0, 1"),
        ("train.mixup=1", "'mixup' expected stages, batch_size"),
        ("network.d.x=1", "'d' is 1028"),
        ("network.d=wide", "network.d: expected int, found 'wide'"),
        ("network.pooling=max", r"mean, mean\+std, attention, asp"),
    ):
        with pytest.raises(ConfigError, match=expected):
            member_config("m", ["a", "b"], preset, parse_changes([wrong]))
    with pytest.raises(ConfigError, match="PATH=VALUE"):
        parse_changes(["train.seed"])
    with pytest.raises(ConfigError, match="medusa-08"):
        find_preset("medusa-8")


def test_settings_saved_before_a_stage_had_its_loss_are_read() -> None:
    saved = to_dict(TrainConfig())
    for stage in saved["stages"]:
        for name in ("loss", "min_lr", "samples_per_epoch", "select", "patience"):
            del stage[name]
    for name in ("select_on", "accumulate", "ema_decay", "vote_drop_share", "drop_no_consensus"):
        del saved[name]
    saved |= {"classification_weight": 1.0, "attribute_weight": 0.0}
    loaded = from_dict(TrainConfig, json.loads(json.dumps(saved)))
    assert [(s.loss.classification_weight, s.loss.attribute_weight) for s in loaded.stages] == [(1.0, 0.0)] * 2
    assert not loaded.learns_attributes
    assert replace(loaded, stages=TrainConfig().stages) == TrainConfig()
