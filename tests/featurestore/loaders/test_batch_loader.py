"""The loader hands out every batch once, in order, aligned by key, and never leaves a thread or an error behind."""

import dataclasses
import itertools
import multiprocessing
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featurestore.errors import StoreError
from featurestore.format import segment as segments
from featurestore.format.rowfile import MappedRows
from featurestore.format.spec import FeatureSpec
from featurestore.loaders import batch_loader as loader_module
from featurestore.loaders.batch_loader import BatchLoader, FeatureRef
from featurestore.sets.feature_set import FeatureSet
from featurestore.store.feature_store import FeatureStore

SETS = {
    "wavlm": FeatureSpec("audio", "wavlm", "none", ("layer_00", "layer_01", "layer_12"), 7),
    "posteriors/m1": FeatureSpec("posteriors", "m1", "none", ("posteriors", "logits"), 3, dtype="float32"),
}
KEYS = [f"u{i}" for i in range(40)]


@pytest.fixture(scope="module")
def data() -> dict[str, dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    return {
        "wavlm": {key: rng.standard_normal((3, i % 11, 7)).astype(np.float16) for i, key in enumerate(KEYS)},
        "posteriors/m1": {key: rng.standard_normal((2, 1, 3)).astype(np.float32) for key in KEYS},
    }


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, data: dict[str, dict[str, np.ndarray]]) -> FeatureStore:
    store = FeatureStore.create(tmp_path_factory.mktemp("loader") / "store")
    for name, spec in SETS.items():
        with store.writer(name, spec, segment_bytes=1000) as writer:
            for key in sorted(KEYS) if name == "wavlm" else KEYS:  # stored in different orders
                writer.append(key, data[name][key])
    return store


def batches(seed: int = 0, size: int = 6) -> list[list[str]]:
    order = np.random.default_rng(seed).permutation(KEYS).tolist()
    return [order[i : i + size] for i in range(0, len(order), size)]


def pooled(rows: np.ndarray, stride: int) -> np.ndarray:
    rows = rows.astype(np.float32)
    groups = [rows[:, t : t + stride].mean(axis=1) for t in range(0, rows.shape[1], stride)]
    return np.stack(groups, axis=1) if groups else rows


@pytest.mark.parametrize(("threads", "prefetch"), [(0, 4), (1, 1), (1, 4), (2, 4), (3, 50)])
@pytest.mark.parametrize("stride", [1, 3])
def test_batches_are_aligned_by_key(
    store: FeatureStore, data: dict[str, dict[str, np.ndarray]], threads: int, prefetch: int, stride: int
) -> None:
    refs = [FeatureRef.parse("wavlm@12+0"), FeatureRef.parse("posteriors/m1@logits"), FeatureRef("wavlm")]
    loader = BatchLoader(store, refs, batches(), stride=stride, threads=threads, prefetch=prefetch)
    assert len(loader) == len(batches())
    for _ in range(2):  # an epoch more
        for keys, (chosen, logits, whole) in zip(batches(), loader, strict=True):
            assert chosen.values.dtype == np.float32
            for i, key in enumerate(keys):
                rows = data["wavlm"][key]
                np.testing.assert_allclose(chosen[i], pooled(rows[[2, 0]], stride), atol=1e-6)
                np.testing.assert_allclose(whole[i], pooled(rows, stride), atol=1e-6)
                np.testing.assert_array_equal(logits[i], data["posteriors/m1"][key][1:])


@pytest.mark.parametrize("threads", [1, 3])
def test_a_batch_stays_valid_until_the_next_is_requested(store: FeatureStore, threads: int) -> None:
    """Threads read ahead as far as they may while the consumer takes its time; they must not write into its batch."""
    refs = [FeatureRef("wavlm")]
    expected = [
        (batch.values.copy(), batch.offsets.copy()) for (batch,) in BatchLoader(store, refs, batches(), threads=0)
    ]
    loader = BatchLoader(store, refs, batches(), threads=threads, prefetch=2)
    for (batch,), (values, offsets) in zip(loader, expected, strict=True):
        time.sleep(0.02)
        np.testing.assert_array_equal(batch.values, values)
        np.testing.assert_array_equal(batch.offsets, offsets)


