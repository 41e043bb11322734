"""push and pull copy whole segments, once, and never leave half of one where a reader could take it for a whole."""

import random
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import fsspec
import numpy as np
import pytest

from featurestore.errors import SpecMismatch, StoreError
from featurestore.format.identity import Identity
from featurestore.format.spec import FeatureSpec
from featurestore.sets.feature_set import FeatureSet
from featurestore.store.feature_store import FeatureStore
from featurestore.store.verify import verify_store
from featurestore.transfer.copy import pull, push
from tests.helpers.messages import mentions
from tests.helpers.s3_server import S3, has_moto
from tests.helpers.small_corpus import medusa
from tests.helpers.small_store import STORAGES
from tests.helpers.warm_python import WarmProcess, run_warm
from tests.helpers.web_server import Web

SPEC = FeatureSpec("audio", "e", "none", ("l0", "l1"), 64, 50.0)
BUT_BLOSC = [storage for storage in STORAGES if storage[1] != "blosc"]  # blosc's path is zstd's


def write(
    path: Path, name: str = "set/a", keys: range = range(12), storage: tuple[str, str] = ("zarr", ""),
    spec: FeatureSpec = SPEC,
) -> FeatureSet:  # fmt: skip
    """Return a few segments of some 30 kB."""
    store = FeatureStore.open_or_create(path)
    options = {"format": storage[0], "compress": storage[1]}
    with store.writer(name, spec, segment_bytes=30_000, **options) as writer:  # type: ignore[arg-type]
        for i in keys:
            n = 31 * i % 67
            values = np.random.default_rng(i).standard_normal((len(spec.layers), n, spec.dim)).astype(np.float32)
            writer.append(f"u{i}", values, i / 4)
    return store[name]


def files(store: Path) -> dict[str, bytes]:
    """Every file of a store, without listings."""
    result = {str(path.relative_to(store)): path.read_bytes() for path in store.rglob("*") if path.is_file()}
    return {name: data for name, data in result.items() if not name.endswith(".listing.json")}


def sound(store: Path) -> bool:
    return not any(verify_store(store).values())


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    with S3(tmp_path_factory.mktemp("s3")) as server:
        yield server


needs_moto = pytest.mark.skipif(not has_moto(), reason="moto with flask, or s3fs, is not installed")
PLACES = ("memory", "file", "directory")
# Copies to and from the S3 server take seconds: two ordinary tests have it among their places, every other one in slow.
with_s3 = pytest.mark.parametrize("place", [pytest.param("s3", marks=needs_moto), *PLACES], indirect=True)


