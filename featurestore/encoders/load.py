"""Loading an encoder: resolve its name, find its weights, record what it is, put it on the device."""

from __future__ import annotations

import difflib
import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featurestore.audio import SAMPLE_RATE_HZ
from featurestore.encoders import adapter as adapters
from featurestore.encoders.base import Encoder
from featurestore.encoders.catalog import ENCODERS, pooled_dim
from featurestore.encoders.device import pick_compute
from featurestore.encoders.families import (
    FAMILIES,
    SPEECH_WINDOW,
    TEXT_FAMILIES,
    WHISPER_FRAME_SAMPLES,
    WHISPER_WINDOW,
    WHISPER_WINDOWS,
    is_causal,
)
from featurestore.encoders.hub import weight_files
from featurestore.encoders.layers import LayerChoice
from featurestore.encoders.openai_checkpoint import file_identity, load_openai_encoder
from featurestore.encoders.options import EncoderOptions, check_choice
from featurestore.encoders.preprocessor import check_whisper, do_normalize
from featurestore.encoders.prompt import Prompt
from featurestore.encoders.tokenizer import load_tokenizer
from featurestore.encoders.weights import (
    checked_directory,
    find_weights,
    head_of,
    identity,
    load_model,
    model_type,
)
from featurestore.errors import ConfigError, EncoderError
from featurestore.format.spec import FeatureSpec
from featurestore.runtime.device import pick_device
from featurestore.runtime.weights_digest import parts_of_files, weights_digest

if TYPE_CHECKING:
    import torch

    from featurestore.encoders.text import TextEncoder


EMOTION2VEC_PLACE = (
    "Fetch its checkpoint with `hf download emotion2vec/emotion2vec_base --local-dir DIR` (or emotion2vec_plus_base, "
    "...) and pass --weights DIR. Rows of its authors' program are taken in with `medusa store import emotion2vec`."
)


def load_encoder(
    name: str,
    *,
    weights: Path | str | None = None,
    layers: str = "last",
    pool: str = "none",
    dtype: str = "",
    device: str = "auto",
    window: str | None = None,
    compute: str = "auto",
    source: str = "text",
    keep_special: bool = False,
    prompt: str = "",
    keep_prompt: bool = False,
    short: str = "error",
) -> Encoder:
    """Load an encoder by its name in ENCODERS, a hub name (`org/name`) or a transformers directory.

    The arguments but `device` are the fields of EncoderOptions; keep_prompt: rows of the prompt too.
    Raises EncoderError (unknown name, weights not found or not loadable) and ConfigError (options).
    """
    directory = None if weights is None else Path(weights)
    options = EncoderOptions(
        name, directory, layers, pool, dtype, window, compute, source, keep_special, Prompt(prompt, keep_prompt), short
    )
    return load_with(options, device)


def load_with(options: EncoderOptions, device: str = "auto") -> Encoder:
    """Load the encoder that the options describe; errors as in `load_encoder`."""
    if options.name in ENCODERS:
        _refuse_text_options(options, ENCODERS[options.name].family)
    if options.name == "logmel":
        return _logmel(options)
    if options.name in ENCODERS and ENCODERS[options.name].family == "opensmile":
        return _paralinguistic(options)
    torch_device = pick_device(device)
    compute = pick_compute(options.compute, torch_device)
    located = _find(options)
    _refuse_text_options(options, located.family)
    if options.pool == "model" and located.family == "speech":
        return _speaker(located, options, torch_device, compute)
    load = {
        "speech": _speech, "unpadded": _unpadded, "emotion2vec": _emotion2vec, "whisper": _whisper, "text": _text,
        "causal": _causal, "t5": _t5,
    }[located.family]  # fmt: skip
    encoder: Encoder = load(located, options, torch_device, compute)
    encoder.head = "" if located.place.is_file() else head_of(located.place)
    return encoder


