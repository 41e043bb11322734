"""Random weights of an encoder's true size, as a directory that `--weights` takes: honest for speed, not for rows."""

import json
from pathlib import Path
from typing import Any

from featurestore.errors import ConfigError

from .corpus import N_WORDS

BASE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
GROUP = {"feat_extract_norm": "group", "do_stable_layer_norm": False}
STABLE = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
ROBERTA = {"vocab_size": 50_265, "max_position_embeddings": 514, "type_vocab_size": 1}


def _whisper(d_model: int, layers: int, heads: int, mels: int = 80) -> tuple[str, dict[str, Any]]:
    # The decoder isn't loaded for features; one layer of it keeps the file small.
    return "WhisperConfig", {
        "d_model": d_model, "encoder_layers": layers, "encoder_attention_heads": heads, "encoder_ffn_dim": 4 * d_model,
        "decoder_layers": 1, "decoder_attention_heads": heads, "decoder_ffn_dim": 64, "num_mel_bins": mels,
        "vocab_size": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 3,
    }  # fmt: skip


# transformers' configuration class and what differs from its defaults, as the hub's config.json have it.
SIZES: dict[str, tuple[str, dict[str, Any]]] = {
    "wavlm-base": ("WavLMConfig", {**BASE, **GROUP}),
    "wavlm-base-plus": ("WavLMConfig", {**BASE, **GROUP}),
    "wavlm-large": ("WavLMConfig", {**LARGE, **STABLE, "conv_bias": False}),
    "hubert-base": ("HubertConfig", {**BASE, **GROUP}),
    "hubert-large": ("HubertConfig", {**LARGE, **STABLE}),
    "wav2vec2-base": ("Wav2Vec2Config", {**BASE, **GROUP}),
    "wav2vec2-large": ("Wav2Vec2Config", {**LARGE, **STABLE}),
    "whisper-tiny": _whisper(384, 4, 6),
    "whisper-base": _whisper(512, 6, 8),
    "whisper-small": _whisper(768, 12, 12),
    "whisper-medium": _whisper(1024, 24, 16),
    "whisper-large-v2": _whisper(1280, 32, 20),
    "whisper-large-v3": _whisper(1280, 32, 20, 128),
    "roberta-base": ("RobertaConfig", {**BASE, **ROBERTA}),
    "roberta-large": ("RobertaConfig", {**LARGE, **ROBERTA}),
}
# For a dry run of a large encoder's benchmark on a small machine.
TINY = {
    "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128, "d_model": 64,
    "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 128, "decoder_attention_heads": 2,
    "conv_dim": [32] * 7,
}  # fmt: skip


def random_weights(name: str, directory: Path, seed: int = 0, tiny: bool = False) -> Path:
    """Write the encoder's configuration and random weights to `directory`; ConfigError for an unknown size."""
    import torch
    import transformers

    if name not in SIZES:
        raise ConfigError(f"--random: the size of {name} is not known here; known are {', '.join(SIZES)}.")
    kind, settings = SIZES[name]
    if tiny:
        speech = not kind.startswith(("Whisper", "Roberta"))
        settings = {**settings, **{k: v for k, v in TINY.items() if k in settings or (k == "conv_dim" and speech)}}
    torch.manual_seed(seed)
    model = transformers.AutoModel.from_config(getattr(transformers, kind)(**settings))
    model.save_pretrained(directory)
    if kind == "RobertaConfig":
        _save_tokenizer(directory)
    else:
        normalize = settings.get("feat_extract_norm") == "layer"
        (directory / "preprocessor_config.json").write_text(json.dumps({"do_normalize": normalize}))
    return directory


def _save_tokenizer(directory: Path) -> None:
    """Write a tokenizer of which each word is a token."""
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = ["<s>", "<pad>", "</s>", "<unk>", *(f"w{i}" for i in range(N_WORDS))]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        cls_token="<s>",
        eos_token="</s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
    ).save_pretrained(directory)
