import csv
import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from rich.console import Console

import ensemble.prediction.predict
import featurestore.featurize.job
from deepser.members.member import Member
from ensemble.fusion.kinds import KINDS
from ensemble.fusion.members import find_members, record_members
from ensemble.prediction.inputs import files_manifest
from ensemble.prediction.model import Model
from ensemble.prediction.predict import encoder_of, layers_option, predict
from ensemble.prediction.predictions import Predictions, predictions_table
from featurestore.corpus.manifest import Manifest
from featurestore.encoders import load_encoder
from featurestore.encoders.layers import LayerChoice
from featurestore.errors import ConfigError, EncoderError, SpecMismatch
from featurestore.featurize.run import featurize
from featurestore.store.feature_store import FeatureStore
from tests.helpers.messages import mentions
from tests.helpers.small_corpus import medusa
from tests.helpers.small_models import Trained


def files_of(trained: Trained, *rows: int) -> list[Path]:
    return [trained.manifest.audio_path(i) for i in rows]


def test_a_files_prediction_is_that_of_its_stored_features(trained: Trained) -> None:
    rows = [5, 0, 17, 30]
    model = Model.load(trained.runs / "m1")
    predictions = predict(model, files_manifest(files_of(trained, *rows)))
    expected, _ = Member.load(trained.runs / "m1").predict(trained.store, [trained.manifest.keys[i] for i in rows])
    np.testing.assert_allclose(predictions.probabilities, expected, atol=1e-5)
    assert predictions.classes == trained.manifest.scheme.classes
    np.testing.assert_allclose(predictions.probabilities.sum(1), 1, atol=1e-5)


@pytest.mark.parametrize("inputs", ["posteriors", "logits"])
def test_the_meta_classifier_reads_the_members_in_its_order(trained: Trained, inputs: str) -> None:
    rows = [3, 1]
    keys = [trained.manifest.keys[i] for i in rows]
    model = Model.load(trained.runs / f"meta-{inputs}")
    predictions = predict(model, files_manifest(files_of(trained, *rows)))
    outputs = [member.predict(trained.store, keys) for member in model.members]
    inputs_read = np.stack([output[inputs == "logits"] for output in outputs])
    assert model.meta is not None
    np.testing.assert_allclose(
        predictions.probabilities,
        KINDS[model.meta.kind].predict_values(model.meta, inputs_read).probabilities,
        atol=1e-5,
    )
    np.testing.assert_allclose(predictions.member_posteriors, np.stack([output[0] for output in outputs]), atol=1e-5)
    assert predictions.members == ("m0", "m1")


def test_one_bad_file_does_not_stop_the_others(trained: Trained, tmp_path: Path) -> None:
    good = files_of(trained, 2, 9)
    (tmp_path / "empty.wav").touch()
    (tmp_path / "not audio é.wav").write_text("text")
    names = [good[0], tmp_path / "empty.wav", tmp_path / "missing.wav", tmp_path / "not audio é.wav", good[1], good[0]]
    predictions = predict(Model.load(trained.runs / "meta-posteriors"), files_manifest(names))
    assert predictions.keys == (str(good[0]), str(good[1]))
    assert [key for key, _ in predictions.failed] == [str(name) for name in names[1:4]]
    assert [
        "empty" in predictions.failed[0][1],
        "no such file" in predictions.failed[1][1],
        "not audio" in predictions.failed[2][1],
    ]


def test_silence_is_named_beside_its_prediction(trained: Trained, tmp_path: Path) -> None:
    sound = np.sin(np.arange(16_000) / 7)
    soundfile.write(tmp_path / "opposed.wav", np.stack([sound, -sound], 1), 16_000, subtype="FLOAT")
    (good,) = files_of(trained, 2)
    names = ("predict", good, tmp_path / "opposed.wav", "--model", trained.runs / "m1")
    for options in ((), ("-o", tmp_path / "p.csv")):
        output = medusa(*names, *options)
        assert mentions(output.stderr, "warning", "1 silent", "opposed.wav")


