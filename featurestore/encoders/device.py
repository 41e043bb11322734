"""How an encoder computes on its device: arithmetic, size of a batch, and running out of memory."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from featurestore.encoders.options import check_choice
from featurestore.runtime.device import describe_device, fused_attention, ieee_float32, multiplies_bfloat16

if TYPE_CHECKING:
    import torch

    from featurestore.encoders.base import Encoder
    from featurestore.format.spec import FeatureSpec

# On a CPU an utterance fills the cores by itself (measured: batches of 16 s gain at most 7 % on the smallest encoders,
# larger ones lose by padding), and alone its rows are the same to the last bit whatever the batch.
ONE_AT_A_TIME = 1
FRAMES_OF_A_GPU = 30_000
MAX_ROW_BYTES = 512 << 20  # of one batch, in memory that can't be paged; two batches are on their way

# As torch, cuDNN (of a convolution on a full card, too), cuBLAS and oneDNN (the last) say it, in lower case.
OUT_OF_MEMORY = (
    "out of memory",
    "not enough memory",
    "can't allocate memory",
    "alloc_failed",
    "allocation_failed",
    "unable to find an engine to execute this computation",
    "could not create a primitive",
)


def pick_compute(compute: str, device: torch.device) -> torch.dtype:
    """Arithmetic of the forward pass: `auto` is float32 on the CPU, bfloat16 (float16 before Ampere) on a GPU."""
    import torch

    check_choice("compute", compute, ("auto", "float32", "bfloat16", "float16"))
    if compute != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[compute]
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if multiplies_bfloat16(device) else torch.float16


def default_batch_frames(device: torch.device, on_cpu: int, spec: FeatureSpec, window_frames: int) -> int:
    """Return the padded frames of a forward pass; a GPU takes about 600 s of audio to fill.

    Fewer where so many layers are kept that their rows would take more than MAX_ROW_BYTES, but a window's at least.
    """
    from featurestore.runtime.transfer import is_queued

    if not is_queued(device):
        return on_cpu
    itemsize = 4 if spec.row_type.scaled else spec.row_type.itemsize
    row_bytes = 1 if spec.pool != "none" else len(spec.layers) * spec.dim * itemsize
    return min(FRAMES_OF_A_GPU, max(window_frames, MAX_ROW_BYTES // row_bytes))


def frozen(model: Any, device: torch.device, compute: torch.dtype) -> Any:
    """Return the model on the device, without dropout or gradients, to be run under autocast to `compute`.

    Weights that autocast would cast in every pass are cast once, to the same numbers: on a CPU, where a pass is one
    utterance, half the time of a large model would go into casting.
    """
    import torch

    model = model.eval().requires_grad_(False)
    if compute != torch.float32:
        for module in model.modules():
            if isinstance(module, torch.nn.Linear):
                module.to(compute)
            # DeBERTa adds these to a layer's output, which autocast then leaves in float32, and its mask overflows.
            for bias in (getattr(module, name, None) for name in ("q_bias", "v_bias")):
                if isinstance(bias, torch.nn.Parameter):
                    bias.data = bias.data.to(compute)
    return model.to(device)


@contextmanager
def arithmetic(compute: torch.dtype, device: torch.device) -> Iterator[None]:
    """Compute in `compute` while the block lasts: 16 bits by autocast, float32 as IEEE float32, on CUDA as well."""
    import torch

    half = compute != torch.float32
    exact = ieee_float32() if device.type == "cuda" and not half else nullcontext()
    low = torch.autocast(device.type, compute) if half else nullcontext()
    with exact, low, fused_attention(device):
        yield


def computed_by(encoder: Encoder) -> dict[str, str]:
    """Return an encoder's device and arithmetic, for the record and for people."""
    compute = getattr(encoder, "compute", None)
    if compute is None:  # no torch model
        return {"device": encoder.device, "arithmetic": "float32"}
    return {"device": describe_device(encoder.device), "arithmetic": str(compute).removeprefix("torch.")}


def out_of_memory(error: Exception) -> bool:
    """Return whether an exception, of torch or of Python, means that memory is short."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(phrase in text for phrase in OUT_OF_MEMORY)


def free_device_memory() -> None:
    """Hand torch's cached device memory back, if torch is in use."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
