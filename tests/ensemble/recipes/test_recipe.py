import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import typer

import cli
from deepser.members.presets import MEDUSA_MEMBERS, PRESETS
from ensemble.recipes import execute
from ensemble.recipes.execute import digest, is_as_recorded, run_steps, state, undone
from ensemble.recipes.plan import Places, Step, Thing, steps_of
from ensemble.recipes.recipe import BUILT_IN, built_in, read_recipe
from featurestore.errors import ConfigError
from tests.helpers.synthetic_corpus import corpus

GOOD = """\
variables:
  corpus: C
  epochs:
cv: fold
prepare:
  corpus: ravdess
  root: ${corpus}
featurize:
  mel: {encoder: logmel}
  tiny-hubert:
    layers: [2, 3]
members:
  defaults: {d: 16, lr: 1e-3}
  m1:
    features: tiny-hubert@2+3, mel
    epochs: ${epochs}
  m2: {features: [mel, tiny-hubert], lr: 0.1}
meta: {seeds: 2}
evaluate:
"""
REQUIRED = {"corpus": "C", "weights": "W"}


@pytest.fixture(scope="module")
def commands() -> Any:
    return typer.main.get_command(cli.app)


def planned(commands: Any, directory: Path, text: str, *settings: str) -> list[Step]:
    path = directory / "r.yaml"
    path.write_text(text, encoding="utf-8")
    recipe = read_recipe(str(path), settings)
    return steps_of(recipe, commands, Places(directory / "out", directory / "out" / "store"))


def options(step: Step) -> dict[str, str]:
    result = dict(zip(step.arguments, step.arguments[1:], strict=False))
    return {key.removeprefix("--"): value for key, value in result.items() if key.startswith("--")}


def test_sections_become_commands_in_their_order(commands: Any, tmp_path: Path) -> None:
    steps = planned(commands, tmp_path, GOOD, "epochs=3")
    assert [step.name for step in steps] == [
        *("prepare", "featurize/mel", "featurize/tiny-hubert", "members/m1", "members/m2", "meta", "evaluate/meta")
    ]
    assert [step.arguments[0] for step in steps] == [
        *("prepare", "featurize", "featurize", "fit-deepser", "fit-deepser", "fit-meta", "evaluate")
    ]
    assert steps[0].arguments[:4] == ("prepare", "ravdess", "--root", "C")
    first, second = options(steps[3]), options(steps[4])
    assert (first["d"], first["lr"], first["epochs"], first["features"]) == ("16", "1e-3", "3", "tiny-hubert@2+3, mel")
    assert (second["d"], second["lr"], second["features"]) == ("16", "0.1", "mel,tiny-hubert")
    assert options(steps[5])["members"] == "m1,m2"
    assert [options(step).get("cv") for step in steps] == [None, None, None, *["fold"] * 4]
    assert [str(thing) for thing in steps[3].reads] == ["manifest.csv", "tiny-hubert", "mel"]