def test_nothing_but_bad_files_gives_an_empty_result(trained: Trained, tmp_path: Path) -> None:
    predictions = predict(Model.load(trained.runs / "meta-posteriors"), files_manifest([tmp_path / "missing.wav"]))
    assert predictions.keys == ()
    assert predictions.probabilities.shape == (0, 8)
    assert len(predictions.failed) == 1
    predictions.write(tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text().startswith("file,label,p_neutral,")


@pytest.mark.parametrize("name", ["m0", "meta-posteriors"])
def test_csv_and_json_lines_hold_every_class_and_the_spread_by_name(
    trained: Trained, tmp_path: Path, name: str
) -> None:
    predictions = predict(Model.load(trained.runs / name), files_manifest(files_of(trained, 0, 1)))
    predictions.write(tmp_path / "out.csv")
    predictions.write(tmp_path / "out.jsonl")
    rows = list(csv.DictReader((tmp_path / "out.csv").read_text(encoding="utf-8").splitlines()))
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    spread = [*(f"sd_{c}" for c in predictions.classes), "disagreement"] if name != "m0" else []
    for i, (row, line) in enumerate(zip(rows, lines, strict=True)):
        assert list(row) == ["file", "label", *(f"p_{c}" for c in predictions.classes), "entropy", *spread]
        assert row["label"] == line["label"] == predictions.labels[i]
        np.testing.assert_allclose(
            [float(row[f"p_{c}"]) for c in predictions.classes], predictions.probabilities[i], 1e-4
        )
        assert line["file"] == predictions.keys[i]
        assert {column: value for column, value in line.items() if column not in ("file", "label")} == {
            column: float(value) for column, value in row.items() if column not in ("file", "label")
        }
        if spread:
            predicted = predictions.member_posteriors[:, i]
            np.testing.assert_allclose([line[f"sd_{c}"] for c in predictions.classes], np.std(predicted, 0), 1e-4)
    with pytest.raises(ConfigError, match=r"\.csv, \.jsonl.*xlsx"):
        predictions.write(tmp_path / "out.xlsx")


def test_uncertainty_separates_disagreement_from_doubt() -> None:
    """Four utterances: all sure of one class, all in doubt, sure of different classes, one of both kinds."""
    sure, doubt = [1.0, 0.0], [0.5, 0.5]
    predicted = np.array([[[*sure, 2.0], [*doubt, 2.0], [*sure, 1.0], [*sure, 4.0]],
                     [[*sure, 2.0], [*doubt, 4.0], [0.0, 1.0, 7.0], [*doubt, 4.0]]], np.float32)  # fmt: skip
    mean = predicted.mean(0)
    result = Predictions(tuple("abcd"), ("x", "y"), ("arousal",), mean[:, :2], mean[:, 2:], ("m0", "m1"), predicted)
    np.testing.assert_allclose(result.entropy, [0, np.log(2), np.log(2), 0.562335], atol=1e-6)
    np.testing.assert_allclose(result.disagreement, [0, 0, np.log(2), 0.562335 - np.log(2) / 2], atol=1e-6)
    np.testing.assert_allclose(result.spread, [[0, 0, 0], [0, 0, 1], [0.5, 0.5, 3], [0.25, 0.25, 0]], atol=1e-6)
    assert result.columns == [
        *("file", "label", "p_x", "p_y", "attr_arousal", "entropy", "sd_x", "sd_y", "sd_attr_arousal", "disagreement")
    ]


def test_in_chunks_it_is_the_same_and_each_encoder_is_loaded_once(
    trained: Trained, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    files = [*files_of(trained, 0, 7, 3), tmp_path / "gone.wav", *files_of(trained, 9, 2)]
    model = Model.load(trained.runs / "meta-logits")
    at_once = predict(model, files_manifest(files))
    loaded = []

    def counted(name: str, *rest: object, **more: object) -> object:
        loaded.append(name)
        return encoder_of(name, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(ensemble.prediction.predict, "encoder_of", counted)
    calls: list[tuple[float, int]] = []
    parts = predict(model, files_manifest(files), chunk=2, progress=lambda what, done, of: calls.append((done, of)))
    assert sorted(loaded) == ["mel", "pooled"]
    assert parts.keys == at_once.keys
    assert parts.failed == at_once.failed
    np.testing.assert_allclose(parts.probabilities, at_once.probabilities, atol=1e-6)
    np.testing.assert_allclose(parts.member_posteriors, at_once.member_posteriors, atol=1e-6)
    assert calls[-1] == (6, 6)
    assert all(of == 6 and done <= 6 for done, of in calls)


def test_the_command_takes_folders_patterns_and_a_list(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for i in (0, 1, 2):
        (tmp_path / "in" / str(i)).mkdir(parents=True)
        shutil.copy(trained.manifest.audio_path(i), tmp_path / "in" / str(i) / "clip.ogg")
    to = ["--model", trained.runs / "meta-posteriors", "-o", "p.csv"]
    expected = [f"in/{i}/clip.ogg" for i in (0, 1, 2)]
    for sources, stdin in ((["in"], None), (["in/*/*.ogg"], None), (["-"], "in/0\nin/[12]/clip.ogg\n")):
        medusa("predict", *sources, *to, stdin=stdin)
        rows = list(csv.DictReader((tmp_path / "p.csv").read_text().splitlines()))
        assert [row["file"] for row in rows] == expected
    shown = medusa("predict", "in", *to[:2]).stdout
    assert "differ" in shown


def test_run_directories_may_move_together(trained: Trained, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere" / "runs"
    shutil.copytree(trained.runs, moved)
    assert Model.load(moved / "meta-logits").members[0].directory == moved / "m0"


def test_a_member_that_was_fitted_again_is_noticed(trained: Trained, tmp_path: Path) -> None:
    shutil.copytree(trained.runs, tmp_path / "runs")
    weights = tmp_path / "runs" / "m0" / "fold-1" / "model.safetensors"
    shutil.copy(trained.runs / "m1" / "fold-1" / "model.safetensors", weights)
    with pytest.raises(ConfigError, match=r"other weights.*fit-meta"):
        Model.load(tmp_path / "runs" / "meta-posteriors")


def test_what_is_not_a_model_is_refused(trained: Trained, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such directory"):
        Model.load(tmp_path / "nothing")
    with pytest.raises(ConfigError, match=r"no such directory.*runs holds .*m0, .*meta-posteriors"):
        Model.load(trained.runs / "nothing")
    with pytest.raises(ConfigError, match="fit-deepser"):
        Model.load(tmp_path)
    shutil.copytree(trained.runs, tmp_path / "runs")
    (tmp_path / "runs" / "meta-logits" / "members.json").write_text("{")
    with pytest.raises(ConfigError, match=r"members\.json is damaged"):
        Model.load(tmp_path / "runs" / "meta-logits")
    (tmp_path / "runs" / "meta-logits" / "members.json").unlink()
    with pytest.raises(ConfigError, match=r"members\.json is missing"):
        Model.load(tmp_path / "runs" / "meta-logits")


def changed(trained: Trained, directory: Path, **fields: object) -> Model:
    """Return the member m0 with other fields in the specification of its first feature set."""
    shutil.copytree(trained.runs / "m0", directory / "m0")
    path = directory / "m0" / "config.json"
    saved = json.loads(path.read_text())
    saved["specs"][0]["spec"] |= fields
    path.write_text(json.dumps(saved))
    return Model.load(directory / "m0")


def test_another_encoder_than_the_members_learned_from_is_refused(trained: Trained, tmp_path: Path) -> None:
    model = changed(trained, tmp_path, dtype="float32")
    with pytest.raises(SpecMismatch, match="'mel'"):
        predict(model, files_manifest(files_of(trained, 0)))


def test_members_that_mean_different_features_by_one_name_are_refused(trained: Trained, tmp_path: Path) -> None:
    member = Model.load(trained.runs / "m0").members[0]
    specs = ({**member.specs[0], "fingerprint": "0" * 16, "spec": {**member.specs[0]["spec"], "dtype": "float32"}},)
    model = Model((Model.load(trained.runs / "m1").members[0], replace(member, specs=specs)), None)
    with pytest.raises(SpecMismatch, match=r"dtype: .*float16.*float32"):
        predict(model, files_manifest(files_of(trained, 0)))


def test_weights_for_a_feature_set_that_is_not_read_are_refused(trained: Trained, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--weights wavlm=.*it reads mel, pooled"):
        predict(Model.load(trained.runs / "m0"), files_manifest(["a.wav"]), weights={"wavlm": tmp_path})


def test_weights_are_found_where_they_were_and_where_one_says(demo_corpus: Path, tmp_path: Path) -> None:
    original, moved = tmp_path / "mine", tmp_path / "moved" / "anything"
    shutil.copytree(demo_corpus.parent / "weights" / "tiny-hubert", original)
    encoder = load_encoder(str(original), layers="2,3")
    store = FeatureStore.create(tmp_path / "store")
    clips = files_manifest([next(demo_corpus.glob("Actor_01/*.ogg"))])
    featurize(clips, encoder, store, "h", weights=original)
    features = store["h"]
    spec = features.spec
    saved = {"fingerprint": spec.fingerprint, "spec": spec.to_json(), "provenance": features.provenance}
    assert encoder_of("h", saved, weights={}, device="cpu").spec == spec
    moved.parent.mkdir()
    original.rename(moved)
    with pytest.raises(EncoderError, match="--weights h=DIR"):
        encoder_of("h", saved, weights={}, device="cpu")
    for name in ("h", "mine"):  # the feature set's name, and the encoder's
        assert encoder_of("h", saved, weights={name: moved}, device="cpu").spec == spec


@pytest.mark.parametrize("text", ["last", "0,3", "all", "last2", "last4-sum"])
def test_stored_layer_names_lead_back_to_the_option(text: str) -> None:
    choice = LayerChoice.parse(text, 12, "encoder")
    assert LayerChoice.parse(layers_option(choice.names), 12, "encoder") == choice


def test_members_are_all_posteriors_but_the_ensembles_own(trained: Trained, tmp_path: Path) -> None:
    assert find_members(trained.store) == ["posteriors/m0", "posteriors/m1"]
    with pytest.raises(ConfigError, match="fit-deepser"):
        find_members(FeatureStore.create(tmp_path / "empty"))


def test_the_digest_of_the_weights_is_the_one_in_the_store(trained: Trained, tmp_path: Path) -> None:
    assert Member.load(trained.runs / "m0").weights_digest == trained.store["posteriors/m0"].spec.weights
    assert record_members(tmp_path, trained.store, ["posteriors/m0"], tmp_path) == ["posteriors/m0"]


def test_a_stopped_prediction_goes_on(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [*map(str, files_of(trained, 0, 7, 3)), str(tmp_path / "gone.wav"), *map(str, files_of(trained, 9, 2))]
    out, journal = tmp_path / "out.csv", tmp_path / "out.csv.journal"
    command = ["predict", *files, "--model", trained.runs / "meta-logits", "-o", out, "--chunk", 2]
    encoded: list[str] = []
    original = featurestore.featurize.job.featurize

    def stopping(manifest: Manifest, *rest: object, **more: object) -> object:
        encoded.extend(manifest.keys)
        if files[4] in manifest.keys:
            raise KeyboardInterrupt
        return original(manifest, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(featurestore.featurize.job, "featurize", stopping)
    medusa(*command, exit_code=130)
    assert not out.exists()
    assert [json.loads(line)["file"] for line in journal.read_text().splitlines()[1:]] == files[:3]
    with open(journal, "ab") as file:
        file.write(b'{"file": "torn')
    refused = medusa("predict", *files[1:], "--model", trained.runs / "meta-logits", "-o", out, exit_code=2)
    assert "on other files too" in refused.output
    assert Path(files[0]).name in refused.output.replace("\n", "")
    refused = medusa("predict", *files, "--model", trained.runs / "m0", "-o", out, exit_code=2)
    assert "another model" in refused.output

    monkeypatch.setattr(featurestore.featurize.job, "featurize", original)
    going_on = medusa(*command, exit_code=1)  # for the file that isn't there
    assert "gone.wav" in going_on.output.replace("\n", "")
    assert not journal.exists()
    rows = list(csv.DictReader(out.read_text(encoding="utf-8").splitlines()))
    assert [row["file"] for row in rows] == [*files[:3], *files[4:]]
    predictions = predict(Model.load(trained.runs / "meta-logits"), files_manifest(files))
    np.testing.assert_allclose(
        [float(row["p_sad"]) for row in rows], predictions.probabilities[:, predictions.classes.index("sad")], 1e-4
    )


def test_the_terminals_table_names_the_common_directory_once() -> None:
    predicted = np.array([[[0.9, 0.1], [0.2, 0.8]]], np.float32)

    def shown(*keys: str) -> str:
        result = Predictions(keys, ("x", "y"), (), predicted[0], np.zeros((2, 0), np.float32), ("m",), predicted)
        console = Console(width=60, file=io.StringIO())
        console.print(predictions_table(result))
        return console.file.getvalue()  # type: ignore[attr-defined]

    text = shown("data/calls/a/1.wav", "data/calls/b/2.wav")
    assert text.count("data/calls/") == 1
    assert " a/1.wav " in text
    assert "files in" not in shown("1.wav", "2.wav")
    assert "/1.wav" in shown("/1.wav", "/2.wav")