@pytest.fixture(params=[pytest.param("s3", marks=[needs_moto, pytest.mark.slow]), *PLACES])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a store can be pushed to."""
    name = f"{abs(hash(request.node.nodeid)):x}"
    if request.param == "s3":
        return str(request.getfixturevalue("s3").url(name))
    places = {"memory": f"memory://{name}", "file": f"file://{tmp_path}/there"}
    return places.get(request.param, str(tmp_path / "there"))


class TestThereAndBack:
    @pytest.mark.parametrize("storage", BUT_BLOSC, ids="-".join)
    def test_the_copy_of_the_copy_is_the_same_byte_for_byte(
        self, place: str, storage: tuple[str, str], tmp_path: Path
    ) -> None:
        local = write(tmp_path / "here", storage=storage)
        write(tmp_path / "here", "b", range(3), spec=replace(SPEC, dtype="int8"))
        FeatureStore.open(tmp_path / "here").writer("empty", SPEC)
        calls: list[tuple[int, int, str]] = []
        reports = push(tmp_path / "here", place, progress=lambda *each: calls.append(each))
        assert [report.name for report in reports] == ["b", "empty", "set/a"]
        assert reports[2].copied == tuple(segment.name for segment in local.segments)
        assert calls[-1][0] == calls[-1][1] == sum(report.n_bytes for report in reports)
        assert [done for done, _, _ in calls] == sorted(done for done, _, _ in calls)
        pulled = pull(place, tmp_path / "back")
        assert [(report.name, report.copied) for report in pulled] == [
            (report.name, report.copied) for report in reports
        ]
        assert files(tmp_path / "back") == files(tmp_path / "here")
        assert sound(tmp_path / "back")

    def test_what_is_there_is_not_copied_again(self, place: str, tmp_path: Path) -> None:
        write(tmp_path / "here", keys=range(6))
        (first,) = push(tmp_path / "here", place, ["set/a"])
        write(tmp_path / "here", keys=range(6, 12))
        (second,) = push(tmp_path / "here", place, ["set/a"])
        assert set(second.skipped) == set(first.copied)
        assert second.copied
        (third,) = push(tmp_path / "here", place)
        assert (third.copied, third.n_bytes) == ((), 0)
        pull(place, tmp_path / "back")
        assert files(tmp_path / "back") == files(tmp_path / "here")
        assert pull(place, tmp_path / "back")[0].copied == ()

    @with_s3
    def test_only_the_sets_that_are_named(self, place: str, tmp_path: Path) -> None:
        write(tmp_path / "here", "a", range(3))
        write(tmp_path / "here", "b/c", range(3))
        push(tmp_path / "here", place, ["b/c"])
        assert [report.name for report in pull(place, tmp_path / "back")] == ["b/c"]
        with pytest.raises(StoreError, match="has no feature set 'a'"):
            pull(place, tmp_path / "back", ["a"])

    def test_pruning_removes_what_was_compacted_and_nothing_else(self, place: str, tmp_path: Path) -> None:
        write(tmp_path / "here")
        write(tmp_path / "here", "other")
        push(tmp_path / "here", place)
        old = {segment.name for segment in FeatureStore.open(tmp_path / "here")["set/a"].segments}
        FeatureStore.open(tmp_path / "here").compact("set/a")
        (report,) = push(tmp_path / "here", place, ["set/a"])
        assert report.removed == ()
        (pruned,) = push(tmp_path / "here", place, ["set/a"], prune=True)
        assert set(pruned.removed) == old
        pull(place, tmp_path / "back")
        assert files(tmp_path / "back") == files(tmp_path / "here")

    def test_pruning_keeps_what_another_machine_pushed(self, place: str, tmp_path: Path) -> None:
        for machine, keys in (("first", range(12)), ("second", range(12, 20))):
            write(tmp_path / machine, keys=keys)
            push(tmp_path / machine, place)
        of_second = {segment.name for segment in FeatureStore.open(tmp_path / "second")["set/a"].segments}
        FeatureStore.open(tmp_path / "first").compact("set/a")
        (report,) = push(tmp_path / "first", place, prune=True)
        assert report.removed
        assert (set(report.kept), sum(report.kept.values())) == (of_second, 8)
        pull(place, tmp_path / "all")
        FeatureStore.open(tmp_path / "all").compact("set/a")
        push(tmp_path / "all", place, prune=True)
        (report,) = push(tmp_path / "first", place, prune=True)  # whose utterances lie in one segment with the second's
        assert (report.removed, sum(report.kept.values())) == ((), 8)
        pull(place, tmp_path / "back")
        assert len(FeatureStore.open(tmp_path / "back")["set/a"]) == 20


class TestRefusals:
    def test_other_features_of_the_same_name(self, place: str, tmp_path: Path) -> None:
        write(tmp_path / "here")
        push(tmp_path / "here", place)
        write(tmp_path / "other", spec=replace(SPEC, dtype="float32"))
        write(tmp_path / "other", "b", range(2))
        with pytest.raises(SpecMismatch, match=r"dtype: .*float16.*float32"):
            push(tmp_path / "other", place)
        with pytest.raises(SpecMismatch, match=r"dtype: .*float32.*float16"):
            pull(place, tmp_path / "other")
        pull(place, tmp_path / "back")
        assert files(tmp_path / "back") == files(tmp_path / "here")

    def test_a_set_inside_another(self, place: str, tmp_path: Path) -> None:
        write(tmp_path / "here", "a/b", range(2))
        push(tmp_path / "here", place)
        write(tmp_path / "inside", "a/b/c", range(2))
        with pytest.raises(StoreError, match=r"'a/b'.*'a/b/c'"):
            push(tmp_path / "inside", place)
        write(tmp_path / "above", "a", range(2))
        with pytest.raises(StoreError, match="feature sets below 'a'"):
            push(tmp_path / "above", place)

    def test_damaged_segments_are_not_copied(self, place: str, tmp_path: Path) -> None:
        before = {segment.name for segment in write(tmp_path / "here").segments}
        push(tmp_path / "here", place)
        damaged = write(tmp_path / "here", keys=range(20, 24))
        victim = next(segment for segment in damaged.segments if segment.name not in before)
        layer = victim.path / "l0" / "c" / "0" / "0"
        data = bytearray(layer.read_bytes())
        data[100] ^= 4
        layer.write_bytes(data)
        with pytest.raises(StoreError, match=r"[Nn]othing damaged|is damaged"):
            push(tmp_path / "here", place)
        pull(place, tmp_path / "back")
        assert sound(tmp_path / "back")
        push(tmp_path / "here", place, verify=False)
        with pytest.raises(StoreError, match=rf"{victim.name} is damaged.*l0"):
            pull(place, tmp_path / "back")
        assert sound(tmp_path / "back")
        assert not list((tmp_path / "back").rglob(".tmp-*"))
        pull(place, tmp_path / "back", verify=False)
        assert not sound(tmp_path / "back")

    @with_s3
    def test_a_segment_that_lacks_a_file(self, place: str, tmp_path: Path) -> None:
        local = write(tmp_path / "here")
        push(tmp_path / "here", place)
        victim = local.segments[-1]
        filesystem, root = fsspec.core.url_to_fs(place)
        filesystem.rm_file(f"{root}/set/a/{victim.name}/keys/c/0")
        with pytest.raises(StoreError, match=rf"{victim.name}/keys/c/0 is missing"):
            pull(place, tmp_path / "back")

    def test_urls_where_directories_belong_and_no_store(self, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match="pull it first"):
            push("memory://a", "memory://b")
        with pytest.raises(StoreError, match="pulled into a directory"):
            pull("memory://a", "memory://b")
        with pytest.raises(StoreError, match="memory://none is not a feature store"):
            pull("memory://none", tmp_path / "back")
        with pytest.raises(StoreError, match=r"/nothing .*feature store"):
            push(tmp_path / "nothing", "memory://none")
        assert list(tmp_path.iterdir()) == []

    def test_a_target_of_another_kind(self, tmp_path: Path) -> None:
        write(tmp_path / "here", keys=range(2))
        filesystem = fsspec.filesystem("memory")
        filesystem.pipe_file("/foreign/zarr.json", b'{"zarr_format": 3, "node_type": "group", "attributes": {}}')
        with pytest.raises(StoreError, match="not a feature store"):
            push(tmp_path / "here", "memory://foreign")
        (tmp_path / "file").write_text("")
        with pytest.raises(StoreError, match="a file"):
            push(tmp_path / "here", str(tmp_path / "file"))


class TestInterrupted:
    @pytest.mark.slow
    def test_a_pull_killed_at_any_moment_leaves_a_sound_store_and_goes_on(self, tmp_path: Path) -> None:
        write(tmp_path / "here")
        write(tmp_path / "here", "h5", storage=("hdf5", ""))
        rng = random.Random(0)
        code = (
            "import sys; from featurestore.transfer.copy import pull; print('begun', flush=True); pull(*sys.argv[1:])"
        )
        with ExitStack() as stack:
            web = stack.enter_context(Web(tmp_path / "here", tmp_path / "log", "--pause=0.01"))
            for _ in range(8):
                process = WarmProcess(code, web.url, tmp_path / "back")
                process.stdout.readline()
                time.sleep(rng.uniform(0.1, 1.0))
                process.send_signal(signal.SIGKILL)
                process.communicate()
                if (tmp_path / "back" / "zarr.json").exists():
                    assert sound(tmp_path / "back")
            pull(web.url, tmp_path / "back")
        content = {name: data for name, data in files(tmp_path / "back").items() if "/.tmp-" not in name}
        assert content == files(tmp_path / "here")

    def test_a_reader_meanwhile_sees_whole_segments_only(self, place: str, tmp_path: Path) -> None:
        local = write(tmp_path / "here", keys=range(40))
        expected = {key: local.array(key).tobytes() for key in local}
        pushing = threading.Thread(target=push, args=(tmp_path / "here", place))
        push(tmp_path / "here", place, [])  # an empty store
        pushing.start()
        n_seen = []
        while True:
            finished = not pushing.is_alive()
            store = FeatureStore.open(place, cache=tmp_path / f"cache{len(n_seen)}")
            if "set/a" in store:
                features = store["set/a"]
                n_seen.append(len(features))
                assert {key: features.array(key).tobytes() for key in features}.items() <= expected.items()
            if finished:
                break
        pushing.join()
        assert n_seen == sorted(n_seen)
        assert n_seen[-1] == 40

    def test_two_pushes_at_once(self, place: str, tmp_path: Path) -> None:
        write(tmp_path / "a", keys=range(12))
        write(tmp_path / "b", keys=range(12, 24))
        write(tmp_path / "b", "b", keys=range(12, 24))
        threads = [threading.Thread(target=push, args=(tmp_path / name, place)) for name in "ab"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        pull(place, tmp_path / "back")
        expected = {**files(tmp_path / "a"), **files(tmp_path / "b")}
        assert files(tmp_path / "back") == expected


def test_listings_name_what_is_there(tmp_path: Path) -> None:
    local = write(tmp_path / "here")
    push(tmp_path / "here", "memory://listed")
    filesystem = fsspec.filesystem("memory")
    listed = {name: filesystem.cat_file(f"/listed/{name}.listing.json") for name in ("", "set/", "set/a/")}
    assert listed[""] == b'{"medusa_listing": 1, "names": ["set", "zarr.json"]}'
    assert listed["set/"] == b'{"medusa_listing": 1, "names": ["a", "zarr.json"]}'
    assert [segment.name.encode() in listed["set/a/"] for segment in local.segments] == [True] * len(local.segments)


def test_a_full_disk(tmp_path: Path) -> None:
    write(tmp_path / "here")
    code = """if True:
        import resource, sys
        resource.setrlimit(resource.RLIMIT_FSIZE, (9_000, resource.RLIM_INFINITY))
        from featurestore.errors import StoreError
        from featurestore.transfer.copy import pull
        try:
            pull(*sys.argv[1:])
        except StoreError as error:
            print(error)
    """
    with Web(tmp_path / "here", tmp_path / "log") as web:
        for source in (str(tmp_path / "here"), web.url):
            output = run_warm(code, source, tmp_path / "back").stdout
            assert "File too large" in output
            assert sound(tmp_path / "back")
    pull(str(tmp_path / "here"), tmp_path / "back")
    assert files(tmp_path / "back") == files(tmp_path / "here")


@pytest.mark.parametrize("pushed", [True, False], ids=["with listings", "without"])
def test_a_server_that_knows_directories_by_their_final_slash_alone_is_read(tmp_path: Path, pushed: bool) -> None:
    write(tmp_path / "here")
    if pushed:
        push(tmp_path / "here", str(tmp_path / "there"))
    with Web(tmp_path / ("there" if pushed else "here"), tmp_path / "log", "--strict-slash") as web:
        pull(web.url, tmp_path / "back")
    assert sound(tmp_path / "back")
    assert files(tmp_path / "back") == files(tmp_path / "here")


@pytest.mark.parametrize("storage", ["zarr", "hdf5"])
def test_identities_and_durations_go_there_and_back(tmp_path: Path, storage: str) -> None:
    identity = Identity(b"1" * 16, b"2" * 16, 99, 5, 0.5, 1.5, 2.0, "soundfile 0.13")
    store = FeatureStore.create(tmp_path / "here")
    with store.writer("a", SPEC, format=storage) as writer:
        writer.append("u", np.ones((len(SPEC.layers), 2, SPEC.dim), np.float32), 1.0, identity)
    push(tmp_path / "here", str(tmp_path / "there"))
    pull(str(tmp_path / "there"), tmp_path / "back")
    result = FeatureStore.open(tmp_path / "back")["a"]
    assert result.identities(["u"])[0] == identity
    assert result.durations_s(["u"]).tolist() == [1.0]
    assert sound(tmp_path / "back")


def test_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write(Path("store"))
    write(Path("store"), "b", range(3))
    filesystem = f"file://{tmp_path}/there"
    assert "set/a: 3 segments copied" in medusa("store", "push", filesystem, "set/a").stdout
    assert "3 there already" in medusa("store", "push", filesystem).stdout
    assert "b: 1 segments copied" in medusa("store", "pull", filesystem, "b", "--store", "back").stdout
    assert FeatureStore.open("back").names() == ["b"]
    with Web(Path("there"), tmp_path / "log") as web:
        assert "set/a" in medusa("store", "ls", "--store", web.url).stdout
        assert "whole" in medusa("store", "verify", "set/a", "--store", web.url).stdout
    failed = medusa("store", "pull", "memory://nothing", exit_code=2)
    assert mentions(failed.stderr, "memory://nothing", "not a feature store")


@pytest.mark.parametrize("recorded", [True, False])
def test_the_same_ids_of_other_data_are_refused_unless_the_old_ones_are_pruned(tmp_path: Path, recorded: bool) -> None:
    places = []
    for value in (1, 2):
        path = tmp_path / f"of{value}"
        with FeatureStore.create(path).writer("a", SPEC) as writer:
            for key in ("same", "u", f"own{value}"):
                number = 1 if key == "same" else value
                identity = Identity(digest=bytes([number]) * 16, decoder="d 1") if recorded else None
                writer.append(key, np.full((2, 3, SPEC.dim), number, np.float32), 0.5, identity)
        places.append(path)
    target = tmp_path / "target"
    push(places[0], str(target))
    before = files(target)
    for copy, mentioned in ((push, ("'u'", "--prune")), (pull, ("'u'",))):
        with pytest.raises(StoreError) as error:
            copy(str(places[1]), str(target))
        assert mentions(str(error.value), *mentioned)
    assert files(target) == before
    assert sound(target)
    (segment,) = (places[1] / "a").glob("seg-*")
    shutil.copytree(segment, target / "a" / segment.name)  # as a push of before that was refused did
    (problem,) = verify_store(target)["a"]
    names = [each.name for each in (target / "a").glob("seg-*")]
    assert all(part in problem for part in ("'u'", "--again mismatched", *names))
    assert "more keys" not in problem, "'same' is of the same data"
    if recorded:
        with pytest.raises(StoreError, match="'u'"):
            FeatureStore.open(target).compact("a")
        assert sorted(each.name for each in (target / "a").glob("seg-*")) == sorted(names)
    push(places[1], str(target), prune=True)
    assert float(FeatureStore.open(target)["a"].array("u", "l0")[0, 0]) == 2
