"""A store at a URL reads like the directory it was copied from: from a real S3 server, web servers, and memory."""

import multiprocessing
import os
import pickle
import random
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from itertools import pairwise
from multiprocessing import forkserver
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.errors import RemoteError, StoreError
from featurestore.format.spec import FeatureSpec
from featurestore.remote.mirror import Mirror
from featurestore.remote.sparse import SparseFile
from featurestore.sets.feature_set import FeatureSet
from featurestore.store.feature_store import FeatureStore
from featurestore.store.verify import verify_store
from featurestore.transfer.copy import push
from tests.helpers.s3_server import S3, has_moto
from tests.helpers.small_store import STORAGES
from tests.helpers.warm_python import WarmProcess, run_warm
from tests.helpers.web_server import Web

needs_moto = pytest.mark.skipif(not has_moto(), reason="moto with flask, and s3fs, are not installed")
SPEC = FeatureSpec("audio", "e", "none", ("l0", "l1"), 64, 50.0)
BUT_BLOSC = [storage for storage in STORAGES if storage[1] != "blosc"]  # blosc's path is zstd's
BLOCK = 1 << 13
N = 24


def rows(i: int, spec: FeatureSpec = SPEC) -> np.ndarray:
    """(L, T, D) of utterance i; some have no rows."""
    n = 37 * i % 101 if i % 6 else 0
    return np.random.default_rng(i).standard_normal((len(spec.layers), n, spec.dim)).astype(np.float32)


def write(
    path: Path, name: str = "set/a", keys: range = range(N), storage: tuple[str, str] = ("zarr", ""),
    spec: FeatureSpec = SPEC, segment_bytes: int = 100_000,
) -> FeatureSet:  # fmt: skip
    """Return a few segments of some 100 kB."""
    store = FeatureStore.open_or_create(path)
    options = {"format": storage[0], "compress": storage[1]}
    with store.writer(name, spec, segment_bytes=segment_bytes, **options) as writer:  # type: ignore[arg-type]
        for i in keys:
            writer.append(f"u{i}", rows(i, spec), i / 4)
    return store[name]


def same(actual: FeatureSet, expected: FeatureSet, layers: tuple[str, ...] = SPEC.layers) -> None:
    keys = list(expected)
    assert sorted(actual) == sorted(keys)
    np.testing.assert_array_equal(actual.durations_s(keys), expected.durations_s(keys))
    for layer in layers:
        assert actual.gather(keys, layer).values.tobytes() == expected.gather(keys, layer).values.tobytes()
        for key in keys:
            assert actual.stored(key, layer).tobytes() == expected.stored(key, layer).tobytes()
            assert actual.array(key, layer).tobytes() == expected.array(key, layer).tobytes()


def opened(url: str, cache: Path, block_bytes: int = BLOCK) -> FeatureStore:
    """As FeatureStore.open, with small blocks."""
    mirror = Mirror(url, cache, block_bytes)
    return FeatureStore(mirror.root, mirror)


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    with S3(tmp_path_factory.mktemp("s3")) as server:
        yield server


PROTOCOLS = ("http", "http --no-ranges", "memory", "file")
# Stores at the S3 server take seconds each: it is among the protocols of one ordinary test, and of every slow one.
with_s3 = pytest.mark.parametrize("published", [pytest.param("s3", marks=needs_moto), *PROTOCOLS], indirect=True)


@pytest.fixture(params=[pytest.param("s3", marks=[needs_moto, pytest.mark.slow]), *PROTOCOLS])
def published(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[Path], str]]:
    """Make a local store available, and yield its URL."""
    name = f"{abs(hash(request.node.nodeid)):x}"
    protocol, *options = request.param.split()
    with ExitStack() as stack:

        def publish(store: Path) -> str:
            if protocol == "http":
                return stack.enter_context(Web(store, tmp_path / "web.log", *options)).url
            if protocol == "file":
                return f"file://{store}"
            url = request.getfixturevalue("s3").url(name) if protocol == "s3" else f"memory://{name}"
            push(store, url)
            return str(url)

        yield publish


def web(tmp_path: Path, stack: ExitStack, *options: str) -> Web:
    return stack.enter_context(Web(tmp_path / "store", tmp_path / "web.log", *options))


