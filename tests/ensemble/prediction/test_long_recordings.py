"""Long recordings through the whole chain: a row per window, of members, meta-classifiers, exports and probes."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

import ensemble.prediction.predict
from ensemble.evaluation.prediction_files import read_predictions
from ensemble.prediction.export import export_model
from ensemble.prediction.inputs import files_manifest
from ensemble.prediction.model import Model
from ensemble.prediction.predict import predict
from ensemble.prediction.timeline import stretches
from featurestore.audio import decode
from featurestore.corpus.manifest import Manifest
from featurestore.errors import ConfigError
from featurestore.recordings.segment_tables import read_segments
from tests.helpers.interrupts import interrupted_at_call
from tests.helpers.small_corpus import medusa
from tests.helpers.small_models import Trained

RATE = 16_000


@pytest.fixture(scope="module")
def call(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five clips one after another, between pauses: 20 s or so."""
    directory = tmp_path_factory.mktemp("calls")
    parts = [np.zeros(RATE, np.float32)]
    for i in range(5):
        parts += [decode(trained.manifest.audio_path(i)), np.zeros(RATE // 2, np.float32)]
    soundfile.write(directory / "call.flac", np.concatenate(parts), RATE)
    return directory / "call.flac"


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def test_a_windows_prediction_is_that_of_its_sound_as_a_file(trained: Trained, call: Path, tmp_path: Path) -> None:
    model = Model.load(trained.runs / "meta-posteriors")
    predictions = model.predict([call], every=2, span=6)
    samples = decode(call)
    names = []
    for n, piece in enumerate(predictions.pieces):
        assert piece is not None
        assert piece.end_s is not None
        names.append(tmp_path / f"{n}.wav")
        soundfile.write(names[-1], samples[round(piece.start_s * RATE) : round(piece.end_s * RATE)], RATE, "FLOAT")
    singly = predict(model, files_manifest(names))
    np.testing.assert_allclose(predictions.probabilities, singly.probabilities, atol=1e-5)
    assert [piece.start_s for piece in predictions.pieces if piece] == [2.0 * n for n in range(len(names))]
    assert predictions.pieces[-1].end_s == pytest.approx(len(samples) / RATE, abs=1e-6)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "model", [pytest.param("m0", marks=pytest.mark.slow), pytest.param("meta-logits", marks=pytest.mark.slow), "export"]
)
def test_the_command_writes_a_row_per_window_in_every_format(
    trained: Trained, call: Path, tmp_path: Path, model: str
) -> None:
    place = trained.runs / model
    if model == "export":
        place = tmp_path / "exported"
        export_model(trained.runs / "meta-posteriors", place)
    windows = ["predict", call, "--every", "2", "--span", "6", "--model", place]
    medusa(*windows, "-o", tmp_path / "p.csv", "--plot", tmp_path / "p.svg")
    rows = rows_of(tmp_path / "p.csv")
    assert list(rows[0])[:4] == ["file", "start_s", "end_s", "label"]
    assert {row["file"] for row in rows} == {str(call)}
    assert [row["start_s"] for row in rows] == [f"{2 * n}.0" for n in range(len(rows))]
    assert b"<svg" in (tmp_path / "p.svg").read_bytes()
    ends = [(float(row["start_s"]), float(row["end_s"])) for row in rows]
    lines = medusa(*windows, "--format", "audacity").stdout.splitlines()
    shown = [(float(low), float(high), label) for low, high, label in (line.split("\t") for line in lines)]
    for low, high, row in stretches(ends):
        assert any(a <= low and high <= b and label == rows[row]["label"] for a, b, label in shown)
    medusa(*windows, "-o", tmp_path / "p.rttm")
    assert read_segments(tmp_path / "p.rttm").table.num_rows == len(shown)
    as_json = [json.loads(line) for line in medusa(*windows, "--format", "jsonl").stdout.splitlines()]
    assert [row["label"] for row in as_json] == [row["label"] for row in rows]
    assert as_json[0]["end_s"] == 6.0


def test_a_stopped_run_goes_on_and_gives_the_same(
    trained: Trained, call: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["predict", call, "--every", "1", "--span", "2", "--chunk", "4", "--model", trained.runs / "m0"]
    medusa(*command, "-o", tmp_path / "whole.csv")
    with monkeypatch.context() as patched:
        interrupted_at_call(patched, ensemble.prediction.predict, "_member_output", 3)
        medusa(*command, "-o", tmp_path / "p.csv", exit_code=130)
    assert "8 were predicted" in medusa(*command, "-o", tmp_path / "p.csv").stdout
    assert (tmp_path / "p.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_a_manifest_of_windows_gives_what_the_options_give_and_can_be_evaluated(
    trained: Trained, call: Path, tmp_path: Path
) -> None:
    medusa("prepare", "segments", call, "--every", "3", "--span", "3", "-o", tmp_path / "w.csv")
    model = ["--model", trained.runs / "m0"]
    medusa("predict", "-m", tmp_path / "w.csv", *model, "-o", tmp_path / "by_manifest.csv")
    medusa("predict", call, "--every", "3", *model, "-o", tmp_path / "by_options.csv")
    by_manifest, by_options = rows_of(tmp_path / "by_manifest.csv"), rows_of(tmp_path / "by_options.csv")
    assert [{**row, "file": ""} for row in by_manifest] == [{**row, "file": ""} for row in by_options]
    assert by_manifest[0]["file"] == "call.flac"
    windows = Manifest.read(tmp_path / "w.csv")
    labelled = windows.to_arrow().append_column("label", [[row["label"] for row in by_manifest]])
    manifest = Manifest(labelled, trained.manifest.scheme, root=tmp_path)
    for name in ("by_manifest.csv", "by_options.csv"):
        assert read_predictions(tmp_path / name, manifest).keys == tuple(windows.keys)


def test_the_segments_of_a_table_are_predicted_and_one_beyond_the_end_is_named(
    trained: Trained, call: Path, tmp_path: Path
) -> None:
    (tmp_path / "t.csv").write_text("file,start_s,end_s\ncall.flac,1,3.5\ncall.flac,4,6\ncall.flac,900,901\n")
    failed = medusa(
        "predict", call, "--segments", tmp_path / "t.csv", "--model", trained.runs / "m0", "-o", tmp_path / "p.csv",
        exit_code=1,
    )  # fmt: skip
    assert "900" in failed.stderr
    assert [(row["start_s"], row["end_s"]) for row in rows_of(tmp_path / "p.csv")] == [("1.0", "3.5"), ("4.0", "6.0")]


def test_whole_files_have_a_timeline_too(trained: Trained, call: Path, tmp_path: Path) -> None:
    medusa("predict", call, "--model", trained.runs / "m0", "-o", tmp_path / "p.rttm")
    (line,) = (tmp_path / "p.rttm").read_text().splitlines()
    assert float(line.split()[4]) == pytest.approx(len(decode(call)) / RATE, abs=1e-6)


def test_speech_is_predicted_and_a_recording_without_is_named(trained: Trained, call: Path, tmp_path: Path) -> None:
    pytest.importorskip("silero_vad", reason="silero-vad is not installed (the extra vad)")
    soundfile.write(tmp_path / "silent.wav", np.zeros(RATE * 3), RATE)
    model = ["--segments", "vad", "--model", trained.runs / "m0"]
    output = medusa("predict", call, tmp_path / "silent.wav", *model, "-o", tmp_path / "p.csv").stdout
    assert "silent.wav" in output
    assert len(rows_of(tmp_path / "p.csv")) >= 5
    assert "silent.wav" in medusa("predict", tmp_path / "silent.wav", *model, exit_code=2).stderr


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--every", "0"], "--every"),
        (["--span", "-3"], "--span"),
        (["--every", "nan"], "--every"),
        (["--every", "2", "--segments", "vad"], "--every"),
        (["--every", "2", "--text", "hello"], "text"),
        (["--format", "xml"], "--format"),
        (["--every", "2", "--plot", "p.jpg"], "--plot"),
        (["--segments", "gone.rttm"], "gone.rttm"),
    ],
)
def test_what_can_not_be_done_is_refused_before_the_model_is_loaded(call: Path, options: list[str], named: str) -> None:
    no_model = call.parent  # a directory: one that isn't there is named before all else
    assert named in medusa("predict", call, *options, "--model", no_model, exit_code=2).stderr


