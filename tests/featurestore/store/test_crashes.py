"""Whenever a process dies or a call is refused: the store is whole, and a second run completes it to the same bytes."""

import errno
import os
import random
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from featurestore.store.feature_store import FeatureStore
from tests.helpers.crash_server import STORE_ERROR, Crashes
from tests.helpers.small_store import NAME, STORAGES, check, quick_directory, segments, write

Storage = tuple[str, str]
KILLED = -signal.SIGKILL
pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="pidfd_open is there on Linux only")
every_storage = pytest.mark.parametrize("storage", STORAGES, ids="-".join)
# Blosc's path is zstd's. Every third call of one way runs always.
QUICK = pytest.param(("hdf5", ""), "", 3, id="hdf5--sampled")
REFUSED = [(s, refusal) for refusal in ("", "ENOSPC") for s in STORAGES if s[1] != "blosc"]
REFUSED += [(("zarr", ""), "EIO"), (("hdf5", ""), "EIO")]
at_every_call = pytest.mark.parametrize(
    ("storage", "refusal", "step"),
    [QUICK, *(pytest.param(s, r, 1, marks=pytest.mark.slow, id=f"{'-'.join(s)}-{r}") for s, r in REFUSED)],
)


@pytest.fixture(scope="module")
def crashes() -> Iterator[Crashes]:
    with Crashes() as crashes:
        yield crashes


@pytest.fixture
def traced(crashes: Crashes) -> Crashes:
    if not crashes.can_trace():
        pytest.skip("calls can't be traced here (ptrace, Linux on x86-64)")
    return crashes


@pytest.fixture
def directory() -> Iterator[Path]:
    with quick_directory() as directory:
        yield directory


@pytest.mark.parametrize("n_kills", [4, pytest.param(40, marks=pytest.mark.slow)])
@every_storage
def test_killed_at_random_moments(crashes: Crashes, directory: Path, storage: Storage, n_kills: int) -> None:
    """Many times for each way of storing; each store is taken up again until it is complete."""
    n, size = 40, 6000
    undisturbed = [
        crashes("write", directory / f"whole{i}", storage, n=n, segment_bytes=size, after_s=60) for i in range(3)
    ]
    moments, usual_s = random.Random(0), sorted(outcome["took_s"] for outcome in undisturbed)[1]
    expected = segments(directory / "whole0")
    assert len({name.split("/")[2] for name in expected}) > 1
    n_killed = n_runs = n_there = 0
    path = directory / "0"
    while n_killed < n_kills:
        n_runs += 1
        assert n_runs < 1000
        outcome = crashes("write", path, storage, n=n, segment_bytes=size, after_s=moments.uniform(0, usual_s))
        assert outcome["code"] in (KILLED, 0)
        n_killed += outcome["code"] == KILLED
        before, n_there = n_there, check(path, n)
        assert n_there >= before, "what was committed is lost"
        if n_there == n:
            assert segments(path) == expected
            path, n_there = directory / str(n_runs), 0
    write(path, storage, range(n), size)
    assert segments(path) == expected


def calls_one_by_one(
    crashes: Crashes, prepare: Any, action: str, storage: Storage, *, step: int = 1, **settings: Any
) -> Iterator[Any]:
    """Let `action` die before (or be refused) its first call that changes files, on a new store its second, ...

    step: 3 takes the first, the fourth, the seventh.
    """
    k, n_calls = 1, 1
    while k <= n_calls:
        path = prepare()
        outcome = crashes(action, path, storage, at=k, **settings)
        n_calls = len(outcome["calls"])
        if n_calls < k:
            assert outcome["code"] == 0
            return
        values = f"call {k}, {outcome['calls'][-1]}: exit code {outcome['code']}, {outcome['stderr']}"
        if settings.get("error"):
            assert outcome["code"] in (0, STORE_ERROR), values
            assert outcome["stderr"].count("\n") == (outcome["code"] == STORE_ERROR), values
        else:
            assert outcome["code"] == KILLED, values
        yield path, values
        k += step
        n_calls = max(n_calls, k)
        shutil.rmtree(path, ignore_errors=True)


