"""transcribe: whisper's own text whatever the batch, a table that survives anything, and text encoders that take it."""

import csv
import json
import math
import os
import re
import signal
import sys
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import soundfile
import torch
import whisper
from hypothesis import given
from hypothesis import strategies as st

from featurestore.asr import transcriber as transcriber_module
from featurestore.asr.source import Transcript, TranscriptSource
from featurestore.asr.transcribe import transcribe
from featurestore.asr.transcriber import RecognisedText, Transcriber, halve, load_transcriber
from featurestore.asr.transcripts import COLUMNS, Transcripts, journal_path, source_path
from featurestore.asr.writer import TranscriptWriter
from featurestore.audio import decode
from featurestore.corpus.manifest import Manifest
from featurestore.corpus.tables import read_table_file, write_table_file
from featurestore.encoders import load_encoder
from featurestore.errors import ConfigError, EncoderError, ManifestError, TranscriptError
from featurestore.featurize.items import items_of
from featurestore.featurize.run import featurize
from featurestore.featurize.sharding import Shard
from featurestore.runtime.stopping import Interrupted
from featurestore.store.feature_store import FeatureStore
from tests.helpers.messages import mentions
from tests.helpers.small_corpus import medusa
from tests.helpers.small_text_encoder import save_text_encoder
from tests.helpers.small_whisper import save_whisper
from tests.helpers.warm_python import MEDUSA, WarmProcess

REPO = Path(__file__).resolve().parents[3]
LENGTHS_S = {"a/../b": 3.0, "c d": 1.0, "語": 0.3, "e": 2.0, "f": 0.005, "g": 0.05}
SOURCE = TranscriptSource("base", "sha256:0123456789abcdef")


def sound(i: int, seconds: float) -> np.ndarray:
    t = np.arange(round(seconds * 16_000)) / 16_000
    noise = np.random.default_rng(i).standard_normal(len(t))
    return (0.3 * np.sin(2 * np.pi * (100 + 180 * i) * t) * np.sin(2 * np.pi * (1 + i) * t) + 0.02 * noise).astype(
        np.float32
    )


@pytest.fixture(scope="module")
def sounds() -> list[np.ndarray]:
    return [sound(i, seconds) for i, seconds in enumerate(LENGTHS_S.values())]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a model's file by its properties, made once; see `save_whisper`."""
    root = tmp_path_factory.mktemp("whisper")

    def make(multilingual: bool = True, sure: bool = True) -> Path:
        path = root / f"{'many' if multilingual else 'one'}-{'sure' if sure else 'unsure'}.pt"
        return path if path.exists() else save_whisper(path, multilingual=multilingual, sure=sure)

    return make


@pytest.fixture
def corpus(tmp_path: Path, sounds: list[np.ndarray]) -> Manifest:
    """Six sounds whose keys would be bad file names."""
    for i, samples in enumerate(sounds):
        soundfile.write(tmp_path / f"{i}.wav", samples, 16_000, subtype="FLOAT")
    table = pa.table({"utterance_id": list(LENGTHS_S), "path": [f"{i}.wav" for i in range(len(sounds))]})
    return Manifest(table, root=tmp_path)


@pytest.fixture
def transcriber(checkpoint: Callable[..., Path]) -> Transcriber:
    return load_transcriber(str(checkpoint()), device="cpu")


def heard(transcriber: Transcriber, waveforms: list[np.ndarray], batch: int) -> list[RecognisedText]:
    transcriber.batch = batch
    results = [
        each for i in range(0, len(waveforms), batch) for each in transcriber.transcribe(waveforms[i : i + batch])
    ]
    assert all(isinstance(each, RecognisedText) for each in results)
    return results  # type: ignore[return-value]


def counted(transcriber: Transcriber) -> list[int]:
    """Return the sizes of the batches that the model decodes from now on."""
    sizes: list[int] = []
    decode = transcriber.decode

    def count(mel: torch.Tensor, options: Any) -> Any:
        sizes.append(len(mel) if mel.ndim == 3 else 1)
        return decode(mel, options)

    transcriber.decode = count
    return sizes


# The text