class TestReading:
    @pytest.mark.parametrize("storage", BUT_BLOSC, ids="-".join)
    def test_every_way_of_storing_reads_as_locally(
        self, published: Callable[[Path], str], storage: tuple[str, str], tmp_path: Path
    ) -> None:
        local = write(tmp_path / "store", storage=storage)
        remote = FeatureStore.open(published(tmp_path / "store"), cache=tmp_path / "cache")
        assert remote.names() == ["set/a"]
        assert len(local.segments) > 1
        same(remote["set/a"], local)
        assert remote["set/a"].verify() == []

    @with_s3
    def test_int8_rows_and_their_scales_read_as_locally(self, published: Callable[[Path], str], tmp_path: Path) -> None:
        local = write(tmp_path / "store", spec=replace(SPEC, dtype="int8"))
        remote = FeatureStore.open(published(tmp_path / "store"), cache=tmp_path / "cache")["set/a"]
        same(remote, local)

    def test_a_store_of_several_sets_and_posteriors(self, published: Callable[[Path], str], tmp_path: Path) -> None:
        posteriors = FeatureSpec(
            "posteriors", "m1", "none", ("posteriors",), 3, dtype="float32", columns=("a", "b", "c")
        )
        store = FeatureStore.create(tmp_path / "store")
        values = np.random.default_rng(0).random((500, 1, 1, 3), dtype=np.float32)
        with store.writer("posteriors/m1", posteriors) as writer:
            for i, value in enumerate(values):
                writer.append(f"u{i}", value)
        write(tmp_path / "store", "b", range(3))
        store.writer("empty", SPEC)
        remote = FeatureStore.open(published(tmp_path / "store"), cache=tmp_path / "cache")
        assert remote.names() == ["b", "empty", "posteriors/m1"]
        assert len(remote["empty"]) == 0
        keys = [f"u{i}" for i in np.random.default_rng(1).permutation(500)]
        gathered = remote["posteriors/m1"].gather(keys).values
        np.testing.assert_array_equal(gathered, store["posteriors/m1"].gather(keys).values)
        assert set().union(*map(set, verify_store(tmp_path / "store").values())) == set()

    def test_segments_pushed_later_are_seen_after_refresh(
        self, published: Callable[[Path], str], tmp_path: Path
    ) -> None:
        write(tmp_path / "store", keys=range(5))
        url = published(tmp_path / "store")
        remote = FeatureStore.open(url, cache=tmp_path / "cache")["set/a"]
        assert len(remote) == 5
        local = write(tmp_path / "store", keys=range(5, N))
        if not url.startswith(("http", "file")):
            push(tmp_path / "store", url)
        assert len(remote) == 5
        remote.refresh()
        same(remote, local)

    def test_a_remote_store_is_read_only(self, tmp_path: Path) -> None:
        write(tmp_path / "store", "a", range(2))
        push(tmp_path / "store", "memory://read-only")
        remote = FeatureStore.open("memory://read-only", cache=tmp_path / "cache")
        for refused in (
            lambda: remote.writer("b", SPEC),
            lambda: remote.remove("a"),
            lambda: remote.compact("a"),
            lambda: FeatureStore.create("memory://new"),
            lambda: FeatureStore.open_or_create("memory://read-only"),
        ):
            with pytest.raises(StoreError, match=r"read.only"):
                refused()


