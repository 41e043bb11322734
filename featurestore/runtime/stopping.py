"""SIGINT and SIGTERM as one clean stop that never tears what is being written."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, ClassVar


class Interrupted(KeyboardInterrupt):
    """A run stopped by SIGINT or SIGTERM after committing what it had finished; carries the signal and the report."""

    def __init__(self, signum: int, report: Any) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.signum = signum
        self.report = report


class StopSignals:
    """SIGINT and SIGTERM stop the run at once while it encodes, and after the current utterance while it writes.

    Only a process's main thread receives signals; a run in another one is stopped by `stop_runs`.
    """

    _open: ClassVar[set[StopSignals]] = set()

    def __init__(self) -> None:
        self.signum = 0
        self._report: Any = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():  # only there may handlers be set
            for signum in (signal.SIGINT, signal.SIGTERM):
                self._previous[signum] = signal.signal(signum, self._handle)
        self._open.add(self)
        return self

    def __exit__(self, *exc: object) -> None:
        self._open.discard(self)
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        self.signum = signum
        # Disarmed before it raises: a second signal, during the commit that follows, only repeats the first.
        report, self._report = self._report, None
        if report is not None:
            raise Interrupted(signum, report)

    @contextmanager
    def raising(self, report: Any) -> Iterator[None]:
        """Raise Interrupted at once on a signal within the context; one that came before raises on entry."""
        self._report = report
        try:
            if self.signum:
                raise Interrupted(self.signum, report)
            yield
        finally:
            self._report = None


def stop_runs(signum: int) -> None:
    """Stop the runs of all threads of this process as a signal would, each at its next utterance or batch."""
    for run in list(StopSignals._open):
        run.signum = run.signum or signum
