"""A full disk, places that may not be written or read, files that are cut while they are read: errors that say so."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli import app
from featurestore.errors import StoreError
from featurestore.format.spec import FeatureSpec
from featurestore.loaders.batch_loader import BatchLoader, FeatureRef
from featurestore.store.feature_store import FeatureStore
from featurestore.store.verify import verify_store
from tests.helpers.small_store import NAME, STORAGES, key, quick_directory, rows, same_rows, write
from tests.helpers.warm_python import MEDUSA, run_warm

ROOT = Path(__file__).resolve().parents[3]
QUICK = (("hdf5", ""), ("zarr", "zstd"))  # the other ways of storing are among the slow tests
every_storage = pytest.mark.parametrize(
    "storage",
    [pytest.param(each, marks=() if each in QUICK else pytest.mark.slow) for each in STORAGES],
    ids="-".join,
)
WIDE = FeatureSpec("audio", "e", "none", ("l0", "l1"), 512)  # an utterance of some pages
PREPARE = """
    import sys, os
    from pathlib import Path
    from tests.helpers.small_store import *
    from featurestore.errors import StoreError
    from featurestore.store.feature_store import FeatureStore
    from tests.helpers.privileges import drop_override
    where, storage = Path(sys.argv[1]), (sys.argv[2], sys.argv[3])
    WIDE = FeatureSpec("audio", "e", "none", ("l0", "l1"), 512)

    def refused(what, *words):
        try:
            what()
        except StoreError as error:
            assert all(word in str(error) for word in words), str(error)
            assert "\\n" not in str(error)
        else:
            raise AssertionError(f"nothing refused; {words} expected")