@pytest.mark.parametrize(
    ("old", "new", "line", "expected"),
    [
        ("cv: fold", "cw: fold", 4, r"unknown key 'cw'; expected one of .*cv"),
        ("layers: [2, 3]", "layer: 2", 11, r"unknown option of medusa featurize 'layer'; did you mean layers"),
        ("d: 16", "d: wide", 13, r"'--d'.*, found 'wide'"),
        ("d: 16", "d: 1.5", 13, r"'--d'.*, found '1.5'"),
        ("d: 16", "d: [1, 2]", 13, r"'--d'.*, found \['1', '2'\]"),
        ("lr: 1e-3", "lr: true", 13, r"expected a text or a number, found True"),
        ("seeds: 2", "seeds: 0", 18, r"'--seeds'.*, found '0'"),
        ("seeds: 2", "in-sample: 1", 18, r"in-sample must be true or false, found '1'"),
        ("seeds: 2", "store: here", 18, r"store is set by the run itself"),
        ("epochs: ${epochs}", "epochs: ${epoch}", 16, r"unknown variable 'epoch'; did you mean epochs"),
        ("corpus: ravdess", "corpus: ravdes", 6, r"unknown command medusa prepare 'ravdes'; did you mean ravdess"),
        ("root: ${corpus}", "join-folds: 3", 5, r"--root"),
        ("corpus: ravdess", "{", 7, r"not YAML"),
        ("  m2: {", "  m1: {", 17, r"'m1' stands twice"),
        ("  m2: {", "  m 2: {", 17, r"'m 2' can't be a name"),
        ("[mel, tiny-hubert]", "[mel, hubert]", 17, r"m2 reads 'hubert', which the featurize section does not make"),
        ("meta: {seeds: 2}", "meta: 2", 18, r"expected keys with values, found '2'"),
        ("layers: [2, 3]", "layers: [[2], 3]", 11, r"a list of plain values"),
        ("d: 16", "seeds: 3", 13, r"a member of a recipe is one"),
        ("layers: [2, 3]", "transcripts: true", 11, r"takes those of the transcribe section"),
        ("cv: fold", "cv: [a, b]", 4, r"expected a text or a number, found \['a', 'b'\]"),
        ("lr: 0.1", "preset: medusae", 17, r"member m2: .*medusae"),
        ("lr: 0.1", "set: [network.dd=3]", 17, r"member m2: .*dd"),
        ("seeds: 2", "meta: foo", 18, r"'--meta'.*'foo' is not one of linear, mlp, .*, found 'foo'"),
        ("seeds: 2", "inputs: logit", 18, r"'--inputs'.*not one of posteriors, logits"),
        ("seeds: 2", "top: 3", 18, r"the top 3 can't be chosen of 2 members"),
        ("seeds: 2", "members: [m1, m9]", 18, r"no section makes 'm9', .*; they make m1, m2, meta"),
        ("evaluate:", "evaluate: {systems: [m1, m9]}", 19, r"no section makes 'm9'"),
        ("evaluate:", "evaluate: {against: m9}", 19, r"no section makes 'm9'"),
        ("evaluate:", "compare: {rows: [soft, liner]}", 19, r"'--rows'.*'liner' is not one of"),
        ("evaluate:", "compare: {rows: linear:logit}", 19, r"'--rows'.*'logit' is not one of"),
        ("evaluate:", "compare: {top: few}", 19, r"'--top'.*numbers of members"),
    ],
)
def test_a_mistake_is_named_with_its_line(
    commands: Any, tmp_path: Path, old: str, new: str, line: int, expected: str
) -> None:
    assert old in GOOD
    with pytest.raises(ConfigError, match=rf"r\.yaml, line {line}: .*{expected}"):
        planned(commands, tmp_path, GOOD.replace(old, new), "epochs=3")


def test_a_variable_without_a_value_is_named(commands: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"line 16: epochs.*--set epochs=VALUE"):
        planned(commands, tmp_path, GOOD)


def test_settings_reach_variables_and_every_entry(commands: Any, tmp_path: Path) -> None:
    settings = [
        "epochs=3",
        "corpus=elsewhere",
        "members.m2.features=[mel, tiny-hubert@3]",
        "members.defaults.seed=7",
        "meta.seeds=5",
    ]
    steps = planned(commands, tmp_path, GOOD, *settings, "featurize.defaults.workers=3", "cv=session")
    assert "elsewhere" in steps[0].arguments
    assert options(steps[1])["workers"] == "3"
    assert (options(steps[3])["seed"], options(steps[4])["features"]) == ("7", "mel,tiny-hubert@3")
    assert (options(steps[5])["seeds"], options(steps[5])["cv"]) == ("5", "session")
    for setting in ("epoch=3", "members.m9.d=3", "nothing"):
        with pytest.raises(ConfigError, match=rf"--set {setting.split('=')[0]}.*(nowhere|NAME=VALUE)"):
            planned(commands, tmp_path, GOOD, "epochs=3", setting)
    with pytest.raises(ConfigError, match=r"--set members\.m1\.d: .*found 'wide'"):
        planned(commands, tmp_path, GOOD, "epochs=3", "members.m1.d=wide")


