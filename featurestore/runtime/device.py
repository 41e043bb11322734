"""The device that a long run computes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from featurestore.errors import ConfigError

if TYPE_CHECKING:
    import torch


def pick_device(device: str) -> torch.device:
    """Return the torch device of a name; `auto` is the first CUDA device, else the CPU.

    ConfigError for one that this machine lacks.
    """
    import torch

    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"--device {device}: not usable on this machine ({reason}). Use auto or cpu.") from None
    return chosen