def _refuse_text_options(options: EncoderOptions, family: str) -> None:
    if options.short != "error" and family != "opensmile":
        raise ConfigError(f"--short {options.short}: it is for paralinguistic sets; {options.name} is none of them.")
    if family in TEXT_FAMILIES:
        return
    if options.keep_special:
        raise ConfigError(f"--keep-special: {options.name} encodes audio, which has no special tokens; leave it out.")
    if options.prompt.text:
        raise ConfigError(f"--prompt: {options.name} encodes audio, which takes no prompt; leave it out.")
    if options.pool == "model" and family not in ("speech", "opensmile"):
        raise ConfigError(f"--pool model: {options.name} has no pooling of its own; use mean or mean+std.")


@dataclass(frozen=True)
class _Located:
    """An encoder's name for the record, its family, and its weights: a transformers directory or a checkpoint file."""

    label: str
    family: str
    place: Path
    adapter: Path | None = None  # a LoRA directory over it

    def identity(self) -> str:
        """Return the digest of the weights, of a text encoder with its tokenizer."""
        if self.place.is_file():
            return file_identity(self.place)
        if self.adapter is not None:
            base = identity(self.place, with_tokenizer=self.family in TEXT_FAMILIES)
            files = (self.adapter / name for name in (adapters.CONFIG, adapters.WEIGHTS))
            return weights_digest([base.encode(), *parts_of_files(files)])
        return identity(self.place, with_tokenizer=self.family in TEXT_FAMILIES)


def _find(options: EncoderOptions) -> _Located:
    name, weights = options.name, options.weights
    if weights is not None and name not in ENCODERS:
        _refuse_typo(name)
    if "emotion2vec" in name.lower():
        return _located_emotion2vec(name, weights)
    if weights is not None and weights.suffix == ".pt" and weights.is_file():
        return _Located(label_of(name), family_of(name, "whisper"), weights)
    over = weights or Path(name)
    if adapters.is_adapter(over) and not weight_files(over):
        base = adapters.base_of(over)
        local = next((each for each in (Path(base), over / base) if (each / "config.json").is_file()), None)
        place = find_weights(base, None, local) if local else find_weights(base, base, None)
        return _Located(label_of(name), family_of(name, model_type(place)), place, over)
    label, directory = _resolve(name, weights)
    return _Located(label, family_of(name, model_type(directory)), directory)


def _resolve(name: str, weights: Path | None) -> tuple[str, Path]:
    """Return the encoder's name for the record, and the directory of its weights."""
    if name in ENCODERS:
        return name, find_weights(name, ENCODERS[name].hub_id, weights)
    if weights is not None:
        return label_of(name), find_weights(name, None, weights)
    if (os.sep in name and Path(name).is_dir()) or (Path(name) / "config.json").is_file():
        return label_of(name), checked_directory(Path(name), f"--encoder {name}")
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


def _refuse_typo(name: str) -> None:
    """Raise EncoderError for a name that differs from a known one by a letter or two."""
    if os.sep in name or Path(name).is_dir():
        return
    near = difflib.get_close_matches(name.lower(), [each.lower() for each in ENCODERS], n=1, cutoff=0.9)
    if near and not name.lower().startswith(near[0]):
        raise EncoderError(
            f"--encoder {name}: did you mean {near[0]}? With --weights, a name of one's own makes a feature set of its "
            f"own; name it otherwise, such as {near[0]}-own."
        )


def label_of(name: str) -> str:
    """Return an encoder's name for the record: of a directory its own name, since paths differ between machines."""
    return Path(name).resolve().name if name not in ENCODERS and Path(name).is_dir() else name


def family_of(name: str, kind: str) -> str:
    """Return the family that encodes a model_type; EncoderError where none does, or not the one of the name."""
    family = next((family for family, kinds in FAMILIES.items() if kind in kinds), None)
    if family is None and is_causal(kind):
        family = "causal"
    if family is None:
        model_types = ", ".join(kind for kinds in FAMILIES.values() for kind in kinds)
        raise EncoderError(
            f"{name}: model_type {kind!r} in its config.json is not supported; expected one of {model_types}."
        )
    if name in ENCODERS and ENCODERS[name].family != family:
        raise EncoderError(
            f"{name}: the weights given are a {family} model (model_type {kind!r}), expected a "
            f"{ENCODERS[name].family} model. Name the encoder after what it is, or pass other weights."
        )
    return family