def test_a_setting_adds_a_section_that_the_recipe_lacks(commands: Any, tmp_path: Path) -> None:
    steps = planned(
        commands, tmp_path, GOOD, "epochs=3", "transcribe.model=base", "transcribe.language=pl", "compare.top=2"
    )
    assert [step.name for step in steps][:2] == ["prepare", "transcribe"]
    assert (options(steps[1])["model"], options(steps[1])["language"]) == ("base", "pl")
    assert "compare" in [step.name for step in steps]
    with pytest.raises(ConfigError, match=r"--set transcribe\.modl: .*did you mean model"):
        planned(commands, tmp_path, GOOD, "epochs=3", "transcribe.modl=base")
    for section in ("featurize.new", "elsewhere"):
        with pytest.raises(ConfigError, match="leads nowhere"):
            planned(commands, tmp_path, GOOD, "epochs=3", f"{section}.layers=3")


def test_a_manifest_takes_the_place_of_preparing_one(commands: Any, tmp_path: Path) -> None:
    without = GOOD.replace("corpus: C\n", "corpus:\n")
    steps = planned(commands, tmp_path, without, "epochs=3", "manifest=own.csv")
    assert steps[0].name == "featurize/mel"
    assert {options(step)["manifest"] for step in steps} == {"own.csv"}
    with pytest.raises(ConfigError, match=r"prepare.*manifest"):
        planned(commands, tmp_path, GOOD, "epochs=3", "manifest=own.csv", "prepare.root=D")


def test_how_to_compute_is_no_part_of_what_a_step_is(commands: Any, tmp_path: Path) -> None:
    planned_once, planned_again = (
        planned(commands, tmp_path, GOOD, "epochs=3", f"featurize.defaults.workers={n}") for n in (2, 4)
    )  # fmt: skip
    assert [step.settings for step in planned_once] == [step.settings for step in planned_again]
    changed = planned(commands, tmp_path, GOOD, "epochs=4")
    assert [a.name for a, b in zip(planned_once, changed, strict=True) if a.settings != b.settings] == ["members/m1"]


def test_text_encoders_read_the_transcripts_unless_set_otherwise(commands: Any, tmp_path: Path) -> None:
    encoders = {"bert": "text", "hubert": "speech"}
    for model_type, name in encoders.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(f'{{"model_type": "{model_type}"}}')
    text = GOOD.replace(
        "featurize:",
        "transcribe: {model: tiny.en}\nfeaturize:\n  roberta-base:\n  mine: {encoder: C}\n"
        f"  own-text: {{encoder: {tmp_path / 'text'}}}\n  own-speech: {{weights: {tmp_path / 'speech'}}}",
    )
    with pytest.raises(ConfigError, match=r"line 11: .* C .*transcripts: true or false"):
        planned(commands, tmp_path, text, "epochs=1")
    text = text.replace("encoder: C}", "encoder: C, transcripts: false}")
    steps = {step.name: options(step) for step in planned(commands, tmp_path, text, "epochs=1")}
    assert steps["transcribe"]["output"] == steps["featurize/roberta-base"]["transcripts"]
    assert "transcripts" not in steps["featurize/mine"] | steps["featurize/tiny-hubert"] | steps["featurize/own-speech"]
    assert steps["transcribe"]["output"] == steps["featurize/own-text"]["transcripts"]
    changed_text = text.replace("roberta-base:", "roberta-base: {transcripts: false}").replace(
        ": C, transcripts: false}", ": C, transcripts: true}"
    )
    steps = {step.name: options(step) for step in planned(commands, tmp_path, changed_text, "epochs=1")}
    assert "transcripts" in steps["featurize/mine"]
    assert "transcripts" not in steps["featurize/roberta-base"]


