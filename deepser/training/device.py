"""Where to compute, and in which arithmetic."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch


def resolve_precision(precision: str, device: torch.device) -> str:
    """ "auto" as "bfloat16" where the device multiplies bf16 matrices in hardware, else "float32"."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    has_units = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()
    return "bfloat16" if device.type == "cpu" and has_units else "float32"


def autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    return torch.autocast(device.type, torch.bfloat16) if precision == "bfloat16" else nullcontext()


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch on one thread: for steps so small that waking the others costs more than they bring."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