@dataclass(frozen=True)
class _Sizes:
    """Highest layer number, columns of a hidden state, and samples between two frames (None for text)."""

    n_layers: int
    dim: int
    hop_samples: int | None


def _speech(located: _Located, options: EncoderOptions, device: torch.device, compute: torch.dtype) -> Encoder:
    from featurestore.encoders import speech

    normalize = do_normalize(located.place, located.label)
    model = load_model(located.place, located.label, adapter=located.adapter)
    config = model.config
    sizes = _Sizes(config.num_hidden_layers, config.hidden_size, math.prod(config.conv_stride))
    window = options.window or SPEECH_WINDOW
    # Rows of 16 bits were others before the residual stream was kept in float32, which this records.
    stream = {} if str(compute) == "torch.float32" else {"residual": "float32"}
    choice, spec = spec_for(located.label, located.identity(), sizes, window, options, compute, stream)
    return speech.SpeechEncoder(model, normalize=normalize, spec=spec, choice=choice, device=device, compute=compute)


def _unpadded(located: _Located, options: EncoderOptions, device: torch.device, compute: torch.dtype) -> Encoder:
    from featurestore.encoders import unpadded

    loaded = unpadded.load(located.place, model_type(located.place), located.label, located.adapter)
    sizes = _Sizes(loaded.n_layers, loaded.dim, loaded.hop)
    window = options.window or SPEECH_WINDOW
    choice, spec = spec_for(located.label, located.identity(), sizes, window, options, compute)
    return unpadded.UnpaddedEncoder(loaded, spec=spec, choice=choice, device=device, compute=compute)


def _speaker(located: _Located, options: EncoderOptions, device: torch.device, compute: torch.dtype) -> Encoder:
    from featurestore.encoders import speaker

    model = speaker.load(located.place, located.label)
    if options.layers != "last" and options.layers != str(model.config.num_hidden_layers):
        raise ConfigError(f"--pool model --layers {options.layers}: a speaker embedding is the head's; use last.")
    sizes = _Sizes(model.config.num_hidden_layers, speaker.dim_of(model.config), 1)
    window = options.window or "30s+0s"
    choice, spec = spec_for(located.label, located.identity(), sizes, window, replace(options, layers="last"), compute)
    spec = replace(spec, extra=(*spec.extra, ("pooling", head_of(located.place))))
    normalize = do_normalize(located.place, located.label)
    return speaker.SpeakerEncoder(model, normalize=normalize, spec=spec, choice=choice, device=device, compute=compute)


def _located_emotion2vec(name: str, weights: Path | None) -> _Located:
    from featurestore.encoders import emotion2vec

    place = weights or (Path(name) if Path(name).exists() else None)
    checkpoint = None if place is None else emotion2vec.find_checkpoint(place)
    if checkpoint is None:
        problem = f"no checkpoint in {place}" if place is not None else "no --weights given"
        raise EncoderError(f"{name}: {problem}. {EMOTION2VEC_PLACE}")
    return _Located(label_of(name), "emotion2vec", checkpoint)


def _emotion2vec(located: _Located, options: EncoderOptions, device: torch.device, compute: torch.dtype) -> Encoder:
    from featurestore.encoders import emotion2vec, unpadded

    loaded = unpadded.of_emotion2vec(emotion2vec.load(located.place, located.label))
    sizes = _Sizes(loaded.n_layers, loaded.dim, loaded.hop)
    choice, spec = spec_for(located.label, located.identity(), sizes, options.window or SPEECH_WINDOW, options, compute)
    return unpadded.UnpaddedEncoder(loaded, spec=spec, choice=choice, device=device, compute=compute)


