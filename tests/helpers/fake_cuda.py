"""CUDA devices that torch only claims to have: they report properties, and nothing computes on them."""

import pytest
import torch

Capability = tuple[int, int]


def fake_cuda(patch: pytest.MonkeyPatch, *capabilities: Capability) -> list[torch.device]:
    """Make torch report a CUDA device for each compute capability; return the list that records current devices."""
    made_current: list[torch.device] = []

    def capability(device: torch.device | str | int | None = None) -> Capability:
        index = device if isinstance(device, int) else torch.device(device or "cuda").index
        return capabilities[index or 0]

    patch.setattr(torch.cuda, "is_available", lambda: bool(capabilities))
    patch.setattr(torch.cuda, "device_count", lambda: len(capabilities))
    patch.setattr(torch.cuda, "get_device_capability", capability)
    patch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    patch.setattr(torch.cuda, "set_device", made_current.append)
    return made_current
