"""Encoders: rows don't depend on the batch, equal the plain transformers call, and follow the stated frame counts.

Every architecture runs with tiny random weights whose biases and norms are random too, so that a leak of padding shows.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st

from featurestore.encoders import ENCODERS, load_encoder
from featurestore.encoders.families import TEXT_TYPES
from featurestore.encoders.frontend import PaddedFrontEnd, RowFrontEnd
from featurestore.encoders.layers import LayerChoice
from featurestore.encoders.logmel import mel_filters
from featurestore.encoders.speech import SpeechEncoder, parse_window
from featurestore.encoders.weights import EMBEDDED, identity
from featurestore.encoders.windows import batches, windows
from featurestore.errors import ConfigError, EncoderError
from tests.helpers.encoder_configs import GROUP, SPEECH_NAMES, TEXT_NAMES, WORDS, save_random

AUDIO_CASES = [
    *((name, {}) for name in SPEECH_NAMES),
    ("whisper-80", {}),
    ("whisper-80", {"window": "short"}),
    ("whisper-128", {"window": "short"}),
    ("tiny-hubert", {}),
    ("tiny-wavlm", {}),
    ("logmel", {}),
]


@pytest.fixture(scope="session")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the directory of one architecture's random weights, made when it is first asked for."""
    root = tmp_path_factory.mktemp("weights")
    return lambda name: save_random(name, root / name)


@pytest.fixture
def load(directory: Callable[[str], Path]) -> Callable[..., Any]:
    def load_by_name(name: str, **options: Any) -> Any:
        options = {"layers": "all", "device": "cpu", **options}
        return load_encoder(name, **options) if name in ENCODERS else load_encoder(str(directory(name)), **options)

    return load_by_name


def noise(*n_samples: int) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [(rng.standard_normal(n) * rng.uniform(0.01, 0.3)).astype(np.float32) for n in n_samples]


def worst_row(rows: np.ndarray, reference: np.ndarray) -> float:
    """Largest relative difference of a row: norm of the difference over the norm of the reference."""
    assert rows.shape == reference.shape
    return float((np.linalg.norm(rows - reference, axis=-1) / np.linalg.norm(reference, axis=-1)).max())


def test_every_text_architecture_is_tested_here() -> None:
    assert sorted(TEXT_NAMES) == sorted(TEXT_TYPES)


# --- alone = in a batch ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "options"), AUDIO_CASES)
def test_rows_do_not_depend_on_batch_mates(load: Callable[..., Any], name: str, options: dict[str, str]) -> None:
    encoder = load(name, **options)
    waveforms = noise(16_000, 5_000, 24_123, 300, 9_999, 1)
    waveforms.append(np.zeros(8_000, np.float32))
    singly = [encoder.encode([w])[0] for w in waveforms]
    for together in (encoder.encode(waveforms, 100_000), encoder.encode(waveforms[::-1], 100_000)[::-1]):
        for w, a, b in zip(waveforms, singly, together, strict=True):
            assert a.shape == (encoder.layers_available + 1, encoder.n_frames(len(w)), encoder.spec.dim)
            assert a.dtype == b.dtype == np.float32
            assert worst_row(b, a) <= 2e-6


@pytest.mark.parametrize("name", [*SPEECH_NAMES, "tiny-hubert", "tiny-wavlm"])
def test_the_padded_front_end_of_a_gpu_gives_the_rows_of_each_file_alone(load: Callable[..., Any], name: str) -> None:
    encoder = load(name)
    waveforms = [*noise(16_000, 5_000, 24_123, 300, 9_999), np.zeros(8_000, np.float32), noise(4_000)[0] + 0.5]
    singly = [encoder.encode([w])[0] for w in waveforms]
    encoder._padded_front_end = PaddedFrontEnd(encoder.model.feature_extractor)
    for w, rows, padded in zip(waveforms, singly, encoder.encode(waveforms, 100_000), strict=True):
        assert rows.shape == padded.shape == (encoder.layers_available + 1, encoder.n_frames(len(w)), rows.shape[2])
        assert worst_row(padded, rows) <= 1e-5


