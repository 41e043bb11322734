"""Pieces of long recordings: in which order they are worked on, and decoded in one pass over each recording.

Work goes from longest to shortest, so that batches are of like lengths. For pieces that would mean to jump about in
their recordings; so they are taken in windows of consecutive pieces, longest first in each.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

import numpy as np

from featurestore.audio import SAMPLE_RATE_HZ, Clip, OnePass, decode
from featurestore.featurize.items import Item
from featurestore.runtime.stage_clock import stage

WINDOW_SAMPLES = 300 * SAMPLE_RATE_HZ  # of pieces that are decoded together, or one longer piece

Entry = TypeVar("Entry")


def arranged(
    work: Iterable[Entry], items: Sequence[Item], costs: Sequence[float], n_samples: Sequence[int]
) -> tuple[list[Entry], list[list[Item]]]:
    """Return work in its order, and the windows of pieces to be decoded together, each of one recording.

    Whole files come first, longest first, ties by key. Pieces follow by recording, in windows of consecutive ones of
    at most WINDOW_SAMPLES in sum; one window may hold the pieces of several short recordings, longest first.
    """
    work = list(work)
    by_length = lambda i: (-costs[i], items[i].key)  # noqa: E731
    files = sorted((i for i, item in enumerate(items) if not isinstance(item.source, Clip)), key=by_length)
    pieces = sorted(
        (i for i, item in enumerate(items) if isinstance(item.source, Clip)), key=lambda i: _place(items[i])
    )
    order, windows = files, list[list[Item]]()
    window: list[int] = []
    n_window = 0
    for i in [*pieces, -1]:
        if window and (i < 0 or n_window + n_samples[i] > WINDOW_SAMPLES):
            order += sorted(window, key=by_length)
            windows += _by_recording([items[j] for j in window])
            window, n_window = [], 0
        if i >= 0:
            window.append(i)
            n_window += n_samples[i]
    return [work[i] for i in order], windows


class Decoder:
    """Decodes items in a pool: files one by one, a window's pieces of a recording together, in one pass over it.

    prepare: what else is done with an item's samples there; its result takes their place.
    """

    def __init__(
        self,
        pool: ThreadPoolExecutor,
        windows: Sequence[Sequence[Item]],
        prepare: Callable[[np.ndarray], Any] = lambda samples: samples,
    ) -> None:
        self._pool, self._prepare = pool, prepare
        self._window_of = {item.key: window for window in windows for item in window}
        n_windows = Counter(_path(window[0]) for window in windows)
        self._recordings = {path: _Recording(OnePass(path), n) for path, n in n_windows.items()}
        self._futures: dict[str, Future[Any]] = {}

    def submit(self, item: Item) -> Future[Any]:
        """Return the samples-to-be of an item, prepared, whose result may be an AudioError."""
        if item.key not in self._window_of:
            return self._pool.submit(self.decode, item)
        if item.key not in self._futures:
            window = self._window_of[item.key]
            futures: list[Future[Any]] = [Future() for _ in window]
            self._futures |= {each.key: future for each, future in zip(window, futures, strict=True)}
            recording = self._recordings[_path(window[0])]
            if recording.add(zip(window, futures, strict=True)):
                self._pool.submit(self._decode_pieces, recording)
        return self._futures.pop(item.key)

    def decode(self, item: Item) -> Any:
        """Return the samples of an item, prepared, decoded here and now; AudioError as in `featurestore.audio`."""
        with stage("decode"):
            samples = decode(item.source)
        _note(item, samples)
        return self._prepare(samples)

    def _decode_pieces(self, recording: _Recording) -> None:
        for item, future in recording.pieces():
            try:
                with stage("decode"):
                    assert isinstance(item.source, Clip)
                    samples = recording.one_pass.read(item.source)
                _note(item, samples)
                future.set_result(self._prepare(samples))
            except Exception as error:  # it is raised where the result is asked for
                future.set_exception(error)


class _Recording:
    """The pieces of a recording, for one thread at a time: two would send each other back to its beginning."""

    def __init__(self, one_pass: OnePass, n_windows: int) -> None:
        self.one_pass = one_pass
        self._windows_to_come = n_windows
        self._lock = Lock()
        self._waiting: deque[tuple[Item, Future[Any]]] = deque()
        self._at_work = False

    def add(self, window: Iterable[tuple[Item, Future[Any]]]) -> bool:
        """Add a window's pieces, in their order; return whether a thread must be set to work on them."""
        with self._lock:
            self._waiting += window
            self._windows_to_come -= 1
            idle, self._at_work = not self._at_work, True
            return idle

    def pieces(self) -> Iterator[tuple[Item, Future[Any]]]:
        """Yield what waits until nothing does; after the last window the file is closed."""
        while True:
            with self._lock:
                if not self._waiting:
                    self._at_work = False
                    if not self._windows_to_come:
                        self.one_pass.close()
                    return
                piece = self._waiting.popleft()
            yield piece


def _note(item: Item, samples: np.ndarray) -> None:
    if item.recorder is not None:
        with stage("identify"):
            item.recorder(samples)


def _by_recording(items: Sequence[Item]) -> list[list[Item]]:
    items_of_path: dict[Path, list[Item]] = {}
    for item in items:
        items_of_path.setdefault(_path(item), []).append(item)
    return list(items_of_path.values())


def _path(item: Item) -> Path:
    assert isinstance(item.source, Clip)
    return item.source.path


def _place(item: Item) -> tuple[str, float, str]:
    assert isinstance(item.source, Clip)
    return str(item.source.path), item.source.start_s, item.key