class TestWhatIsFetched:
    def test_only_the_blocks_that_are_needed(self, tmp_path: Path) -> None:
        local = write(tmp_path / "store", segment_bytes=10_000_000)
        layer_bytes = local.segments[0].info.layout.file_bytes
        assert layer_bytes > 8 * BLOCK
        with ExitStack() as stack:
            server = web(tmp_path, stack)
            remote = opened(server.url, tmp_path / "cache")["set/a"]
            assert remote.lengths(["u5"]).tolist() == local.lengths(["u5"]).tolist()
            assert server.sent("/l0/c/") == server.sent("/l1/c/") == []
            assert remote.array("u5", "l1").tobytes() == local.array("u5", "l1").tobytes()
            assert server.sent("/l0/c/") == []
            answers = server.sent("/l1/c/")
            assert sum(answer.stop - answer.start for answer in answers) <= 2 * BLOCK
            start = int(local.index.first_row[local.index.positions(["u5"])[0]]) * 64 * 2
            assert min(answer.start for answer in answers) == start // BLOCK * BLOCK
            remote.gather(sorted(local), "l1")
            fetched = sorted((answer.start, answer.stop) for answer in server.sent("/l1/c/"))
            assert all(before[1] <= after[0] for before, after in pairwise(fetched))
            assert len(fetched) <= 4

    @needs_moto
    def test_s3_serves_ranges_and_nothing_twice(self, s3: S3, tmp_path: Path) -> None:
        local = write(tmp_path / "store", segment_bytes=10_000_000)
        push(tmp_path / "store", s3.url("ranges"))
        segment = f"/bucket/ranges/set/a/{local.segments[0].name}"
        for _ in range(2):
            remote = opened(s3.url("ranges"), tmp_path / "cache")["set/a"]
            remote.array("u5", "l1")
            assert len(s3.requests("GET", f"{segment}/keys/c/0", 200)) == 1
            assert len(s3.requests("GET", f"{segment}/l1/c/0/0", 206)) == 1
            assert s3.requests("GET", f"{segment}/l0/c/0/0", 206) == []
        assert s3.requests("GET", f"{segment}/l1/c/0/0", 200) == []

    def test_announced_rows_are_fetched_once_and_in_the_background(self, tmp_path: Path) -> None:
        local = write(tmp_path / "store", segment_bytes=10_000_000)
        with ExitStack() as stack:
            server = web(tmp_path, stack)
            remote = opened(server.url, tmp_path / "cache")["set/a"]
            remote.announce(sorted(local))
            same(remote, local, ("l1",))
            fetched = sorted((answer.start, answer.stop) for answer in server.sent("/l1/c/"))
            assert all(before[1] <= after[0] for before, after in pairwise(fetched))

    def test_what_was_read_needs_no_network(self, tmp_path: Path) -> None:
        local = write(tmp_path / "store")
        with ExitStack() as stack:
            server = web(tmp_path, stack)
            remote = FeatureStore.open(server.url, cache=tmp_path / "cache")
            same(remote[remote.names()[0]], local)
            server.kill()
            with pytest.warns(UserWarning, match="doesn't answer"):
                remote = FeatureStore.open(server.url, cache=tmp_path / "cache")
            assert remote.names() == ["set/a"]
            same(remote["set/a"], local)
            with pytest.raises(RemoteError, match=r"set/b/zarr.json can't be read"):
                remote["set/b"]

    def test_what_was_not_read_is_named_when_the_network_is_gone(self, tmp_path: Path) -> None:
        local = write(tmp_path / "store", segment_bytes=10_000_000)
        with ExitStack() as stack:
            server = web(tmp_path, stack)
            remote = opened(server.url, tmp_path / "cache")["set/a"]
            remote.array("u5", "l1")
            server.kill()
            remote.array("u5", "l1")
            with pytest.raises(RemoteError, match=rf"{server.url}/set/a/.*/l0/c/0/0 can't be read"):
                remote.array("u5", "l0")
            assert remote.array("u5", "l1").tobytes() == local.array("u5", "l1").tobytes()


READER = """
import sys
from pathlib import Path
from featurestore.remote.mirror import Mirror
from featurestore.store.feature_store import FeatureStore
url, cache, block, local = sys.argv[1:]
mirror = Mirror(url, Path(cache), int(block))
remote, expected = FeatureStore(mirror.root, mirror)["set/a"], FeatureStore.open(local)["set/a"]
print("begun", flush=True)
for key in sorted(expected):
    for layer in expected.layers:
        assert remote.array(key, layer).tobytes() == expected.array(key, layer).tobytes(), key
print("same")
"""


def reader(url: str, cache: Path, local: Path, block: int = BLOCK) -> WarmProcess:
    """Another process that reads everything through the cache and compares."""
    return WarmProcess(READER, url, cache, block, local)


def read_in_child(features: FeatureSet, expected: dict[str, bytes], threads: int) -> None:
    with ThreadPoolExecutor(threads) as pool:
        result = dict(zip(expected, pool.map(lambda key: features.array(key).tobytes(), expected), strict=True))
    assert result == expected


