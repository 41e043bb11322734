"""Costly directories, made once for a whole run of the tests, also where pytest-xdist runs them in processes."""

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """Return the directory `name` that `make` filled, in this process or in another one of the same run.

    Tests share the directory: a test that changes a file works on a copy (`copy_of`).
    """
    root = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # a worker's own directory lies in that of the run
        root = root.parent
    directory, mark = root / name, root / f"{name}.done"
    with (root / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not mark.exists():
            shutil.rmtree(directory, ignore_errors=True)  # of a try that failed
            directory.mkdir()
            make(directory)
            mark.touch()
    return directory


def copy_of(original: Path, factory: pytest.TempPathFactory) -> Path:
    """Return a copy of a directory of `made_once`, in a new directory of the same name."""
    return Path(shutil.copytree(original, factory.mktemp(original.name) / original.name))
