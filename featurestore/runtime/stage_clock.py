"""Where a run's time goes: stages that the pipeline names and a clock sums up, when somebody measures.

With no clock (the rule) a stage costs one look at a global. A stage on a CUDA device is timed on the device, by events
in its stream, so that measuring neither waits for the device nor changes what overlaps.
"""

from __future__ import annotations

import math
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

# decode: files to samples, in threads. wait: the encoder's thread without samples. mel, encode, pack (valid frames
# picked, pooled and joined), copy (to the device and back): the encoder. write: rows to segments, commits included.
STAGES = ("decode", "wait", "mel", "encode", "pack", "copy", "write")
ON_DEVICE = ("mel", "encode", "pack", "copy")

_NOTHING: AbstractContextManager[None] = nullcontext()
_clock: StageClock | None = None
_padding: Padding | None = None


def stage(name: str, device: torch.device | None = None) -> AbstractContextManager[None]:
    """Time what happens inside as a stage; device: where it happens, when that is no CPU."""
    return _NOTHING if _clock is None else _clock.stage(name, device)


def padded_batch(frames: Sequence[int], longest: int) -> None:
    """Note one forward pass: the valid frames of its inputs, each padded to `longest`."""
    if _padding is not None:
        _padding.n_valid += sum(frames)
        _padding.n_padded += longest * len(frames)
    if _clock is not None:
        _clock.batches.append((tuple(frames), longest))


@dataclass
class Padding:
    """Frames, or tokens, that forward passes computed: those of inputs, and all, with what inputs were padded by."""

    n_valid: int = 0
    n_padded: int = 0

    @property
    def share(self) -> float:
        """The share of all frames that is padding, NaN where no pass was noted."""
        return 1 - self.n_valid / self.n_padded if self.n_padded else math.nan


@contextmanager
def counted_padding() -> Iterator[Padding]:
    """Count the frames of all forward passes of this process inside; one count at a time."""
    global _padding
    _padding = count = Padding()
    try:
        yield count
    finally:
        _padding = None


@contextmanager
def measured(clock: StageClock) -> Iterator[StageClock]:
    """All stages of this process go to `clock` inside; one clock at a time."""
    global _clock
    _clock = clock
    try:
        yield clock
    finally:
        _clock = None


class StageClock:
    """Sums seconds by stage. batches: (valid frames of each input, padded length) of every forward pass."""

    def __init__(self) -> None:
        self.batches: list[tuple[tuple[int, ...], int]] = []
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._events: list[tuple[str, Any, Any]] = []
        self._lock = threading.Lock()

    @contextmanager
    def stage(self, name: str, device: torch.device | None = None) -> Iterator[None]:
        if device is not None and device.type == "cuda":
            import torch

            stream = torch.cuda.current_stream(device)
            start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record(stream)
            try:
                yield
            finally:
                stop.record(stream)
                self._events.append((name, start, stop))
            return
        started = time.perf_counter()
        try:
            yield
        finally:
            elapsed = time.perf_counter() - started
            with self._lock:
                self._seconds[name] += elapsed

    def seconds(self) -> dict[str, float]:
        """Return the seconds by stage, in the order of STAGES; of `decode` summed over its threads."""
        for name, start, stop in self._events:
            stop.synchronize()
            self._seconds[name] += start.elapsed_time(stop) / 1e3
        self._events.clear()
        return {name: self._seconds[name] for name in STAGES}

    def busy_s(self) -> float:
        """Return the seconds in which the encoder's device had work: its stages follow one another."""
        seconds = self.seconds()
        return sum(seconds[name] for name in ON_DEVICE)