class TestProcesses:
    def test_they_share_a_cache(self, tmp_path: Path) -> None:
        write(tmp_path / "store")
        with ExitStack() as stack:
            server = web(tmp_path, stack)
            together = [reader(server.url, tmp_path / "cache", tmp_path / "store") for _ in range(4)]
            assert [process.communicate()[0].split() for process in together] == [["begun", "same"]] * 4
            n_sent = len(server.sent("/c/0"))
            last = reader(server.url, tmp_path / "cache", tmp_path / "store")
            assert last.communicate()[0].split() == ["begun", "same"]
            assert len(server.sent("/c/0")) == n_sent

    @pytest.mark.parametrize("start", ["fork", pytest.param("spawn", marks=pytest.mark.slow), "forkserver"])
    @pytest.mark.parametrize("protocol", ["http", pytest.param("s3", marks=[needs_moto, pytest.mark.slow])])
    def test_an_open_set_can_be_taken_into_another(
        self, start: str, protocol: str, tmp_path: Path, request: pytest.FixtureRequest
    ) -> None:
        local = write(tmp_path / "store")
        with ExitStack() as stack:
            if protocol == "http":
                url = web(tmp_path, stack).url
            else:
                url = request.getfixturevalue("s3").url(f"process-{start}")
                push(tmp_path / "store", url)
            remote = opened(url, tmp_path / "cache")["set/a"]
            remote.array("u1")  # connections and threads are there
            remote.announce(["u2", "u3"])
            context = multiprocessing.get_context(start)
            if start == "forkserver":  # one that runs has the environment of when it was started, without this server
                forkserver._forkserver._stop()
            expected = {key: local.array(key).tobytes() for key in local}
            children = [context.Process(target=read_in_child, args=(remote, expected, 3)) for _ in range(2)]
            for child in children:
                child.start()
            same(remote, local)
            for child in children:
                child.join(120)
                assert child.exitcode == 0

    def test_threads_fetch_a_block_once(self, tmp_path: Path) -> None:
        local = write(tmp_path / "store", segment_bytes=10_000_000)
        with ExitStack() as stack:
            server = web(tmp_path, stack)
            remote = opened(server.url, tmp_path / "cache", 1 << 20)["set/a"]
            read_in_child(remote, {key: local.array(key).tobytes() for key in local}, 16)
            assert len(server.sent("/l1/c/")) == 1

    @pytest.mark.slow
    def test_one_killed_while_fetching_leaves_a_true_cache(self, tmp_path: Path) -> None:
        local = write(tmp_path / "store", segment_bytes=10_000_000)
        rng = random.Random(0)
        with ExitStack() as stack:
            server = web(tmp_path, stack, "--pause=0.004")
            for _ in range(8):
                process = reader(server.url, tmp_path / "cache", tmp_path / "store")
                assert process.stdout is not None
                process.stdout.readline()
                time.sleep(rng.uniform(0.0, 0.3))
                process.send_signal(signal.SIGKILL)
                process.communicate()
            remote = opened(server.url, tmp_path / "cache")["set/a"]
            same(remote, local)
            assert remote.verify() == []

    def test_a_pickled_mirror_is_the_same_one(self, tmp_path: Path) -> None:
        mirror = Mirror("memory://pickled", tmp_path, 4096)
        unpickled = pickle.loads(pickle.dumps(mirror))
        assert (unpickled.root, unpickled.url, repr(unpickled)) == (mirror.root, mirror.url, repr(mirror))
        assert Mirror("memory://other", tmp_path).root != mirror.root


