"""The thread that writes: in order, bounded, its errors reach the caller, and nothing that was put is lost."""

import threading
import time

import numpy as np
import pytest

from featurestore.featurize.stream import Encoded
from featurestore.featurize.writer_thread import WriterThread


def utterance(i: int, n_rows: int = 1) -> Encoded:
    return Encoded(f"u{i}", np.zeros((1, n_rows, 256), np.float32))


def test_all_that_was_put_is_written_in_order_when_the_block_ends() -> None:
    with WriterThread(lambda encoded: (time.sleep(0.001), encoded.key)[1]) as thread:
        for i in range(50):
            thread.put(utterance(i))
    assert list(thread.outcomes()) == [f"u{i}" for i in range(50)]
    assert list(thread.outcomes()) == []


def test_also_when_the_block_ends_by_an_exception() -> None:
    thread = WriterThread(lambda encoded: encoded.key)

    def interrupted() -> None:
        with thread:
            thread.put(utterance(0))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(thread.outcomes()) == ["u0"]


def test_no_more_waits_than_the_limit_but_one_utterance_always_may() -> None:
    go, most = threading.Semaphore(0), 0

    def write(encoded: Encoded) -> None:
        go.acquire()

    with WriterThread(write, limit_bytes=4 * 1024) as thread:

        def put_all() -> None:
            for i in range(12):
                thread.put(utterance(i, n_rows=100 if i == 6 else 1))  # one alone is larger than the limit

        putting = threading.Thread(target=put_all)
        putting.start()
        for _ in range(12):
            most = max(most, *(len(thread._waiting) for _ in range(10) if not time.sleep(0.002)))
            go.release()
        putting.join()
    assert 1 <= most <= 4
    assert len(list(thread.outcomes())) == 12


def test_an_error_reaches_the_caller_and_ends_the_writing() -> None:
    written_keys = []

    def write(encoded: Encoded) -> str:
        if encoded.key == "u2":
            raise OSError("the disk is gone")
        written_keys.append(encoded.key)
        return encoded.key

    thread = WriterThread(write, limit_bytes=1)

    def put_all() -> None:
        with thread:
            for i in range(100):
                thread.put(utterance(i))

    with pytest.raises(OSError, match="the disk is gone"):
        put_all()
    assert written_keys == list(thread.outcomes()) == ["u0", "u1"]


def test_an_error_after_the_last_put_reaches_the_caller_too() -> None:
    def write(encoded: Encoded) -> None:
        time.sleep(0.02)
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"), WriterThread(write) as thread:
        thread.put(utterance(0))
