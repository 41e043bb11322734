"""Where to compute, and in which arithmetic."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

from featurestore.runtime.device import fused_attention, ieee_float32, multiplies_bfloat16

CUBLAS_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"  # cuBLAS reads it once, before the first product
DETERMINISTIC_CUBLAS = ":4096:8"


def resolve_precision(precision: str, device: torch.device) -> str:
    """Resolve "auto" to "bfloat16" where the device multiplies bf16 matrices in hardware, else to "float32"."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bfloat16" if multiplies_bfloat16(device) else "float32"
    has_units = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()
    return "bfloat16" if device.type == "cpu" and has_units else "float32"


def autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """Multiply matrices in bfloat16 while the block lasts, where that is the precision."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bfloat16" else nullcontext()


@contextmanager
def arithmetic(precision: str, device: torch.device) -> Iterator[None]:
    """Make precision "float32" IEEE float32 on CUDA while the block lasts, backward passes included.

    Attention there is not cuDNN's, which plans each of a step's shapes anew.
    """
    exact = ieee_float32() if precision == "float32" and device.type == "cuda" else nullcontext()
    with exact, fused_attention(device):
        yield


@contextmanager
def deterministic(device: torch.device) -> Iterator[None]:
    """Take deterministic kernels alone while the block lasts, on a CUDA device; a CPU has no others.

    torch raises RuntimeError for an operator that has none. Call it before the first product on the device.
    """
    if device.type != "cuda":
        yield
        return
    os.environ.setdefault(CUBLAS_WORKSPACE, DETERMINISTIC_CUBLAS)
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    # Not "warn only": memory-efficient attention has a deterministic backward pass in the strict mode alone.
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