@pytest.mark.parametrize("stride", [1, 3])
def test_rows_come_as_float16_where_requested(
    store: FeatureStore, data: dict[str, dict[str, np.ndarray]], stride: int
) -> None:
    """Stored float16 comes bit for bit; what is computed is rounded once, from float32."""
    refs = [FeatureRef("wavlm"), FeatureRef("posteriors/m1")]
    wide = BatchLoader(store, refs, batches(), stride=stride, threads=0)
    narrow = BatchLoader(store, refs, batches(), stride=stride, dtype="float16")
    for keys, expected, actual in zip(batches(), wide, narrow, strict=True):
        for want, got in zip(expected, actual, strict=True):
            assert got.values.dtype == np.float16
            np.testing.assert_array_equal(got.offsets, want.offsets)
            np.testing.assert_array_equal(got.values, want.values.astype(np.float16))
        if stride == 1:
            np.testing.assert_array_equal(actual[0][2], data["wavlm"][keys[2]])


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 0), ("bfloat16", 2**-8), ("int8", 1 / 250)])
def test_every_stored_type_is_read(tmp_path: Path, dtype: str, tolerance: float) -> None:
    rows = {f"k{i}": np.random.default_rng(i).uniform(-1, 1, (2, i + 1, 5)).astype(np.float32) for i in range(6)}
    store = FeatureStore.create(tmp_path / "store")
    with store.writer("a", FeatureSpec("audio", "a", "none", ("x", "y"), 5, dtype=dtype)) as writer:
        for key, layers in rows.items():
            writer.append(key, layers)
    for stride, read_as in itertools.product([1, 2], ["float32", "float16"]):
        loader = BatchLoader(store, [FeatureRef("a", ("y",))], [list(rows)], stride=stride, dtype=read_as)
        ((batch,),) = loader
        for i, layers in enumerate(rows.values()):
            np.testing.assert_allclose(
                batch[i], pooled(layers[1:], stride), atol=tolerance + (1e-3 if read_as == "float16" else 1e-6)
            )


def test_buffers_are_used_again(store: FeatureStore) -> None:
    loader = BatchLoader(store, [FeatureRef("wavlm")], batches() * 20, prefetch=2)
    # Each of three slots may grow once or twice before it fits the largest batch.
    grown = {batch.values.ctypes.data for (batch,) in loader}
    assert len(grown) <= 3 * 3
    again = {batch.values.ctypes.data for (batch,) in loader.over(batches(seed=1))}
    assert len(again) <= 3
    assert again <= grown


def test_a_loader_is_read_twice_at_once(store: FeatureStore, data: dict[str, dict[str, np.ndarray]]) -> None:
    loader = BatchLoader(store, [FeatureRef("wavlm")], batches(), threads=2, prefetch=2)
    list(loader)
    for keys, (one,), (other,) in zip(batches(), loader, loader, strict=True):
        assert one.values.ctypes.data != other.values.ctypes.data
        for i, key in enumerate(keys):
            np.testing.assert_array_equal(one[i], data["wavlm"][key])
            np.testing.assert_array_equal(other[i], data["wavlm"][key])


def loader_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("medusa-loader")]


@pytest.mark.parametrize("threads", [0, 1, 2])
def test_errors_reach_the_consumer_when_their_turn_comes(store: FeatureStore, threads: int) -> None:
    good = [["u1"]] * 7

    def failing() -> Iterator[list[str]]:
        yield from good
        raise RuntimeError("the sampler failed")

    for coming, error, message in [
        ([*good, ["u2", "nobody"], ["u3"]], StoreError, "lacks 1 of 2 keys: 'nobody'"),
        (failing(), RuntimeError, "sampler failed"),
    ]:
        iterator = iter(BatchLoader(store, [FeatureRef("wavlm")], coming, threads=threads))
        assert len(list(itertools.islice(iterator, len(good)))) == len(good)
        with pytest.raises(error, match=message):
            next(iterator)
    assert not loader_threads()


@pytest.mark.parametrize("threads", [0, 1])
def test_what_is_announced_is_bounded_by_bytes_and_what_is_drawn_by_number(
    store: FeatureStore, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    """Rows are still in memory when their turn comes; a sampler is drawn from to the same place in every run."""
    requested = itertools.count()
    whole = ["u10"] * 8  # 10 rows, 3 layers, 7 float16: 420 bytes each

    def sampler() -> Iterator[list[str]]:
        while True:
            next(requested)
            yield whole

    monkeypatch.setattr(loader_module, "ANNOUNCED_BYTES", 3 * 8 * 420)
    calls: list[int] = []
    announce = FeatureSet.announce
    monkeypatch.setattr(
        FeatureSet,
        "announce",
        lambda self, keys, layer=None, **options: (calls.append(len(keys)), announce(self, keys, layer, **options)),
    )
    iterator = BatchLoader(store, [FeatureRef("wavlm")], sampler(), threads=threads, prefetch=2).read()
    n_read = 1 if threads == 0 else 3  # slots, each read as soon as it is free
    for i in range(3):
        next(iterator)
        deadline = time.monotonic() + 10
        while len(calls) < (n_read + i + 3) * 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05)
        assert calls == [8] * (n_read + i + 3) * 3  # each layer of those that are read, and of three more
    iterator.close()
    assert next(requested) == n_read + 2 + loader_module.ANNOUNCED_BATCHES


def test_stopping_early_ends_the_threads(store: FeatureStore) -> None:
    iterator = BatchLoader(store, [FeatureRef("wavlm")], itertools.repeat(["u1", "u2"]), threads=2, prefetch=2).read()
    next(iterator)
    assert loader_threads()
    iterator.close()
    assert not loader_threads()