class TestChange:
    @needs_moto
    @pytest.mark.slow
    def test_compaction_pushed_under_a_reader(self, s3: S3, tmp_path: Path) -> None:
        local, url = write(tmp_path / "store"), s3.url("compacted")
        push(tmp_path / "store", url)
        remote = opened(url, tmp_path / "cache")["set/a"]
        before = {segment.name for segment in remote.segments}
        remote.array("u1")
        FeatureStore.open(tmp_path / "store").compact("set/a")
        local.refresh()
        (report,) = push(tmp_path / "store", url, prune=True)
        assert set(report.removed) == before
        same(remote, local)
        assert {segment.name for segment in remote.segments} == {segment.name for segment in local.segments}
        assert not [name for name in s3.files.find(url) if any(segment in name for segment in before)]

    @needs_moto
    @pytest.mark.slow
    def test_half_a_segment_is_not_seen(self, s3: S3, tmp_path: Path) -> None:
        local, url = write(tmp_path / "store"), s3.url("half")
        push(tmp_path / "store", url)
        victim = local.segments[0]
        s3.files.rm_file(f"{url}/set/a/{victim.name}/zarr.json")
        remote = opened(url, tmp_path / "cache")["set/a"]
        assert [segment.name for segment in remote.segments] == [segment.name for segment in local.segments[1:]]
        n_uploads = len(s3.requests("PUT", "/half/set/a/seg", 200))
        (report,) = push(tmp_path / "store", url)
        assert report.copied == (victim.name,)
        assert len(s3.requests("PUT", "/half/set/a/seg", 200)) == n_uploads + 1
        remote.refresh()
        same(remote, local)

    def test_a_removed_set_is_gone_and_a_new_one_of_its_name_is_read(self, tmp_path: Path) -> None:
        write(tmp_path / "store")
        with ExitStack() as stack:
            server = web(tmp_path, stack)
            FeatureStore.open(server.url, cache=tmp_path / "cache")["set/a"].array("u1")
            FeatureStore.open(tmp_path / "store").remove("set/a")
            with pytest.raises(StoreError, match="has no feature set"):
                FeatureStore.open(server.url, cache=tmp_path / "cache")["set/a"]
            local = write(tmp_path / "store", spec=replace(SPEC, dtype="float32"))
            same(FeatureStore.open(server.url, cache=tmp_path / "cache")["set/a"], local)

    def test_a_file_that_was_replaced_is_not_mixed_with_its_older_blocks(self, tmp_path: Path) -> None:
        local = write(tmp_path / "store", segment_bytes=10_000_000)
        with ExitStack() as stack:
            server = web(tmp_path, stack)
            opened(server.url, tmp_path / "cache")["set/a"].array("u5")
            layer = local.segments[0].path / "l1" / "c" / "0" / "0"
            os.utime(layer, (1, 1))  # another ETag
            remote = opened(server.url, tmp_path / "cache")["set/a"]
            remote.array("u5")
            with pytest.raises(StoreError, match="was replaced"):
                remote.gather(sorted(local))
            same(opened(server.url, tmp_path / "cache")["set/a"], local)

    def test_damage_at_the_remote_is_an_error(self, tmp_path: Path) -> None:
        local = write(tmp_path / "store", segment_bytes=10_000_000)
        layer = local.segments[0].path / "l1" / "c" / "0" / "0"
        data = bytearray(layer.read_bytes())
        data[5000] ^= 1
        layer.write_bytes(data)
        with ExitStack() as stack:
            server = web(tmp_path, stack)
            remote = opened(server.url, tmp_path / "cache")["set/a"]
            with pytest.raises(StoreError, match="altered"):
                remote.gather(sorted(local))
            assert len(remote.verify()) == 1
            layer.unlink()
            with pytest.raises(StoreError, match=r"expected .* found no file"):
                opened(server.url, tmp_path / "other")["set/a"].array("u5")


class TestErrors:
    @pytest.mark.parametrize("url", ["http://127.0.0.1:9/store", "memory://nothing/here"])
    def test_no_store_there(self, url: str, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match=url):
            FeatureStore.open(url, cache=tmp_path)

    @needs_moto
    def test_no_such_bucket_no_such_path(self, s3: S3, tmp_path: Path) -> None:
        for url in ("s3://no-such-bucket-here/x", s3.url("nothing")):
            with pytest.raises(StoreError, match=f"{url} is not a feature store"):
                FeatureStore.open(url, cache=tmp_path)
        write(tmp_path / "store", keys=range(2))
        with pytest.raises(RemoteError, match=r"no-such-bucket-here/.* can't be written"):
            push(tmp_path / "store", "s3://no-such-bucket-here/x")

    def test_an_unknown_protocol(self, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match="carrier-pigeon"):
            FeatureStore.open("carrier-pigeon://store", cache=tmp_path)

    @pytest.mark.parametrize("package", ["s3fs", "fsspec"])
    def test_a_missing_package_is_named_with_the_extra(self, package: str) -> None:
        code = f"""if True:
            import sys
            sys.modules["{package}"] = None
            from featurestore import FeatureStore
            FeatureStore.open("s3://bucket/store")
        """
        process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        output = process.stderr.splitlines()[-1]
        assert output.startswith("featurestore.errors.StoreError: s3://bucket/store can't be opened: ")
        assert package in output
        assert "pip install 'medusa-ser[remote]'" in output

    def test_a_near_name_is_proposed(self, tmp_path: Path) -> None:
        write(tmp_path / "store", "wavlm", range(2))
        push(tmp_path / "store", "memory://near")
        with pytest.raises(StoreError, match="did you mean wavlm"):
            FeatureStore.open("memory://near", cache=tmp_path / "cache")["wavlm2"]

    def test_a_cache_that_cant_be_written(self, tmp_path: Path) -> None:
        write(tmp_path / "store", "a", range(2))
        push(tmp_path / "store", "memory://cache")
        (tmp_path / "cache").write_text("a file")
        with pytest.raises(StoreError, match=r"The cache .* can't be written"):
            FeatureStore.open("memory://cache", cache=tmp_path / "cache")

    def test_a_cache_that_is_full(self, tmp_path: Path) -> None:
        write(tmp_path / "store", segment_bytes=10_000_000)
        with ExitStack() as stack:
            server = web(tmp_path, stack)
            limited = textwrap.dedent(f"""
                import resource
                resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, {resource.getrlimit(resource.RLIMIT_FSIZE)[1]}))
                from featurestore.errors import StoreError
                from featurestore.store.feature_store import FeatureStore
                try:
                    FeatureStore.open({server.url!r}, cache={str(tmp_path / "cache")!r})["set/a"].array("u5")
                except StoreError as error:
                    print(error)
            """)
            output = run_warm(limited).stdout
            assert "File too large" in output
            same(opened(server.url, tmp_path / "cache")["set/a"], FeatureStore.open(tmp_path / "store")["set/a"])

    def test_a_damaged_map_is_named(self, tmp_path: Path) -> None:
        write(tmp_path / "store")
        push(tmp_path / "store", "memory://map")
        opened("memory://map", tmp_path / "cache")["set/a"].array("u5")
        for path in tmp_path.glob("cache/*/state/**/*.map"):
            path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(StoreError, match=r"\.map is damaged; remove"):
            opened("memory://map", tmp_path / "cache")["set/a"].array("u5")

    def test_a_cache_removed_in_use_is_an_error_and_no_zeros(self, tmp_path: Path) -> None:
        local = write(tmp_path / "store", segment_bytes=10_000_000)
        with ExitStack() as stack:
            server = web(tmp_path, stack)
            remote = opened(server.url, tmp_path / "cache")["set/a"]
            remote.array("u5")
            shutil.rmtree(tmp_path / "cache")
            with pytest.raises(StoreError):
                remote.gather(sorted(local))
            same(opened(server.url, tmp_path / "cache")["set/a"], local)