"""


@pytest.fixture
def directory() -> Iterator[Path]:
    with quick_directory() as directory:
        yield directory


def run(code: str, *arguments: object, before: tuple[str, ...] = ()) -> str:
    """Return what `PREPARE` and then `code` print in a process of their own; `before` is a command that runs it."""
    program = textwrap.dedent(PREPARE) + textwrap.dedent(code)
    if before:
        command = [*before, sys.executable, "-W", "error", "-c", program, *map(str, arguments)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        process = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=300)
    else:
        process = run_warm(program, *arguments, warnings_are_errors=True)
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""
    return process.stdout


def small_disk(mount_point: Path) -> tuple[str, ...]:
    """Return a command that runs another one with a file system of 1 MB at `where`, which nobody else sees.

    Or skips.
    """
    mount = 'mount -t tmpfs -o size=1m tmpfs "$0" && exec "$@"'
    for unshare in (["unshare", "--mount"], ["unshare", "--mount", "--map-root-user"]):
        command = (*unshare, "sh", "-c", mount, str(mount_point))
        if (
            shutil.which("unshare")
            and subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0
        ):
            return command
    pytest.skip("no file system can be mounted here")


@every_storage
def test_a_full_disk_loses_nothing_committed(directory: Path, storage: tuple[str, str]) -> None:
    """The same writer goes on once there is room; so does a new process."""
    output = run(
        """
        ballast = where / "ballast"
        ballast.write_bytes(bytes(700_000))
        path, n = where / "s", 400
        store = FeatureStore.open_or_create(path)
        writer = store.writer(NAME, WIDE, segment_bytes=60_000, format=storage[0], compress=storage[1])
        n_refused = 0
        for i in range(n):
            while key(i) not in writer:
                try:
                    writer.append(key(i), rows(i % 40, WIDE), float(i))
                except StoreError as error:
                    assert str(path) in str(error) and "No space left on device" in str(error), str(error)
                    assert "\\n" not in str(error)
                    n_refused += 1
                    there = list(FeatureStore.open(path)[NAME])
                    assert verify_store(path) == {NAME: []}
                    assert not list((path / NAME).glob(".tmp-*"))
                    break
            if n_refused == 3:
                break
        assert n_refused == 3
        refused(lambda: write(where / "another", storage, range(100), 1 << 20, WIDE), "No space left")
        ballast.unlink()
        before = len(there)
        for i in range(25):
            if key(i) not in writer:
                writer.append(key(i), rows(i % 40, WIDE), float(i))
        writer.commit()
        features = FeatureStore.open(path)[NAME]
        assert set(features) >= set(there) | {key(i) for i in range(25)}
        assert verify_store(path)[NAME] == []
        for i in range(25):
            expected = rows(i % 40, WIDE).astype("float16")
            for layer, part in zip(features.layers, expected):
                assert features.array(key(i), layer).tobytes() == part.tobytes()
        print(before, len(features))
        """,
        directory,
        *storage,
        before=small_disk(directory),
    )
    before, after = map(int, output.split())
    assert 0 < before <= after


@every_storage
def test_files_that_may_not_grow(directory: Path, storage: tuple[str, str]) -> None:
    """As a full disk, where none can be mounted: the kernel refuses to let a file grow."""
    output = run(
        """
        import resource

        with FeatureStore.create(where / "s").writer(NAME, WIDE, format=storage[0], compress=storage[1]) as writer:
            writer.append("kept", rows(8, WIDE))
            writer.commit()
            resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
            lost = 0
            for i in range(10):
                try:
                    for j in range(20):
                        writer.append(f"lost {i} {j}", rows(j, WIDE))
                    writer.commit()
                except StoreError as error:
                    assert "File too large" in str(error) and str(where / "s" / NAME) in str(error), error
                    lost += 1
            writer.append("small", rows(1, WIDE))
        assert not list((where / "s" / NAME).glob(".tmp-*"))
        print(lost, *sorted(FeatureStore.open(where / "s")[NAME]))
        """,
        directory,
        *storage,
    )
    assert output.split() == ["10", "kept", "small"]
    assert verify_store(directory / "s") == {NAME: []}
    features = FeatureStore.open(directory / "s")[NAME]
    assert features["kept"].tobytes() == rows(8, WIDE)[1].astype("float16").tobytes()


@pytest.mark.parametrize("storage", STORAGES[:2], ids="-".join)
def test_a_disk_that_is_read_only_can_be_read(directory: Path, storage: tuple[str, str]) -> None:
    run(
        """
        import subprocess

        write(where / "s", storage, range(6), 1000)
        subprocess.run(["mount", "-o", "remount,ro", str(where)], check=True)
        assert check(where / "s", 6) == 6
        store = FeatureStore.open(where / "s")
        refused(lambda: write(where / "s", storage, range(9), 1000), str(where / "s" / NAME), "Read-only file system")
        refused(lambda: store.compact(NAME), str(where / "s" / NAME), "Read-only file system")
        refused(lambda: store.remove(NAME), str(where / "s" / NAME), "Read-only file system")
        refused(lambda: FeatureStore.create(where / "t"), str(where / "t"), "Read-only file system")
        refused(lambda: store.writer("b", SPEC), str(where / "s" / "b"), "Read-only file system")
        assert check(where / "s", 6) == 6
        """,
        directory,
        *storage,
        before=small_disk(directory),
    )


@pytest.mark.parametrize("storage", STORAGES[:2], ids="-".join)
def test_directories_that_may_not_be_written(directory: Path, storage: tuple[str, str]) -> None:
    output = run(
        """
        write(where / "s", storage, range(6), 1000)
        for entry in [where / "s", *(where / "s").rglob("*")]:
            entry.chmod(0o555 if entry.is_dir() else 0o444)
        where.chmod(0o555)
        if not drop_override():
            print("skip")
            raise SystemExit
        assert check(where / "s", 6) == 6
        store = FeatureStore.open_or_create(where / "s")
        refused(lambda: write(where / "s", storage, range(9), 1000), str(where / "s" / NAME), "Permission denied")
        refused(lambda: store.compact(NAME), str(where / "s" / NAME), "Permission denied")
        refused(lambda: store.remove(NAME), str(where / "s" / NAME), "Permission denied")
        refused(lambda: FeatureStore.create(where / "t"), str(where / "t"), "Permission denied")
        refused(lambda: FeatureStore.open_or_create(where / "t"), str(where / "t"), "Permission denied")
        refused(lambda: store.writer("b", SPEC), str(where / "s" / "b"), "Permission denied")
        assert check(where / "s", 6) == 6
        where.chmod(0o755)
        """,
        directory,
        *storage,
    )
    if output:
        pytest.skip("modes don't bind this user")


@pytest.mark.parametrize("storage", STORAGES[:3], ids="-".join)
def test_files_that_may_not_be_read_are_named(directory: Path, storage: tuple[str, str]) -> None:
    """Each file and directory in turn: who needs it gets a StoreError, `verify` names it, nothing else is harmed."""
    output = run(
        """
        path = where / "s"
        write(path, storage, range(6), 1000)
        entries = [path, *sorted(path.rglob("*"))]
        if not drop_override():
            print("skip")
            raise SystemExit
        for entry in entries:
            mode = entry.stat().st_mode
            entry.chmod(0)
            try:
                told = verify_store(path)
            except StoreError as error:
                assert entry in (path, path / "zarr.json") and str(path) in str(error), error
            else:
                problems = [problem for found in told.values() for problem in found]
                segment = [parent for parent in (entry, *entry.parents) if parent.name.startswith("seg-")]
                named = segment[0] if segment else entry
                assert any(str(named) in problem for problem in problems), (entry, problems)
            try:
                features = FeatureStore.open(path)[NAME]
                assert all(same_rows(features, i) for i in range(6))
            except StoreError as error:
                assert str(path) in str(error)
            try:
                write(path, storage, range(6), 1000)
            except StoreError as error:
                assert str(path) in str(error)
            entry.chmod(mode)
        assert check(path, 6) == 6
        """,
        directory,
        *storage,
    )
    if output:
        pytest.skip("modes don't bind this user")


def test_featurize_on_a_full_disk_exits_with_2_and_one_line(directory: Path, demo_corpus: Path) -> None:
    """And with what is there already intact: a second run, with room, goes on."""
    manifest = str(directory / "corpus.csv")
    prepared = CliRunner().invoke(app, ["prepare", "ravdess", "--root", str(demo_corpus), "-o", manifest])
    assert prepared.exit_code == 0, prepared.output
    command = ["featurize", "--encoder", "logmel", "-m", manifest, "-s", str(directory / "s")]
    process = run_warm(
        f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (32768, 32768)); {MEDUSA}", *command
    )
    assert process.returncode == 2
    assert process.stderr.strip().count("\n") == 0
    assert "File too large" in process.stderr
    assert str(directory / "s") in process.stderr
    assert verify_store(directory / "s") == {"logmel": []}
    assert not list((directory / "s" / "logmel").glob(".tmp-*"))


def cut_rows(path: Path) -> None:
    """Truncate the file of a segment's rows to a page."""
    for segment in (path / NAME).glob("seg-*"):
        os.truncate(segment if segment.is_file() else segment / "l1/c/0/0", 4096)


