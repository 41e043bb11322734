"""PEFT LoRA directories: the base model's weights with the adapter merged into them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from featurestore.errors import ConfigError, EncoderError
from featurestore.runtime.json_text import read_json

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
ROOT = "base_model.model."  # before every parameter's name in PEFT's files


def is_adapter(directory: Path) -> bool:
    """Return whether this is a PEFT directory."""
    return (directory / CONFIG).is_file()


def base_of(directory: Path) -> str:
    """Return the base model that adapter_config.json names; EncoderError where it is no LoRA."""
    try:
        config = read_json((directory / CONFIG).read_bytes())
        kind, base = str(config["peft_type"]), str(config["base_model_name_or_path"] or "")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EncoderError(f"{directory / CONFIG}: not a PEFT configuration ({error!r}).") from None
    if kind != "LORA":
        raise EncoderError(f"{directory / CONFIG}: peft_type {kind} can't be merged here, expected LORA.")
    if not base:
        raise EncoderError(f"{directory / CONFIG}: names no base model; write its place to base_model_name_or_path.")
    if not (directory / WEIGHTS).is_file():
        raise EncoderError(f"{directory}: has no {WEIGHTS} beside its {CONFIG}; save the adapter as safetensors.")
    return base


def merge(model: Any, directory: Path, what: str) -> Any:
    """Add an adapter's matrices to a bare model's weights.

    An adapter is trained on a model with a head, whose names have a part before those of the bare model; what belongs
    to the head is left away. EncoderError where a matrix has no place in the model.
    """
    from safetensors.torch import load_file

    try:
        import peft
    except ImportError as error:
        raise ConfigError(f"{what}: a LoRA needs the peft package: pip install 'medusa-ser[peft]' ({error}).") from None
    try:
        config = peft.LoraConfig.from_pretrained(str(directory))
        state = load_file(directory / WEIGHTS)
    except Exception as error:  # of many kinds for a bad file
        raise EncoderError(f"{what}: the adapter in {directory} can't be read ({type(error).__name__}).") from None
    config.modules_to_save, config.inference_mode = None, True  # heads that were trained whole
    config.base_model_name_or_path = getattr(model, "name_or_path", None)  # peft compares the two
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of what peft still calls in transformers
        wrapped = peft.get_peft_model(model, config)
    expected = set(peft.get_peft_model_state_dict(wrapped))
    placed, homeless = {}, []
    for name, tensor in state.items():
        if "lora_" not in name:
            continue
        parts = name.removeprefix(ROOT).split(".")
        options = (ROOT + ".".join(parts[i:]) for i in range(len(parts)))
        place = next((option for option in options if option in expected), None)
        if place is None:
            homeless.append(name)
        else:
            placed[place] = tensor
    # A decoder that the adapter wasn't trained with stays as it is; no hidden state depends on it.
    missing = sorted(name for name in expected - set(placed) if not name.startswith(f"{ROOT}decoder."))
    if homeless or missing or not placed:
        named = (homeless or missing or ["none"])[0]
        raise EncoderError(
            f"{what}: the adapter in {directory} and its base model don't match (the first of "
            f"{len(homeless) + len(missing)} matrices: {named}). Pass the base it was trained on in its {CONFIG}."
        )
    peft.set_peft_model_state_dict(wrapped, placed)
    return wrapped.merge_and_unload()