class TestListings:
    def test_a_server_that_lists_nothing_is_read_by_what_push_wrote(self, tmp_path: Path) -> None:
        local = write(tmp_path / "here")
        write(tmp_path / "here", "b", range(3))
        push(tmp_path / "here", "memory://listings")
        import fsspec

        fsspec.filesystem("memory").get("/listings/", f"{tmp_path / 'store'}/", recursive=True)
        with ExitStack() as stack:
            server = web(tmp_path, stack, "--no-listings")
            remote = FeatureStore.open(server.url, cache=tmp_path / "cache")
            assert remote.names() == ["b", "set/a"]
            same(remote["set/a"], local)
            with pytest.raises(StoreError, match="has no feature set"):
                remote["c"]

    def test_without_either_it_is_reported(self, tmp_path: Path) -> None:
        write(tmp_path / "store")
        with ExitStack() as stack:
            server = web(tmp_path, stack, "--no-listings")
            remote = FeatureStore.open(server.url, cache=tmp_path / "cache")
            with pytest.raises(StoreError, match=r"can't be listed, and has no \.listing\.json"):
                remote["set/a"].array("u5")


class TestSparseFile:
    @settings(max_examples=60)
    @given(
        size=st.integers(0, 300),
        block=st.integers(1, 40),
        written_blocks=st.lists(st.integers(0, 30), max_size=6),
        ranges=st.lists(st.tuples(st.integers(0, 320), st.integers(0, 320)), max_size=5),
    )
    def test_missing_blocks_are_those_that_a_byte_by_byte_look_finds(
        self,
        size: int,
        block: int,
        written_blocks: list[int],
        ranges: list[tuple[int, int]],
        tmp_path_factory: pytest.TempPathFactory,
    ) -> None:
        directory = tmp_path_factory.mktemp("sparse")
        file = SparseFile.create(directory / "data", directory / "map", size, block, "tag")
        same_file = SparseFile(directory / "data", directory / "map")
        data = bytes(i % 251 for i in range(size))
        on_file = [False] * size
        for start_block in written_blocks:
            if start_block < file.n_blocks:
                start, stop = file.bytes_of(start_block, 1)
                file.write(start_block, data[start:stop])
                on_file[start:stop] = [True] * (stop - start)
        touched = {i // block for start, stop in ranges for i in range(start, min(stop, size)) if not on_file[i]}
        for sparse in (file, same_file, SparseFile(directory / "data", directory / "map")):
            assert sparse.missing(ranges) == sorted(touched)
        on_disk = (directory / "data").read_bytes()
        assert all(on_disk[i] == data[i] for i in range(size) if on_file[i])
        assert len(on_disk) == size