@every_storage
def test_a_file_that_is_cut_while_it_is_read(directory: Path, storage: tuple[str, str]) -> None:
    path, keys = directory / "s", [key(i) for i in range(20)]
    write(path, storage, range(20), 1 << 20, WIDE)
    features = FeatureStore.open(path)[NAME]
    assert all(same_rows(features, i) for i in range(20))
    cut_rows(path)
    for reader in (features.gather, features.arrays, lambda keys: features.gather(keys, dtype="float32")):
        with pytest.raises(StoreError, match=r"seg-.* truncated"):
            reader(keys)
    assert any("seg-" in problem for problem in verify_store(path)[NAME])


@every_storage
def test_a_file_that_is_cut_between_batches(directory: Path, storage: tuple[str, str]) -> None:
    """A training run ends with an error that names the file."""
    path = directory / "s"
    write(path, storage, range(40), 1 << 20, WIDE)
    batches = [[key(i + j) for j in range(4)] for i in range(0, 40, 4)]
    loader = BatchLoader(FeatureStore.open(path), [FeatureRef(NAME)], batches * 2, threads=0)
    n_read = 0
    with pytest.raises(StoreError, match=r"seg-.* truncated"):  # noqa: PT012
        for _ in loader:
            n_read += 1
            if n_read == 5:
                cut_rows(path)
    assert n_read == 5


@every_storage
def test_a_file_that_is_cut_while_threads_read_ahead(directory: Path, storage: tuple[str, str]) -> None:
    """A StoreError or, where a thread was copying just then, a fatal error that names the signal; never silence."""
    write(directory / "s", storage, range(40), 1 << 20, WIDE)
    code = """
        import faulthandler, os, sys
        from pathlib import Path
        from tests.helpers.small_store import NAME, key
        from featurestore.errors import StoreError
        from featurestore.loaders.batch_loader import BatchLoader, FeatureRef
        from featurestore.store.feature_store import FeatureStore

        faulthandler.enable(all_threads=False)
        path = Path(sys.argv[1])
        batches = [[key(i + j) for j in range(4)] for i in range(0, 40, 4)] * 1000
        try:
            for i, _ in enumerate(BatchLoader(FeatureStore.open(path), [FeatureRef(NAME)], batches, threads=2)):
                if i == 20:
                    for segment in (path / NAME).glob("seg-*"):
                        os.truncate(segment if segment.is_file() else segment / "l1/c/0/0", 4096)
        except StoreError as error:
            sys.exit(f"error: {error}")
    """
    process = run_warm(textwrap.dedent(code), directory / "s")
    if process.returncode == 1:
        assert "truncated while it was in use" in process.stderr
        assert process.stderr.count("\n") == 1
    else:
        assert process.returncode == -signal.SIGBUS
        # A second thread may end the process before the whole stack is out.
        assert "Fatal Python error: Bus error" in process.stderr


@pytest.mark.parametrize("storage", STORAGES[:2], ids="-".join)
def test_a_file_that_is_cut_at_the_moment_of_copying(directory: Path, storage: tuple[str, str]) -> None:
    """What can't be an error (the kernel sends SIGBUS) is told: `medusa` prints the signal's name and where it was."""
    write(directory / "s", storage, range(20), 1 << 20, WIDE)
    code = """
        import os, sys
        from pathlib import Path
        import cli
        from tests.helpers.small_store import NAME, key
        from featurestore.store.feature_store import FeatureStore

        sys.argv[1:], path = ["--version"], Path(sys.argv[1])
        try:
            cli.main()
        except SystemExit as done:
            assert not done.code
        features = FeatureStore.open(path)[NAME]
        views = [features.array(key(i)) for i in range(20)]

        def copy():
            return sum(float(view.sum()) for view in views)

        copy()
        for segment in (path / NAME).glob("seg-*"):
            os.truncate(segment if segment.is_file() else segment / "l1/c/0/0", 4096)
        copy()
    """
    process = run_warm(textwrap.dedent(code), directory / "s")
    assert process.returncode == -signal.SIGBUS
    assert "Fatal Python error: Bus error" in process.stderr
    assert "in copy" in process.stderr