def test_a_manifest_may_be_there_already_and_be_split(commands: Any, tmp_path: Path) -> None:
    prepare = re.search(r"prepare:.*?(?=featurize)", GOOD, re.DOTALL)[0]  # type: ignore[index]
    steps = planned(commands, tmp_path, GOOD.replace(prepare, "manifest: mine.csv\n"), "epochs=1")
    assert steps[0].name == "featurize/mel"
    assert options(steps[0])["manifest"] == "mine.csv"
    steps = planned(commands, tmp_path, GOOD.replace("featurize:", "split: {folds: 3}\nfeaturize:"), "epochs=1")
    assert steps[0].arguments[-1].endswith("prepared.csv")
    assert steps[1].arguments[-2:] == (str(tmp_path / "out" / "prepared.csv"), "--output") or steps[1].name == "split"
    assert options(steps[2])["manifest"] == str(tmp_path / "out" / "manifest.csv")
    with pytest.raises(ConfigError, match=r"prepare.*manifest"):
        planned(commands, tmp_path, GOOD.replace(prepare, ""), "epochs=1")


# What comes with the program


@pytest.mark.parametrize("name", built_in())
def test_every_recipe_can_be_planned(commands: Any, tmp_path: Path, name: str) -> None:
    about = read_recipe(name, values_needed=False)
    assert about.about
    needed = [key for key, value in about.variables.items() if value is None]
    steps = steps_of(
        read_recipe(name, [f"{key}={REQUIRED[key]}" for key in needed]), commands, Places(tmp_path, tmp_path / "store")
    )
    for step in steps:
        preset = options(step).get("preset")
        assert preset is None or preset in PRESETS
    text = (BUILT_IN / f"{name}.yaml").read_text()
    assert not re.search(r"(?<![\w$.}])/\w", re.sub(r"#.*", "", text)), "a path of some machine"


def test_medusa14_is_table_1(commands: Any) -> None:
    recipe = read_recipe("medusa14", ["corpus=C"])
    members = recipe.sections["members"]
    assert [tuple(member.value["features"].texts) for member in members.values()] == list(MEDUSA_MEMBERS)
    assert [member.value["preset"].text for member in members.values()] == ["medusa"] * 14
    assert list(recipe.sections["featurize"]) == [
        *("hubert-large", "wavlm-large", "whisper-large-v3", "roberta-large", "modernbert-large")
    ]
    assert recipe.sections["meta"][""].value["seeds"].text == "6"


def test_the_small_one_has_its_shape() -> None:
    stands_for = {
        "tiny-wavlm": "wavlm-large", "tiny-hubert": "hubert-large", "whisper-base": "whisper-large-v3",
        "all-mpnet-base-v2": "roberta-large", "all-MiniLM-L6-v2": "modernbert-large",
    }  # fmt: skip
    members = read_recipe("medusa14-small", ["corpus=C", "weights=W"]).sections["members"].values()
    result = [tuple(stands_for[ref.partition("@")[0]] for ref in m.value["features"].texts) for m in members]
    assert result == list(MEDUSA_MEMBERS)


def test_unicamp_and_abhinaya_are_as_in_the_challenge_paper() -> None:
    """Cross-attention over audio, text and functionals with a forest on logits; the majority vote of five members."""
    for name in ("unicamp", "unicamp-small"):
        sections = read_recipe(name, ["corpus=C"]).sections
        for member in sections["members"].values():
            assert member.value["preset"].text == "cross-attention"
            assert len(member.value["features"].texts) == 3
            assert member.value["features"].texts[2] == "egemapsv02"
        assert {key: entry.text for key, entry in sections["meta"][""].value.items()} == {
            "meta": "forest", "inputs": "logits"
        }  # fmt: skip
    for name in ("abhinaya", "abhinaya-small"):
        sections = read_recipe(name, ["corpus=C"]).sections
        assert len(sections["members"]) == 5
        assert sections["meta"][""].value["meta"].text == "majority"


def test_an_unknown_recipe_suggests_the_near_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean medusa14"):
        read_recipe("medusa")
    with pytest.raises(ConfigError, match="no such file"):
        read_recipe(str(tmp_path / "none.yaml"))


