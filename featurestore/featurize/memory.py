"""`--max-memory`: how many frames one forward pass may take, measured on the encoder itself before the run."""

from __future__ import annotations

import ctypes
import resource
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from featurestore.audio import SAMPLE_RATE_HZ
from featurestore.encoders.base import Encoder
from featurestore.errors import ConfigError

GIB = 1 << 30
SHARE = 0.8  # of what is free that a plan uses; allocators need the rest
RESERVED_BYTES = 96 << 20  # rows that wait for the disk, and decoded audio that waits for the encoder
FIRST_FRAMES = 50  # of the first trial: 1 s
SAMPLE_BYTES = 32  # of one 16 kHz sample while its file is decoded, resampled and normalised
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
PROC = Path("/proc/self")


def keep_freed_memory() -> None:
    """Let malloc keep what is freed, up to 1 GiB: fresh pages for every activation cost a tenth of a CPU's encoding.

    glibc hands blocks above some MB straight back to the kernel, which clears each page when it is touched again.
    """
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(M_TRIM_THRESHOLD, GIB)
        libc.mallopt(M_MMAP_THRESHOLD, GIB)


@dataclass(frozen=True)
class MemoryPlan:
    """What fits: frames of one pass (windows together, padded), frames of one window, bytes of one whole input."""

    limit_bytes: int
    pass_frames: int
    window_frames: int
    input_bytes: float

    def refusal(self, encoder: Encoder, size: int) -> str:
        """Why an input of this many samples (audio) or padded tokens (text) can't be encoded; "" when it can."""
        frames = min(encoder.cost(size) if encoder.kind == "audio" else size, window_frames(encoder))
        if frames > self.window_frames:
            return f"a window of {frames} frames needs more memory than {self._limit}; raise it or shorten the window."
        if encoder.kind == "audio" and (needed := input_bytes(encoder, size)) > self.input_bytes:
            return (
                f"{size / SAMPLE_RATE_HZ:.0f} s of audio and its rows take about {2 * needed / GIB:.2f} GiB, more than "
                f"half of what {self._limit} leaves; raise it, split the file, pool, or choose fewer layers."
            )
        return ""

    @property
    def _limit(self) -> str:
        return f"--max-memory {self.limit_bytes / GIB:g}"


def plan_memory(encoder: Encoder, max_memory_gib: float, sizes: Sequence[int]) -> MemoryPlan:
    """Encode silence of 1, 2, 4, ... s up to the longest input's window, and see what memory that takes.

    sizes: of the inputs, samples or padded tokens; what two of the largest take on the host is set aside on a CPU.

    The limit holds for this process's resident memory on a CPU, for torch's allocated memory on a CUDA device.
    ConfigError when the encoder and the program alone take as much.
    """
    meter = CudaMeter(encoder) if _on_cuda(encoder) else RssMeter()
    limit_bytes = round(max_memory_gib * GIB)
    base = meter.now()
    room = SHARE * (limit_bytes - base) - (0 if _on_cuda(encoder) else RESERVED_BYTES)
    if room <= 0:
        raise ConfigError(
            f"--max-memory {max_memory_gib:g}: {encoder.name} and the program take {base / GIB:.2f} GiB before they "
            f"encode anything, expected at least {(base + 2 * RESERVED_BYTES / SHARE) / GIB:.2f}."
        )
    share, most_input_bytes = room, float("inf")
    if encoder.kind == "audio" and not _on_cuda(encoder):
        most_input_bytes = room / 4
        input_sizes = (input_bytes(encoder, size) for size in sizes)
        share -= 2 * max((n_bytes for n_bytes in input_sizes if n_bytes <= most_input_bytes), default=0.0)
    costs = (encoder.cost(size) if encoder.kind == "audio" else size for size in sizes)
    longest = max(1, min(max(costs, default=1), window_frames(encoder)))
    frames, per_frame, fits = min(FIRST_FRAMES, longest), 0.0, 0
    while True:
        meter.reset()
        encoder.encode([_silence(encoder, frames)], 1)
        used = max(0.0, meter.peak() - base)
        if used > share:
            break
        per_frame, fits = max(per_frame, used / frames), frames
        # Attention may take four times as much for twice the frames; trying must not break the limit either.
        if frames == longest or 4 * used > 2 * share:
            break
        frames = min(2 * frames, longest)
    if per_frame and fits < longest:
        fits = max(fits, min(longest, int(share / per_frame / 2)))
    pass_frames = int(share / per_frame) if per_frame else sys.maxsize
    return MemoryPlan(limit_bytes, max(1, pass_frames), fits, most_input_bytes)


def window_frames(encoder: Encoder) -> int:
    """Return padded frames of the longest piece that goes through the encoder at once."""
    return encoder.window_frames


def input_bytes(encoder: Encoder, n_samples: int) -> float:
    """Host memory of one audio input: its samples on the way, and its rows, twice where windows are joined."""
    spec = encoder.spec
    frames = encoder.n_frames(n_samples)
    rows = 4.0 * spec.dim * len(spec.layers) * (frames if spec.pool == "none" else 1)
    return SAMPLE_BYTES * n_samples + rows * (2 if frames > window_frames(encoder) else 1)


def _silence(encoder: Encoder, frames: int) -> Any:
    if encoder.kind == "text":
        return "a " * max(1, frames - 2)
    return np.zeros(frames * SAMPLE_RATE_HZ // 50, np.float32)


def _on_cuda(encoder: Encoder) -> bool:
    return encoder.device.startswith("cuda")


class CudaMeter:
    """torch's allocated memory on the encoder's device, bytes."""

    def __init__(self, encoder: Encoder) -> None:
        self._device = encoder.device

    def now(self) -> int:
        import torch

        return torch.cuda.memory_allocated(self._device)

    def reset(self) -> None:
        import torch

        torch.cuda.reset_peak_memory_stats(self._device)

    def peak(self) -> int:
        import torch

        return torch.cuda.max_memory_allocated(self._device)


class RssMeter:
    """Resident memory of this process, bytes; where the kernel can't start its peak anew (not Linux), since start."""

    def now(self) -> int:
        # What the allocator keeps for later would hide what a trial takes.
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
        return _status("VmRSS") or self.peak()

    def reset(self) -> None:
        try:
            (PROC / "clear_refs").write_text("5")
        except OSError:
            return

    def peak(self) -> int:
        unit = 1 if sys.platform == "darwin" else 1024
        return _status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _status(name: str) -> int:
    try:
        lines = (PROC / "status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":")), 0)
