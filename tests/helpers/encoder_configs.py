"""Every architecture that can be loaded, small, with random weights in which a leak of padding shows.

The weights have no common sign: rows far from zero would lose digits in a layer norm (|x| / |x - mean| times float32's
rounding, 12 to 47 with one-sided weights), alone and in a batch, and that would hide the effect of a batch.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

from featurestore.encoders.families import TEXT_TYPES
from tests.helpers.small_text_encoder import save_tokenizer

WORDS = [f"w{i}" for i in range(90)]
SPEECH = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "conv_dim": [16] * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "vocab_size": 32,
}
GROUP = {**SPEECH, "feat_extract_norm": "group"}
STABLE = {**SPEECH, "feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
TEXT = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "vocab_size": 99,
    "max_position_embeddings": 66,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 3,
    "cls_token_id": 2,
    "sep_token_id": 3,
}
RELATIVE = {**TEXT, "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "type_vocab_size": 0}


def whisper(n_mels: int) -> transformers.WhisperConfig:
    return transformers.WhisperConfig(
        d_model=32,
        encoder_layers=3,
        encoder_attention_heads=2,
        encoder_ffn_dim=48,
        decoder_layers=1,
        decoder_attention_heads=2,
        decoder_ffn_dim=48,
        num_mel_bins=n_mels,
        vocab_size=64,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=3,
    )


CONFIGS: dict[str, Callable[[], Any]] = {
    "hubert-group": lambda: transformers.HubertConfig(**GROUP),
    "hubert-stable": lambda: transformers.HubertConfig(**STABLE),
    "hubert-batchnorm": lambda: transformers.HubertConfig(**GROUP, conv_pos_batch_norm=True),
    "wavlm-group": lambda: transformers.WavLMConfig(**GROUP),
    "wavlm-stable": lambda: transformers.WavLMConfig(**STABLE),
    "wav2vec2-group": lambda: transformers.Wav2Vec2Config(**GROUP),
    "wav2vec2-stable": lambda: transformers.Wav2Vec2Config(**STABLE),
    "data2vec": lambda: transformers.Data2VecAudioConfig(
        **{**SPEECH, "num_conv_pos_embeddings": 3, "conv_pos_kernel_size": 7}
    ),
    "unispeech-group": lambda: transformers.UniSpeechConfig(**GROUP),
    "unispeech-sat-group": lambda: transformers.UniSpeechSatConfig(**GROUP),
    "unispeech-sat-stable": lambda: transformers.UniSpeechSatConfig(**STABLE),
    "whisper-80": lambda: whisper(80),
    "whisper-128": lambda: whisper(128),
    "albert": lambda: transformers.AlbertConfig(**TEXT, embedding_size=16),
    "bert": lambda: transformers.BertConfig(**TEXT),
    "camembert": lambda: transformers.CamembertConfig(**TEXT),
    "data2vec-text": lambda: transformers.Data2VecTextConfig(**TEXT),
    "deberta": lambda: transformers.DebertaConfig(**RELATIVE),
    "deberta-v2": lambda: transformers.DebertaV2Config(**RELATIVE),
    "distilbert": lambda: transformers.DistilBertConfig(
        vocab_size=99, max_position_embeddings=66, dim=32, n_layers=3, n_heads=2, hidden_dim=48
    ),
    "electra": lambda: transformers.ElectraConfig(**TEXT, embedding_size=16),
    "ernie": lambda: transformers.ErnieConfig(**TEXT),
    "eurobert": lambda: transformers.EuroBertConfig(**TEXT),
    "megatron-bert": lambda: transformers.MegatronBertConfig(**TEXT),
    "mpnet": lambda: transformers.MPNetConfig(**TEXT),
    "nomic_bert": lambda: transformers.NomicBertConfig(**TEXT),
    "rembert": lambda: transformers.RemBertConfig(**TEXT, input_embedding_size=16, output_embedding_size=16),
    "roberta": lambda: transformers.RobertaConfig(**TEXT),
    "roberta-prelayernorm": lambda: transformers.RobertaPreLayerNormConfig(**TEXT),
    "roformer": lambda: transformers.RoFormerConfig(**TEXT),
    "xlm-roberta": lambda: transformers.XLMRobertaConfig(**TEXT),
    "xlm-roberta-xl": lambda: transformers.XLMRobertaXLConfig(**TEXT),
    "modernbert": lambda: transformers.ModernBertConfig(**TEXT, local_attention=8, global_attn_every_n_layers=2),
}
SPEECH_NAMES = [
    name for name in CONFIGS if name.startswith(("hubert", "wavlm", "wav2vec2", "unispeech")) or name == "data2vec"
]
TEXT_NAMES = [name for name in CONFIGS if name in TEXT_TYPES]


def save_random(name: str, path: Path) -> Path:
    """Write an architecture's weights to `path` unless they are there; biases and norms are random too."""
    if path.is_dir():
        return path
    torch.manual_seed(0)
    model = transformers.AutoModel.from_config(CONFIGS[name]())
    with torch.no_grad():
        for key, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if tensor.is_floating_point() and not key.endswith(("inv_freq", "position_ids")):
                tensor.add_(0.1 * torch.randn_like(tensor))
    model.save_pretrained(path)
    if name in TEXT_NAMES:
        save_tokenizer(path, WORDS)
    else:
        (path / "preprocessor_config.json").write_text(json.dumps({"do_normalize": "stable" in name}))
    return path