def _whisper(located: _Located, options: EncoderOptions, device: torch.device, compute: torch.dtype) -> Encoder:
    from featurestore.encoders import whisper

    if located.place.is_file():
        model = load_openai_encoder(located.place, options.name)
    else:
        model = load_model(located.place, located.label, needed="encoder.", adapter=located.adapter).encoder
        check_whisper(located.place, model.config.num_mel_bins, located.label)
    sizes = _Sizes(model.config.encoder_layers, model.config.d_model, WHISPER_FRAME_SAMPLES)
    window = check_choice("window", options.window or WHISPER_WINDOW, WHISPER_WINDOWS)
    choice, spec = spec_for(located.label, located.identity(), sizes, window, options, compute)
    return whisper.WhisperEncoder(model, spec=spec, choice=choice, device=device, compute=compute)


def _text(located: _Located, options: EncoderOptions, device: torch.device, compute: torch.dtype) -> Encoder:
    return _text_encoder(
        located, options, device, compute, load_model(located.place, located.label, adapter=located.adapter)
    )


def _t5(located: _Located, options: EncoderOptions, device: torch.device, compute: torch.dtype) -> Encoder:
    # Checkpoints hold the decoder too, which this class leaves in the file.
    model = load_model(
        located.place, located.label, ("encoder.", "shared."), auto="AutoModelForTextEncoding", adapter=located.adapter
    ).encoder
    return _text_encoder(located, options, device, compute, model)


def _causal(located: _Located, options: EncoderOptions, device: torch.device, compute: torch.dtype) -> Encoder:
    from featurestore.encoders import causal

    model = causal.load(located.place, located.label, compute, located.adapter)
    n_layers = model.config.num_hidden_layers
    causal.trim(model, LayerChoice.parse(options.layers, n_layers, located.label).deepest)
    encoder = _text_encoder(located, options, device, compute, model, causal=True)
    causal.check(encoder)
    return encoder


def _text_encoder(
    located: _Located,
    options: EncoderOptions,
    device: torch.device,
    compute: torch.dtype,
    model: Any,
    causal: bool = False,
) -> TextEncoder:
    from featurestore.encoders import sentence, text

    tokenizer = load_tokenizer(located.place, located.label, as_it_stands=causal)
    pooling = sentence.read_pooling(located.place, located.label) if options.pool == "model" else None
    sizes = _Sizes(model.config.num_hidden_layers, model.config.hidden_size, None)
    default = text.default_window(model.config, tokenizer)
    if pooling is not None:
        limit = text.max_positions(model.config, tokenizer)
        default = f"{min(pooling.max_tokens or limit, limit)}tok+0"
        sizes = _Sizes(sizes.n_layers, pooling.dim, None)
        if options.layers != "last" and options.layers != str(sizes.n_layers):
            raise ConfigError(
                f"--pool model --layers {options.layers}: its own pooling is of the last layer; use last."
            )
    choice, spec = spec_for(located.label, located.identity(), sizes, options.window or default, options, compute)
    if pooling is not None:
        spec = replace(spec, extra=(*spec.extra, ("pooling", pooling.description)))
    return text.TextEncoder(
        model, tokenizer, spec=spec, choice=choice, device=device, compute=compute, keep_special=options.keep_special,
        causal=causal, prompt=options.prompt, pooling=pooling,
    )  # fmt: skip


def described(options: EncoderOptions, device: str = "auto") -> FeatureSpec | None:
    """Return the specification of the rows that `load_with` would give, without loading torch or the model.

    None where that takes more than the configuration and the weights' digest: a text encoder's default window, a
    checkpoint of openai-whisper, a configuration that leaves sizes to defaults, arithmetic that depends on a GPU.
    Raises EncoderError and ConfigError as `load_with` does.
    """
    weightless = options.name in ENCODERS and ENCODERS[options.name].family in ("logmel", "opensmile")
    if weightless or device not in ("auto", "cpu") or (device == "auto" and _may_have_gpu()):
        return None
    located = _find(options)
    _refuse_text_options(options, located.family)
    if options.pool == "model" or located.place.is_file() or options.compute not in ("auto", "float32"):
        return None
    config = json.loads((located.place / "config.json").read_text(encoding="utf-8"))
    try:
        if located.family == "speech":
            hop = math.prod(config["conv_stride"])
            sizes = _Sizes(config["num_hidden_layers"], config["hidden_size"], hop)
            window = options.window or SPEECH_WINDOW
        elif located.family == "whisper":
            sizes = _Sizes(config["encoder_layers"], config["d_model"], WHISPER_FRAME_SAMPLES)
            window = check_choice("window", options.window or WHISPER_WINDOW, WHISPER_WINDOWS)
        else:
            return None
    except KeyError:
        return None
    return spec_for(located.label, located.identity(), sizes, window, options)[1]


