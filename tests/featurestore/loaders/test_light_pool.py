"""Calls begin in order, errors reach who asks for the outcome, and no thread outlives its pool or the interpreter."""

import os
import subprocess
import sys
import threading
import time

import pytest

from featurestore.loaders.light_pool import LightPool


def test_each_outcome_is_that_of_its_call_and_they_begin_in_order() -> None:
    begun: list[int] = []
    pool = LightPool(1, "calls")
    outcomes = [pool.submit(lambda i: (begun.append(i), 2 * i)[1], i) for i in range(50)]
    assert [outcome.result() for outcome in outcomes] == list(range(0, 100, 2))
    assert begun == list(range(50))
    pool.shutdown()


def test_threads_work_side_by_side() -> None:
    both = threading.Barrier(2, timeout=30)
    pool = LightPool(2, "pair")
    assert {outcome.result() for outcome in [pool.submit(both.wait), pool.submit(both.wait)]} == {0, 1}
    pool.shutdown()


@pytest.mark.parametrize("error", [ValueError("no rows"), KeyboardInterrupt()])
def test_what_a_call_raises_is_raised_where_its_outcome_is_asked_for(error: BaseException) -> None:
    def fail() -> None:
        raise error

    pool = LightPool(1, "failing")
    failing, next_one = pool.submit(fail), pool.submit(int)
    with pytest.raises(type(error)) as raised:
        failing.result()
    assert raised.value is error
    assert next_one.result() == 0  # the thread goes on
    pool.shutdown()


def test_shutting_down_waits_for_what_has_begun_and_leaves_the_rest_out() -> None:
    entered, may_end, done = threading.Event(), threading.Event(), []

    def slow() -> None:
        entered.set()
        may_end.wait(30)
        done.append("begun")

    pool = LightPool(1, "ending")
    pool.submit(slow)
    pool.submit(done.append, "not begun")
    entered.wait(30)
    ending = threading.Thread(target=pool.shutdown)
    ending.start()
    time.sleep(0.05)
    assert ending.is_alive()
    may_end.set()
    ending.join(30)
    assert done == ["begun"]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ending")]
    pool.shutdown()  # again: nothing is left to do


def test_threads_that_could_not_all_start_are_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[threading.Thread] = []
    start = threading.Thread.start

    def start_one(thread: threading.Thread) -> None:
        if started:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_one)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        LightPool(3, "short")
    assert not started[0].is_alive()


LEFT_ALONE = """
import sys, time
from featurestore.loaders.light_pool import LightPool
pool = LightPool(2, "left")
def work():
    print("begun", flush=True)
    time.sleep(0.3)
    print("ended", flush=True)
pool.submit(work)
time.sleep(0.1)
"""


def test_the_interpreter_ends_with_a_pool_that_nobody_shut_down_and_its_call_is_finished() -> None:
    run = subprocess.run([sys.executable, "-c", LEFT_ALONE], capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stdout, run.stderr) == (0, "begun\nended\n", "")


def test_a_pool_may_be_shut_down_in_one_of_its_threads() -> None:
    """As when the garbage collector, which may run in any thread, finds an iteration that was left."""
    pool = LightPool(2, "own")
    pool.submit(pool.shutdown).result()
    for thread in pool._threads:
        thread.join(30)
        assert not thread.is_alive()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_forked_process_ends_without_the_threads_of_its_parent() -> None:
    forking = LEFT_ALONE + "import os\nchild = os.fork()\nif child:\n    sys.exit(os.waitpid(child, 0)[1])\n"
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", forking], capture_output=True, text=True, timeout=60
    )  # Python warns of forks beside threads
    assert (run.returncode, run.stdout, run.stderr) == (0, "begun\nended\n", "")
