"""A member that reads words: who hears them, and that nobody does where they are given."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deepser.config import MemberConfig
from deepser.members.folds import plan_folds
from ensemble.prediction.export import export_model
from ensemble.prediction.inputs import files_manifest
from ensemble.prediction.model import Model
from ensemble.prediction.predict import predict
from ensemble.prediction.sets import needed_sets
from ensemble.prediction.speech_to_text import SpeechToText, settings_of
from featurestore.asr.source import TranscriptSource
from featurestore.asr.transcribe import transcribe
from featurestore.asr.transcriber import load_transcriber
from featurestore.asr.transcripts import Transcripts
from featurestore.corpora.ravdess import read_ravdess
from featurestore.corpus.manifest import Manifest
from featurestore.encoders import load_encoder
from featurestore.errors import ConfigError, EncoderError, SpecMismatch
from featurestore.featurize.run import featurize
from featurestore.store.feature_store import FeatureStore
from tests.helpers.fitting import fit_member
from tests.helpers.small_models import NETWORK, TRAIN
from tests.helpers.small_text_encoder import save_text_encoder
from tests.helpers.small_whisper import save_whisper


@pytest.fixture(scope="module")
def place(demo_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return runs "heard", which learned from a Whisper's transcripts, and "read", from the manifest's text column."""
    root = tmp_path_factory.mktemp("hearing")
    for actor in ("01", "04"):
        shutil.copytree(demo_corpus / f"Actor_{actor}", root / "corpus" / f"Actor_{actor}")
    manifest = read_ravdess(root / "corpus")
    manifest = manifest.rows(np.arange(len(manifest)) % 8 < 2)
    manifest.write(root / "manifest.csv")
    transcribe(manifest, load_transcriber(str(save_whisper(root / "ear.pt")), language="de"), root / "words.csv")
    words = Transcripts.read(root / "words.csv")
    weights = save_text_encoder(root / "bert")
    store = FeatureStore.create(root / "store")
    featurize(manifest, load_encoder("logmel"), store, "mel")
    for name, source, texts in (("heard", words.source, words), ("read", "text", None)):
        encoder = load_encoder(str(weights), source=source)
        featurize(manifest, encoder, store, f"bert-{name}", weights=weights, transcripts=texts)
        config = MemberConfig(name, ("mel", f"bert-{name}"), NETWORK, replace(TRAIN, stages=TRAIN.stages[:1]))
        fit_member(store, manifest, config, plan_folds(manifest, cv="fold"), root / "runs" / name)
    return root


def clips(place: Path) -> Manifest:
    return Manifest.read(place / "manifest.csv").rows([2, 0, 5])


def test_what_a_member_learned_from_is_transcribed_again(place: Path) -> None:
    model = Model.load(place / "runs" / "heard")
    predictions = predict(model, clips(place), asr=str(place / "ear.pt"), device="cpu", chunk=2)
    store = FeatureStore.open(place / "store")
    expected, _ = model.members[0].predict(store, clips(place).keys)
    np.testing.assert_allclose(predictions.probabilities, expected, atol=1e-5)


def test_given_words_are_taken_as_they_are(place: Path) -> None:
    model, table = Model.load(place / "runs" / "read"), clips(place)
    expected, _ = model.members[0].predict(FeatureStore.open(place / "store"), table.keys)
    np.testing.assert_allclose(predict(model, table).probabilities, expected, atol=1e-5)
    files = [table.audio_path(i) for i in range(len(table))]
    transcriber = Model.load(place / "runs" / "heard")
    with_few, with_other = (transcriber.predict(files, text=text).probabilities for text in ("w1 w2 w3", "w90"))
    assert np.abs(with_few - with_other).max() > 1e-6


def test_words_that_nobody_gives_or_transcribes_are_refused(place: Path) -> None:
    model = Model.load(place / "runs" / "read")
    files = files_manifest([clips(place).audio_path(0)])
    with pytest.raises(ConfigError, match=r"bert-read.*--text.*--asr"):
        predict(model, files)
    assert len(predict(model, files, asr=str(place / "ear.pt")).keys) == 1