def test_a_float32_residual_stream_brings_bfloat16_nearer_to_float32(load: Callable[..., Any]) -> None:
    waveforms = noise(16_000, 24_123)
    exact = load("tiny-wavlm").encode(waveforms)
    encoder = load("tiny-wavlm", compute="bfloat16")
    project = encoder._projected
    errors = []
    for rounded in (False, True):  # the second as the builds before had it
        encoder._projected = lambda features, rounded=rounded: (
            project(features).bfloat16() if rounded else project(features)
        )
        rows = encoder.encode(waveforms)
        of_rows = [
            np.linalg.norm(a[-1] - b[-1], axis=-1) / np.linalg.norm(b[-1], axis=-1)
            for a, b in zip(rows, exact, strict=True)
        ]
        errors.append(float(np.median(np.concatenate(of_rows))))
    assert errors[0] < 0.9 * errors[1], errors


@pytest.mark.parametrize("name", TEXT_NAMES)
def test_token_rows_do_not_depend_on_batch_mates(load: Callable[..., Any], name: str) -> None:
    encoder = load(name)
    texts = [" ".join(WORDS[:n]) for n in (1, 40, 7, 0, 20)]
    together = encoder.encode(texts, 100_000)
    for text, rows in zip(texts, together, strict=True):
        assert rows.shape == (4, max(1, len(text.split())), 32)
        assert worst_row(rows, encoder.encode([text])[0]) <= 2e-6


@pytest.mark.parametrize("name", ["tiny-wavlm", "hubert-stable", "whisper-80"])
def test_on_a_cpu_the_batch_does_not_change_one_bit(load: Callable[..., Any], name: str) -> None:
    encoder = load(name)
    waveforms = noise(16_000, 5_000, 300)
    for w, rows in zip(waveforms, encoder.encode(waveforms), strict=True):
        np.testing.assert_array_equal(rows, encoder.encode([w])[0])


def test_the_stock_batch_leaks_padding_so_these_tests_can_fail(directory: Callable[[str], Path]) -> None:
    model = transformers.AutoModel.from_pretrained(directory("hubert-group")).eval()
    short, long = noise(5_000, 24_000)
    padded = torch.zeros(2, 24_000)
    padded[0, :5_000], padded[1] = torch.from_numpy(short), torch.from_numpy(long)
    with torch.inference_mode():
        single = model(torch.from_numpy(short)[None]).last_hidden_state[0].numpy()
        together = model(padded).last_hidden_state[0, : len(single)].numpy()
    assert worst_row(together, single) > 1e-2


# --- equal to the plain transformers call ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*SPEECH_NAMES, "tiny-hubert", "tiny-wavlm"])
def test_speech_rows_equal_the_plain_transformers_call(
    load: Callable[..., Any], directory: Callable[[str], Path], name: str
) -> None:
    path = EMBEDDED / name if name in ENCODERS else directory(name)
    model = transformers.AutoModel.from_pretrained(path, dtype=torch.float32).eval()
    normalize = json.loads((path / "preprocessor_config.json").read_text())["do_normalize"]
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=normalize)
    for waveform in noise(16_000, 7_777):
        inputs = extractor(waveform, sampling_rate=16_000, return_tensors="pt").input_values
        with torch.inference_mode():
            output = model(inputs, output_hidden_states=True)
        # Layer k is hidden_states[k], and the last one last_hidden_state: with the final norm of pre-norm models.
        # The front end adds up in another order (`RowFrontEnd`), which layer norms of few channels magnify.
        expected = torch.cat([*output.hidden_states[:-1], output.last_hidden_state]).numpy()
        assert worst_row(load(name).encode([waveform])[0], expected) <= 5e-6