def test_all_mistakes_of_a_recipe_are_named_at_once_with_their_lines(commands: Any, tmp_path: Path) -> None:
    text = "prepare: {corpus: ravdess, root: R, merg: a=b, strikt: true}\nfeaturise: {}\nmembers:\n"
    text += "  m1: {features: [none], sed: 3}\n  m2: {features: [nowhere]}\nevaluate: {bootstrap: many}\n"
    with pytest.raises(ConfigError) as caught:
        planned(commands, tmp_path, text)
    for line, word in [
        (1, "merg"),
        (1, "strikt"),
        (2, "featurise"),
        (4, "none"),
        (4, "sed"),
        (5, "nowhere"),
        (6, "many"),
    ]:
        assert re.search(rf"line {line}:.*{word}", str(caught.value)), (line, word, str(caught.value))


def test_a_recipe_joins_corpora_and_trains_across_them(commands: Any, tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("utterance_id,text,label\nu,x,sad\n")
    text = f"""\
cv: fold
prepare: {{corpus: join, manifests: ["{tmp_path}/a.csv", "B={tmp_path}/b.csv"], merge: [anger=angry]}}
featurize: {{mel: {{encoder: logmel}}}}
members:
  defaults: {{train-on: a, test-on: B}}
  m1: {{features: mel, network: unimodal}}
"""
    steps = planned(commands, tmp_path, text)
    assert steps[0].arguments[:4] == ("prepare", "join", f"{tmp_path}/a.csv", f"B={tmp_path}/b.csv")
    assert {thing.path for thing in steps[0].reads} == {tmp_path / "a.csv", tmp_path / "b.csv"}
    assert options(steps[2])["train-on"] == "a"
    assert "cv" not in options(steps[2])


def test_a_table_of_systems_is_a_step_of_its_own_with_all_of_them(commands: Any, tmp_path: Path) -> None:
    text = GOOD.replace("evaluate:", "evaluate: {systems: [m1, m2, meta], by: gender, output: t.tex}")
    *_, step, table = planned(commands, tmp_path, text, "epochs=3")
    assert table.name == "evaluate/table"
    assert {"m1", "m2", "meta"} <= set(table.arguments)
    assert options(table)["output"] == "t.tex"
    assert "--output" not in step.arguments
    assert "--by" not in table.arguments


def test_rows_that_changed_under_one_specification_are_another_set(tmp_path: Path) -> None:
    """As features of audio that was replaced are, and a vote of members that were fitted again."""
    store, manifest = corpus(tmp_path)
    manifest.write(tmp_path / "m.csv")
    things = [Thing("set", store.path, "first"), Thing("set", store.path, "first", tmp_path / "m.csv")]
    before = [digest(thing) for thing in things]
    of_earlier_version = store["first"].spec.fingerprint  # whose records have no rows, and no states
    for thing in things:
        assert is_as_recorded({"reads": {"first": of_earlier_version}}, "reads", "first", thing)
        for other in ({}, {"first": ""}, {"first": "0" * 16}):
            assert not is_as_recorded({"reads": other}, "reads", "first", thing)
    features = store["first"]
    spec, rows = features.spec, {}
    for key in features:
        rows[key] = features.read_layers([key], spec.layers, "float32").values.copy()
    for change, same in ((0.0, True), (1.0, False)):
        rows[manifest.keys[0]] += change
        store.remove("first")
        with store.writer("first", spec) as writer:
            for key, layers in rows.items():
                writer.append(key, layers)
        assert [digest(thing) == was for thing, was in zip(things, before, strict=True)] == [same, same]


def test_the_digest_of_a_set_is_taken_anew_only_where_its_files_or_the_manifest_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, manifest = corpus(tmp_path)
    manifest.write(tmp_path / "m.csv")
    thing = Thing("set", store.path, "first", tmp_path / "m.csv")
    record = {"makes": {"first": digest(thing)}, "states": {"first": state(thing)}}
    taken: list[Thing] = []
    monkeypatch.setattr(execute, "digest", lambda thing: (taken.append(thing), digest(thing))[1])
    assert is_as_recorded(record, "makes", "first", thing)
    assert not taken

    text = (tmp_path / "m.csv").read_bytes()
    (tmp_path / "m.csv").write_bytes(text + text.splitlines(keepends=True)[-1].replace(b"u", b"v", 1))
    assert not is_as_recorded(record, "makes", "first", thing)  # an utterance more, which the set lacks
    (tmp_path / "m.csv").write_bytes(text)
    assert is_as_recorded(record, "makes", "first", thing)
    assert len(taken) == 1

    some_file = next(path for path in sorted((store.path / "first").rglob("*")) if path.is_file())
    os.utime(some_file)  # the same bytes
    assert is_as_recorded(record, "makes", "first", thing)
    assert len(taken) == 2
    shutil.rmtree(store.path / "first")
    assert not is_as_recorded(record, "makes", "first", thing)


def test_audio_and_an_encoders_directory_that_changed_are_looked_at_again(commands: Any, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.wav").write_bytes(b"1")
    (tmp_path / "m.csv").write_text("utterance_id,path,text\na,a.wav,x\nb,b.wav,y\n", encoding="utf-8")
    weights = tmp_path / "encoder"
    weights.mkdir()
    (weights / "model.safetensors").write_bytes(b"1")
    text = f"manifest: {tmp_path}/m.csv\nfeaturize:\n  mel: {{encoder: logmel}}\n  own: {{encoder: {weights}}}\n"
    places = Places(tmp_path / "out", tmp_path / "out" / "store")
    steps = planned(commands, tmp_path, text)
    run_steps(steps, places, lambda arguments: 0)
    assert [undone(step, places) for step in steps] == ["", ""]
    (tmp_path / "b.wav").write_bytes(b"22")
    assert [undone(step, places) for step in steps] == ["the audio of m.csv changed"] * 2
    run_steps(steps, places, lambda arguments: 0)
    (weights / "model.safetensors").write_bytes(b"22")
    assert [undone(step, places) for step in steps] == ["", "encoder changed"]
    run_steps(steps, places, lambda arguments: 0)
    for name in ("a", "b"):
        (tmp_path / f"{name}.wav").unlink()  # to make room, once the features are there
    assert [undone(step, places) for step in steps] == ["", ""]


def test_what_changes_while_a_step_runs_is_not_what_it_read(tmp_path: Path) -> None:
    manifest, kept = tmp_path / "m.csv", tmp_path / "kept"
    manifest.write_text("utterance_id,label\na,sad\n", encoding="utf-8")
    step = Step("work", ("work",), (), (Thing("manifest", manifest), Thing("tree", kept)), ())
    places = Places(tmp_path / "out", tmp_path / "out" / "store")

    def edit(arguments: tuple[str, ...]) -> int:
        manifest.write_text("utterance_id,label\na,angry\n", encoding="utf-8")
        kept.mkdir(exist_ok=True)
        (kept / "own.txt").write_text("what the step writes to a path of its own does not count")
        return 0

    run_steps([step], places, edit)
    assert undone(step, places) == "m.csv changed"
    run_steps([step], places, edit)
    assert undone(step, places) == ""


def test_paths_of_one_name_are_told_apart(tmp_path: Path) -> None:
    paths = [tmp_path / part / "weights" for part in "ab"]
    for path in paths:
        path.mkdir(parents=True)
        (path / "model.safetensors").write_text(path.parent.name)
    step = Step("work", ("work",), (), tuple(Thing("tree", path) for path in paths), ())
    places = Places(tmp_path / "out", tmp_path / "out" / "store")
    run_steps([step], places, lambda arguments: 0)
    assert undone(step, places) == ""
    (paths[0] / "model.safetensors").write_text("longer")
    assert undone(step, places) == f"weights ({paths[0]}) changed"


def test_audio_is_read_by_the_steps_that_decode_it(commands: Any, tmp_path: Path) -> None:
    text = "manifest: m.csv\ntranscribe: {model: base}\nfeaturize:\n  mel: {encoder: logmel}\n  roberta-large:\n"
    steps = planned(commands, tmp_path, text)
    assert {step.name: "audio" in {thing.kind for thing in step.reads} for step in steps} == {
        "transcribe": True, "featurize/mel": True, "featurize/roberta-large": False
    }  # fmt: skip
