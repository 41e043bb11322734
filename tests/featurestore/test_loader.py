"""The loader hands out every batch once, in order, aligned by key, and never leaves a thread or an error behind."""

import dataclasses
import itertools
import multiprocessing
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from featurestore.errors import StoreError
from featurestore.loader import BatchLoader, FeatureRef
from featurestore.spec import FeatureSpec
from featurestore.store import FeatureStore

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


@pytest.mark.parametrize("prefetch", [0, 1, 4, 50])
@pytest.mark.parametrize("stride", [1, 3])
def test_batches_are_aligned_by_key(
    store: FeatureStore, data: dict[str, dict[str, np.ndarray]], prefetch: int, stride: int
) -> None:
    refs = [FeatureRef.parse("wavlm@12+0"), FeatureRef.parse("posteriors/m1@logits"), FeatureRef("wavlm")]
    loader = BatchLoader(store, refs, batches(), stride=stride, prefetch=prefetch)
    assert len(loader) == len(batches())
    for _ in range(2):  # an epoch more
        for keys, (chosen, logits, whole) in zip(batches(), loader, strict=True):
            assert chosen.values.dtype == np.float32
            for i, key in enumerate(keys):
                rows = data["wavlm"][key]
                np.testing.assert_allclose(chosen[i], pooled(rows[[2, 0]], stride), atol=1e-6)
                np.testing.assert_allclose(whole[i], pooled(rows, stride), atol=1e-6)
                np.testing.assert_array_equal(logits[i], data["posteriors/m1"][key][1:])


def test_a_batch_stays_valid_until_the_next_is_asked_for(store: FeatureStore) -> None:
    """The thread reads ahead as far as it may while the consumer takes its time; it must not write into its batch."""
    expected = [batch.values.copy() for (batch,) in BatchLoader(store, [FeatureRef("wavlm")], batches(), prefetch=0)]
    for (batch,), values in zip(
        BatchLoader(store, [FeatureRef("wavlm")], batches(), prefetch=2), expected, strict=True
    ):
        time.sleep(0.02)
        np.testing.assert_array_equal(batch.values, values)


def test_buffers_are_used_again(store: FeatureStore) -> None:
    loader = BatchLoader(store, [FeatureRef("wavlm")], batches() * 20, prefetch=2)
    # Each slot may grow once or twice before it fits the largest batch.
    assert len({batch.values.ctypes.data for (batch,) in loader}) <= 4 * 4


def loader_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "medusa-loader"]


def test_errors_reach_the_consumer(store: FeatureStore) -> None:
    loader = BatchLoader(store, [FeatureRef("wavlm")], [["u1"], ["u2", "nobody"], ["u3"]])
    with pytest.raises(StoreError, match="lacks 1 of 2 keys: 'nobody'"):
        list(loader)

    def broken() -> itertools.chain:
        yield ["u1"]
        raise RuntimeError("the sampler failed")

    with pytest.raises(RuntimeError, match="sampler failed"):
        list(BatchLoader(store, [FeatureRef("wavlm")], broken()))
    assert not loader_threads()


def test_stopping_early_ends_the_thread(store: FeatureStore) -> None:
    iterator = iter(BatchLoader(store, [FeatureRef("wavlm")], itertools.repeat(["u1", "u2"]), prefetch=2))
    next(iterator)
    assert loader_threads()
    iterator.close()  # type: ignore[attr-defined]
    assert not loader_threads()


def test_bad_settings_fail_at_once(store: FeatureStore) -> None:
    with pytest.raises(StoreError, match="no feature set 'wavml'; did you mean wavlm"):
        BatchLoader(store, [FeatureRef("wavml")], [])
    with pytest.raises(StoreError, match="no 'layer_03'; it has layer_00, layer_01, layer_12"):
        BatchLoader(store, [FeatureRef.parse("wavlm@3")], [])
    with pytest.raises(StoreError, match="none was given"):
        BatchLoader(store, [], [])
    with pytest.raises(StoreError, match="stride is 0"):
        BatchLoader(store, [FeatureRef("wavlm")], [], stride=0)


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


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_loaders_work_in_other_processes(store: FeatureStore, method: str) -> None:
    here = read_in_child(store.path)
    with multiprocessing.get_context(method).Pool(1) as pool:
        assert pool.apply(read_in_child, (store.path,)) == here


def test_an_empty_store_gives_empty_batches(tmp_path: Path) -> None:
    store = FeatureStore.create(tmp_path / "store")
    store.writer("a", dataclasses.replace(SETS["wavlm"], layers=("l",))).commit()
    (batch,) = next(iter(BatchLoader(store, [FeatureRef("a")], [[]])))
    assert batch.values.shape == (1, 0, 7)
    assert len(batch) == 0
