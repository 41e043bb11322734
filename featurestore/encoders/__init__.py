"""Encoders by name: what they are, where their weights are, and how to load them.

Importing this module loads no torch; `load_encoder` does, except for `logmel`.
"""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from featurestore.encoders.base import (
    Encoder,
    LayerChoice,
    check_choice,
    pick_compute,
    pick_device,
    pooled_dim,
)
from featurestore.encoders.weights import (
    checked_directory,
    do_normalize,
    find_weights,
    identity,
    load_model,
    load_tokenizer,
    model_type,
)
from featurestore.errors import EncoderError
from featurestore.spec import DTYPES, POOLS, FeatureSpec

if TYPE_CHECKING:
    import torch

__all__ = ["ENCODERS", "Encoder", "EncoderEntry", "load_encoder"]


@dataclass(frozen=True)
class EncoderEntry:
    """One encoder by name: its family (speech, whisper, text, logmel) and its hub repository, None if it needs none."""

    family: str
    hub_id: str | None


ENCODERS: dict[str, EncoderEntry] = {
    "logmel": EncoderEntry("logmel", None),
    "tiny-hubert": EncoderEntry("speech", None),
    "tiny-wavlm": EncoderEntry("speech", None),
    "wavlm-base": EncoderEntry("speech", "microsoft/wavlm-base"),
    "wavlm-base-plus": EncoderEntry("speech", "microsoft/wavlm-base-plus"),
    "wavlm-large": EncoderEntry("speech", "microsoft/wavlm-large"),
    "hubert-base": EncoderEntry("speech", "facebook/hubert-base-ls960"),
    "hubert-large": EncoderEntry("speech", "facebook/hubert-large-ls960-ft"),
    "hubert-large-ll60k": EncoderEntry("speech", "facebook/hubert-large-ll60k"),
    "hubert-xlarge": EncoderEntry("speech", "facebook/hubert-xlarge-ll60k"),
    "wav2vec2-base": EncoderEntry("speech", "facebook/wav2vec2-base"),
    "wav2vec2-large": EncoderEntry("speech", "facebook/wav2vec2-large-lv60"),
    "data2vec-audio-base": EncoderEntry("speech", "facebook/data2vec-audio-base"),
    "data2vec-audio-large": EncoderEntry("speech", "facebook/data2vec-audio-large"),
    "whisper-tiny": EncoderEntry("whisper", "openai/whisper-tiny"),
    "whisper-tiny.en": EncoderEntry("whisper", "openai/whisper-tiny.en"),
    "whisper-base": EncoderEntry("whisper", "openai/whisper-base"),
    "whisper-base.en": EncoderEntry("whisper", "openai/whisper-base.en"),
    "whisper-small": EncoderEntry("whisper", "openai/whisper-small"),
    "whisper-small.en": EncoderEntry("whisper", "openai/whisper-small.en"),
    "whisper-medium": EncoderEntry("whisper", "openai/whisper-medium"),
    "whisper-medium.en": EncoderEntry("whisper", "openai/whisper-medium.en"),
    "whisper-large-v2": EncoderEntry("whisper", "openai/whisper-large-v2"),
    "whisper-large-v3": EncoderEntry("whisper", "openai/whisper-large-v3"),
    "whisper-large-v3-turbo": EncoderEntry("whisper", "openai/whisper-large-v3-turbo"),
    "roberta-base": EncoderEntry("text", "FacebookAI/roberta-base"),
    "roberta-large": EncoderEntry("text", "FacebookAI/roberta-large"),
    "modernbert-base": EncoderEntry("text", "answerdotai/ModernBERT-base"),
    "modernbert-large": EncoderEntry("text", "answerdotai/ModernBERT-large"),
    "deberta-v3-large": EncoderEntry("text", "microsoft/deberta-v3-large"),
    "all-mpnet-base-v2": EncoderEntry("text", "sentence-transformers/all-mpnet-base-v2"),
    "all-MiniLM-L6-v2": EncoderEntry("text", "sentence-transformers/all-MiniLM-L6-v2"),
}


