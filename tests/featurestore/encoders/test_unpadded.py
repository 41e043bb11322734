"""Speech models that run without padding, fine-tuned heads and speaker embeddings, with tiny random weights.

Rows alone are those in a batch and those of the plain transformers call; layers are numbered as documented.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from featurestore.encoders import load_encoder
from featurestore.encoders.families import UNPADDED_TYPES as MODEL_TYPES
from featurestore.errors import ConfigError, EncoderError

CONVS = {"conv_dim": [8] * 7, "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2}
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24, "vocab_size": 32}
SEW = {
    **SMALL,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "conv_dim": [8] * 5,
    "conv_stride": [5, 4, 4, 2, 2],
    "conv_kernel": [10, 8, 4, 2, 2],
    "feat_extract_norm": "group",
}
PARAKEET = {**SMALL, "subsampling_conv_channels": 8, "num_mel_bins": 80, "conv_kernel_size": 5}
CONFIGS: dict[str, Callable[[], Any]] = {
    "wav2vec2-conformer": lambda: transformers.Wav2Vec2ConformerConfig(
        **SMALL, **CONVS, position_embeddings_type="relative", conv_depthwise_kernel_size=5
    ),
    "wav2vec2-conformer-rotary": lambda: transformers.Wav2Vec2ConformerConfig(
        **SMALL, **CONVS, position_embeddings_type="rotary", conv_depthwise_kernel_size=5
    ),
    "sew": lambda: transformers.SEWConfig(**SEW),
    "sew-d": lambda: transformers.SEWDConfig(**SEW),
    "moonshine": lambda: transformers.MoonshineConfig(
        hidden_size=16, intermediate_size=24, encoder_num_hidden_layers=2, decoder_num_hidden_layers=1,
        encoder_num_attention_heads=2, decoder_num_attention_heads=2, vocab_size=32,
    ),
    "wav2vec2-bert": lambda: transformers.Wav2Vec2BertConfig(**SMALL, conv_depthwise_kernel_size=5),
    "wav2vec2-bert-adapter": lambda: transformers.Wav2Vec2BertConfig(
        **SMALL, conv_depthwise_kernel_size=5, add_adapter=True, output_hidden_size=16
    ),
    "parakeet_encoder": lambda: transformers.ParakeetEncoderConfig(**PARAKEET),
    "parakeet_ctc": lambda: transformers.ParakeetCTCConfig(
        vocab_size=32, pad_token_id=31, encoder_config=transformers.ParakeetEncoderConfig(**PARAKEET)
    ),
}  # fmt: skip
RATE_HZ = {"moonshine": 16_000 / 384, "parakeet_encoder": 12.5, "parakeet_ctc": 12.5}


def randomized(model: Any) -> Any:
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.add_(0.1 * torch.randn_like(tensor))
    return model.eval()


def extractor_of(name: str) -> Any:
    if name.startswith("wav2vec2-bert"):
        return transformers.SeamlessM4TFeatureExtractor()
    if name.startswith("parakeet"):
        return transformers.ParakeetFeatureExtractor()
    if name == "whisper":
        return transformers.WhisperFeatureExtractor()
    return transformers.Wav2Vec2FeatureExtractor(do_normalize=name != "moonshine", return_attention_mask=False)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    root = tmp_path_factory.mktemp("speech")

    def make(name: str) -> Path:
        path = root / name
        if not path.is_dir():
            torch.manual_seed(0)
            randomized(transformers.AutoModel.from_config(CONFIGS[name]())).save_pretrained(path)
            extractor_of(name).save_pretrained(path)
        return path

    return make


def load(path: Path, **options: Any) -> Any:
    return load_encoder(str(path), **{"device": "cpu", "dtype": "float32", **options})


def noise(*n_samples: int) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [(rng.standard_normal(n) * rng.uniform(0.01, 0.3)).astype(np.float32) for n in n_samples]


def worst_row(rows: np.ndarray, reference: np.ndarray) -> float:
    assert rows.shape == reference.shape
    norms = np.maximum(np.linalg.norm(reference, axis=-1), 1e-12)  # SEW's odd last frame is zero
    return float((np.linalg.norm(rows - reference, axis=-1) / norms).max())


def plain(path: Path, name: str, waveform: np.ndarray) -> tuple[list[torch.Tensor], torch.Tensor]:
    """hidden_states and last_hidden_state of the plain call, with what the extractor gives, padding mask and all."""
    model = transformers.AutoModel.from_pretrained(path, dtype=torch.float32).eval()
    if name == "wav2vec2-bert-adapter":
        model.adapter = None
    model = model.encoder if name in ("moonshine", "parakeet_ctc") else model
    inputs = extractor_of(name)(waveform, sampling_rate=16_000, return_tensors="pt")
    with torch.inference_mode():
        output = model(**inputs, output_hidden_states=True)
    return list(output.hidden_states), output.last_hidden_state


def test_every_family_is_tested_here() -> None:
    assert set(MODEL_TYPES) <= set(CONFIGS)


@pytest.mark.parametrize("name", CONFIGS)
def test_rows_are_those_of_the_single_clip_and_of_the_plain_call(directory: Callable[[str], Path], name: str) -> None:
    squeezed = name.startswith("sew")
    encoder = load(directory(name), layers="last" if squeezed else "all")
    assert encoder.spec.frame_rate_hz == pytest.approx(RATE_HZ.get(name, 50.0))
    waveforms = noise(16_000, 5_123, 24_000, 16_000, 300)
    for waveform, rows in zip(waveforms, encoder.encode(waveforms, 100_000), strict=True):
        assert rows.shape[1] == encoder.n_frames(len(waveform))
        # Two clips of one length go together, through other kernels of convolutions than each alone: 2.5e-6.
        assert worst_row(rows, encoder.encode([waveform])[0]) <= 3e-6
    for waveform in waveforms[:3]:
        states, last = plain(directory(name), name, waveform)
        expected = (last if squeezed else torch.cat([*states[:-1], last])).numpy()
        rows = encoder.encode([waveform])[0]
        assert expected.shape[1] - rows.shape[1] in (0, 1)  # an extractor's own padding may add one
        assert worst_row(rows, expected[:, : rows.shape[1]]) <= 5e-6  # its extractor adds up in float32


@pytest.mark.parametrize("name", CONFIGS)
def test_every_length_has_the_stated_number_of_frames_also_in_windows(
    directory: Callable[[str], Path], name: str
) -> None:
    encoder = load(directory(name), window="1s+0.2s")
    hop, field = encoder._loaded.hop, encoder._loaded.field
    for n in (1, field - 1, field, field + hop - 1, field + hop, 7 * hop + 11, 40_000, 55_555):
        rows = encoder.encode([noise(n)[0]])[0]
        assert rows.shape[1] == (max(n, encoder._loaded.least_samples) - field) // hop + 1
        assert np.isfinite(rows).all()


def test_the_inner_layers_of_sew_are_refused_since_their_rate_is_another(directory: Callable[[str], Path]) -> None:
    with pytest.raises(ConfigError, match=r"--layers.*half the frame rate"):
        load(directory("sew"), layers="1")


# --- heads ----------------------------------------------------------------------------------------------------------

SPEECH = {**SMALL, **CONVS, "feat_extract_norm": "layer", "do_stable_layer_norm": True, "num_labels": 4}
WHISPER = {
    "d_model": 16, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_layers": 1,
    "decoder_attention_heads": 2, "decoder_ffn_dim": 24, "vocab_size": 64, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2, "decoder_start_token_id": 3, "num_labels": 4, "classifier_proj_size": 8,
}  # fmt: skip
HEADS: dict[str, Callable[[], tuple[Any, str]]] = {
    "HubertForSequenceClassification": lambda: (
        transformers.HubertForSequenceClassification(transformers.HubertConfig(**SPEECH)), "hubert"),
    "Wav2Vec2ForCTC": lambda: (transformers.Wav2Vec2ForCTC(transformers.Wav2Vec2Config(**SPEECH)), "wav2vec2"),
    "WavLMForAudioFrameClassification": lambda: (
        transformers.WavLMForAudioFrameClassification(transformers.WavLMConfig(**SPEECH)), "wavlm"),
    "WhisperForAudioClassification": lambda: (
        transformers.WhisperForAudioClassification(transformers.WhisperConfig(**WHISPER)), "encoder"),
    "ParakeetForCTC": lambda: (transformers.ParakeetForCTC(CONFIGS["parakeet_ctc"]()), "encoder"),
}  # fmt: skip


@pytest.mark.parametrize("head", HEADS)
def test_of_a_fine_tuned_checkpoint_the_encoder_is_used_and_its_head_named(tmp_path: Path, head: str) -> None:
    torch.manual_seed(0)
    model, part = HEADS[head]()
    randomized(model).save_pretrained(tmp_path)
    extractor_of(
        next((kind for kind in ("parakeet", "whisper") if head.lower().startswith(kind)), "wav2vec2")
    ).save_pretrained(tmp_path)
    encoder = load(tmp_path)
    assert encoder.head == head
    module = getattr(model, part)
    expected = module.state_dict()
    for key, tensor in encoder.model.state_dict().items():
        torch.testing.assert_close(tensor, expected[key], rtol=0, atol=0)
    assert len(encoder.model.state_dict()) == len([k for k in expected if "masked_spec" not in k]) or part != "encoder"


XVECTOR = {**SPEECH, "tdnn_dim": [8, 8, 8], "tdnn_kernel": [5, 3, 1], "tdnn_dilation": [1, 2, 1],
           "xvector_output_dim": 12}  # fmt: skip
SPEAKER = {
    "wavlm": lambda: transformers.WavLMForXVector(transformers.WavLMConfig(**XVECTOR)),
    "unispeech-sat": lambda: transformers.UniSpeechSatForXVector(transformers.UniSpeechSatConfig(**XVECTOR)),
    "wav2vec2": lambda: transformers.Wav2Vec2ForXVector(transformers.Wav2Vec2Config(**XVECTOR)),
}


@pytest.mark.parametrize("name", SPEAKER)
def test_a_speaker_embedding_is_one_row_of_the_plain_call(tmp_path: Path, name: str) -> None:
    torch.manual_seed(0)
    model = randomized(SPEAKER[name]())
    model.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"do_normalize": False}))
    encoder = load(tmp_path, pool="model")
    waveforms = noise(16_000, 24_000, 9_000)
    for waveform, rows in zip(waveforms, encoder.encode(waveforms), strict=True):
        with torch.inference_mode():
            expected = model(torch.from_numpy(waveform)[None]).embeddings.numpy()
        assert rows.shape == (1, 1, 12)
        assert worst_row(rows[0], expected) <= 5e-6
    assert (encoder.spec.pool, encoder.spec.frame_rate_hz, encoder.spec.dim) == ("model", 0.0, 12)
    assert "expected at least" in encoder.refusal(2_000)
    assert "expected at most 30 s" in encoder.refusal(31 * 16_000)
    assert load(tmp_path).encode(waveforms)[0].shape == (1, 49, 16)  # without it, the frames


def test_a_speech_model_without_such_a_head_has_no_pooling_of_its_own() -> None:
    with pytest.raises(EncoderError, match=r"--pool model.*x-vector"):
        load_encoder("tiny-wavlm", pool="model")
    with pytest.raises(ConfigError, match="--pool model"):
        load_encoder("logmel", pool="model")


# --- LoRA -----------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")  # of peft, where the adapters are made
@pytest.mark.parametrize("head", ["HubertForSequenceClassification", "WhisperForAudioClassification"])
def test_a_lora_directory_is_its_base_with_the_adapter_merged(tmp_path: Path, head: str) -> None:
    """Trained on a model with a head; rows are those of the adapted model, and of another fingerprint than the base."""
    peft = pytest.importorskip("peft", reason="LoRA directories need the extra peft")
    torch.manual_seed(0)
    model, part = HEADS[head]()
    randomized(model).save_pretrained(tmp_path / "base")
    extractor_of("whisper" if head.startswith("Whisper") else "wav2vec2").save_pretrained(tmp_path / "base")
    config = peft.LoraConfig(
        r=4, target_modules=["q_proj", "v_proj"], lora_alpha=16, modules_to_save=["classifier"],
        base_model_name_or_path="../base",
    )  # fmt: skip
    adapted = peft.get_peft_model(model, config)
    with torch.no_grad():
        for name, tensor in adapted.named_parameters():
            if "lora_" in name:
                tensor.copy_(0.3 * torch.randn_like(tensor))
    adapted.save_pretrained(tmp_path / "lora")
    (tmp_path / "lora" / "adapter_config.json").write_text(
        json.dumps({**json.loads((tmp_path / "lora" / "adapter_config.json").read_text()),
                    "base_model_name_or_path": "../base"})
    )  # fmt: skip
    encoder, base = load(tmp_path / "lora"), load(tmp_path / "base")
    expected = getattr(adapted.merge_and_unload(), part).state_dict()
    changed = 0
    for key, tensor in encoder.model.state_dict().items():
        torch.testing.assert_close(tensor, expected[key], rtol=0, atol=1e-6)
        changed += not torch.equal(tensor, base.model.state_dict()[key])
    assert changed == 4  # two matrices of two layers
    assert encoder.spec.fingerprint != base.spec.fingerprint
    assert encoder.spec.encoder == "lora"


@pytest.mark.filterwarnings("ignore")
def test_an_adapter_of_another_base_is_refused(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft", reason="LoRA directories need the extra peft")
    torch.manual_seed(0)
    model, _ = HEADS["HubertForSequenceClassification"]()
    model.save_pretrained(tmp_path / "base")
    extractor_of("wav2vec2").save_pretrained(tmp_path / "base")
    peft.get_peft_model(model, peft.LoraConfig(target_modules=["q_proj"])).save_pretrained(tmp_path / "lora")
    path = tmp_path / "lora" / "adapter_config.json"
    config = {**json.loads(path.read_text()), "base_model_name_or_path": "../base"}
    path.write_text(json.dumps({**config, "target_modules": ["v_proj"]}))
    with pytest.raises(EncoderError, match=r"don't match.*q_proj"):
        load(tmp_path / "lora")
    path.write_text(json.dumps({**config, "peft_type": "IA3"}))
    with pytest.raises(EncoderError, match="expected LORA"):
        load(tmp_path / "lora")