@pytest.mark.parametrize(
    ("multilingual", "language", "sure"),
    [
        pytest.param(True, "auto", True, id="sure-auto"),
        pytest.param(True, "german", True, id="sure-de", marks=pytest.mark.slow),
        pytest.param(False, "auto", True, id="sure-en", marks=pytest.mark.slow),
        pytest.param(True, "auto", False, id="unsure-auto", marks=pytest.mark.slow),
        pytest.param(True, "german", False, id="unsure-de"),
        pytest.param(False, "auto", False, id="unsure-en"),
    ],
)
def test_a_text_is_whispers_own_whatever_the_batch(
    checkpoint: Callable[..., Path], sounds: list[np.ndarray], multilingual: bool, language: str, sure: bool
) -> None:
    transcriber = load_transcriber(str(checkpoint(multilingual, sure)), language=language, device="cpu")
    sounds = sounds if sure else [sounds[2], sounds[4], sounds[5]]  # six temperatures take their time
    sizes = counted(transcriber)
    singly = heard(transcriber, sounds, 1)
    assert set(sizes) == {1}
    n_alone = len(sizes)
    batched = heard(transcriber, sounds, 4)
    assert max(sizes) > 1 or language == "auto"  # then one batch per language
    assert len(sizes) <= 2 * n_alone
    values = {"auto": None if multilingual else "en", "german": "de"}[language]
    for sound, single, in_batch in zip(sounds, singly, batched, strict=True):
        torch.manual_seed(0)
        plain = whisper.transcribe(transcriber.model, sound, language=values, fp16=False)
        assert (single.text, single.language) == (plain["text"].strip(), plain["language"])
        assert (in_batch.text, in_batch.language) == (single.text, single.language)
        assert [in_batch.avg_logprob, in_batch.no_speech_prob] == pytest.approx(
            [single.avg_logprob, single.no_speech_prob], rel=1e-3, abs=1e-6, nan_ok=True
        )
        if len({segment["seek"] for segment in plain["segments"]}) == 1:  # one window, one number
            assert single.avg_logprob == pytest.approx(plain["segments"][0]["avg_logprob"])
            assert single.no_speech_prob == pytest.approx(plain["segments"][0]["no_speech_prob"])
    assert len({each.text for each in singly}) > (3 if sure else 0)
    assert all((each.avg_logprob > -1) == sure for each in singly if each.text)


def test_too_little_audio_has_an_empty_text_and_no_numbers(transcriber: Transcriber) -> None:
    (nothing,) = heard(transcriber, [sound(0, 0.005)], 1)
    assert nothing.text == ""
    assert math.isnan(nothing.avg_logprob)
    assert math.isnan(nothing.no_speech_prob)


def test_more_than_a_window_is_transcribed_whole(checkpoint: Callable[..., Path]) -> None:
    transcriber = load_transcriber(str(checkpoint(False)), device="cpu")
    long = sound(3, 30.5)
    sizes = counted(transcriber)
    of_long, of_short = heard(transcriber, [long, sound(1, 30.0)], 2)
    assert set(sizes) == {1}  # the long one alone, and so the other one too
    assert of_long.text == whisper.transcribe(transcriber.model, long, fp16=False)["text"].strip()
    assert of_short.text == whisper.transcribe(transcriber.model, sound(1, 30.0), fp16=False)["text"].strip()


def test_draws_are_an_utterances_own(checkpoint: Callable[..., Path], sounds: list[np.ndarray]) -> None:
    transcriber = load_transcriber(str(checkpoint(sure=False)), device="cpu")
    torch.manual_seed(7)
    state = torch.get_rng_state()
    assert [each.text for each in heard(transcriber, sounds[5:2:-2], 1)][::-1] == [
        each.text for each in heard(transcriber, sounds[3::2], 1)
    ]
    assert torch.equal(torch.get_rng_state(), state)


def test_out_of_memory_halves_the_batch_and_changes_no_text(transcriber: Transcriber, sounds: list[np.ndarray]) -> None:
    expected = [each.text for each in heard(transcriber, sounds, 1)]
    decode = transcriber.decode

    def small(mel: torch.Tensor, options: Any) -> Any:
        if mel.ndim == 3 and len(mel) > 2:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
        return decode(mel, options)

    transcriber.decode = small
    transcriber.batch = len(sounds)
    assert [each.text for each in transcriber.transcribe(sounds) if isinstance(each, RecognisedText)] == expected
    assert transcriber.batch <= 3

    def none(mel: torch.Tensor, options: Any) -> Any:
        raise RuntimeError("CUDA out of memory.")

    transcriber.decode = none
    assert all(isinstance(each, str) and "smaller model" in each for each in transcriber.transcribe(sounds[:3]))