def test_bad_settings_fail_at_once(store: FeatureStore) -> None:
    with pytest.raises(StoreError, match=r"'wavml'.*wavlm"):
        BatchLoader(store, [FeatureRef("wavml")], [])
    with pytest.raises(StoreError, match=r"'layer_03'.*layer_00, layer_01, layer_12"):
        BatchLoader(store, [FeatureRef.parse("wavlm@3")], [])
    with pytest.raises(StoreError, match="none was given"):
        BatchLoader(store, [], [])
    with pytest.raises(StoreError, match="stride is 0"):
        BatchLoader(store, [FeatureRef("wavlm")], [], stride=0)
    with pytest.raises(StoreError, match="threads is -1"):
        BatchLoader(store, [FeatureRef("wavlm")], [], threads=-1)
    with pytest.raises(StoreError, match=r"float32 or float16.*'bfloat16'"):
        BatchLoader(store, [FeatureRef("wavlm")], [], dtype="bfloat16")


@pytest.mark.parametrize(
    ("text", "ref"),
    [
        ("whisper-base@3+4", FeatureRef("whisper-base", ("layer_03", "layer_04"))),
        ("whisper-base@0+12", FeatureRef("whisper-base", ("layer_00", "layer_12"))),
        ("posteriors/m1@logits", FeatureRef("posteriors/m1", ("logits",))),
        ("logmel", FeatureRef("logmel")),
    ],
)
def test_references_parse_and_print(text: str, ref: FeatureRef) -> None:
    assert FeatureRef.parse(text) == ref
    assert str(ref) == text


@pytest.mark.parametrize("text", ["", "@3", "a@", "a@3+", "a@3+03"])
def test_bad_references_are_refused(text: str) -> None:
    with pytest.raises(StoreError, match="expected NAME"):
        FeatureRef.parse(text)


def read_in_child(path: Path) -> float:
    store = FeatureStore.open(path)
    return float(sum(batch.values.sum() for (batch,) in BatchLoader(store, [FeatureRef("wavlm")], batches())))


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_loaders_work_in_other_processes(store: FeatureStore, method: str) -> None:
    here = read_in_child(store.path)
    with multiprocessing.get_context(method).Pool(1) as pool:
        assert pool.apply(read_in_child, (store.path,)) == here


def in_fork(work: Callable[[], str]) -> str:
    """Return what `work` returns in a forked process."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=lambda: sender.send(work()))
    child.start()
    assert receiver.poll(60), "the child hangs"
    child.join(60)
    assert child.exitcode == 0
    return str(receiver.recv())


def test_a_loader_that_has_read_is_read_again_after_a_fork(store: FeatureStore) -> None:
    """Maps are inherited; threads are not, so each iteration makes its own."""
    loader = BatchLoader(store, [FeatureRef("wavlm")], batches(), threads=2)

    def total() -> str:
        return repr(float(sum(batch.values.sum() for (batch,) in loader)))

    here = total()
    assert in_fork(total) == here
    halfway = iter(loader)
    next(halfway)
    assert in_fork(total) == here  # threads of another iteration are at work when the process forks

    def go_on() -> str:
        try:
            next(halfway)
        except StoreError as error:
            return str(error)
        return "read"

    assert "iterate the loader anew" in in_fork(go_on)
    next(halfway)
    halfway.close()  # type: ignore[attr-defined]


def test_an_empty_store_gives_empty_batches(tmp_path: Path) -> None:
    store = FeatureStore.create(tmp_path / "store")
    store.writer("a", dataclasses.replace(SETS["wavlm"], layers=("l",))).commit()
    (batch,) = next(iter(BatchLoader(store, [FeatureRef("a")], [[]])))
    assert batch.values.shape == (1, 0, 7)
    assert len(batch) == 0


def test_of_two_threads_that_open_a_layer_the_first_ones_map_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FeatureStore.create(tmp_path / "s").writer("wavlm", SETS["wavlm"]) as writer:
        writer.append("a", np.zeros((3, 4, 7), np.float16))
    segment = FeatureStore.open(tmp_path / "s")["wavlm"].segments[0]
    entered, may_go_on = threading.Event(), threading.Event()

    class Late(MappedRows):
        def __init__(self, *arguments: Any) -> None:
            if threading.current_thread() is late:
                entered.set()
                assert may_go_on.wait(10)
            super().__init__(*arguments)

    opened: list[object] = []
    late = threading.Thread(target=lambda: opened.append(segment.layer("layer_12")))
    monkeypatch.setattr(segments, "MappedRows", Late)
    late.start()
    assert entered.wait(10)
    first = segment.layer("layer_12")
    may_go_on.set()
    late.join()
    assert opened[0] is first
    assert segment.layer("layer_12") is first