def test_a_span_longer_than_the_recording_is_one_window_and_a_short_file_has_one(
    trained: Trained, call: Path, tmp_path: Path
) -> None:
    soundfile.write(tmp_path / "short.wav", decode(call)[RATE : RATE + 4800], RATE)
    model = Model.load(trained.runs / "m0")
    for path in (call, tmp_path / "short.wav"):
        predictions = model.predict([path], every=2, span=3600)
        assert len(predictions.keys) == 1
        np.testing.assert_allclose(predictions.probabilities, model.predict([path]).probabilities, atol=1e-5)


def test_in_python_a_file_that_fails_is_in_the_result_and_a_text_is_refused(
    trained: Trained, call: Path, tmp_path: Path
) -> None:
    (tmp_path / "broken.wav").write_text("no sound")
    model = Model.load(trained.runs / "m0")
    predictions = model.predict([call, tmp_path / "broken.wav"], every=4)
    assert [key for key, _ in predictions.failed] == [str(tmp_path / "broken.wav")]
    assert len(predictions.keys) == len(decode(call)) // (4 * RATE)  # the last 0.02 s are no window
    with pytest.raises(ConfigError, match="text"):
        model.predict([call], every=4, text="hello")
    with pytest.raises(ConfigError, match="nothing to predict"):
        model.predict([tmp_path / "broken.wav"], every=4)
