"""Which members one fit-deepser asks for: seeds, presets, patterns, a recipe's; and that they share their batches."""

from pathlib import Path

import pytest
import typer

import cli
from deepser.config import to_dict
from deepser.members.presets import MEDUSA_MEMBERS, find_preset
from deepser.training.together import sharing
from ensemble.recipes.members import MemberOptions, members
from ensemble.recipes.recipe import BUILT_IN
from ensemble.recipes.settings import PATHS, SETTINGS
from featurestore.errors import ConfigError

AB = MemberOptions(features=("a", "b@3"))


def test_seeds_are_counted_from_the_members_own_or_named() -> None:
    assert [(m.name, m.train.seed) for m in members(AB, "3")] == [(f"a_b.3_s{i}", i) for i in (0, 1, 2)]
    options = MemberOptions(features=("a", "b"), name="m", options={"seed": 7})
    assert [(m.name, m.train.seed) for m in members(options, "2")] == [("m_s7", 7), ("m_s8", 8)]
    assert [m.name for m in members(MemberOptions("medusa-08"), "2,9")] == [
        f"medusa-08_wavlm-large_roberta-large_s{i}" for i in (2, 9)
    ]
    assert [m.name for m in members(options)] == ["m"]
    for wrong in ("0", "-1", "six", "1,b", ""):
        with pytest.raises(ConfigError, match="how many"):
            members(AB, wrong)


def test_a_stage_that_the_preset_lacks_is_named() -> None:
    with pytest.raises(ConfigError, match=r"--stage2-epochs.*baseline-frozen"):
        MemberOptions("baseline-frozen", options={"stage2-epochs": 2}).config()
    assert len(MemberOptions("baseline-frozen", options={"stage2-epochs": 0}).config().train.stages) == 1


def test_presets_by_name_and_by_pattern_keep_their_own_settings() -> None:
    all_of_table_1 = members(MemberOptions(options={"epochs": 3}), names="medusa-??")
    assert [m.name for m in all_of_table_1] == [f"medusa-{i:02d}" for i in range(1, 15)]
    assert [m.features for m in all_of_table_1] == list(MEDUSA_MEMBERS)
    assert [m.train.seed for m in all_of_table_1] == list(range(1, 15))
    assert {m.train.stages[0].epochs for m in all_of_table_1} == {3}
    kinds = members(AB, names="medusa, medusa-late-fusion,cross-attention")
    assert [m.network.kind for m in kinds] == ["deepser", "late-fusion", "cross-attention"]
    assert {m.features for m in kinds} == {("a", "b@3")}
    assert [m.name for m in members(AB, "2", "medusa,unimodal"[:6])] == ["medusa_s0", "medusa_s1"]
    with pytest.raises(ConfigError, match="'medusa-99': expected one of"):
        members(AB, names="medusa-99")
    with pytest.raises(ConfigError, match="leave --name and --preset out"):
        members(MemberOptions(name="m"), names="medusa")


def test_a_recipes_members_are_the_ones_that_its_run_fits(tmp_path: Path) -> None:
    result = members(MemberOptions(options={"epochs": 99, "dropout": 0.0}), names=str(BUILT_IN / "tiny.yaml"))
    assert [(m.name, m.features, m.train.seed) for m in result] == [
        ("m1", ("tiny-hubert", "tiny-wavlm"), 1),
        ("m2", ("tiny-hubert@3", "mel"), 2),
        ("m3", ("tiny-wavlm@2+3", "mel"), 3),
    ]
    assert {(m.train.stages[0].epochs, m.train.stages[0].lr, m.network.dropout) for m in result} == {(10, 1e-3, 0.3)}
    path = tmp_path / "mine.yaml"
    path.write_text("members:\n  a: {preset: unimodal, features: x@1, set: [network.d=64, train.ema_decay=0.9]}\n")
    (member,) = members(MemberOptions(), names=str(path))
    assert (member.network.kind, member.network.d, member.train.ema_decay, member.features) == (
        "unimodal",
        64,
        0.9,
        ("x@1",),
    )
    path.write_text("members:\n  a: {features: [x, y], epoch: 3}\n")
    with pytest.raises(ConfigError, match=r"mine\.yaml.*line 2.*epochs"):
        members(MemberOptions(), names=str(path))


def test_members_of_table_1_share_one_stream() -> None:
    shared = sharing(members(MemberOptions(), names="medusa-??"))
    assert {m.train.stream_seed for m in shared} == {1}
    assert {m.train.bucket_by or m.features[0] for m in shared} == {"hubert-large"}
    assert [m.train.seed for m in shared] == list(range(1, 15))
    assert shared[0] == members(MemberOptions("medusa-01", name="medusa-01"))[0]


def test_every_setting_stands_in_config_json() -> None:
    values = {"schedule": "cosine", "network": "cross-attention", "pooling": "asp", "targets": "one-hot",
              "select": "last", "precision": "float32", "views": "none", "normalise": "none"}  # fmt: skip
    numbers = {name: 0.5 if name in ("dropout", "mixup", "label-smoothing", "view-share") else 2 for name in PATHS}
    config = MemberOptions(features=("a", "b"), options=numbers | values).config()
    assert config.network.d == config.network.n_heads == config.train.stages[1].epochs == 2
    assert config.train.stages[1].schedule == "cosine"
    assert find_preset("medusa").network.d == 1024


def test_views_are_named_in_one_text_and_in_the_members_name() -> None:
    (member,) = members(MemberOptions(features=("a", "b"), options={"views": "noise1, mix1", "view-share": 0.3}))
    assert (member.name, member.train.views, member.train.view_share) == ("a_b_noise1_mix1_s0", ("noise1", "mix1"), 0.3)
    (srpol,) = members(MemberOptions("srpol-task1", options={"views": "none"}))
    assert srpol.train.views == ()


def test_every_setting_is_an_option_of_fit_deepser_whose_help_shows_the_presets_value() -> None:
    command = typer.main.get_command(cli.app).commands["fit-deepser"]
    parameters = {option: parameter for parameter in command.params for option in parameter.opts}
    config = to_dict(find_preset("medusa").train)
    for setting in SETTINGS:
        parameter = parameters[f"--{setting.option}"]
        assert parameter.default is None, setting.option
        assert parameter.show_default == setting.default
        assert parameter.help == setting.help
    assert parameters["--lr"].show_default == str(config["stages"][0]["lr"])
    assert parameters["--views"].show_default == "none"