def load_encoder(
    name: str,
    *,
    weights: Path | str | None = None,
    layers: str = "last",
    pool: str = "none",
    dtype: str = "float16",
    device: str = "auto",
    window: str | None = None,
    compute: str = "auto",
    source: str = "text",
) -> Encoder:
    """Load an encoder by its name in ENCODERS, a hub name (`org/name`) or a transformers directory.

    weights: a directory to load from instead of the hub. layers: `last`, `all`, `last4`, `last4-sum`, `6,12,24`.
    pool: none, mean, mean+std. dtype: of the stored rows. window: see the encoder's class; None is its default.
    compute: arithmetic of the forward pass. source: what the texts are (a manifest column, a transcript's identity).
    Raises EncoderError (unknown name, weights not found or not loadable) and ConfigError (options).
    """
    check_choice("pool", pool, POOLS)
    check_choice("dtype", dtype, DTYPES)
    given = None if weights is None else Path(weights)
    if name == "logmel":
        return _logmel(given, layers, pool, dtype, window)
    label, directory = _resolve(name, given)
    kind = model_type(directory)
    family = _family(name, kind)
    where = pick_device(device)
    arithmetic = pick_compute(compute, where)
    if family == "text":
        return _text(label, directory, layers, pool, dtype, window, where, arithmetic, source)
    return _audio(family, label, directory, layers, pool, dtype, window, where, arithmetic)


def _resolve(name: str, given: Path | None) -> tuple[str, Path]:
    """The encoder's name for the record, and the directory of its weights."""
    if name in ENCODERS:
        return name, find_weights(name, ENCODERS[name].hub_id, given)
    if given is not None:
        return _label(name), find_weights(name, None, given)
    if (os.sep in name and Path(name).is_dir()) or (Path(name) / "config.json").is_file():
        return _label(name), checked_directory(Path(name), f"--encoder {name}")
    if re.fullmatch(r"\w[\w.-]*/[\w.-]+", name):
        return name, find_weights(name, name, None)
    if os.sep in name:
        return _label(name), checked_directory(Path(name), f"--encoder {name}")
    near = difflib.get_close_matches(name.lower(), {k.lower(): k for k in ENCODERS}, n=3, cutoff=0.6)
    names = {k.lower(): k for k in ENCODERS}
    hint = f"Did you mean {' or '.join(names[k] for k in near)}?" if near else f"Known are {', '.join(ENCODERS)}."
    raise EncoderError(
        f"unknown encoder {name!r}. {hint} A hub name (org/name) or a transformers directory works as well."
    )


def _label(name: str) -> str:
    """A directory's own name: paths differ between machines, what was encoded doesn't."""
    return Path(name).resolve().name if Path(name).is_dir() else name


def _family(name: str, kind: str) -> str:
    from featurestore.encoders import speech, text, whisper

    families = {"speech": speech.MODEL_TYPES, "whisper": whisper.MODEL_TYPES, "text": text.MODEL_TYPES}
    family = next((family for family, kinds in families.items() if kind in kinds), None)
    if family is None:
        known = ", ".join(kind for kinds in families.values() for kind in kinds)
        raise EncoderError(f"{name}: model_type {kind!r} in its config.json is not supported; expected one of {known}.")
    if name in ENCODERS and ENCODERS[name].family != family:
        raise EncoderError(
            f"{name}: the weights given are a {family} model (model_type {kind!r}), expected a "
            f"{ENCODERS[name].family} model. Name the encoder after what it is, or pass other weights."
        )
    return family


def _compute_pairs(arithmetic: torch.dtype) -> tuple[tuple[str, str], ...]:
    """Half precision changes the numbers, so it is part of the spec; float32 is the rule and goes unsaid."""
    text = str(arithmetic).removeprefix("torch.")
    return () if text == "float32" else (("compute", text),)


