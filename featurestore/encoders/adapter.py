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


def merge(model: Any, directory: Path, label: str) -> Any:
    """Merge an adapter into a bare model: its matrices, and parameters that were trained whole.

    An adapter is trained on a model with a head, in which the bare one has a name (`model.`, `hubert.`). What belongs
    to the head is left away. EncoderError where anything else has no place in the model.
    """
    import torch
    from safetensors.torch import load_file

    try:
        import peft
    except ImportError as error:
        raise ConfigError(
            f"{label}: a LoRA needs the peft package: pip install 'medusa-ser[peft]' ({error})."
        ) from None
    try:
        config = peft.LoraConfig.from_pretrained(str(directory))
        state = {name.removeprefix(ROOT): tensor for name, tensor in load_file(directory / WEIGHTS).items()}
    except Exception as error:  # of many kinds for a bad file
        raise EncoderError(f"{label}: the adapter in {directory} can't be read ({type(error).__name__}).") from None
    part = model.base_model_prefix
    parts = {name for name, _ in model.named_children()}
    inside = any(name.startswith(f"{part}.") for name in state) and part not in parts
    trained = {n: t for n, t in state.items() if n.partition(".")[0] in ({part} if inside else parts)}
    # As it was trained: by these names an adapter chooses modules and layers.
    holder = torch.nn.ModuleDict({part: model}) if inside else model
    _set_whole(holder, trained, directory, label)
    # Heads and other parameters that were trained whole are done with; a task's class would ask for its head.
    config.modules_to_save, config.bias, config.task_type, config.inference_mode = None, "none", None, True
    config.base_model_name_or_path = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what peft still calls in transformers
            wrapped = peft.get_peft_model(holder, config)
    except Exception as error:  # of many kinds where module names don't match
        raise _mismatch(label, directory, [(str(error).splitlines() or [type(error).__name__])[0][:160]]) from None
    expected = set(peft.get_peft_model_state_dict(wrapped, save_embedding_layers=False))
    placed = {f"{ROOT}{name}": tensor for name, tensor in trained.items() if f"{ROOT}{name}" in expected}
    homeless = [name for name in trained if f"{ROOT}{name}" not in placed and _is_matrix(name)]
    # A decoder that the adapter wasn't trained with stays as it is; no hidden state depends on it.
    missing = sorted(name for name in expected - set(placed) if ".decoder." not in name.replace(ROOT, ".", 1))
    if homeless or missing or not placed:
        raise _mismatch(label, directory, homeless or missing or ["none"])
    peft.set_peft_model_state_dict(wrapped, placed)
    merged = wrapped.merge_and_unload()
    return merged[part] if inside else merged


def _is_matrix(name: str) -> bool:
    """Return whether peft applies this part of an adapter, rather than replacing a parameter with it."""
    return "lora_" in name or "trainable_tokens" in name


def _set_whole(holder: Any, trained: dict[str, Any], directory: Path, label: str) -> None:
    """Copy the parameters that were trained whole (modules_to_save, biases) into the model."""
    tensors_of_model = holder.state_dict(keep_vars=True)
    for name, tensor in trained.items():
        if _is_matrix(name):
            continue
        into = tensors_of_model.get(name.replace(".base_layer.", "."))
        if into is None or into.shape != tensor.shape:
            raise _mismatch(label, directory, [name])
        into.data.copy_(tensor)


def _mismatch(label: str, directory: Path, named: list[str]) -> EncoderError:
    return EncoderError(
        f"{label}: the adapter in {directory} and its base model don't match (the first of {len(named)} differences: "
        f"{named[0]}). Pass the base it was trained on in its {CONFIG}."
    )
