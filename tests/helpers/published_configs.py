"""Sizes in the public config.json of encoders in the table, from which their parameters are counted without weights.

Fields that equal the defaults of transformers' configuration classes are left away.
"""

from typing import Any

LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
XLARGE = {"hidden_size": 1280, "num_hidden_layers": 48, "num_attention_heads": 16, "intermediate_size": 5120}
STABLE = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
UNISPEECH_LARGE = {**LARGE, "feat_extract_norm": "layer", "do_stable_layer_norm": True}


def _whisper(d: int, layers: int, heads: int, mels: int = 80) -> dict[str, Any]:
    sizes = {"d_model": d, "encoder_layers": layers, "encoder_attention_heads": heads, "encoder_ffn_dim": 4 * d}
    return {**sizes, "num_mel_bins": mels, "decoder_layers": 1, "decoder_attention_heads": heads, "decoder_ffn_dim": d}


def _decoder(
    hidden: int, layers: int, heads: int, kv: int, ffn: int, vocabulary: int, **further: Any
) -> dict[str, Any]:
    return {
        "hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv,
        "intermediate_size": ffn, "vocab_size": vocabulary, **further,
    }  # fmt: skip


BERT_LARGE = {**LARGE, "vocab_size": 30522}
PUBLISHED: dict[str, tuple[str, dict[str, Any]]] = {
    "wavlm-base": ("wavlm", {}),
    "wavlm-base-plus": ("wavlm", {}),
    "wavlm-base-plus-sv": ("wavlm", {}),
    "wavlm-large": ("wavlm", UNISPEECH_LARGE),
    "hubert-base": ("hubert", {}),
    "hubert-large": ("hubert", {**LARGE, **STABLE}),
    "hubert-large-ll60k": ("hubert", {**LARGE, **STABLE}),
    "hubert-xlarge": ("hubert", {**XLARGE, **STABLE}),
    "wav2vec2-base": ("wav2vec2", {}),
    "wav2vec2-large": ("wav2vec2", {**LARGE, **STABLE}),
    "wav2vec2-emotion-msp-dim": ("wav2vec2", {**LARGE, **STABLE, "num_hidden_layers": 12}),
    "xls-r-300m": ("wav2vec2", {**LARGE, **STABLE}),
    "xls-r-1b": ("wav2vec2", {**XLARGE, **STABLE}),
    "mms-300m": ("wav2vec2", {**LARGE, **STABLE}),
    "mms-1b": ("wav2vec2", {**XLARGE, **STABLE}),
    "unispeech-sat-base-plus": ("unispeech-sat", {}),
    "unispeech-sat-large": ("unispeech-sat", UNISPEECH_LARGE),
    "data2vec-audio-base": ("data2vec-audio", {}),
    "data2vec-audio-large": ("data2vec-audio", LARGE),
    "whisper-tiny": ("whisper", _whisper(384, 4, 6)),
    "whisper-base": ("whisper", _whisper(512, 6, 8)),
    "whisper-small": ("whisper", _whisper(768, 12, 12)),
    "whisper-medium": ("whisper", _whisper(1024, 24, 16)),
    "whisper-large-v2": ("whisper", _whisper(1280, 32, 20)),
    "whisper-large-v3": ("whisper", _whisper(1280, 32, 20, 128)),
    "whisper-large-v3-turbo": ("whisper", _whisper(1280, 32, 20, 128)),
    "roberta-base": ("roberta", {"max_position_embeddings": 514, "type_vocab_size": 1}),
    "roberta-large": ("roberta", {**LARGE, "max_position_embeddings": 514, "type_vocab_size": 1}),
    "modernbert-base": ("modernbert", {}),
    "modernbert-large": (
        "modernbert",
        {"hidden_size": 1024, "num_hidden_layers": 28, "num_attention_heads": 16, "intermediate_size": 2624},
    ),
    "deberta-v3-large": (
        "deberta-v2",
        {**LARGE, "vocab_size": 128100, "relative_attention": True, "position_buckets": 256,
         "norm_rel_ebd": "layer_norm",
         "share_att_key": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False, "type_vocab_size": 0},
    ),
    "all-mpnet-base-v2": ("mpnet", {"max_position_embeddings": 514}),
    "all-MiniLM-L6-v2": ("bert", {"hidden_size": 384, "num_hidden_layers": 6, "intermediate_size": 1536}),
    "bge-base-en-v1.5": ("bert", {}),
    "bge-large-en-v1.5": ("bert", BERT_LARGE),
    "e5-large-v2": ("bert", BERT_LARGE),
    "gte-large": ("bert", BERT_LARGE),
    "bge-m3": ("xlm-roberta", {**LARGE, "vocab_size": 250002, "max_position_embeddings": 8194, "type_vocab_size": 1}),
    "multilingual-e5-large": (
        "xlm-roberta", {**LARGE, "vocab_size": 250002, "max_position_embeddings": 514, "type_vocab_size": 1}),
    "t5-base": ("t5", {"d_model": 768, "num_layers": 12, "num_heads": 12, "d_ff": 3072}),
    "t5-large": ("t5", {"d_model": 1024, "num_layers": 24, "num_heads": 16, "d_ff": 4096}),
    "flan-t5-base": (
        "t5", {"d_model": 768, "num_layers": 12, "num_heads": 12, "d_ff": 2048, "feed_forward_proj": "gated-gelu"}),
    "flan-t5-large": (
        "t5", {"d_model": 1024, "num_layers": 24, "num_heads": 16, "d_ff": 2816, "feed_forward_proj": "gated-gelu"}),
    "llama-3.1-8b": ("llama", _decoder(4096, 32, 32, 8, 14336, 128256)),
    "llama-3.2-1b": ("llama", _decoder(2048, 16, 32, 8, 8192, 128256)),
    "llama-3.2-3b": ("llama", _decoder(3072, 28, 24, 8, 8192, 128256)),
    "qwen2.5-0.5b": ("qwen2", _decoder(896, 24, 14, 2, 4864, 151936)),
    "qwen2.5-7b": ("qwen2", _decoder(3584, 28, 28, 4, 18944, 152064)),
    "qwen3-0.6b": ("qwen3", _decoder(1024, 28, 16, 8, 3072, 151936, head_dim=128)),
    "qwen3-embedding-0.6b": ("qwen3", _decoder(1024, 28, 16, 8, 3072, 151669, head_dim=128)),
    "qwen3-1.7b": ("qwen3", _decoder(2048, 28, 16, 8, 6144, 151936, head_dim=128)),
    "qwen3-4b": ("qwen3", _decoder(2560, 36, 32, 8, 9728, 151936, head_dim=128)),
    "qwen3-8b": ("qwen3", _decoder(4096, 36, 32, 8, 12288, 151936, head_dim=128)),
    "mistral-7b": ("mistral", _decoder(4096, 32, 32, 8, 14336, 32768)),
    "gemma-2-2b": ("gemma2", _decoder(2304, 26, 8, 4, 9216, 256000, head_dim=256)),
    "gemma-3-270m": ("gemma3_text", _decoder(640, 18, 4, 1, 2048, 262144, head_dim=256)),
    "gemma-3-1b": ("gemma3_text", _decoder(1152, 26, 4, 1, 6912, 262144, head_dim=256)),
    "phi-2": ("phi", _decoder(2560, 32, 32, 32, 10240, 51200)),
    "phi-3-mini": ("phi3", _decoder(3072, 32, 32, 32, 8192, 32064)),
    "olmo-1b": ("olmo", _decoder(2048, 16, 16, 16, 8192, 50304)),
    "olmo-2-1b": ("olmo2", _decoder(2048, 16, 16, 16, 8192, 100352)),
    "smollm2-135m": ("llama", _decoder(576, 30, 9, 3, 1536, 49152)),
    "smollm2-360m": ("llama", _decoder(960, 32, 15, 5, 2560, 49152)),
    "smollm3-3b": ("smollm3", _decoder(2048, 36, 16, 4, 11008, 128256)),
    "w2v-bert-2.0": ("wav2vec2-bert", {}),
    "wav2vec2-conformer-large": ("wav2vec2-conformer", {**LARGE, **STABLE, "position_embeddings_type": "relative"}),
    "parakeet-ctc-1.1b": ("parakeet_encoder", {"num_hidden_layers": 42}),
    "moonshine-tiny": ("moonshine", {}),
    "moonshine-base": (
        "moonshine", {"hidden_size": 416, "encoder_num_hidden_layers": 8, "decoder_num_hidden_layers": 1,
                      "intermediate_size": 1664}),
}  # fmt: skip