@pytest.mark.parametrize(("method", "batch"), [("_transcribe", 1), ("_decode", 2)])
def test_memory_is_handed_back_once_the_failed_pass_is_gone(
    method: str, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    references: list[Any] = []
    freed: list[tuple[bool, Any]] = []

    def out_of_memory(*arguments: Any) -> None:
        tensor = torch.zeros(3)
        references.append(weakref.ref(tensor))
        raise RuntimeError("CUDA out of memory.")

    monkeypatch.setattr(Transcriber, "_transcribe", lambda *arguments: RecognisedText("", "en", 0.0, 0.0))
    monkeypatch.setattr(Transcriber, method, out_of_memory)
    monkeypatch.setattr(
        transcriber_module, "free_device_memory", lambda: freed.append((references[-1]() is None, sys.exc_info()[0]))
    )
    list(Transcriber(None, SOURCE, batch=batch).transcribe([sound(1, 1.0)] * 2))
    assert set(freed) == {(True, None)}
    assert len(freed) == len(references)


def test_other_errors_of_the_model_are_not_hidden(transcriber: Transcriber, sounds: list[np.ndarray]) -> None:
    def broken(mel: torch.Tensor, options: Any) -> Any:
        raise RuntimeError("shape mismatch")

    transcriber.decode = broken
    for batch in (1, 4):
        transcriber.batch = batch
        with pytest.raises(RuntimeError, match="shape mismatch"):
            list(transcriber.transcribe(sounds[:4]))


def test_beams_go_one_by_one(checkpoint: Callable[..., Path], sounds: list[np.ndarray]) -> None:
    transcriber = load_transcriber(str(checkpoint(False)), beam=3, device="cpu")
    assert (transcriber.source.beam, transcriber.batch) == (3, 1)
    assert [each.text for each in heard(transcriber, sounds[:3], 1)] == [
        whisper.transcribe(transcriber.model, each, beam_size=3, fp16=False)["text"].strip() for each in sounds[:3]
    ]
    with pytest.raises(ConfigError, match=r"--beam 3: .*--batch"):
        load_transcriber(str(checkpoint(False)), beam=3, batch=2, device="cpu")


def test_weights_halved_once_give_the_numbers_of_weights_cast_each_time(checkpoint: Callable[..., Path]) -> None:
    model = whisper.load_model(str(checkpoint()), device="cpu").eval()
    mel = torch.randn(1, 80, 3000, generator=torch.Generator().manual_seed(0)).half()
    tokens = torch.tensor([[50258, 50259, 50359]])
    with torch.no_grad():
        before = model.encoder(mel)
        logits = model.decoder(tokens, before)
        halve(model)
        assert torch.equal(model.encoder(mel), before)
        assert torch.equal(model.decoder(tokens, before), logits)
    assert model.encoder.blocks[0].mlp[0].weight.dtype == torch.float16


# The model


def test_a_name_or_a_file_or_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(EncoderError, match=r"large-v3.*whisper/large-v3\.pt.*HF_HUB_OFFLINE.*--model large-v3\.pt"):
        load_transcriber("whisper-large", device="cpu")
    with pytest.raises(EncoderError, match=r"Did you mean .*large-v3"):
        load_transcriber("large-v33", device="cpu")
    with pytest.raises(EncoderError, match="no such file"):
        load_transcriber(str(tmp_path / "x.pt"), device="cpu")
    (tmp_path / "x.pt").write_text("no checkpoint")
    with pytest.raises(EncoderError, match=r"x\.pt.*openai-whisper"):
        load_transcriber(str(tmp_path / "x.pt"), device="cpu")


def test_languages_by_code_and_name_or_what_to_do(checkpoint: Callable[..., Path]) -> None:
    def language(text: str, multilingual: bool = True) -> str:
        return load_transcriber(str(checkpoint(multilingual)), language=text, device="cpu").source.language

    assert [language(text) for text in ("auto", "German", "DE", " en ")] == ["auto", "de", "de", "en"]
    assert [language(text, False) for text in ("auto", "English")] == ["en", "en"]
    with pytest.raises(ConfigError, match=r"Did you mean .*german"):
        language("germn")
    with pytest.raises(ConfigError, match="its only language"):
        language("de", False)
    with pytest.raises(ConfigError, match="not one that"):
        language("yue")  # large-v3 has it, a model of 99 languages has not


def test_options_out_of_range_are_refused(checkpoint: Callable[..., Path]) -> None:
    path = str(checkpoint())
    with pytest.raises(ConfigError, match="on a GPU only"):
        load_transcriber(path, device="cpu", compute="float16")
    with pytest.raises(ConfigError, match="auto, float32, float16"):
        load_transcriber(path, device="cpu", compute="bfloat16")
    with pytest.raises(ConfigError, match="1 or more"):
        load_transcriber(path, device="cpu", batch=0)


# The table


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_the_table_says_the_text_and_the_model(
    corpus: Manifest, transcriber: Transcriber, tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / "new" / f"t{suffix}"
    calls: list[tuple[int, int, float]] = []
    report = transcribe(corpus, transcriber, path, progress=lambda *told: calls.append(told))
    assert (report.done, report.skipped, report.failed, report.empty) == (6, 0, [], 1)
    assert report.audio_s == pytest.approx(sum(LENGTHS_S.values()))
    assert [done for done, _, _ in calls] == [1, 2, 3, 4, 5, 6]
    assert {total for _, total, _ in calls} == {6}
    assert sum(report.languages.values()) == 6
    transcripts = Transcripts.read(path)
    assert list(transcripts) == sorted(LENGTHS_S)
    rows = [transcripts.rows[key] for key in LENGTHS_S]
    expected = heard(transcriber, [sound(i, s) for i, s in enumerate(LENGTHS_S.values())], 1)
    assert [(row.text, row.language) for row in rows] == [
        (recognised.text, recognised.language) for recognised in expected
    ]
    for row, recognised, seconds in zip(rows, expected, LENGTHS_S.values(), strict=True):
        assert row.avg_logprob == pytest.approx(recognised.avg_logprob, abs=1e-4, nan_ok=True)
        assert row.duration_s == pytest.approx(seconds, abs=1e-4)
    assert transcripts.identity == transcriber.source.identity
    if suffix == ".csv":
        with open(path, encoding="utf-8", newline="") as file:
            columns, *cells = csv.reader(file)
        models = {row[columns.index("model")] for row in cells}
    else:
        table = pyarrow.parquet.read_table(path)
        columns, models = table.column_names, set(table.column("model").to_pylist())
        assert table.column("text").null_count == 0
    assert tuple(columns) == (*COLUMNS, "audio")
    assert models == {transcripts.identity}
    record = json.loads(source_path(path).read_text())
    assert (record["model"], record["language"], record["identity"]) == ("many-sure", "auto", transcripts.identity)
    assert record["made_with"]["openai-whisper"] == whisper.__version__
    assert sorted(file.name for file in path.parent.iterdir()) == sorted([path.name, "t.source.json"])


def test_the_identity_says_model_weights_and_options() -> None:
    model, digest = SOURCE.identity.split("@")
    assert (model, digest.split("+")[0]) == ("base", "0123456789abcdef")
    changed_sources = [
        TranscriptSource("base", SOURCE.weights, **options)
        for options in ({"language": "en"}, {"beam": 5}, {"compute": "float16"}, {"version": 2})
    ]
    assert len({each.identity for each in [SOURCE, *changed_sources]}) == 5
    assert (
        TranscriptSource.from_json(json.loads(json.dumps(changed_sources[0].to_json())), "here") == changed_sources[0]
    )
    with pytest.raises(TranscriptError, match="here does not say"):
        TranscriptSource.from_json({"model": "base", "weights": 3}, "here")


def test_what_is_there_is_not_done_again_and_failures_are_tried_again(
    corpus: Manifest, transcriber: Transcriber, tmp_path: Path
) -> None:
    transcribe(corpus, transcriber, tmp_path / "whole.csv")
    (tmp_path / "1.wav").rename(tmp_path / "away.wav")
    (tmp_path / "3.wav").rename(tmp_path / "away too.wav")
    (tmp_path / "3.wav").write_text("no audio")
    first = transcribe(corpus, transcriber, tmp_path / "t.csv")
    assert first.done == 4
    assert sorted(key for key, _ in first.failed) == ["c d", "e"]
    assert all("wav" in reason for _, reason in first.failed)
    (tmp_path / "away.wav").rename(tmp_path / "1.wav")
    (tmp_path / "away too.wav").rename(tmp_path / "3.wav")
    second = transcribe(corpus, transcriber, tmp_path / "t.csv")
    assert (second.done, second.skipped, second.failed) == (2, 4, [])
    assert (tmp_path / "t.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    before = (tmp_path / "t.csv").stat().st_mtime_ns
    assert transcribe(corpus, transcriber, tmp_path / "t.csv").skipped == 6
    assert (tmp_path / "t.csv").stat().st_mtime_ns == before


def test_the_order_of_the_manifest_and_the_batch_leave_the_table_as_it_is(
    corpus: Manifest, transcriber: Transcriber, tmp_path: Path
) -> None:
    transcribe(corpus, transcriber, tmp_path / "one.csv")
    transcriber.batch = 3
    transcribe(corpus.rows([5, 2, 0, 3, 1, 4]), transcriber, tmp_path / "two.csv", workers=1)
    first, second = (Transcripts.read(tmp_path / name) for name in ("one.csv", "two.csv"))
    assert dict(first) == dict(second)
    assert first.identity == second.identity


def test_another_model_or_option_is_refused_and_nothing_changes(
    corpus: Manifest, checkpoint: Callable[..., Path], transcriber: Transcriber, tmp_path: Path
) -> None:
    path = tmp_path / "t.csv"
    transcribe(corpus, transcriber, path)
    before = path.read_bytes()
    other_beam = load_transcriber(str(checkpoint(False)), beam=2, device="cpu")
    with pytest.raises(TranscriptError, match=r"model: .*many-sure.*one-sure.*beam: .*1.*2"):
        transcribe(corpus, other_beam, path)
    source_path(path).unlink()
    with pytest.raises(TranscriptError, match=r"t\.csv .*many-sure@"):
        transcribe(corpus, other_beam, path)
    assert transcribe(corpus, transcriber, path).skipped == 6
    assert source_path(path).exists()
    assert path.read_bytes() == before
    assert not journal_path(path).exists()
    with pytest.raises(TranscriptError, match="ends in"):
        transcribe(corpus, transcriber, tmp_path / "t.txt")


def test_only_one_run_writes_to_a_table(tmp_path: Path) -> None:
    with TranscriptWriter(tmp_path / "t.csv", SOURCE) as writer:
        writer.append(row("a"))
        with (
            pytest.raises(TranscriptError, match="in use"),
            TranscriptWriter(tmp_path / "t.csv", SOURCE),
        ):
            pass
    with TranscriptWriter(tmp_path / "t.csv", SOURCE) as writer:
        assert list(writer.keys) == ["a"]


def test_transcripts_of_other_audio_under_the_same_ids_are_neither_kept_nor_encoded(
    corpus: Manifest, transcriber: Transcriber, tmp_path: Path, sounds: list[np.ndarray]
) -> None:
    path = tmp_path / "t.csv"
    transcribe(corpus, transcriber, path)
    before = path.read_bytes()
    assert transcribe(corpus, transcriber, path).skipped == 6
    (tmp_path / "other").mkdir()
    for i in range(6):
        soundfile.write(tmp_path / "other" / f"{i}.wav", sounds[0 if i == 1 else i], 16_000, subtype="FLOAT")
    table = corpus.to_arrow()
    by_length = table.append_column("duration_s", pa.array([3.0, 3.0, 0.3, 2.0, 0.005, 0.05]))
    moved = table.set_column(1, "path", pa.array([f"gone/{i}.wav" for i in range(6)], pa.string()))
    for other in (Manifest(table, root=tmp_path / "other"), Manifest(by_length, root=tmp_path / "other"),
                  Manifest(by_length, root=tmp_path / "gone")):  # fmt: skip
        with pytest.raises(TranscriptError, match=r"'c d' \(3\.000 s; transcribed were 1\.000 s\)\. .*--output"):
            transcribe(other, transcriber, path)
        with pytest.raises(TranscriptError, match="'c d'"):
            Transcripts.read(path).of(other)
    assert path.read_bytes() == before
    assert len(Transcripts.read(path).of(Manifest(moved, root=tmp_path))[0]) == 6  # can't be reached


def test_other_audio_of_the_same_length_is_refused_where_a_transcript_records_its_audio(
    corpus: Manifest, transcriber: Transcriber, tmp_path: Path, sounds: list[np.ndarray]
) -> None:
    path, old = tmp_path / "t.csv", tmp_path / "old.csv"
    transcribe(corpus, transcriber, path)
    table = read_table_file(path)
    write_table_file(table.drop_columns(["audio"]), old)  # as an earlier version wrote it
    wav = tmp_path / "1.wav"
    os.utime(wav, (1.0, 1.0))
    assert transcribe(corpus, transcriber, path).skipped == 6  # another date of the same bytes
    soundfile.write(wav, sounds[1][::-1], 16_000, subtype="FLOAT")
    with pytest.raises(TranscriptError, match=r"'c d' \(1\.000 s of a file .*; transcribed: 1\.000 s"):
        transcribe(corpus, transcriber, path)
    with pytest.raises(TranscriptError, match="'c d'"):
        Transcripts.read(path).of(corpus)
    assert transcribe(corpus, transcriber, old).skipped == 6
    write_table_file(table.set_column(table.column_names.index("audio"), "audio", pa.array(["{"] * 6)), path)
    with pytest.raises(TranscriptError, match=r"t\.csv: the audio of"):
        Transcripts.read(path)


def test_a_header_that_is_wrong_about_its_length_is_no_other_audio(
    corpus: Manifest, transcriber: Transcriber, tmp_path: Path
) -> None:
    """A WAV that was cut short still says 3 s; transcribed was what is in it."""
    whole = (tmp_path / "0.wav").read_bytes()
    (tmp_path / "0.wav").write_bytes(whole[: len(whole) // 2])
    path = tmp_path / "t.csv"
    first = transcribe(corpus, transcriber, path)
    second = transcribe(corpus, transcriber, path)
    assert (second.skipped, second.done) == (first.done, 0)


def row(key: str, text: str = 'kids, "talk"\nby the door – là', logprob: float = -0.25) -> Transcript:
    return Transcript(key, text, "en", logprob, 0.01, 1.5)


@given(st.data())
def test_a_journal_cut_anywhere_gives_its_whole_lines(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    directory = tmp_path_factory.mktemp("journal")
    path = directory / "t.csv"
    rows = [row("a"), row("b\n", ""), row("語", "x", math.nan), row("d")]
    writer = TranscriptWriter(path, SOURCE).__enter__()
    sizes = [journal_path(path).stat().st_size]
    for text_row in rows:
        writer.append(text_row)
        sizes.append(journal_path(path).stat().st_size)
    writer._journal.close()  # as a SIGKILL leaves it
    content = journal_path(path).read_bytes()
    cut = data.draw(st.integers(0, len(content)))
    journal_path(path).write_bytes(content[:cut] + data.draw(st.sampled_from([b"", b"\0\0\0", b'{"key"', b"\0\n{}\n"])))
    n_left = sum(size <= cut for size in sizes[1:])
    if cut >= sizes[0]:
        assert list(Transcripts.read(path)) == [text_row.key for text_row in rows[:n_left]]
    with TranscriptWriter(path, SOURCE) as resumed:
        assert list(resumed.keys) == [text_row.key for text_row in rows[:n_left]]
        for text_row in rows[n_left:]:
            resumed.append(text_row)
    transcripts = Transcripts.read(path)
    assert dict(transcripts) == {text_row.key: text_row.text for text_row in rows}
    assert not journal_path(path).exists()
    with TranscriptWriter(directory / "straight.csv", SOURCE) as straight:
        for text_row in rows:
            straight.append(text_row)
    assert path.read_bytes() == (directory / "straight.csv").read_bytes()


def test_an_unfinished_run_can_be_read_and_is_no_other_runs(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    with TranscriptWriter(path, SOURCE) as writer:
        writer.append(row("a"))
    writer = TranscriptWriter(path, SOURCE).__enter__()
    writer.append(row("b"))
    assert sorted(Transcripts.read(path)) == ["a", "b"]
    writer._journal.close()
    other_source = TranscriptSource("large-v3", SOURCE.weights)
    path.unlink()
    with (
        pytest.raises(TranscriptError, match=r"model: .*base.*large-v3"),
        TranscriptWriter(path, other_source),
    ):
        pass
    assert list(Transcripts.read(path)) == ["b"]
    path.write_text(f"{','.join(COLUMNS)}\na,x,en,,,,{other_source.identity}\n")
    with pytest.raises(TranscriptError, match="Remove the one"):
        Transcripts.read(path)


def test_parts_of_a_corpus_are_tables_that_are_read_and_gathered_as_one(
    corpus: Manifest, transcriber: Transcriber, tmp_path: Path
) -> None:
    transcribe(corpus, transcriber, tmp_path / "whole.csv")
    path = tmp_path / "t.csv"
    reports = [transcribe(corpus, transcriber, path, shard=Shard(number, 3)) for number in (1, 2, 3)]
    assert [report.done for report in reports] == [2, 2, 2]
    assert sorted(other.name for other in tmp_path.glob("t.*.csv")) == [f"t.{n}-of-3.csv" for n in (1, 2, 3)]
    assert not path.exists()
    assert dict(Transcripts.read(path)) == dict(Transcripts.read(tmp_path / "whole.csv"))
    assert transcribe(corpus, transcriber, path, shard=Shard(1, 2)).skipped == 3, "another number of parts goes on"
    gathered = transcribe(corpus, transcriber, path)
    assert (gathered.done, gathered.skipped) == (0, 6)
    assert path.read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_parts_of_another_model_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    with TranscriptWriter(path, SOURCE, shard=Shard(1, 2)) as writer:
        writer.append(row("a"))
    other_source = TranscriptSource("large-v3", SOURCE.weights)
    for shard in (None, Shard(2, 2)):
        with (
            pytest.raises(TranscriptError, match=r"t\.1-of-2\.csv .*model: .*base.*large-v3"),
            TranscriptWriter(path, other_source, shard=shard),
        ):
            pass
    (tmp_path / "t.2-of-2.csv").write_text(f"{','.join(COLUMNS)}\nb,x,en,,,,{other_source.identity}\n")
    with pytest.raises(TranscriptError, match=r"t\.2-of-2\.csv .*large-v3@.*[Rr]emove"):
        Transcripts.read(path)


def test_parts_at_work_are_read_and_only_names_of_parts_count(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    (tmp_path / "t.old.csv").write_text("no table of transcripts\n")
    with (
        TranscriptWriter(path, SOURCE, shard=Shard(1, 2)) as first_part,
        TranscriptWriter(path, SOURCE, shard=Shard(2, 2)) as two,
    ):
        first_part.append(row("a"))
        two.append(row("b"))
        assert sorted(Transcripts.read(path)) == ["a", "b"]
        with TranscriptWriter(path, SOURCE) as gathered:
            assert gathered.keys == {"a", "b"}
    assert sorted(Transcripts.read(path)) == ["a", "b"]


def test_tables_that_are_none_are_refused(tmp_path: Path) -> None:
    def refused(text: str) -> str:
        (tmp_path / "t.csv").write_text(text)
        with pytest.raises(TranscriptError) as error:
            Transcripts.read(tmp_path / "t.csv")
        return str(error.value)

    header = ",".join(COLUMNS)
    with pytest.raises(TranscriptError, match="medusa transcribe -o"):
        Transcripts.read(tmp_path / "none.csv")
    assert mentions(refused("utterance_id,text\na,x\n"), "columns", "language")
    assert "found m, n" in refused(f"{header}\na,x,en,1,1,1,m\nb,x,en,1,1,1,n\n")
    assert "no row" in refused(f"{header}\n")
    assert "stand there twice" in refused(f"{header}\na,x,en,1,1,1,m\na,x,en,1,1,1,m\n")
    assert "expected numbers" in refused(f"{header}\na,x,en,one,1,1,m\n")
    with TranscriptWriter(tmp_path / "u.csv", SOURCE) as writer:
        writer.append(row("a"))
    source_path(tmp_path / "u.csv").write_text("not JSON")
    with (
        pytest.raises(TranscriptError, match="is not JSON"),
        TranscriptWriter(tmp_path / "u.csv", TranscriptSource("tiny", SOURCE.weights)),
    ):
        pass


# Interruption


def test_an_error_in_the_middle_keeps_what_is_done(corpus: Manifest, transcriber: Transcriber, tmp_path: Path) -> None:
    def stop(done: int, total: int, audio_s: float) -> None:
        if done == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted) as stopped:
        transcribe(corpus, transcriber, tmp_path / "t.csv", progress=stop)
    assert stopped.value.report.done == 3
    assert len(Transcripts.read(tmp_path / "t.csv")) == 3
    assert transcribe(corpus, transcriber, tmp_path / "t.csv").done == 3
    transcribe(corpus, transcriber, tmp_path / "whole.csv")
    assert (tmp_path / "t.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("signum", [signal.SIGINT, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)])
def test_a_stopped_run_keeps_what_it_has_and_goes_on(
    corpus: Manifest, checkpoint: Callable[..., Path], tmp_path: Path, signum: int
) -> None:
    many = pa.table({"utterance_id": [f"u{i}" for i in range(400)], "path": ["2.wav"] * 400})
    Manifest(many, root=tmp_path).write(tmp_path / "m.csv")
    path = tmp_path / "t.csv"
    model = ["--model", str(checkpoint()), "--device", "cpu"]
    arguments = ["transcribe", *model, "-m", str(tmp_path / "m.csv"), "-o", str(path)]
    process = WarmProcess(MEDUSA, *arguments)
    waited_until = time.monotonic() + 120
    while time.monotonic() < waited_until and not (
        journal_path(path).exists() and journal_path(path).read_bytes().count(b"\n") > 5
    ):
        time.sleep(0.01)
    process.send_signal(signum)
    out, err = process.communicate(timeout=60)
    assert process.returncode == (-signal.SIGKILL if signum == signal.SIGKILL else 130), err
    n_done = len(Transcripts.read(path))
    assert 5 <= n_done < 400
    if signum == signal.SIGINT:
        assert f"{n_done} done" in out
        assert "same command" in err
        assert not journal_path(path).exists()
    first = Manifest(many, root=tmp_path).rows(np.arange(12))
    first.write(tmp_path / "first.csv")
    n_there = sum(key in Transcripts.read(path) for key in first.keys)
    output = medusa("transcribe", *model, "-m", tmp_path / "first.csv", "-o", path).stdout
    assert f"{12 - n_there} done, {n_there} there already" in output
    assert len(Transcripts.read(path)) == n_done + 12 - n_there
    assert len(set(Transcripts.read(path).values())) == 1


# The commands


def test_the_command_reports_failures_and_text_encoders_take_the_table(
    corpus: Manifest, checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    corpus.write(tmp_path / "m.csv")
    (tmp_path / "0.wav").rename(tmp_path / "away.wav")
    path = tmp_path / "t.parquet"
    model = ["--model", str(checkpoint(False)), "--device", "cpu"]
    result = medusa("transcribe", *model, "-m", tmp_path / "m.csv", "-o", path, exit_code=1)
    assert re.search(r"5 done \(1 .*\), 0 .*, 1 failed", result.stdout)
    assert "languages: en 5" in result.stdout
    assert "0.wav" in result.stderr
    refused = medusa("transcribe", *model, "--beam", "2", "-m", tmp_path / "m.csv", "-o", path, exit_code=2)
    assert "beam: stored 1, asked 2" in refused.stderr

    weights = save_text_encoder(tmp_path / "mini-bert")
    encode = ["featurize", "--encoder", weights, "--device", "cpu", "-m", tmp_path / "m.csv", "-s", tmp_path / "s"]
    planned = medusa(*encode, "--transcripts", path, "--dry-run", exit_code=1)
    assert "5 utterances to encode" in planned.stdout
    result = medusa(*encode, "--transcripts", path, exit_code=1)
    assert re.search(r"5 done \(1 .*\), 0 .*, 1 failed", result.stdout)
    assert "a/../b: no transcript in" in result.stderr
    transcripts = Transcripts.read(path)
    features = FeatureStore.open(tmp_path / "s")["mini-bert"]
    assert features.spec.source == f"transcripts:{transcripts.identity}"
    direct = load_encoder(str(weights), device="cpu", source=transcripts.source)
    for key in features:
        np.testing.assert_array_equal(features[key], direct.encode([transcripts[key]])[0][0].astype(np.float16))

    (tmp_path / "away.wav").rename(tmp_path / "0.wav")
    part = medusa("transcribe", *model, "-m", tmp_path / "m.csv", "-o", path, "--shard", "1/1")
    assert "t.1-of-1.parquet: 1 done" in part.stdout
    assert "1 done" in medusa(*encode, "--transcripts", path).stdout
    medusa("transcribe", *model, "--beam", "2", "-m", tmp_path / "m.csv", "-o", tmp_path / "u.csv")
    output = medusa(*encode, "--transcripts", tmp_path / "u.csv", exit_code=2).stderr
    assert mentions(output, "source", "transcripts:one-sure")
    logmel = ["featurize", "--encoder", "logmel", "-m", tmp_path / "m.csv", "-s", tmp_path / "s"]
    assert "encodes audio" in medusa(*logmel, "--transcripts", path, exit_code=2).stderr


def test_transcripts_stand_in_for_a_manifests_text(tmp_path: Path) -> None:
    encoder = load_encoder(
        str(save_text_encoder(tmp_path / "mini")), device="cpu", source=f"transcripts:{SOURCE.identity}"
    )
    table = pa.table({"utterance_id": ["a", "b", "c"], "text": ["own words", "own words", "own words"]})
    manifest = Manifest(table)
    transcripts = Transcripts([row("c", "w1 w2"), row("a", ""), row("z")], SOURCE.identity, "t.csv")
    items, failed = items_of(manifest, encoder, transcripts=transcripts)
    assert [(item.key, item.source) for item in items] == [("a", ""), ("c", "w1 w2")]
    assert failed == [("b", "b: no transcript in t.csv; run `medusa transcribe` for it.")]
    store = FeatureStore.create(tmp_path / "s")
    report = featurize(manifest, encoder, store, "t", transcripts=transcripts)
    assert (report.done, report.empty_texts, report.failed) == (2, 1, failed)
    with pytest.raises(TranscriptError, match=r"none\.csv.* 3 "):
        items_of(manifest, encoder, transcripts=Transcripts([row("z")], SOURCE.identity, "none.csv"))
    other_transcripts = Transcripts([row("a")], "base@0+1", "t.csv")
    with pytest.raises(ConfigError, match=r"transcripts:base@.*transcripts:base@0\+1"):
        items_of(manifest, encoder, transcripts=other_transcripts)


def test_a_manifest_without_audio_is_an_error(transcriber: Transcriber, tmp_path: Path) -> None:
    manifest = Manifest(pa.table({"utterance_id": ["a"], "text": ["x"]}))
    with pytest.raises(ManifestError, match="'path'"):
        transcribe(manifest, transcriber, tmp_path / "t.csv")
    assert list(tmp_path.iterdir()) == []


# Real weights


@pytest.fixture
def tiny_en(models_dir: Path) -> Path:
    path = models_dir / "whisper-tiny.en" / "tiny.en.pt"
    if not path.is_file():
        pytest.skip(f"whisper's tiny.en not found at {path}")
    return path


def test_real_speech_is_transcribed_alone_and_in_a_batch(tiny_en: Path, demo_corpus: Path) -> None:
    transcriber = load_transcriber(str(tiny_en), device="cpu")
    clips = [demo_corpus / "Actor_04" / f"03-01-05-01-{said}-04.ogg" for said in ("01-01", "02-02")]
    waveforms = [*map(decode, clips), np.zeros(32_000, np.float32)]
    singly, batched = heard(transcriber, waveforms, 1), heard(transcriber, waveforms, 3)
    assert [each.text for each in singly] == ["Kids are talking by the door.", "Dogs are sitting by the door.", ""]
    assert [each.text for each in batched] == [each.text for each in singly]
    assert singly[-1].no_speech_prob > 0.6
    assert max(each.no_speech_prob for each in singly[:2]) < 0.6


# Words


def test_words_stand_beside_the_text_with_rising_times(
    checkpoint: Callable[..., Path], corpus: Manifest, tmp_path: Path
) -> None:
    """In the table as JSON, read again as they were; a table without words is another one."""
    transcriber = load_transcriber(str(checkpoint()), device="cpu", words=True)
    assert transcribe(corpus, transcriber, tmp_path / "t.csv").failed == []
    result = Transcripts.read(tmp_path / "t.csv")
    assert any(row.words for row in result.rows.values())
    for row in result.rows.values():
        assert row.words is not None
        text = re.sub(r"<\|\w+\|>", "", row.text)  # languages' tokens are no words; only random weights write them
        assert "".join(word for word, _, _ in row.words).strip() == text
        times = [time for _, *pair in row.words for time in pair]
        assert times == sorted(times)
        assert not times or 0 <= times[0] <= times[-1] <= math.ceil(row.duration_s) + 1
    with open(tmp_path / "t.csv", encoding="utf-8") as lines:
        assert [json.loads(row["words"]) for row in csv.DictReader(lines)] == [
            [list(word) for word in result.rows[key].words or ()] for key in sorted(result)
        ]
    plain = load_transcriber(str(checkpoint()), device="cpu")
    assert plain.source.identity != transcriber.source.identity
    with pytest.raises(TranscriptError, match=r"words: .*True.*False"):
        transcribe(corpus, plain, tmp_path / "t.csv")


def test_a_journal_of_before_words_is_read_and_damaged_words_are_named(tmp_path: Path) -> None:
    line = {"key": "a", "text": "hi", "language": "en", "avg_logprob": -0.1, "no_speech_prob": 0.1, "duration_s": 1.0}
    path = tmp_path / "t.csv"
    journal_path(path).write_text(f"{json.dumps(SOURCE.to_json())}\n{json.dumps(line)}\n")
    assert Transcripts.read(path).rows["a"].words is None
    journal_path(path).unlink()
    Transcripts([Transcript("a", "hi", "en", -0.1, 0.1, 1.0, (("hi", 0.1, 0.5),))], SOURCE.identity, path).write()
    path.write_text(path.read_text().replace("0.5", "x"))
    with pytest.raises(TranscriptError, match="words of 'a'"):
        Transcripts.read(path)
