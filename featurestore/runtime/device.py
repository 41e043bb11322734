"""The device that a long run computes on, and what its arithmetic is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featurestore.errors import ConfigError

if TYPE_CHECKING:
    import torch

BFLOAT16_FROM = (8, 0)  # compute capability (Ampere) of the first cards that multiply bfloat16 in hardware
NVIDIA_CARDS = Path("/proc/driver/nvidia/gpus")


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


def multiplies_bfloat16(device: torch.device) -> bool:
    """Return whether a CUDA device multiplies bfloat16 matrices in hardware.

    `torch.cuda.is_bf16_supported` counts emulation as well, and asks the current device instead of a given one.
    """
    import torch

    return torch.cuda.get_device_capability(device) >= BFLOAT16_FROM


def describe_device(device: torch.device | str) -> str:
    """Return a device for people: "cuda:1 (NVIDIA H100 80GB HBM3)", "cpu (2 threads)"."""
    import torch

    on = torch.device(device)
    if on.type == "cuda":
        return f"{on} ({torch.cuda.get_device_name(on)})"
    return f"{on} ({torch.get_num_threads()} threads)" if on.type == "cpu" else str(on)


def unused_cards(device: torch.device | str) -> str:
    """Return why a run is on the CPU of a machine that has NVIDIA cards; "" where it is not."""
    import torch

    if torch.device(device).type != "cpu" or torch.cuda.is_available():
        return ""
    n_cards = len(list(NVIDIA_CARDS.iterdir())) if NVIDIA_CARDS.is_dir() else 0
    if not n_cards:
        return ""
    why = "is built for CPUs" if torch.version.cuda is None else "finds none of them; check the driver by nvidia-smi"
    return f"this machine has {n_cards} NVIDIA GPU(s), but torch {torch.__version__} {why}: the run is on the CPU"


@contextmanager
def ieee_float32() -> Iterator[None]:
    """Compute float32 as IEEE float32 on CUDA while the block lasts.

    By default cuDNN rounds the factors of float32 convolutions and recurrent layers to TF32, 10 bits.
    """
    import torch

    backends: Any = torch.backends  # its submodules are made while torch is imported
    settings = (backends.cudnn.conv, backends.cudnn.rnn, backends.cuda.matmul)
    before = [setting.fp32_precision for setting in settings]
    matmul, cudnn = torch.get_float32_matmul_precision(), before[0] == "tf32"
    # The older switches come first: torch refuses to multiply where they contradict the newer ones, and to set one of
    # the older alone leaves the others to torch.backends.fp32_precision.
    torch.set_float32_matmul_precision("highest")
    backends.cudnn.allow_tf32 = False
    for setting in settings:
        setting.fp32_precision = "ieee"
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(matmul)
        backends.cudnn.allow_tf32 = cudnn
        for setting, precision in zip(settings, before, strict=True):
            setting.fp32_precision = precision


@contextmanager
def fused_attention(device: torch.device) -> Iterator[None]:
    """Compute attention on CUDA by flash, memory-efficient or plain kernels while the block lasts, not by cuDNN's.

    cuDNN plans each shape anew, and nearly every batch here has a new one.
    """
    if device.type != "cuda":
        yield
        return
    from torch.nn.attention import SDPBackend, sdpa_kernel

    with sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]):
        yield


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch on one thread while the block lasts, and on as many as before afterwards.

    For steps so small that waking the others costs more than they bring.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
