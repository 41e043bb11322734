"""Copies between the host and a device: one for all that a batch needs, and to or from a GPU without waiting for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from featurestore.runtime.stage_clock import stage

ALIGNED_BYTES = 256  # where each array of a copy begins, as torch's allocator aligns


@dataclass(frozen=True)
class Padded:
    """Arrays (n_i,) of one dtype, to be sent as one (B, width) with `fill` behind each."""

    rows: Sequence[np.ndarray]
    width: int
    fill: float = 0

    @property
    def shape(self) -> tuple[int, int]:
        """(B, width)."""
        return len(self.rows), self.width

    @property
    def dtype(self) -> np.dtype[Any]:
        """The arrays' dtype."""
        return self.rows[0].dtype

    def write(self, out: np.ndarray) -> None:
        """Fill an array (B, width)."""
        for row, values in zip(out, self.rows, strict=True):
            row[: len(values)] = values
            row[len(values) :] = self.fill


class Queue(Protocol):
    """A device that works through a queue: its copies are ordered, and only `fetch`'s function waits for one."""

    def pinned(self, n_bytes: int) -> Tensor:
        """Return uint8 (n_bytes,) in host memory that the device copies by itself."""
        ...

    def send(self, host: Tensor) -> Tensor:
        """Copy pinned memory to the device, for the work that the caller queues from now on."""
        ...

    def fetch(self, values: Tensor) -> Callable[[], Tensor]:
        """Start to copy to pinned memory what queued work computes; the function waits for it and returns the copy."""
        ...


class CudaQueue:
    """A CUDA device's copies, on a stream for each direction, so that they run beside its computing."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._inward, self._outward = torch.cuda.Stream(device), torch.cuda.Stream(device)

    def pinned(self, n_bytes: int) -> Tensor:
        return torch.empty(n_bytes, dtype=torch.uint8, pin_memory=True)

    def send(self, host: Tensor) -> Tensor:
        computing = torch.cuda.current_stream(self._device)
        with torch.cuda.stream(self._inward), stage("copy", self._device):
            values = host.to(self._device, non_blocking=True)
        computing.wait_stream(self._inward)
        # The allocator must not give this memory to a later copy while queued work still reads it.
        values.record_stream(computing)
        return values

    def fetch(self, values: Tensor) -> Callable[[], Tensor]:
        self._outward.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._outward), stage("copy", self._device):
            host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True).copy_(values, non_blocking=True)
        values.record_stream(self._outward)
        copied = torch.cuda.Event(blocking=True)  # sleeps while it waits: the cores are for the decoding threads
        copied.record(self._outward)

        def wait() -> Tensor:
            copied.synchronize()
            return host

        return wait


_queues: dict[torch.device, Queue] = {}


def queue_of(device: torch.device) -> Queue | None:
    """Return the queue of a CUDA device; None for a device that is waited for, as the CPU is."""
    if device.type == "cuda" and device not in _queues:
        _queues[device] = CudaQueue(device)
    return _queues.get(device)


def is_queued(device: torch.device) -> bool:
    """Return whether work on the device is queued, so that the host may prepare a batch while one is computed."""
    return device.type == "cuda" or device in _queues


def to_device(arrays: Sequence[np.ndarray | Padded], device: torch.device) -> list[Tensor]:
    """Return the arrays as tensors on the device. To a queued device they go in one copy, and nothing is waited for."""
    queue = queue_of(device)
    if queue is None:
        with stage("copy", device):
            return [torch.from_numpy(_whole(array)).to(device) for array in arrays]
    starts, n_bytes = [], 0
    for array in arrays:
        starts.append(n_bytes)
        n_bytes += -(-_n_bytes(array) // ALIGNED_BYTES) * ALIGNED_BYTES
    host = queue.pinned(n_bytes)
    buffer = host.numpy()
    for start, array in zip(starts, arrays, strict=True):
        out = buffer[start : start + _n_bytes(array)].view(array.dtype).reshape(array.shape)
        array.write(out) if isinstance(array, Padded) else np.copyto(out, array)
    sent = queue.send(host)
    return [
        sent[start : start + _n_bytes(array)].view(_torch_dtype(array)).view(array.shape)
        for start, array in zip(starts, arrays, strict=True)
    ]


def to_host(values: Tensor) -> Callable[[], np.ndarray]:
    """Start to copy a tensor to the host, bfloat16 as its bits (uint16); the function waits and returns the array.

    Of a queued device the array lies in pinned memory, which is used again when nothing refers to the array.
    """
    bits = values.view(torch.int16) if values.dtype == torch.bfloat16 else values
    queue = queue_of(values.device)
    if queue is None:
        with stage("copy", values.device):
            host = bits.cpu()
        fetched: Callable[[], Tensor] = lambda: host  # noqa: E731
    else:
        fetched = queue.fetch(bits)

    def wait() -> np.ndarray:
        array = fetched().numpy()
        return array.view(np.uint16) if values.dtype == torch.bfloat16 else array

    return wait


def _whole(array: np.ndarray | Padded) -> np.ndarray:
    if not isinstance(array, Padded):
        return np.ascontiguousarray(array)
    if len(array.rows) == 1 and len(array.rows[0]) == array.width:
        return np.ascontiguousarray(array.rows[0])[None]
    out = np.empty(array.shape, array.dtype)
    array.write(out)
    return out


def _n_bytes(array: np.ndarray | Padded) -> int:
    return int(np.prod(array.shape, dtype=np.int64)) * array.dtype.itemsize


def _torch_dtype(array: np.ndarray | Padded) -> torch.dtype:
    return torch.from_numpy(np.empty(0, array.dtype)).dtype
