"""The encoder of an openai-whisper checkpoint (`large-v3.pt`) as a transformers module: the same numbers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from featurestore.errors import EncoderError
from featurestore.runtime.weights_digest import parts_of_files, weights_digest

# openai-whisper's names on the left; both call the layers' parts "weight" and "bias".
RENAMES = (
    (r"^positional_embedding$", "embed_positions.weight"),
    (r"^blocks\.", "layers."),
    (r"\.attn_ln\.", ".self_attn_layer_norm."),
    (r"\.attn\.query\.", ".self_attn.q_proj."),
    (r"\.attn\.key\.", ".self_attn.k_proj."),
    (r"\.attn\.value\.", ".self_attn.v_proj."),
    (r"\.attn\.out\.", ".self_attn.out_proj."),
    (r"\.mlp_ln\.", ".final_layer_norm."),
    (r"\.mlp\.0\.", ".fc1."),
    (r"\.mlp\.2\.", ".fc2."),
    (r"^ln_post\.", "layer_norm."),
)


def load_openai_encoder(path: Path, label: str) -> Any:
    """Read a `.pt` file (weights only, no code runs) -> transformers' WhisperEncoder, float32 on the CPU."""
    import torch
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        dims, state = checkpoint["dims"], checkpoint["model_state_dict"]
        config = WhisperConfig(
            num_mel_bins=dims["n_mels"],
            max_source_positions=dims["n_audio_ctx"],
            d_model=dims["n_audio_state"],
            encoder_attention_heads=dims["n_audio_head"],
            encoder_layers=dims["n_audio_layer"],
            encoder_ffn_dim=4 * dims["n_audio_state"],
        )
        model = WhisperEncoder(config)
        prefix = "encoder."
        model.load_state_dict(
            {_renamed(key[len(prefix) :]): value.float() for key, value in state.items() if key.startswith(prefix)}
        )
    except Exception as error:  # torch raises many kinds for a bad file; all mean the same to a user
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise EncoderError(
            f"{label}: {path} is not an openai-whisper checkpoint ({type(error).__name__}: {first[:160]}). Pass one "
            "such as base.pt, or a transformers directory, with --weights."
        ) from None
    return model.eval()


def file_identity(path: Path) -> str:
    """Return `sha256:` and 16 hex digits over the file's content."""
    return weights_digest(parts_of_files([path]))


def _renamed(key: str) -> str:
    for pattern, name in RENAMES:
        key = re.sub(pattern, name, key)
    return key
