"""Operations of an encoder by the number of its frames, and the device's own rate on a large matrix product."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from featurestore.audio import SAMPLE_RATE_HZ
from featurestore.encoders.base import Encoder

AT_S = (1.0, 4.0, 10.0)  # lengths at which operations are counted
AT_TOKENS = (8, 40, 120)
PEAK_S = 1.0  # seconds of matrix products that a rate is taken from


class Flops:
    """Operations (2 per multiply and add) of one input of n frames: a + b n + c n^2 through three counted lengths.

    Exact but for the frames that a convolution's stride leaves over; attention makes it quadratic.
    """

    def __init__(self, encoder: Encoder) -> None:
        frames, counts = [], []
        for size in AT_TOKENS if encoder.kind == "text" else AT_S:
            source: Any
            if encoder.kind == "text":
                source = " ".join(f"w{i}" for i in range(int(size)))
                n = encoder.cost(source)
            else:
                source = np.random.default_rng(0).standard_normal(int(size * SAMPLE_RATE_HZ)).astype(np.float32)
                n = encoder.n_frames(len(source))
            counter = FlopCounterMode(display=False)
            # The CPU's fused attention is unknown to the counter; as two products it is counted.
            with counter, sdpa_kernel(SDPBackend.MATH):
                encoder.encode([source], 1)
            frames.append(n)
            counts.append(counter.get_total_flops())
        self._coefficients = np.polyfit(np.array(frames, float), np.array(counts, float), 2)

    def of(self, frames: Sequence[int] | np.ndarray) -> float:
        """Return the operations of inputs of these numbers of frames, summed."""
        return float(np.polyval(self._coefficients, np.asarray(frames, float)).sum())


def matmul_peak(device: torch.device, compute: torch.dtype) -> float:
    """Return the FLOP/s of the fastest of several large matrix products in the encoder's arithmetic."""
    on_gpu = device.type == "cuda"
    size, largest, repeats = (8192, 8192, 10) if on_gpu else (512, 2048, 1)
    a, b = (torch.randn(largest, largest, device=device).to(compute) for _ in range(2))
    best, started = 0.0, time.perf_counter()
    while best == 0.0 or time.perf_counter() - started < PEAK_S:
        _wait(device)
        start = time.perf_counter()
        for _ in range(repeats):
            a[:size, :size] @ b[:size, :size]
        _wait(device)
        took = time.perf_counter() - start
        best = max(best, repeats * 2 * size**3 / took)
        if took < PEAK_S / 32:  # else larger ones could take minutes, as half precision does without units for it
            size = min(2 * size, largest)
    return best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
