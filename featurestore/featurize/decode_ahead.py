"""Audio decoded in threads while the encoder, or a transcriber, works on what came before."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from featurestore.audio import SAMPLE_RATE_HZ
from featurestore.encoders.base import Encoder
from featurestore.encoders.windows import batches
from featurestore.errors import AudioError, ShortOfMemory
from featurestore.featurize.clips import Decoder
from featurestore.featurize.items import Item
from featurestore.runtime.stage_clock import stage

FRAMES_PER_S = 50  # of batch budgets; every audio encoder here gives 50 frames/s
MOST_THREADS = 16
AHEAD_SAMPLES = 120 * SAMPLE_RATE_HZ  # decoded audio that waits for the encoder, at least two batches of it


class Pool(ThreadPoolExecutor):
    """Threads that drop what is queued when the caller stops early."""

    def __init__(self, workers: int) -> None:
        super().__init__(max(1, workers), thread_name_prefix="decode")

    def __exit__(self, *exc: object) -> None:
        self.shutdown(wait=True, cancel_futures=True)


def decoding_threads(encoder: Encoder) -> int:
    """Return 2, or for a GPU, which encodes thousands of seconds in one, the cores that we may use, at most 16."""
    if not encoder.device.startswith("cuda"):
        return 2
    return max(2, min(MOST_THREADS, usable_cores()))


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 2


def decoded_ahead(
    encoder: Encoder, work: Sequence[tuple[int, Item, int]], max_frames: int, decoder: Decoder
) -> Iterator[list[tuple[Item, Any]]]:
    """Yield batches of (item, waveform, text or AudioError), decoded while the encoder works on those before."""
    runs = iter(list(batches([cost for cost, _, _ in work], max_frames)))
    ahead = max(AHEAD_SAMPLES, 2 * max_frames * SAMPLE_RATE_HZ // FRAMES_PER_S)
    waiting: deque[tuple[int, list[tuple[Item, Any]]]] = deque()
    n_waiting = 0
    while True:
        while not waiting or n_waiting < ahead:
            run = next(runs, None)
            if run is None:
                break
            entries = [work[i] for i in run]
            n_samples = sum(size for _, _, size in entries)
            n_waiting += n_samples
            if encoder.kind == "text":
                waiting.append((n_samples, [(item, item.source) for _, item, _ in entries]))
            else:
                waiting.append((n_samples, [(item, decoder.submit(item)) for _, item, _ in entries]))
        if not waiting:
            return
        n_samples, part = waiting.popleft()
        n_waiting -= n_samples
        with stage("wait"):
            ready = [(item, outcome(item, data, decoder)) for item, data in part]
        yield ready


def outcome(item: Item, data: Any, decoder: Decoder) -> Any:
    """Return what a decoding thread made of an item, or the AudioError; anything but a future as it is.

    Where memory was too short, since a batch was being encoded meanwhile, the item is decoded once more, here.
    """
    if not isinstance(data, Future):
        return data
    try:
        return data.result()
    except (ShortOfMemory, MemoryError):
        pass  # the traceback holds what was allocated
    except AudioError as error:
        return error
    try:
        return decoder.decode(item)
    except AudioError as error:
        return error
    except MemoryError:
        return AudioError(f"{item.key}: out of memory while decoding; split the file, or free memory.")
