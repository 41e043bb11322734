"""Threads for a caller that has no time to spare, such as a training loop."""

import atexit
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, Generic, TypeVar
from weakref import WeakSet

T = TypeVar("T")


class Outcome(Generic[T]):
    """What a call will have returned or raised."""

    def __init__(self) -> None:
        self._comes: SimpleQueue[tuple[T | None, BaseException | None]] = SimpleQueue()

    def put(self, value: T | None, error: BaseException | None = None) -> None:
        self._comes.put((value, error))

    def result(self) -> T:
        """Wait for it; may be called once."""
        value, error = self._comes.get()
        if error is not None:
            raise error
        return value  # type: ignore[return-value]  # it was put without an error


class LightPool:
    """A pool of threads that takes little of its caller's time: a queue in C is all that they share.

    Where the caller's own computation has taken the cache, ThreadPoolExecutor's submit and result take much longer
    (docs/speed.md). Calls begin in their order. A context manager, whose end shuts it down; threads that nobody shuts
    down end with the interpreter, and a forked process has none of them.
    """

    def __init__(self, n_threads: int, name: str) -> None:
        self._process = os.getpid()
        self._calls: SimpleQueue[tuple[Outcome[Any], Callable[..., Any], tuple[Any, ...]] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        _running.add(self)
        try:
            for i in range(n_threads):
                thread = threading.Thread(target=_serve, args=(self._calls,), name=f"{name}_{i}", daemon=True)
                thread.start()
                self._threads.append(thread)
        except BaseException:  # such as "can't start new thread"
            self.shutdown()
            raise

    def __enter__(self) -> "LightPool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown()

    def submit(self, function: Callable[..., T], *arguments: Any) -> Outcome[T]:
        """Have a thread call the function; an outcome never comes if the pool is shut down before the call began."""
        outcome: Outcome[T] = Outcome()
        self._calls.put((outcome, function, arguments))
        return outcome

    def shutdown(self) -> None:
        """Leave out the calls that have not begun, and wait for the others; does nothing in a forked process."""
        if os.getpid() != self._process:
            return
        with suppress(Empty):
            while True:
                self._calls.get_nowait()
        for _ in self._threads:
            self._calls.put(None)
        for thread in self._threads:
            if thread is not threading.current_thread():  # in which an abandoned iteration may be collected
                thread.join()
        _running.discard(self)


def _serve(calls: "SimpleQueue[tuple[Outcome[Any], Callable[..., Any], tuple[Any, ...]] | None]") -> None:
    while (call := calls.get()) is not None:
        outcome, function, arguments = call
        try:
            outcome.put(function(*arguments))
        except BaseException as error:
            outcome.put(None, error)
        del call, outcome, function, arguments  # while the next is waited for


_running: WeakSet[LightPool] = WeakSet()


def _end_all() -> None:
    for pool in list(_running):
        pool.shutdown()


# Daemon threads must not be at work while the interpreter is taken down, and others would keep it from ending.
atexit.register(_end_all)
