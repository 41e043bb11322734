"""Decoder-only language models as frozen text encoders: loading without waste, and a check of untested families.

Their layers are numbered as every encoder's: 0 is the embeddings, k what layer k gives, and the last one includes the
final norm (transformers' last_hidden_state).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import transformers

from featurestore.encoders.families import CAUSAL_TYPES, T5_TYPES
from featurestore.encoders.weights import load_model
from featurestore.errors import EncoderError

if TYPE_CHECKING:
    from featurestore.encoders.text import TextEncoder

# Largest relative difference of a row alone and beside a longer text, by arithmetic.
TOLERANCES = {"float32": 1e-5, "float16": 2e-2, "bfloat16": 1e-1}


def load(directory: Path, label: str, compute: torch.dtype, adapter: Path | None = None) -> Any:
    """Load the decoder of a directory without its output layer, on the CPU.

    In half precision the weights are read as the file has them, so that 8 billion take 16 GB and not 32; parameters
    outside linear layers become float32, as in the other encoders.
    """
    half = compute != torch.float32
    model = load_model(directory, label, dtype="auto" if half else None, adapter=adapter)
    model = getattr(model, "language_model", model)  # of a model that also reads images
    if half:
        linear = {id(p) for m in model.modules() if isinstance(m, torch.nn.Linear) for p in m.parameters()}
        for parameter in model.parameters():
            if id(parameter) not in linear:
                parameter.data = parameter.data.float()
    return model


def trim(model: Any, deepest: int) -> None:
    """Drop the layers above the deepest one that is read; one more stays, before the final norm."""
    layers = getattr(model, "layers", None)
    if isinstance(layers, torch.nn.ModuleList) and deepest + 1 < len(layers):
        model.layers = layers[: deepest + 1]


def check(encoder: TextEncoder) -> None:
    """Encode a text alone and beside a longer one, and refuse a model of another family whose rows differ.

    The families of `families.CAUSAL_TYPES` have a test; an unknown one is tried on its own weights.
    """
    model_type = encoder.model.config.model_type
    if model_type in CAUSAL_TYPES:
        return
    short, long = "fine", "how are you today, and what do they say of it at home? " * 2
    try:
        single, together = encoder.encode([short])[0], encoder.encode([short, long], 1 << 20)[0]
    except Exception as error:  # of whatever kind the model's code raises
        raise EncoderError(
            f"{encoder.name}: a model of type {model_type!r} does not run as a text encoder "
            f"({type(error).__name__}: {(str(error).splitlines() or [''])[0][:160]}). Tested are "
            f"{', '.join(CAUSAL_TYPES)}."
        ) from None
    difference = np.linalg.norm(single - together, axis=-1) / np.maximum(np.linalg.norm(single, axis=-1), 1e-12)
    allowed = TOLERANCES[str(encoder.compute).removeprefix("torch.")]
    if not float(difference.max()) <= allowed:
        raise EncoderError(
            f"{encoder.name}: rows of a model of type {model_type!r} depend on their batch (relative difference "
            f"{difference.max():.1e}, expected at most {allowed:g}). Tested are {', '.join(CAUSAL_TYPES)}."
        )


def empty_model(directory: Path, label: str) -> Any:
    """Return the text model of a config.json, without memory for its weights (on torch's meta device)."""
    try:
        config = transformers.AutoConfig.from_pretrained(directory, trust_remote_code=False, local_files_only=True)
        encoder_alone = config.model_type in T5_TYPES
        auto: Any = transformers.AutoModelForTextEncoding if encoder_alone else transformers.AutoModel
        with torch.device("meta"):
            model = auto.from_config(config if encoder_alone else config.get_text_config())
    except Exception as error:  # of many kinds, for a configuration that is no model's
        raise EncoderError(
            f"{label}: {directory / 'config.json'} describes no model that can be built ({type(error).__name__}: "
            f"{(str(error).splitlines() or [''])[0][:160]})."
        ) from None
    return model


def bytes_of(model: Any, compute: torch.dtype) -> tuple[int, int]:
    """Return a model's parameters, and their bytes as `device.frozen` holds them for this arithmetic."""
    counts = {id(p): p.numel() for p in model.parameters()}
    linear = {id(p) for m in model.modules() if isinstance(m, torch.nn.Linear) for p in m.parameters()}
    half = compute != torch.float32
    return sum(counts.values()), sum(n * (2 if half and key in linear else 4) for key, n in counts.items())