def _audio(
    family: str,
    label: str,
    directory: Path,
    layers: str,
    pool: str,
    dtype: str,
    window: str | None,
    where: torch.device,
    arithmetic: torch.dtype,
) -> Encoder:
    from featurestore.audio import SAMPLE_RATE_HZ
    from featurestore.encoders import speech, whisper

    normalize = family == "speech" and do_normalize(directory, label)
    model = load_model(directory, label)
    config = model.config
    if family == "whisper":
        model = model.encoder  # the decoder's memory is given back
        window = check_choice("window", window or whisper.DEFAULT_WINDOW, whisper.WINDOWS)
        n_layers, dim, rate_hz = config.encoder_layers, config.d_model, SAMPLE_RATE_HZ / whisper.FRAME_SAMPLES
    else:
        window = window or speech.DEFAULT_WINDOW
        n_layers, dim = config.num_hidden_layers, config.hidden_size
        rate_hz = SAMPLE_RATE_HZ / _product(config.conv_stride)
    choice = LayerChoice.parse(layers, n_layers, label)
    spec = FeatureSpec(
        kind="audio",
        encoder=label,
        weights=identity(directory, with_tokenizer=False),
        layers=choice.names,
        dim=pooled_dim(dim, pool),
        frame_rate_hz=rate_hz if pool == "none" else 0.0,
        dtype=dtype,
        pool=pool,
        window=window,
        source="",
        columns=(),
        extra=_compute_pairs(arithmetic),
    )
    if family == "whisper":
        return whisper.WhisperEncoder(model, spec=spec, choice=choice, window=window, device=where, compute=arithmetic)
    return speech.SpeechEncoder(
        model, normalize=normalize, spec=spec, choice=choice, window=window, device=where, compute=arithmetic
    )


def _text(
    label: str,
    directory: Path,
    layers: str,
    pool: str,
    dtype: str,
    window: str | None,
    where: torch.device,
    arithmetic: torch.dtype,
    source: str,
) -> Encoder:
    from featurestore.encoders import text

    model, tokenizer = load_model(directory, label), load_tokenizer(directory, label)
    window = window or text.default_window(model.config, tokenizer)
    choice = LayerChoice.parse(layers, model.config.num_hidden_layers, label)
    spec = FeatureSpec(
        kind="text",
        encoder=label,
        weights=identity(directory, with_tokenizer=True),
        layers=choice.names,
        dim=pooled_dim(model.config.hidden_size, pool),
        frame_rate_hz=0.0,
        dtype=dtype,
        pool=pool,
        window=window,
        source=source,
        columns=(),
        extra=_compute_pairs(arithmetic),
    )
    return text.TextEncoder(model, tokenizer, spec=spec, choice=choice, window=window, device=where, compute=arithmetic)


def _logmel(given: Path | None, layers: str, pool: str, dtype: str, window: str | None) -> Encoder:
    from featurestore.audio import SAMPLE_RATE_HZ
    from featurestore.encoders.logmel import HOP_SAMPLES, N_MELS, LogMelEncoder

    if given is not None:
        raise EncoderError(f"logmel has no weights, but --weights {given} was given. Leave --weights away.")
    check_choice("window", window or "none", ("none",))
    choice = LayerChoice.parse(layers, 0, "logmel")
    spec = FeatureSpec(
        kind="audio",
        encoder="logmel",
        weights="none",
        layers=choice.names,
        dim=pooled_dim(N_MELS, pool),
        frame_rate_hz=SAMPLE_RATE_HZ / HOP_SAMPLES if pool == "none" else 0.0,
        dtype=dtype,
        pool=pool,
        window="none",
        source="",
        columns=(),
    )
    return LogMelEncoder(spec, choice)


def _product(strides: list[int]) -> int:
    total = 1
    for stride in strides:
        total *= stride
    return total
