"""openai-whisper models of random weights that take milliseconds: their texts are nonsense, but depend on the audio."""

from pathlib import Path

import torch
from whisper.model import ModelDimensions, Whisper

N_TEXT_CTX = 16  # so that a window gives 8 tokens at most


def save_whisper(path: Path, *, multilingual: bool = True, sure: bool = True, seed: int = 0) -> Path:
    """Write a checkpoint. sure: tokens have probabilities near 1; else near none, so that whisper falls back."""
    dims = ModelDimensions(
        n_mels=80, n_audio_ctx=1500, n_audio_state=16, n_audio_head=2, n_audio_layer=1,
        n_vocab=51865 if multilingual else 51864,
        n_text_ctx=N_TEXT_CTX, n_text_state=16, n_text_head=2, n_text_layer=1,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    model = Whisper(dims)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / parameter.shape[-1] ** 0.5)
            elif name.endswith("bias"):  # else drawn by torch's own generator, other ones in each run
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
            if "cross_attn" in name or "positional" in name:
                parameter.mul_(4)
        model.decoder.ln.weight.fill_(30.0 if sure else 0.1)
    torch.save({"dims": vars(dims), "model_state_dict": model.state_dict()}, path)
    return path