@at_every_call
def test_any_call_of_a_writer_may_be_its_last(
    traced: Crashes, directory: Path, storage: Storage, refusal: str, step: int
) -> None:
    """Killed before it, or refused: what a second run leaves are the bytes of an undisturbed one."""
    settings = {"n": 6, "segment_bytes": 1500, "error": getattr(errno, refusal, 0), "step": step}
    write(directory / "whole", storage, range(6), 1500)
    expected, met = segments(directory / "whole"), set()
    for path, message in calls_one_by_one(traced, lambda: directory / "s", "write", storage, **settings):
        met.add(check(path, 6))
        write(path, storage, range(6), 1500)
        assert segments(path) == expected, message
        assert check(path, 6) == 6
    assert len(met) > 2, "moments before, between and after the segments were met"


@at_every_call
def test_any_call_of_a_compaction_may_be_its_last(
    traced: Crashes, directory: Path, storage: Storage, refusal: str, step: int
) -> None:
    """Every utterance is there at every moment, and a second compaction does what the first would have."""
    for i in range(3):  # the last two hold a key twice
        write(directory / "old", storage, range(3 * i, 3 * i + 3), 1 << 20)
    shutil.copytree(directory / "old", directory / "whole")
    FeatureStore.open(directory / "whole").compact(NAME)
    expected = segments(directory / "whole")
    prepare = lambda: shutil.copytree(directory / "old", directory / "s")  # noqa: E731
    n_met = 0
    settings = {"n": 9, "error": getattr(errno, refusal, 0), "step": step}
    for path, message in calls_one_by_one(traced, prepare, "compact", storage, **settings):
        n_met += 1
        assert check(path, 9) == 9, message
        FeatureStore.open(path).compact(NAME)
        assert segments(path) == expected, message
    assert n_met > 20 / step


def test_any_call_of_a_removal_may_be_its_last(traced: Crashes, directory: Path) -> None:
    """The set is whole or not there."""
    write(directory / "old", STORAGES[0], range(4), 1 << 20)
    prepare = lambda: shutil.copytree(directory / "old", directory / "s")  # noqa: E731
    result = {check(path, 4) for path, _ in calls_one_by_one(traced, prepare, "remove", STORAGES[0], n=4)}
    assert result == {0, 4}


@pytest.mark.slow
@pytest.mark.parametrize("refusal", ["EIO", "EACCES"])
@pytest.mark.parametrize("storage", STORAGES[:3], ids="-".join)
def test_any_call_of_a_reader_may_be_refused(traced: Crashes, directory: Path, storage: Storage, refusal: str) -> None:
    """A disk that fails, a file that may not be read: a StoreError or the right rows."""
    write(directory / "s", storage, range(4), 800)
    codes = []
    for k in range(1, 1000):
        outcome = traced("read", directory / "s", storage, n=4, at=k, error=getattr(errno, refusal))
        if len(outcome["calls"]) < k:
            break
        values = f"call {k}, {outcome['calls'][-1]}: {outcome['stderr']}"
        assert outcome["code"] in (0, STORE_ERROR), values
        assert outcome["stderr"].count("\n") == (outcome["code"] == STORE_ERROR), values
        codes.append(outcome["code"])
    assert codes.count(STORE_ERROR) > len(codes) / 2


@every_storage
def test_what_a_rename_makes_visible_was_made_durable(traced: Crashes, directory: Path, storage: Storage) -> None:
    """A loss of power after any call keeps every segment that is there: files and directories are fsynced before."""
    for action in ("write", "compact"):
        outcome = traced(action, directory / "s", storage, n=8, segment_bytes=1500 if action == "write" else 1 << 20)
        assert outcome["code"] == 0, outcome["stderr"]
        assert len(outcome["unsynced"]) >= 1
        assert [lost for _, lost in outcome["unsynced"] if lost] == []
        assert outcome["left_unsynced"] == []
