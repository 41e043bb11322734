"""A thread that writes: encoding goes on while rows are cast, checked, written and committed."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

from featurestore.featurize.stream import Encoded

QUEUE_BYTES = 64 << 20  # of rows that wait for the disk; one utterance always may


class WriterThread:
    """Calls `write(encoded)` for each utterance put, in order, in a thread of its own; a context manager.

    put waits while QUEUE_BYTES of rows wait. `outcomes` gives what `write` returned, in order. When `write` raises,
    nothing more is written, and the next put, or the end of the `with` block, raises it in the caller's thread. The
    end of the block, however it comes, waits until all that was put is written.
    """

    def __init__(self, write: Callable[[Encoded], Any], limit_bytes: int = QUEUE_BYTES) -> None:
        self._write = write
        self._limit_bytes = limit_bytes
        self._waiting: deque[Encoded] = deque()
        self._waiting_bytes = 0
        self._closed = False
        self._error: BaseException | None = None
        self._outcomes: deque[Any] = deque()
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="medusa-write", daemon=True)

    def __enter__(self) -> WriterThread:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()
        if error is None:
            self._raise()

    def put(self, encoded: Encoded) -> None:
        """Hand one utterance over; raises what writing an earlier one raised."""
        size = _bytes(encoded)
        with self._changed:
            while self._error is None and self._waiting_bytes and self._waiting_bytes + size > self._limit_bytes:
                self._changed.wait()
            self._raise()
            self._waiting.append(encoded)
            self._waiting_bytes += size
            self._changed.notify_all()

    def outcomes(self) -> Iterator[Any]:
        """Yield what has been written since the last call."""
        while self._outcomes:
            yield self._outcomes.popleft()

    def _raise(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._closed:
                    self._changed.wait()
                if not self._waiting:
                    return
                encoded = self._waiting[0]
            try:
                self._outcomes.append(self._write(encoded))
            except BaseException as error:
                with self._changed:
                    self._error = error
                    self._waiting.clear()
                    self._waiting_bytes = 0
                    self._changed.notify_all()
                return
            with self._changed:
                self._waiting.popleft()
                self._waiting_bytes -= _bytes(encoded)
                self._changed.notify_all()


def _bytes(encoded: Encoded) -> int:
    return 0 if encoded.rows is None else int(encoded.rows.nbytes)
