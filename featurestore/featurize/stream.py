"""A stream of encoded utterances: decoded ahead in threads, batched by length, failures as results.

It needs no manifest and no store: `featurize` appends what it yields, prediction on new files uses it as it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from featurestore.audio import SAMPLE_RATE_HZ
from featurestore.encoders.base import Encoder
from featurestore.encoders.device import free_device_memory, out_of_memory
from featurestore.featurize.clips import Decoder, arranged
from featurestore.featurize.decode_ahead import FRAMES_PER_S, Pool, decoded_ahead, decoding_threads
from featurestore.featurize.items import Item, size_of
from featurestore.featurize.memory import plan_memory

NO_ROOM = "out of memory on a single window; use a smaller encoder, another device or a shorter --window."

# Gives a batch's rows, or reasons, once they are there.
Rows = Callable[[], list[Any]]


@dataclass(frozen=True)
class Encoded:
    """One result: rows (L, T, D) float32 or as they are stored, or None and the reason. duration_s is NaN for text."""

    key: str
    rows: np.ndarray | None
    duration_s: float = math.nan
    error: str = ""
    empty: bool = False
    in_windows: bool = False  # longer than a window of the encoder
    constant: bool = False  # all samples have one value, as a rule 0: silence that nobody recorded
    special: str = ""  # a special token that the text spells


@dataclass(frozen=True)
class Decoded:
    """One input as the encoder takes it, its samples (0 for a text), and whether all of them have one value."""

    data: Any
    n_samples: int = 0
    constant: bool = False


def iter_encode(
    encoder: Encoder,
    items: Iterable[Item],
    *,
    batch_s: float | None = None,
    workers: int | None = None,
    max_memory_gib: float | None = None,
    stored: bool = False,
) -> Generator[Encoded, None, None]:
    """Encode inputs longest first (ties by key), decoding ahead in threads; failures come as results, never raised.

    Pieces of recordings come after the files, in windows that are longest first in themselves, see `arranged`.
    The order of the results and the batches depend only on the items, batch_s and max_memory_gib (see `plan_memory`).
    Memory is bounded by a batch in the encoder and, waiting, decoded audio of two batches, of two minutes, or of one
    long file. Out of memory, twice for one batch, halves the batches from then on. Where the encoder
    overlaps, a batch is on its way to the device before the rows of the one before it are there. workers: see
    `decoding_threads`. stored: rows may come in the type in which they are stored, see `Encoder.start_prepared`.

    On a CPU in float32 rows are the same to the bit, whatever the workers and the other items, for windows run alone;
    batch_s pads batches there too, and torch's number of threads cuts sums another way: both change the rounding.
    """
    max_frames = encoder.default_batch_frames if batch_s is None else max(1, round(batch_s * FRAMES_PER_S))
    with Pool(decoding_threads(encoder) if workers is None else workers) as pool:
        items = list(items)
        sized = zip(items, pool.map(partial(size_of, encoder, exactly=max_memory_gib is not None), items), strict=True)
        work: list[tuple[int, Item, int]] = []
        for item, size in sized:
            if isinstance(size, str):
                yield Encoded(item.key, None, error=size)
            else:
                work.append((encoder.cost(size) if encoder.kind == "audio" else size, item, size))
        work.sort(key=lambda entry: (-entry[0], entry[1].key))
        if max_memory_gib is not None and work:
            limit = plan_memory(encoder, max_memory_gib, [size for _, _, size in work])
            max_frames = min(max_frames, limit.pass_frames)
            refused = [(item, limit.refusal(encoder, size)) for _, item, size in work]
            work = [entry for entry, (_, why) in zip(work, refused, strict=True) if not why]
            yield from (Encoded(item.key, None, error=f"{item.key}: {why}") for item, why in refused if why)
        keyed = [item for _, item, _ in work]
        work, windows = arranged(work, keyed, [cost for cost, _, _ in work], [size for _, _, size in work])
        before: tuple[list[tuple[Item, Decoded]], Rows] = ([], list)
        prepare = partial(_prepared, encoder)
        for part in decoded_ahead(encoder, work, max_frames, Decoder(pool, windows, prepare)):
            good: list[tuple[Item, Decoded]] = []
            for item, data in part:
                if isinstance(data, Exception):
                    yield Encoded(item.key, None, error=str(data))
                else:
                    good.append((item, data if isinstance(data, Decoded) else Decoded(data)))
            rows, max_frames = _start(encoder, [decoded.data for _, decoded in good], max_frames, stored)
            if encoder.overlaps:
                before, (good, rows) = (good, rows), before
            yield from _results(encoder, good, rows)
        yield from _results(encoder, *before)


def _prepared(encoder: Encoder, samples: np.ndarray) -> Decoded:
    return Decoded(encoder.prepare(samples), len(samples), bool(samples.min() == samples.max()))


def _start(encoder: Encoder, inputs: list[Any], max_frames: int, stored: bool) -> tuple[Rows, int]:
    """Return a function that gives the rows of each input, or a reason, and the batch size that went through.

    Out of memory, the same batch is tried once more with what torch had cached handed back; then it is halved.
    """
    tried_again = False
    while inputs:
        reason = ""
        try:
            return _launched(encoder, inputs, max_frames, stored), max_frames
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            reason = (str(error).splitlines() or [""])[0]
        # Out of the except block: the traceback no longer holds the failed pass's tensors.
        free_device_memory()
        if not tried_again:
            tried_again = True
        elif max_frames > 1:
            longest = max(encoder.cost(x if isinstance(x, str) else len(x)) for x in inputs)
            max_frames = max(1, min(max_frames, longest * len(inputs)) // 2)
        elif len(inputs) > 1:
            return partial(_joined, [_start(encoder, [x], 1, stored)[0] for x in inputs]), 1
        else:
            return partial(list, [f"{NO_ROOM} ({reason})" if reason else NO_ROOM]), 1
    return list, max_frames


def _joined(parts: Sequence[Rows]) -> list[Any]:
    return [rows for part in parts for rows in part()]


def _launched(encoder: Encoder, inputs: list[Any], max_frames: int, stored: bool) -> Rows:
    started = encoder.start_prepared(inputs, max_frames, stored=stored)
    if encoder.overlaps:
        return started
    rows = started()
    return lambda: list(rows)


def _results(encoder: Encoder, good: Sequence[tuple[Item, Decoded]], rows: Rows) -> Iterator[Encoded]:
    for (item, decoded), result in zip(good, rows(), strict=True):
        yield _result(encoder, item, decoded, result)


def _result(encoder: Encoder, item: Item, decoded: Decoded, result: np.ndarray | str) -> Encoded:
    if isinstance(result, str):
        return Encoded(item.key, None, error=f"{item.key}: {result}")
    if encoder.kind == "text":
        text = decoded.data
        is_empty, is_long, special = encoder.is_empty(text), encoder.in_windows(text), encoder.special_in(text)
        return Encoded(item.key, result, empty=is_empty, in_windows=is_long, special=special)
    duration_s, is_long = decoded.n_samples / SAMPLE_RATE_HZ, encoder.in_windows(decoded.n_samples)
    return Encoded(item.key, result, duration_s, in_windows=is_long, constant=decoded.constant)
