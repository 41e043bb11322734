"""What one batch asks of a GPU: a wait, a copy each way, and no kernels that grow with the number of utterances."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from featurestore.encoders.base import Encoder
from featurestore.encoders.load import _Sizes, load_encoder, spec_for
from featurestore.encoders.options import EncoderOptions
from featurestore.encoders.speech import SpeechEncoder
from tests.featurestore.encoders.test_language_models import save_model
from tests.featurestore.encoders.test_unpadded import CONFIGS as UNPADDED
from tests.featurestore.encoders.test_unpadded import SPEAKER, extractor_of
from tests.helpers.device_work import META, DeviceWork, counted
from tests.helpers.encoder_configs import CONFIGS, SPEECH_NAMES, TEXT_NAMES, WORDS, save_random

AUDIO = [*((name, "30s+1s") for name in SPEECH_NAMES), ("whisper-80", "pad30"), ("whisper-80", "short")]
WHOLE = ("wavlm-group", "whisper-80")  # whose frames are counted always, and not their means alone


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    root = tmp_path_factory.mktemp("weights")
    return lambda name: save_random(name, root / name)


def waveforms(n: int) -> list[np.ndarray]:
    return [np.zeros(16_000 + 321 * i, np.float32) for i in range(n)]


def batch_of(encoder: Encoder, inputs: list[Any], work: DeviceWork) -> list[np.ndarray]:
    """Encode twice, so that what is made once is there, and count the second time."""
    encoder.start_prepared([encoder.prepare(each) for each in inputs], 100_000, stored=True)()
    work.start_anew()
    return encoder.start_prepared([encoder.prepare(each) for each in inputs], 100_000, stored=True)()


@pytest.mark.parametrize(
    ("name", "window", "pool"),
    [
        pytest.param(name, window, pool, marks=() if pool == "mean+std" or name in WHOLE else pytest.mark.slow)
        for name, window in AUDIO
        for pool in ("none", "mean+std")
    ],
)
def test_a_batch_of_audio_is_one_wait_and_one_copy_each_way(
    name: str, window: str, pool: str, directory: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with counted(monkeypatch) as work:
        encoder = load_encoder(
            str(directory(name)), device="meta", compute="float32", window=window, layers="all", pool=pool
        )
        rows = batch_of(encoder, waveforms(5), work)
    assert (work.waits, work.inward, work.outward) == (1, 1, 1), work.waited_for
    assert [each.dtype for each in rows] == [np.float16] * 5  # cast on the device
    assert encoder.overlaps


@pytest.mark.parametrize("n_words", [[3, 9, 0, 20], pytest.param([7, 7, 7], marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", TEXT_NAMES)
def test_a_batch_of_texts_is_one_wait_and_one_copy_each_way(
    name: str, n_words: list[int], directory: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with counted(monkeypatch) as work:
        encoder = load_encoder(str(directory(name)), device="meta", compute="float32", layers="last")
        batch_of(encoder, [" ".join(WORDS[:n]) for n in n_words], work)
    assert (work.waits, work.inward, work.outward) == (1, 1, 1), work.waited_for


def of_true_size(name: str) -> SpeechEncoder:
    """Return a base model without its numbers."""
    config = CONFIGS[name]().__class__(hidden_size=768, num_hidden_layers=12, num_attention_heads=12)
    with torch.device("meta"):
        model = transformers.AutoModel.from_config(config)
    choice, spec = spec_for(name, "none", _Sizes(12, 768, 320), "30s+1s", EncoderOptions(name))
    return SpeechEncoder(model.eval(), normalize=True, spec=spec, choice=choice, device=META, compute=torch.float32)


@pytest.mark.parametrize(("name", "most"), [("wavlm-group", 420), ("hubert-group", 250), ("wav2vec2-group", 250)])
def test_a_base_model_takes_all_clips_through_its_front_end_at_once(
    name: str, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 118 clips of different lengths; the build before took 3,338 for WavLM-base, 826 of them convolutions."""
    with counted(monkeypatch) as work:
        encoder = of_true_size(name)
        batch_of(encoder, waveforms(118), work)
    assert work.kernels <= most
    assert sum(n for kernel, n in work.names.items() if kernel.startswith("conv")) == 8  # 7, and of the positions


@pytest.mark.parametrize("name", SPEECH_NAMES)
def test_kernels_of_a_batch_do_not_grow_with_its_clips(
    name: str, directory: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = []
    with counted(monkeypatch) as work:
        encoder = load_encoder(str(directory(name)), device="meta", compute="float32", layers="all")
        for n in (3, 60):
            batch_of(encoder, waveforms(n), work)
            counts.append(work.kernels)
    assert counts[0] == counts[1]


def test_many_layers_make_batches_smaller_so_that_pinned_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = {}
    with counted(monkeypatch):
        for layers in ("last", "all"):
            choice, spec = spec_for(
                "wavlm-group", "none", _Sizes(24, 1024, 320), "30s+1s", EncoderOptions("wavlm-group", layers=layers)
            )
            with torch.device("meta"):
                model = transformers.AutoModel.from_config(CONFIGS["wavlm-group"]())
            encoder = SpeechEncoder(model, normalize=True, spec=spec, choice=choice, device=META, compute=torch.float32)
            frames[layers] = encoder.default_batch_frames
    assert frames["last"] == 30_000
    assert frames["all"] * 25 * 1024 * 2 <= 512 << 20


@pytest.mark.parametrize("name", ["llama", "gemma2", "mistral", "gpt2", "t5"])
def test_a_language_model_reads_its_mask_once_and_its_kernels_do_not_grow(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers asks the device whether a mask has padding: a wait more than BERT's, whatever the batch."""
    save_model(tmp_path, name, "eos" if name == "t5" else "bos")
    kernels = []
    with counted(monkeypatch) as work:
        encoder = load_encoder(str(tmp_path), device="meta", compute="float32", layers="last")
        for n_words in ([3, 9, 1, 20], [3, 9] * 8):
            batch_of(encoder, [" ".join(WORDS[:n]) for n in n_words], work)
            assert (work.inward, work.outward) == (1, 1), work.waited_for
            assert work.waits <= 2, work.waited_for
            kernels.append(work.kernels)
    assert kernels[0] == kernels[1]


@pytest.mark.parametrize("name", ["wav2vec2-conformer", "moonshine", "wav2vec2-bert", "parakeet_encoder"])
def test_unpadded_clips_are_one_wait_and_equal_ones_one_pass(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transformers.AutoModel.from_config(UNPADDED[name]()).save_pretrained(tmp_path)
    extractor_of(name).save_pretrained(tmp_path)
    kernels = []
    with counted(monkeypatch) as work:
        encoder = load_encoder(str(tmp_path), device="meta", compute="float32", layers="last")
        for clips in (waveforms(3), waveforms(1) * 3, waveforms(1)):
            batch_of(encoder, clips, work)
            assert (work.waits, work.inward, work.outward) == (1, 1, 1), work.waited_for
            kernels.append(work.kernels)
    assert kernels[0] > 2 * kernels[1]  # three lengths, three passes
    assert kernels[1] < kernels[2] + 10


def test_speaker_embeddings_are_one_pass_and_one_copy_each_way_for_each_clip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    SPEAKER["wavlm"]().save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text('{"do_normalize": false}')
    with counted(monkeypatch) as work:
        encoder = load_encoder(str(tmp_path), device="meta", compute="float32", pool="model")
        batch_of(encoder, waveforms(3), work)
    assert (work.waits, work.inward, work.outward) == (3, 3, 3), work.waited_for