def test_another_ear_than_the_members_is_refused(place: Path) -> None:
    model = Model.load(place / "runs" / "heard")
    other_model = save_whisper(place / "other.pt", seed=1)
    with pytest.raises(SpecMismatch, match=r"other weights.*--asr off"):
        predict(model, clips(place), asr=str(other_model), device="cpu")


def test_a_missing_speech_recogniser_is_named(place: Path) -> None:
    with pytest.raises(EncoderError, match=r"Whisper ear: .*--asr FILE\.pt"):
        predict(Model.load(place / "runs" / "heard"), clips(place), device="cpu")


def test_a_file_that_cannot_be_transcribed_does_not_stop_the_others(place: Path) -> None:
    model, good = Model.load(place / "runs" / "heard"), clips(place).audio_path(0)
    predictions = predict(model, files_manifest([place / "gone.wav", good]), asr=str(place / "ear.pt"), device="cpu")
    assert predictions.keys == (str(good),)
    assert [key for key, _ in predictions.failed] == [str(place / "gone.wav")]


def test_the_settings_of_transcripts_are_recorded_with_the_feature_set_and_the_member(place: Path) -> None:
    recorded = FeatureStore.open(place / "store")["bert-heard"].provenance["transcripts"]
    assert (recorded["model"], recorded["language"], recorded["beam"]) == ("ear", "de", 1)
    assert "transcripts" not in FeatureStore.open(place / "store")["bert-read"].provenance
    sets = needed_sets(Model.load(place / "runs" / "heard").members)
    assert settings_of("bert-heard", sets["bert-heard"]) == Transcripts.read(place / "words.csv").settings
    hearing = SpeechToText.of(sets, clips(place), None, "cpu")
    assert (hearing.model, hearing.source.language if hearing.source else "") == ("ear", "de")
    assert not hearing.reads("mel")


def test_any_number_of_beams_is_read_back_as_it_was(place: Path) -> None:
    source = TranscriptSource("large-v3", "sha256:0123456789abcdef", "en", 20, "float16")
    saved = {"spec": {"source": f"transcripts:{source.identity}"}, "provenance": {"transcripts": source.to_json()}}
    assert settings_of("words", saved) == source
    changed = replace(source, beam=19)
    assert settings_of("words", saved | {"provenance": {"transcripts": changed.to_json()}}) is None
    assert settings_of("words", saved | {"provenance": {}}) is None


def forget_settings(place: Path, run: str, target: Path) -> Model:
    """Return a member as an earlier version left it: without the settings of its transcripts."""
    shutil.copytree(place / "runs" / run, target)
    saved = json.loads((target / "config.json").read_text())
    for spec in saved["specs"]:
        spec["provenance"].pop("transcripts", None)
    (target / "config.json").write_text(json.dumps(saved))
    return Model.load(target)


def test_settings_that_are_not_recorded_and_not_the_default_are_refused(place: Path, tmp_path: Path) -> None:
    model = forget_settings(place, "heard", tmp_path / "old")
    identity = Transcripts.read(place / "words.csv").identity
    requested = load_transcriber(str(place / "ear.pt"), device="cpu").source.identity
    with pytest.raises(SpecMismatch) as caught:
        predict(model, clips(place), asr=str(place / "ear.pt"), device="cpu")
    for fact in ("bert-heard", identity, requested, "--asr off", "medusa transcribe"):
        assert fact in str(caught.value)


def test_settings_that_are_not_recorded_but_the_default_are_known_by_the_identity(place: Path) -> None:
    loaded = load_transcriber(str(place / "ear.pt"), device="cpu")
    sets = {"words": {"spec": {"kind": "text", "source": f"transcripts:{loaded.source.identity}"}, "provenance": {}}}
    hearing = SpeechToText.of(sets, clips(place), str(place / "ear.pt"), "cpu")
    assert hearing.source is None
    assert hearing.transcriber.source == loaded.source


def test_an_export_keeps_the_settings_of_the_transcripts(place: Path, tmp_path: Path) -> None:
    export_model(place / "runs" / "heard", tmp_path / "exported")
    for spec in Model.load(tmp_path / "exported").members[0].specs:
        assert ("transcripts" in spec["provenance"]) == (spec["name"] == "bert-heard")
