"""Loading an encoder: resolve its name, find its weights, record what it is, put it on the device."""

from __future__ import annotations

import difflib
import math
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featurestore.encoders.base import Encoder, LayerChoice, check_choice, pick_compute, pooled_dim
from featurestore.encoders.catalog import ENCODERS
from featurestore.encoders.openai_checkpoint import file_identity, load_openai_encoder
from featurestore.encoders.weights import (
    checked_directory,
    do_normalize,
    find_weights,
    identity,
    load_model,
    load_tokenizer,
    model_type,
)
from featurestore.errors import ConfigError, EncoderError
from featurestore.format.spec import DTYPES, POOLS, FeatureSpec
from featurestore.runtime.device import pick_device

if TYPE_CHECKING:
    import torch


NO_SAFE_WEIGHTS = (
    "emotion2vec's weights are published as a pickle alone, which can run any code when it is opened, and as no "
    "transformers model. Encode with its authors' program and take the rows in with `medusa store import emotion2vec`."
)


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
    keep_special: bool = False,
) -> Encoder:
    """Load an encoder by its name in ENCODERS, a hub name (`org/name`) or a transformers directory.

    weights: a directory to load from instead of the hub, or an openai-whisper checkpoint (`base.pt`).
    layers: `last`, `all`, `last4`, `last4-sum`, `6,12,24`.
    pool: none, mean, mean+std. dtype: of the stored rows. window: see the encoder's class; None is its default.
    compute: arithmetic of the forward pass. source: what the texts are (a manifest column, a transcript's identity).
    keep_special: rows of special tokens too (text encoders).
    Raises EncoderError (unknown name, weights not found or not loadable) and ConfigError (options).
    """
    check_choice("pool", pool, POOLS)
    check_choice("dtype", dtype, DTYPES)
    given = None if weights is None else Path(weights)
    if keep_special and name in ENCODERS and ENCODERS[name].family != "text":
        raise ConfigError(f"--keep-special: {name} encodes audio, which has no special tokens; leave it out.")
    if name == "logmel":
        return _logmel(given, layers, pool, dtype, window)
    where = pick_device(device)
    arithmetic = pick_compute(compute, where)
    if given is not None and given.suffix == ".pt" and given.is_file():
        _family(name, "whisper")
        model, weights_id = load_openai_encoder(given, name), file_identity(given)
        return _whisper(model, weights_id, label_of(name), layers, pool, dtype, window, where, arithmetic)
    label, directory = _resolve(name, given)
    family = _family(name, model_type(directory))
    if family == "text":
        return _text(label, directory, layers, pool, dtype, window, where, arithmetic, source, keep_special)
    if keep_special:
        raise ConfigError(f"--keep-special: {name} encodes audio, which has no special tokens; leave it out.")
    if family == "whisper":
        model, weights_id = load_model(directory, label).encoder, identity(directory, with_tokenizer=False)
        return _whisper(model, weights_id, label, layers, pool, dtype, window, where, arithmetic)
    return _speech(label, directory, layers, pool, dtype, window, where, arithmetic)


def _resolve(name: str, given: Path | None) -> tuple[str, Path]:
    """The encoder's name for the record, and the directory of its weights."""
    if name in ENCODERS:
        return name, find_weights(name, ENCODERS[name].hub_id, given)
    if given is not None:
        return label_of(name), find_weights(name, None, given)
    if (os.sep in name and Path(name).is_dir()) or (Path(name) / "config.json").is_file():
        return label_of(name), checked_directory(Path(name), f"--encoder {name}")
    if "emotion2vec" in name.lower():
        raise EncoderError(f"{name}: {NO_SAFE_WEIGHTS}")
    if re.fullmatch(r"\w[\w.-]*/[\w.-]+", name):
        return name, find_weights(name, name, None)
    if os.sep in name:
        return label_of(name), checked_directory(Path(name), f"--encoder {name}")
    near = difflib.get_close_matches(name.lower(), {k.lower(): k for k in ENCODERS}, n=3, cutoff=0.6)
    names = {k.lower(): k for k in ENCODERS}
    hint = f"Did you mean {' or '.join(names[k] for k in near)}?" if near else f"Known are {', '.join(ENCODERS)}."
    raise EncoderError(
        f"unknown encoder {name!r}. {hint} A hub name (org/name) or a transformers directory works as well."
    )


def label_of(name: str) -> str:
    """An encoder's name for the record: of a directory its own name, since paths differ between machines."""
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


def _speech(
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
    from featurestore.encoders import speech

    normalize = do_normalize(directory, label)
    model = load_model(directory, label)
    window = window or speech.DEFAULT_WINDOW
    choice = LayerChoice.parse(layers, model.config.num_hidden_layers, label)
    spec = FeatureSpec(
        kind="audio",
        encoder=label,
        weights=identity(directory, with_tokenizer=False),
        layers=choice.names,
        dim=pooled_dim(model.config.hidden_size, pool),
        frame_rate_hz=SAMPLE_RATE_HZ / math.prod(model.config.conv_stride) if pool == "none" else 0.0,
        dtype=dtype,
        pool=pool,
        window=window,
        extra=_compute_pairs(arithmetic),
    )
    return speech.SpeechEncoder(
        model, normalize=normalize, spec=spec, choice=choice, window=window, device=where, compute=arithmetic
    )


def _whisper(
    model: Any,
    weights_id: str,
    label: str,
    layers: str,
    pool: str,
    dtype: str,
    window: str | None,
    where: torch.device,
    arithmetic: torch.dtype,
) -> Encoder:
    from featurestore.audio import SAMPLE_RATE_HZ
    from featurestore.encoders import whisper

    window = check_choice("window", window or whisper.DEFAULT_WINDOW, whisper.WINDOWS)
    choice = LayerChoice.parse(layers, model.config.encoder_layers, label)
    spec = FeatureSpec(
        kind="audio",
        encoder=label,
        weights=weights_id,
        layers=choice.names,
        dim=pooled_dim(model.config.d_model, pool),
        frame_rate_hz=SAMPLE_RATE_HZ / whisper.FRAME_SAMPLES if pool == "none" else 0.0,
        dtype=dtype,
        pool=pool,
        window=window,
        extra=_compute_pairs(arithmetic),
    )
    return whisper.WhisperEncoder(model, spec=spec, choice=choice, window=window, device=where, compute=arithmetic)


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
    keep_special: bool,
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
        dtype=dtype,
        pool=pool,
        window=window,
        source=source,
        extra=(*_compute_pairs(arithmetic), *((("special_tokens", "kept"),) if keep_special else ())),
    )
    return text.TextEncoder(
        model, tokenizer, spec=spec, choice=choice, window=window, device=where, compute=arithmetic,
        keep_special=keep_special,
    )  # fmt: skip


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
    )
    return LogMelEncoder(spec, choice)