@pytest.mark.parametrize("n_mels", [80, 128])
def test_whisper_rows_equal_the_feature_extractor_and_encoder_of_transformers(
    load: Callable[..., Any], directory: Callable[[str], Path], n_mels: int
) -> None:
    model = transformers.WhisperModel.from_pretrained(directory(f"whisper-{n_mels}")).eval()
    extractor = transformers.WhisperFeatureExtractor(feature_size=n_mels)
    for waveform in noise(16_000, 480_000):
        features = extractor(waveform, sampling_rate=16_000, return_tensors="pt").input_features
        with torch.inference_mode():
            states = model.encoder(features, output_hidden_states=True).hidden_states
        n_frames = -(-len(waveform) // 320)
        rows = load(f"whisper-{n_mels}").encode([waveform])[0]
        assert worst_row(rows, torch.cat(states).numpy()[:, :n_frames]) <= 2e-6


def test_whisper_short_sees_the_mel_frames_of_the_padded_window(load: Callable[..., Any]) -> None:
    """Layer 0 is the convolutions alone: the modes may differ only where a kernel crosses the audio's end."""
    waveform = noise(16_123)[0]
    padded, short = (load("whisper-80", window=w).encode([waveform])[0] for w in ("pad30", "short"))
    assert padded.shape == short.shape == (4, 51, 32)
    assert worst_row(short[:1, :-1], padded[:1, :-1]) <= 2e-6
    assert worst_row(short[1:], padded[1:]) > 1e-3


@pytest.mark.parametrize("name", TEXT_NAMES)
def test_token_rows_equal_the_plain_transformers_call_without_its_special_tokens(
    load: Callable[..., Any], directory: Callable[[str], Path], name: str
) -> None:
    model = transformers.AutoModel.from_pretrained(directory(name), dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory(name))
    for text, positions in ((" ".join(WORDS[:9]), slice(1, -1)), ("  ", slice(0, 1))):
        inputs = tokenizer(text, return_tensors="pt")
        with torch.inference_mode():
            states = model(inputs.input_ids, attention_mask=inputs.attention_mask, output_hidden_states=True)
        expected = torch.cat(states.hidden_states).numpy()[:, positions]
        assert worst_row(load(name).encode([text])[0], expected) <= 2e-6


def test_mel_filters_are_those_of_transformers_and_whisper() -> None:
    from transformers.audio_utils import mel_filter_bank

    for n_mels in (80, 128):
        expected = mel_filter_bank(201, n_mels, 0.0, 8000.0, 16_000, norm="slaney", mel_scale="slaney").T
        np.testing.assert_allclose(mel_filters(n_mels), expected, atol=1e-7)


# --- frame counts, windows, layers, pooling -------------------------------------------------------------------------


def test_frame_counts_follow_the_formulas_for_every_length(
    load: Callable[..., Any], directory: Callable[[str], Path]
) -> None:
    speech, log_mel, whisper_encoder = load("hubert-group"), load("logmel"), load("whisper-80")
    stock = transformers.AutoModel.from_pretrained(directory("hubert-group"))
    for n in [*range(1, 2_000, 7), *range(320, 640_001, 9_973), 400, 719, 720, 721, 480_000, 640_000]:
        formula = (max(n, 400) - 400) // 320 + 1
        assert speech.n_frames(n) == log_mel.n_frames(n) == formula
        assert whisper_encoder.n_frames(n) == int(np.ceil(n / 320))
        if n >= 400:
            assert int(stock._get_feat_extract_output_lengths(n)) == formula


FAMILIES = ["hubert-group", "wavlm-stable", "wav2vec2-stable", "data2vec", "whisper-80", "whisper-128", "logmel"]


@pytest.mark.parametrize(
    "name",
    [
        # These share the front end of "hubert-group".
        pytest.param(name, marks=pytest.mark.slow if name in ("wavlm-stable", "wav2vec2-stable", "data2vec") else ())
        for name in FAMILIES
    ],
)
def test_every_length_from_20_ms_to_40_s_has_the_stated_number_of_frames(load: Callable[..., Any], name: str) -> None:
    """Of every sample count, as a formula; of those where frames and windows begin and end, as rows."""
    encoder = load(name, layers="last")

    def formula(n: int) -> int:
        return -(-n // 320) if name.startswith("whisper") else (max(n, 400) - 400) // 320 + 1

    # The speech models share their front end's code: one of them counts every length.
    step = 1 if name in ("hubert-group", "whisper-80", "logmel") else 113
    assert all(encoder.n_frames(n) == formula(n) for n in range(320, 640_001, step))
    short = load(name, layers="last", window="short") if name == "whisper-80" else encoder
    for n in (320, 399, 400, 719, 720, 721, 89_600, 480_000, 480_080, 480_081, 480_400, 640_000):
        for whisper in {encoder, short} if n in (320, 480_081) else (short,):
            assert whisper.encode([np.zeros(n, np.float32)])[0].shape[1] == formula(n)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hubert-group", "wavlm-stable", "whisper-80", "logmel"])
def test_ten_minutes_in_one_file_take_the_memory_of_a_window_and_of_the_rows(
    load: Callable[..., Any], name: str
) -> None:
    from featurestore.featurize.memory import RssMeter

    encoder = load(name, layers="last", **({"window": "short"} if name == "whisper-80" else {}))
    waveform = noise(16_000 * 600)[0]
    encoder.encode([waveform[: 16_000 * 60]])  # two windows and more
    meter = RssMeter()
    base = meter.now()
    meter.reset()
    (rows,) = encoder.encode([waveform])
    assert rows.shape == (1, encoder.n_frames(len(waveform)), encoder.spec.dim)
    assert np.isfinite(rows).all()
    # float64 copies of the samples (77 MB each), and what a window takes.
    assert meter.peak() - base < 400 << 20


@pytest.mark.parametrize("name", [*SPEECH_NAMES, "whisper-80", *TEXT_NAMES])
def test_weights_are_cast_once_to_what_autocast_casts_them_to(load: Callable[..., Any], name: str) -> None:
    rounded, full = load(name, compute="bfloat16"), load(name, compute="float32")
    inputs = ["how are you", "fine"] if rounded.kind == "text" else noise(9_000, 16_000)
    rows = rounded.encode(inputs)
    if name == "deberta":  # which the stock code can't run under autocast
        assert max(worst_row(a, b) for a, b in zip(rows, full.encode(inputs), strict=True)) < 0.05
        return
    full.compute = torch.bfloat16
    if name in SPEECH_NAMES:
        full._row_front_end = RowFrontEnd(full.model.feature_extractor)  # which float32 has with layer norm alone
    for a, b in zip(rows, full.encode(inputs), strict=True):
        np.testing.assert_array_equal(a, b)


def test_pooled_rows_of_all_layers_come_from_one_pass_over_the_frames(load: Callable[..., Any]) -> None:
    from featurestore.runtime.stage_clock import StageClock, measured

    encoder = load("wavlm-stable", layers="all", pool="mean")
    waveforms = noise(16_000, 8_000)
    with measured(StageClock()) as clock:
        rows = encoder.encode(waveforms)
    assert len(clock.batches) == 2
    assert [r.shape for r in rows] == [(4, 1, 32)] * 2
    for r, all_rows in zip(rows, load("wavlm-stable", layers="all").encode(waveforms), strict=True):
        np.testing.assert_allclose(r[:, 0], all_rows.mean(axis=1), atol=1e-5)


@given(n=st.integers(0, 500), size=st.integers(3, 60), data=st.data())
def test_windows_keep_every_frame_once_with_context_on_both_sides(n: int, size: int, data: st.DataObject) -> None:
    margin = data.draw(st.integers(0, (size - 1) // 2))
    plan = windows(n, size, margin)
    assert [f for w in plan for f in range(w.keep_start, w.keep_stop)] == list(range(n))
    for w in plan:
        assert w.stop - w.start == min(n, size)
        assert w.start == 0 or w.keep_start - w.start >= margin
        assert w.stop == n or w.stop - w.keep_stop >= margin


@given(costs=st.lists(st.integers(1, 50)), budget=st.integers(1, 200))
def test_batches_cover_all_items_within_the_budget(costs: list[int], budget: int) -> None:
    runs = list(batches(costs, budget))
    assert [i for run in runs for i in run] == list(range(len(costs)))
    assert all(len(run) == 1 or len(run) * max(costs[i] for i in run) <= budget for run in runs)


@pytest.mark.parametrize("name", ["hubert-group", "wavlm-stable", "logmel"])
def test_long_audio_in_windows_keeps_the_formula_and_differs_little(load: Callable[..., Any], name: str) -> None:
    waveform = noise(16_000 * 7)[0]
    windowed = load(name) if name == "logmel" else load(name, window="2s+0.5s")
    rows, unwindowed = windowed.encode([waveform])[0], load(name).encode([waveform])[0]
    assert rows.shape == unwindowed.shape == (len(rows), windowed.n_frames(len(waveform)), unwindowed.shape[2])
    if name == "logmel":
        np.testing.assert_array_equal(rows, unwindowed)
    else:
        # Context is what a window cuts; the frames and their order stay.
        cosine = (
            (rows[-1] * unwindowed[-1]).sum(-1)
            / np.linalg.norm(rows[-1], axis=-1)
            / np.linalg.norm(unwindowed[-1], axis=-1)
        )
        assert cosine.min() > 0.9
        assert not np.array_equal(rows, unwindowed)


def test_whisper_encodes_more_than_30_s_in_full_windows(load: Callable[..., Any]) -> None:
    encoder = load("whisper-80", layers="last")
    waveform = noise(16_000 * 41 + 5)[0]
    rows = encoder.encode([waveform])[0]
    assert rows.shape == (1, 2_051, 32)
    np.testing.assert_array_equal(rows[:, :1_450], encoder.encode([waveform[:480_000]])[0][:, :1_450])
    last = encoder.encode([waveform[551 * 320 :]])[0]
    np.testing.assert_array_equal(rows[:, 1_450:], last[:, 1_450 - 551 :])


@pytest.mark.parametrize("name", TEXT_NAMES)
def test_special_tokens_can_be_kept(load: Callable[..., Any], name: str) -> None:
    """All rows of the plain call, where the default has those of the text's own tokens."""
    plain, special = load(name, layers="last"), load(name, layers="last", keep_special=True)
    for text in ("kids are talking by the door", ""):
        ids = [*special._prefix, *special._tokens(text).of_text, *special._suffix]
        (rows,) = special.encode([text])
        with torch.inference_mode():
            states = special.model(torch.tensor([ids]), output_hidden_states=True).hidden_states[-1]
        np.testing.assert_allclose(rows[0], states[0].numpy(), atol=1e-5)
        if text:
            (plain_rows,) = plain.encode([text])
            np.testing.assert_allclose(rows[:, len(special._prefix) : -len(special._suffix)], plain_rows, atol=1e-5)
    assert plain.spec.fingerprint != special.spec.fingerprint


def test_a_long_text_keeps_its_first_and_last_special_tokens(load: Callable[..., Any]) -> None:
    encoder, plain = load("bert", window="16tok+3", keep_special=True), load("bert", window="16tok+3")
    text = " ".join(["kids"] * 40)
    (rows,), (plain_rows,) = encoder.encode([text]), plain.encode([text])
    assert rows.shape[1] == plain_rows.shape[1] + 2
    np.testing.assert_allclose(rows[:, 1:-1], plain_rows, atol=1e-5)


def test_audio_has_no_special_tokens(load: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match="no special tokens"):
        load_encoder("tiny-hubert", keep_special=True)


def test_a_long_text_is_windowed_by_tokens(load: Callable[..., Any]) -> None:
    encoder = load("bert", window="22tok+5", layers="last")
    words = (WORDS * 2)[:100]
    rows = encoder.encode([" ".join(words)])[0]
    assert rows.shape == (1, 100, 32)
    first = encoder.encode([" ".join(words[:20])])[0]
    np.testing.assert_allclose(rows[:, :15], first[:, :15], atol=1e-5)
    assert load("bert").encode([" ".join(words)])[0].shape == (4, 100, 32)  # more than its 66 positions


def test_layer_choices_name_and_select_hidden_states(load: Callable[..., Any]) -> None:
    waveform = noise(8_000)
    all_layers = load("wav2vec2-stable").encode(waveform)[0]
    expected = {
        "last": (("layer_03",), all_layers[3:]),
        "0,2": (("layer_00", "layer_02"), all_layers[[0, 2]]),
        "last2": (("layer_02", "layer_03"), all_layers[2:]),
        "last4-sum": (("last4_sum",), all_layers.sum(axis=0, keepdims=True)),
    }
    for layers, (names, rows) in expected.items():
        encoder = load("wav2vec2-stable", layers=layers)
        assert encoder.spec.layers == names
        np.testing.assert_allclose(encoder.encode(waveform)[0], rows, atol=1e-5)


@pytest.mark.parametrize("layers", ["4", "-1", "1,1", "last9", "first", ""])
def test_wrong_layers_are_refused_with_the_range(layers: str) -> None:
    with pytest.raises(ConfigError, match="layers"):
        LayerChoice.parse(layers, 3, "wavlm")


@pytest.mark.parametrize("name", ["hubert-group", "whisper-80", "logmel"])
def test_pooling_is_mean_and_population_deviation_over_all_frames(load: Callable[..., Any], name: str) -> None:
    window = {"window": "1s+0.1s"} if name == "hubert-group" else {}
    waveforms = noise(40_000, 10)
    rows = load(name, **window).encode(waveforms)
    encoder = load(name, pool="mean+std", **window)
    assert encoder.spec.dim == 2 * rows[0].shape[2]
    assert encoder.spec.frame_rate_hz == 0
    for r, mean, mean_std in zip(
        rows, load(name, pool="mean", **window).encode(waveforms), encoder.encode(waveforms), strict=True
    ):
        wide = r.astype(np.float64)
        np.testing.assert_allclose(mean[:, 0], wide.mean(axis=1), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(mean_std[:, 0, r.shape[2] :], wide.std(axis=1), rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(mean_std[:, :, : r.shape[2]], mean)


@pytest.mark.parametrize("name", ["tiny-hubert", "tiny-wavlm", "logmel", "whisper-80"])
def test_silence_clipping_offset_and_the_shortest_audio_have_defined_rows(load: Callable[..., Any], name: str) -> None:
    encoder = load(name)
    speech = noise(8_000)[0]
    for waveform in (np.zeros(8_000, np.float32), np.clip(50 * speech, -1, 1), speech + 0.5, speech[:1], speech[:320]):
        rows = encoder.encode([waveform])[0]
        assert rows.shape[1] == encoder.n_frames(len(waveform)) >= 1
        assert np.isfinite(rows).all()


def test_log_mel_of_silence_is_the_stated_floor(load: Callable[..., Any]) -> None:
    np.testing.assert_allclose(
        load("logmel").encode([np.zeros(720, np.float32)])[0], np.full((1, 2, 80), -1.5), rtol=1e-6
    )


# --- what is recorded, and what is refused --------------------------------------------------------------------------


def test_the_spec_says_what_was_encoded(load: Callable[..., Any], directory: Callable[[str], Path]) -> None:
    spec = load("hubert-group", layers="last").spec
    assert (spec.kind, spec.encoder, spec.dim, spec.frame_rate_hz) == ("audio", "hubert-group", 32, 50.0)
    assert (spec.window, spec.pool, spec.dtype, spec.source) == ("30s+1s", "none", "float16", "")
    assert spec.weights == identity(directory("hubert-group"), with_tokenizer=False)
    assert load("whisper-80", window="short").spec.window == "short"
    text = load("bert", source="transcript").spec
    assert (text.kind, text.frame_rate_hz, text.source, text.window) == ("text", 0.0, "transcript", "66tok+8")


def test_weights_are_identified_by_content_not_by_place(directory: Callable[[str], Path], tmp_path: Path) -> None:
    copy = Path(shutil.copytree(directory("bert"), tmp_path / "copy"))
    before = identity(directory("bert"), with_tokenizer=True)
    assert identity(copy, with_tokenizer=True) == before
    assert before.startswith("sha256:")
    assert len(before) == 7 + 16
    with (copy / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)
        file.seek(-1, 2)
        file.write(bytes([last[0] ^ 1]))
    assert identity(copy, with_tokenizer=True) != before


def test_the_embedded_encoders_are_small_halves_with_a_card() -> None:
    from safetensors import safe_open

    for name in ("tiny-hubert", "tiny-wavlm"):
        path = EMBEDDED / name / "model.safetensors"
        assert path.stat().st_size < 8_000_000
        with safe_open(path, "pt") as file:
            assert {file.get_slice(key).get_dtype() for key in file.keys()} == {"F16"}  # noqa: SIM118
        assert "non-commercial" in (EMBEDDED / name / "README.md").read_text()
        assert next(load_encoder(name, device="cpu").model.parameters()).dtype == torch.float32  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "near"),
    [("wavlm-lage", "wavlm-large"), ("tinyhubert", "tiny-hubert"), ("Whisper-large-v3", "whisper-large-v3")],
)
def test_a_typo_gets_near_names(name: str, near: str) -> None:
    with pytest.raises(EncoderError, match=f"Did you mean .*{near}"):
        load_encoder(name)


def test_weights_that_are_nowhere_get_a_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for name in ("wavlm-large", "someone/some-model"):
        with pytest.raises(EncoderError, match=r"HF_HUB_OFFLINE.*--weights DIR") as caught:
            load_encoder(name)
        assert "\n" not in str(caught.value)


def test_a_model_in_the_hub_cache_needs_no_network(
    directory: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from huggingface_hub import constants

    repository = tmp_path / "models--someone--bert"
    shutil.copytree(directory("bert"), repository / "snapshots" / "0123abcd")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123abcd")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    encoder = load_encoder("someone/bert", device="cpu")
    assert encoder.spec.encoder == "someone/bert"
    assert encoder.spec.weights == identity(directory("bert"), with_tokenizer=True)


def test_directories_that_are_no_models_are_refused(directory: Callable[[str], Path], tmp_path: Path) -> None:
    good = directory("hubert-group")

    def broken(name: str, change: Callable[[Path], object]) -> Path:
        path = Path(shutil.copytree(good, tmp_path / name))
        change(path)
        return path

    def set_config(path: Path, **values: Any) -> None:
        config = json.loads((path / "config.json").read_text())
        (path / "config.json").write_text(json.dumps({**config, **values}))

    cases = {
        "no such directory": tmp_path / "absent",
        "is a file": good / "config.json",
        "has no config.json": broken("a", lambda p: (p / "config.json").unlink()),
        r"no \*.safetensors": broken("b", lambda p: (p / "model.safetensors").unlink()),
        "not a transformers configuration": broken("c", lambda p: (p / "config.json").write_text("{}")),
        "model_type 'clip' in its config.json is not supported": broken(
            "d", lambda p: set_config(p, model_type="clip")
        ),
        "unknown whether": broken("e", lambda p: (p / "preprocessor_config.json").unlink()),
        "can't be loaded": broken("f", lambda p: (p / "model.safetensors").write_bytes(b"x" * 100)),
        "parameters of its configuration are not in the weights": broken(
            "g", lambda p: set_config(p, num_hidden_layers=4)
        ),
    }
    for reason, path in cases.items():
        with pytest.raises(EncoderError, match=reason) as caught:
            load_encoder("my-encoder", weights=path, device="cpu")
        assert "\n" not in str(caught.value)
    with pytest.raises(EncoderError, match="no such directory"):
        load_encoder(str(tmp_path / "absent"))
    with pytest.raises(EncoderError, match="expected a text model"):
        load_encoder("roberta-large", weights=good)
    with pytest.raises(EncoderError, match="logmel has no weights"):
        load_encoder("logmel", weights=good)


def test_a_tokenizer_that_transformers_would_build_otherwise_than_its_file_is_refused(
    directory: Callable[[str], Path], tmp_path: Path
) -> None:
    path = Path(shutil.copytree(directory("bert"), tmp_path / "model"))
    config = json.loads((path / "tokenizer_config.json").read_text())
    (path / "tokenizer_config.json").write_text(json.dumps({**config, "tokenizer_class": "GPT2Tokenizer"}))
    with pytest.raises(EncoderError, match=r"tokenizer\.json.*GPT2Tokenizer.*PreTrainedTokenizerFast"):
        load_encoder("my-encoder", weights=path, device="cpu")
    (path / "tokenizer_config.json").write_text(json.dumps({**config, "tokenizer_class": "PreTrainedTokenizerFast"}))
    assert load_encoder("my-encoder", weights=path, device="cpu").spec.dim


def test_a_checkpoint_can_not_run_code(directory: Callable[[str], Path], tmp_path: Path) -> None:
    path = Path(shutil.copytree(directory("hubert-group"), tmp_path / "evil"))
    (path / "model.safetensors").unlink()
    marker = tmp_path / "it ran"

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (marker,))

    torch.save({"weight": Evil()}, path / "pytorch_model.bin")
    with pytest.raises(EncoderError, match="run code"):
        load_encoder("my-encoder", weights=path, device="cpu")
    assert not marker.exists()


def test_a_torch_checkpoint_gives_the_rows_of_the_safetensors_one(
    load: Callable[..., Any], directory: Callable[[str], Path], tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    path = Path(shutil.copytree(directory("wav2vec2-stable"), tmp_path / "bin"))
    torch.save(load_file(path / "model.safetensors"), path / "pytorch_model.bin")
    (path / "model.safetensors").unlink()
    waveform = noise(8_000)
    rows = load_encoder("mine", weights=path, layers="all", device="cpu").encode(waveform)[0]
    np.testing.assert_array_equal(rows, load("wav2vec2-stable").encode(waveform)[0])


def test_an_old_checkpoint_with_a_head_loads_whole(tmp_path: Path) -> None:
    """The hub's HuBERT files hold a CTC model whose weight norm has the names of an older torch."""
    model = transformers.HubertForCTC(transformers.HubertConfig(**GROUP)).eval()
    state = {
        key.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): value
        for key, value in model.state_dict().items()
    }
    assert "hubert.encoder.pos_conv_embed.conv.weight_g" in state
    torch.save(state, tmp_path / "pytorch_model.bin")
    model.config.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text('{"do_normalize": false}')
    waveform = noise(8_000)
    with torch.inference_mode():
        expected = model.hubert(torch.from_numpy(waveform[0])[None]).last_hidden_state.numpy()
    assert worst_row(load_encoder("mine", weights=tmp_path, device="cpu").encode(waveform)[0], expected) <= 1e-5


def test_an_openai_checkpoint_gives_openai_whispers_numbers(tmp_path: Path) -> None:
    from whisper.model import ModelDimensions, Whisper

    torch.manual_seed(0)
    dims = ModelDimensions(
        n_mels=80, n_audio_ctx=1500, n_audio_state=32, n_audio_head=2, n_audio_layer=2,
        n_vocab=64, n_text_ctx=8, n_text_state=32, n_text_head=2, n_text_layer=1,
    )  # fmt: skip
    model = Whisper(dims).eval()
    torch.save({"dims": vars(dims), "model_state_dict": model.half().state_dict()}, tmp_path / "mini.pt")
    waveform = noise(16_000)[0]
    filters = torch.from_numpy(mel_filters(80))
    spectrum = torch.stft(
        torch.from_numpy(np.pad(waveform, (0, 480_000 - len(waveform)))),
        400, 160, window=torch.hann_window(400), return_complex=True,
    )  # fmt: skip
    mel = (filters @ spectrum[:, :-1].abs() ** 2).clamp(min=1e-10).log10()
    mel = (mel.maximum(mel.max() - 8) + 4) / 4
    with torch.inference_mode():
        expected = model.float().encoder(mel[None]).numpy()[:, :50]
    encoder = load_encoder("whisper-tiny", weights=tmp_path / "mini.pt", device="cpu")
    assert encoder.spec.encoder == "whisper-tiny"
    assert worst_row(encoder.encode([waveform])[0], expected) <= 1e-5
    (tmp_path / "bad.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(EncoderError, match=r"bad\.pt .*openai-whisper"):
        load_encoder("whisper-tiny", weights=tmp_path / "bad.pt")


def test_real_checkpoints_of_openai_and_of_the_hub_give_the_same_rows(models_dir: Path) -> None:
    """And those of openai-whisper's own encoder, of the speech that comes with the program."""
    import whisper as openai_whisper

    from featurestore.audio import decode

    directory = models_dir / "whisper-tiny.en"
    if not (directory / "tiny.en.pt").is_file():
        pytest.skip(f"no openai-whisper checkpoint at {directory}")
    clip = next((EMBEDDED.parent / "demo_corpus").rglob("*.ogg"))
    waveform = decode(clip)
    from_checkpoint, from_directory = (
        load_encoder("whisper-tiny.en", weights=path, device="cpu").encode([waveform])[0]
        for path in (directory / "tiny.en.pt", directory / "hf")
    )
    model = openai_whisper.load_model(str(directory / "tiny.en.pt"), device="cpu")
    mel = openai_whisper.log_mel_spectrogram(openai_whisper.pad_or_trim(waveform), model.dims.n_mels)
    with torch.inference_mode():
        plain = model.encoder(mel[None])[:, : from_checkpoint.shape[1]].numpy()
    assert worst_row(from_checkpoint, plain) <= 1e-4
    assert (
        worst_row(from_checkpoint, from_directory) <= 2e-3
    )  # a checkpoint holds halves, the other what they were rounded from


@pytest.mark.parametrize(
    "options",
    [{"pool": "max"}, {"dtype": "int16"}, {"device": "gpu7"}, {"compute": "int8"}, {"window": "30s"}, {"layers": "9"}],
)
def test_wrong_options_are_named(options: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=f"--{next(iter(options))}"):
        load_encoder("tiny-hubert", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("window", ["2s+1s", "30s", "s+s", "1tok+1"])
def test_speech_windows_need_room_between_their_margins(window: str) -> None:
    with pytest.raises(ConfigError, match="--window"):
        parse_window(window, 50.0)


def test_all_known_names_have_a_place() -> None:
    for name, entry in ENCODERS.items():
        weightless = entry.family in ("logmel", "opensmile")
        assert weightless or entry.hub_id or (EMBEDDED / name / "config.json").is_file()


def test_logmel_needs_no_torch() -> None:
    code = (
        "import sys; from featurestore.encoders import load_encoder; e = load_encoder('logmel');"
        "import numpy; e.encode([numpy.zeros(1600, 'f4')]); import featurestore.featurize.run;"
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_half_precision_is_part_of_the_spec(load: Callable[..., Any]) -> None:
    encoder = load("tiny-hubert", compute="bfloat16")
    assert isinstance(encoder, SpeechEncoder)
    assert dict(encoder.spec.extra) == {"compute": "bfloat16", "residual": "float32"}
    waveforms = noise(16_000, 5_000)
    singly = [encoder.encode([w])[0] for w in waveforms]
    exact = load("tiny-hubert").encode(waveforms)
    for a, b, e in zip(singly, encoder.encode(waveforms, 100_000), exact, strict=True):
        assert worst_row(a, e) < 0.1
        assert worst_row(b, a) < 0.1
