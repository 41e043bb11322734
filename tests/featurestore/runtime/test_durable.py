"""What is replaced is there whole or not at all, and what can't be written is named with the system's reason."""

import errno
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from featurestore.errors import ConfigError
from featurestore.runtime import durable


@pytest.fixture
def files_of_4_kb() -> Iterator[None]:
    """No file may grow beyond 4,000 bytes, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_file_is_replaced_in_a_directory_that_was_not_there(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file"
    for text in (b"old", b"new"):
        durable.replace_file(path, lambda file, text=text: file.write(text))
        assert path.read_bytes() == text
    assert os.listdir(path.parent) == ["file"]


def test_a_file_that_does_not_fit_leaves_the_old_one_and_nothing_else(tmp_path: Path, files_of_4_kb: None) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(OSError, match="File too large") as raised:
        durable.replace_file(path, lambda file: file.write(bytes(10_000)))
    assert (raised.value.errno, raised.value.filename) == (errno.EFBIG, str(path))
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_writer_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail(file: object) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        durable.replace_file(path, fail)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_the_error_is_of_the_caller_s_kind_and_names_file_reason_and_remedy(tmp_path: Path) -> None:
    path = tmp_path / "file" / "below"
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="Do this") as raised, durable.writing(path, ConfigError, "Do this."):
        durable.replace_file(path, lambda file: file.write(b""))
    assert str(path) in str(raised.value)
    assert os.strerror(errno.EEXIST) in str(raised.value) or os.strerror(errno.ENOTDIR) in str(raised.value)


def test_a_name_as_long_as_a_name_may_be_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 255)
    durable.replace_file(path, lambda file: file.write(b"data"))
    assert path.read_bytes() == b"data"


def test_a_directory_takes_the_place_of_another_whole(tmp_path: Path) -> None:
    fresh, target = tmp_path / "made", tmp_path / "target"
    for directory, name in ((fresh, "new"), (target, "old")):
        (directory / "below").mkdir(parents=True)
        (directory / "below" / name).touch()
    durable.replace_directory(fresh, target)
    assert os.listdir(target / "below") == ["new"]
    assert os.listdir(tmp_path) == ["target"]


def test_of_two_writers_the_first_one_s_file_counts(tmp_path: Path) -> None:
    durable.write_once(tmp_path / "file", b"first", size=10)
    durable.write_once(tmp_path / "file", b"second")
    assert (tmp_path / "file").read_bytes() == b"first" + bytes(5)
    assert os.listdir(tmp_path) == ["file"]