def _may_have_gpu() -> bool:
    """Whether torch might find a CUDA (or ROCm) device here; asking torch itself takes seconds."""
    return any(Path(path).exists() for path in ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg", "/proc/driver/nvidia"))


def _logmel(options: EncoderOptions) -> Encoder:
    from featurestore.encoders import logmel

    if options.weights is not None:
        raise EncoderError(f"logmel has no weights, but --weights {options.weights} was given. Leave --weights away.")
    window = check_choice("window", options.window or "none", ("none",))
    sizes = _Sizes(0, logmel.N_MELS, logmel.HOP_SAMPLES)
    choice, spec = spec_for(options.name, "none", sizes, window, options)
    return logmel.LogMelEncoder(spec, choice)


def _paralinguistic(options: EncoderOptions) -> Encoder:
    from featurestore.encoders import paralinguistic

    if options.weights is not None:
        raise EncoderError(f"{options.name} has no weights, but --weights was given. Leave it away.")
    window = check_choice("window", options.window or "none", ("none",))
    _, frames, dim = paralinguistic.SETS[options.name]
    if options.pool != "none" and not frames and options.pool != "model":
        raise ConfigError(f"--pool {options.pool}: {options.name} gives one row per utterance already; leave it out.")
    if options.pool != "none" and frames:
        raise ConfigError(
            f"--pool {options.pool}: store the frames of {options.name} (probes pool them), or openSMILE's own "
            f"functionals ({options.name.removesuffix('-lld')})."
        )
    sizes = _Sizes(0, dim, paralinguistic.HOP_SAMPLES)
    pooled = options if frames else replace(options, pool="model")
    choice, spec = spec_for(options.name, "none", sizes, window, pooled)
    extra = {"opensmile": paralinguistic.package_version()} | ({"short": "pad"} if options.short == "pad" else {})
    return paralinguistic.ParalinguisticEncoder(replace(spec, extra=tuple(extra.items())), choice, options.short)


def spec_for(
    label: str,
    weights: str,
    sizes: _Sizes,
    window: str,
    options: EncoderOptions,
    compute: torch.dtype | None = None,
    recorded: Mapping[str, str] | None = None,
) -> tuple[LayerChoice, FeatureSpec]:
    """Return which layers are kept, and the specification of their rows; ConfigError for layers there are not.

    label: the encoder's name for the record. weights: their digest. compute: arithmetic of the forward pass; half
    precision changes the numbers and is recorded, float32 is the rule. recorded: what else distinguishes its rows.
    """
    choice = LayerChoice.parse(options.layers, sizes.n_layers, label)
    arithmetic = "float32" if compute is None else str(compute).removeprefix("torch.")
    extra = {**({} if arithmetic == "float32" else {"compute": arithmetic}), **(recorded or {})}
    if options.keep_special:
        extra["special_tokens"] = "kept"
    if options.prompt.text:
        extra["prompt"] = options.prompt.text
        extra |= {"prompt_rows": "kept"} if options.prompt.keep else {}
    hop = sizes.hop_samples
    spec = FeatureSpec(
        kind="text" if hop is None else "audio",
        encoder=label,
        weights=weights,
        layers=choice.names,
        dim=pooled_dim(sizes.dim, options.pool),
        frame_rate_hz=SAMPLE_RATE_HZ / hop if hop is not None and options.pool == "none" else 0.0,
        dtype=options.dtype,
        pool=options.pool,
        window=window,
        source=options.source if hop is None else "",
        extra=tuple(extra.items()),
    )
    return choice, spec
