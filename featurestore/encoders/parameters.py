"""Whether the parameters of a file are those of its configuration: none is missing, and none is left over."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from featurestore.encoders.hub import weight_files
from featurestore.errors import EncoderError

# Parameters that no hidden state depends on: checkpoints often lack them, or bring them along.
NEVER_READ = ("pooler.", "masked_spec_embed")
# Buffers that older versions of transformers stored.
BUFFERS = (
    "position_ids",
    "token_type_ids",
    "inv_freq",
    "masked_bias",
    "num_batches_tracked",
    "cos_cached",
    "sin_cached",
)


def check_parameters(
    model: Any, info: Mapping[str, Collection[str]], needed: str | tuple[str, ...], directory: Path, label: str
) -> None:
    """Raise EncoderError where weights and configuration don't describe the same encoder.

    info: transformers' loading info, its missing_keys and unexpected_keys. needed: names of parameters that are read
    begin with it. A missing parameter would be random. A parameter of the encoder that its configuration leaves out
    (a layer, a bias, a norm, a table of positions) means that the rows would be another model's; a head's are not read.
    """
    missing = sorted(key for key in info["missing_keys"] if key.startswith(needed) and not _is_never_read(key))
    if missing:
        raise EncoderError(
            f"{label}: {len(missing)} parameters of its configuration are not in the weights of {directory} (the "
            f"first: {missing[0]}), expected all of them. The file is another model's; pass the right one with "
            "--weights DIR."
        )
    prefix = f"{model.base_model_prefix}."
    bare = getattr(model, model.base_model_prefix, model)
    parts = {name for name, _ in bare.named_children()}
    unexpected = {key: key.removeprefix(prefix) for key in info["unexpected_keys"]}
    unread = sorted(
        key
        for key, name in unexpected.items()
        if name.partition(".")[0] in parts and name.startswith(needed) and not _is_never_read(name)
    )
    # Of a checkpoint with a head, what has no prefix is the head's, whatever its name (the x-vector's
    # feature_extractor).
    if not all(key.startswith(prefix) for key in unread) and _has_prefix(directory, prefix):
        unread = [key for key in unread if key.startswith(prefix)]
    if unread:
        raise EncoderError(
            f"{label}: {len(unread)} parameters in the weights of {directory} have no place in the encoder that its "
            f"config.json describes (the first: {unread[0]}), so that its rows would be another model's. Use the "
            "config.json that belongs to the weights."
        )


def _has_prefix(directory: Path, prefix: str) -> bool:
    """Return whether names of parameters in a directory's weights begin with this."""
    for path in weight_files(directory):
        if path.suffix == ".safetensors":
            from safetensors import safe_open

            with safe_open(path, "pt") as file:
                names = list(file.keys())
        else:
            import torch

            names = list(torch.load(path, map_location="meta", weights_only=True))
        if any(name.startswith(prefix) for name in names):
            return True
    return False


def _is_never_read(key: str) -> bool:
    return key.endswith(BUFFERS) or any(part in key for part in NEVER_READ)
