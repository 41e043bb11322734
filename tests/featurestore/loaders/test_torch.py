"""PyTorch gets the rows that the store holds: on a device, and through DataLoader's worker processes."""

import os
import pickle
import threading
import time
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, default_collate, random_split

from featurestore.errors import StoreError
from featurestore.format.spec import FeatureSpec
from featurestore.loaders.batch_loader import BatchLoader, FeatureRef
from featurestore.loaders.shared_memory import SharedMemory
from featurestore.loaders.torch import (
    FeatureDataset,
    TensorLoader,
    Tensors,
    Utterances,
    collate,
    copied_ahead,
    pad_batch,
    pinned_memory,
)
from featurestore.rows.aligned import address_of
from featurestore.rows.packed import Packed
from featurestore.store.feature_store import FeatureStore
from tests.helpers.warm_python import ROOT, run_warm

SETS = {
    "wavlm": FeatureSpec("audio", "wavlm", "none", ("layer_00", "layer_12"), 7),
    "posteriors/m1": FeatureSpec("posteriors", "m1", "none", ("logits",), 3, dtype="float32"),
}
KEYS = [f"a/{i} é" for i in range(37)]
REFS = [FeatureRef("wavlm", ("layer_12", "layer_00")), FeatureRef("posteriors/m1")]
NAMES = ["wavlm@12+0", "posteriors/m1"]

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
# Where there is one core only, DataLoader says that two workers are many: true, and no matter here.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    rng = np.random.default_rng(0)
    store = FeatureStore.create(tmp_path_factory.mktemp("torch") / "store")
    for name, spec in SETS.items():
        with store.writer(name, spec, segment_bytes=1500) as writer:
            for i, key in enumerate(KEYS):
                n_rows = 1 + i % 9 if name == "wavlm" else 1
                writer.append(key, rng.standard_normal((len(spec.layers), n_rows, spec.dim)).astype(np.float32))
    return store


def direct(store: FeatureStore, key: str) -> dict[str, np.ndarray]:
    """Return the rows of one utterance as the store itself reads them, (L, T, D) float32."""
    wavlm = store["wavlm"]
    rows = np.stack([wavlm.array(key, "layer_12"), wavlm.array(key, "layer_00")]).astype(np.float32)
    return dict(zip(NAMES, [rows, store["posteriors/m1"].array(key)[None]], strict=True))


def batches() -> list[list[str]]:
    order = np.random.default_rng(1).permutation(KEYS).tolist()
    return [order[i : i + 5] for i in range(0, len(order), 5)]


def assert_equal_to_direct_reads(store: FeatureStore, keys: list[str], tensors: Tensors) -> None:
    for name, (values, offsets) in zip(NAMES[: len(tensors)], tensors, strict=True):
        bounds = offsets.tolist()
        assert len(bounds) == len(keys) + 1
        for i, key in enumerate(keys):
            result = values[:, bounds[i] : bounds[i + 1]].float().cpu().numpy()
            np.testing.assert_array_equal(result, direct(store, key)[name])


def loader_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("medusa-loader")]


def test_tensors_on_the_cpu_share_the_buffers(store: FeatureStore) -> None:
    loader = TensorLoader(BatchLoader(store, REFS, batches(), threads=2))
    assert len(loader) == len(batches())
    for _ in range(2):
        for keys, tensors in zip(batches(), loader, strict=True):
            assert_equal_to_direct_reads(store, keys, tensors)
    many = TensorLoader(BatchLoader(store, REFS[:1], batches() * 20, prefetch=2))
    assert len({values.data_ptr() for ((values, _),) in many}) <= 4 * 3


def test_leaving_a_tensor_loader_ends_its_threads(store: FeatureStore) -> None:
    iterator: Any = iter(TensorLoader(BatchLoader(store, REFS, batches() * 20)))
    next(iterator)
    assert loader_threads()
    iterator.close()
    assert not loader_threads()


def test_another_device_gets_its_own_tensors(store: FeatureStore) -> None:
    for (values, offsets), _ in TensorLoader(BatchLoader(store, REFS, batches()), "meta"):
        assert values.device.type == offsets.device.type == "meta"


class LateCopy:
    """A device that copies as late as it may: when its end is waited for. What was overwritten by then is wrong."""

    under_way = 0

    def __init__(self, batch: list[Packed]) -> None:
        self.batch = batch
        self.tensors: Tensors | None = None
        LateCopy.under_way += 1
        assert LateCopy.under_way <= 2

    def wait(self) -> None:
        self.tensors = [(torch.tensor(pack.values), torch.tensor(pack.offsets)) for pack in self.batch]
        LateCopy.under_way -= 1

    def take(self) -> Tensors:
        assert self.tensors is not None
        return self.tensors


def test_copies_are_finished_before_their_memory_is_written_again(store: FeatureStore) -> None:
    kept = []
    for tensors in copied_ahead(BatchLoader(store, REFS, batches(), threads=2, prefetch=1).read(), LateCopy):
        time.sleep(0.01)  # the loader's threads go on as far as they may
        kept.append(tensors)
    for keys, tensors in zip(batches(), kept, strict=True):
        assert_equal_to_direct_reads(store, keys, tensors)
    assert LateCopy.under_way == 0


def test_one_copy_is_under_way_while_the_consumer_computes(store: FeatureStore) -> None:
    ahead = copied_ahead(BatchLoader(store, REFS, batches()).read(), LateCopy)
    for _ in range(len(batches()) - 1):
        next(ahead)
        assert LateCopy.under_way == 1
    next(ahead)
    assert LateCopy.under_way == 0
    assert next(ahead, None) is None

    ahead = copied_ahead(BatchLoader(store, REFS, batches()).read(), LateCopy)
    next(ahead)
    ahead.close()
    assert LateCopy.under_way == 0, "the copy's memory was let go before it was finished"
    assert not loader_threads()

    ahead = copied_ahead(BatchLoader(store, REFS, [["a/1 é"], ["a/2 é"], ["nobody"]]).read(), LateCopy)
    next(ahead)
    with pytest.raises(StoreError, match="nobody"):
        list(ahead)
    assert LateCopy.under_way == 0


@needs_cuda
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_cuda_batches_equal_direct_reads_and_are_the_consumers_own(store: FeatureStore, dtype: str) -> None:
    loader = TensorLoader(BatchLoader(store, REFS[:1], batches() * 30, dtype=dtype, threads=2), "cuda")
    work = torch.randn(1024, 1024, device="cuda")
    kept, sums = [], []
    for tensors in loader:
        for _ in range(4):
            work = torch.tanh(work @ work)  # the consumer's stream stays behind
        sums.append(tensors[0][0].double().sum())
        kept.append(tensors)
    torch.cuda.synchronize()
    for keys, tensors, total in zip(batches() * 30, kept, sums, strict=True):
        assert tensors[0][0].device.type == "cuda"
        assert tensors[0][0].dtype == getattr(torch, dtype)
        assert_equal_to_direct_reads(store, keys, tensors)
        assert total.item() == tensors[0][0].double().sum().item()


@needs_cuda
def test_pinned_memory_stays_pinned_as_a_tensor_of_an_array() -> None:
    for dtype in ("float32", "float16", "int64"):
        assert torch.from_numpy(pinned_memory(1000, dtype)[:7].reshape(1, 7)).is_pinned()


@pytest.fixture(scope="module")
def dataset(store: FeatureStore) -> FeatureDataset:
    return FeatureDataset(store, REFS)


def test_a_dataset_is_addressed_by_index_and_by_key(store: FeatureStore, dataset: FeatureDataset) -> None:
    assert len(dataset) == len(KEYS)
    assert sorted(dataset.keys) == sorted(KEYS)
    for i in (0, 5, -1):
        utterance = dataset[i]
        assert utterance["key"] == dataset.keys[i]
        for name, rows in direct(store, dataset.keys[i]).items():
            np.testing.assert_array_equal(utterance[name].numpy(), rows)
            np.testing.assert_array_equal(dataset[dataset.keys[i]][name].numpy(), rows)
    with pytest.raises(IndexError):
        dataset[len(KEYS)]
    with pytest.raises(StoreError, match="nobody"):
        dataset["nobody"]
    chosen = FeatureDataset(store, REFS[1:], KEYS[3:5], dtype="float16")
    assert chosen.keys == KEYS[3:5]
    assert chosen[0]["posteriors/m1"].dtype == torch.float16


def test_a_dataset_that_can_not_be_read_fails_when_it_is_made(store: FeatureStore) -> None:
    with pytest.raises(StoreError, match="lacks 1 of 2 keys: 'nobody'"):
        FeatureDataset(store, REFS, ["a/1 é", "nobody"])
    with pytest.raises(StoreError, match="twice"):
        FeatureDataset(store, [REFS[0], REFS[0]])
    with pytest.raises(StoreError, match="none was given"):
        FeatureDataset(store, [])


def test_collating_packs_or_pads_the_same_rows(store: FeatureStore, dataset: FeatureDataset) -> None:
    at = [4, 30, 8, 8]
    keys = [dataset.keys[i] for i in at]
    apart = [dataset[i] for i in at]  # as a dataset around this one may return them
    for batch in (dataset.__getitems__(at), apart):
        packed = collate(batch)
        assert packed["keys"] == keys
        assert_equal_to_direct_reads(store, keys, [packed[name] for name in NAMES])
        padded, lengths = pad_batch(batch)["wavlm@12+0"]
        assert padded.shape == (2, 4, int(lengths.max()), 7)
        for i, key in enumerate(keys):
            rows = direct(store, key)["wavlm@12+0"]
            np.testing.assert_array_equal(padded[:, i, : lengths[i]].numpy(), rows)
            assert not padded[:, i, lengths[i] :].any()
    pooled = default_collate(FeatureDataset(store, REFS[1:]).__getitems__(at))["posteriors/m1"]
    assert pooled.shape == (4, 1, 1, 3)


def test_a_batch_is_gathered_at_once_also_through_a_subset(dataset: FeatureDataset) -> None:
    part, _ = random_split(dataset, [20, 17], torch.Generator().manual_seed(0))
    seen: list[int] = []

    def count(batch: Any) -> list[str]:
        assert isinstance(batch, Utterances)
        assert [utterance["key"] for utterance in batch] == batch.keys
        assert [utterance["key"] for utterance in batch[1:]] == batch.keys[1:]
        seen.append(len(batch))
        return batch.keys

    result = [key for keys in DataLoader(part, 8, collate_fn=count) for key in keys]
    assert result == [dataset.keys[i] for i in part.indices]
    assert seen == [8, 8, 4]


def workers(dataset: FeatureDataset, n: int, method: str | None, **options: Any) -> DataLoader:
    return DataLoader(
        dataset, batch_size=5, num_workers=n, multiprocessing_context=method, timeout=120 if n else 0, **options
    )


@pytest.mark.parametrize(("n", "method"), [(0, None), (2, "fork"), pytest.param(2, "spawn", marks=pytest.mark.slow)])
def test_dataloader_workers_read_what_the_store_holds(
    store: FeatureStore, dataset: FeatureDataset, n: int, method: str | None
) -> None:
    """Shuffled, two epochs, with the same workers; the dataset was read in this process before."""
    assert dataset[0]["key"] == dataset.keys[0]
    generator = torch.Generator().manual_seed(3)
    loader = workers(
        dataset, n, method, shuffle=True, generator=generator, collate_fn=collate, persistent_workers=n > 0
    )
    orders = []
    for _ in range(2):
        order = []
        for batch in loader:
            assert_equal_to_direct_reads(store, batch["keys"], [batch[name] for name in NAMES])
            order += batch["keys"]
        orders.append(order)
    assert sorted(orders[0]) == sorted(orders[1]) == sorted(KEYS)
    assert orders[0] != orders[1]


def with_labels(batch: Any) -> dict[str, Any]:
    """As a trainer's own function adds what it needs."""
    packed = collate(batch)
    return {**packed, "first row": packed["wavlm@12+0"][0][:, 0], "labels": torch.arange(len(batch))}


@pytest.mark.parametrize("kept", [1, 30])
def test_what_workers_sent_stays_as_it_is_while_it_is_held(
    store: FeatureStore, dataset: FeatureDataset, kept: int
) -> None:
    """However many batches the main process holds, whole or in part, and whatever else a batch has."""
    rows = {key: direct(store, key)["wavlm@12+0"] for key in KEYS}
    sampler = torch.utils.data.RandomSampler(dataset, replacement=True, num_samples=200)
    held: list[tuple[list[str], torch.Tensor, torch.Tensor, np.ndarray]] = []
    for batch in workers(dataset, 2, "fork", sampler=sampler, collate_fn=with_labels):
        values, offsets = batch["wavlm@12+0"]
        assert torch.equal(batch["first row"], values[:, 0])
        held = [*held[-kept:], (batch["keys"], values[0], offsets, values.numpy()[1])]
        del batch, values
        for keys, first, bounds, second in held:
            for i, key in enumerate(keys):
                assert np.array_equal(first[bounds[i] : bounds[i + 1]].numpy(), rows[key][0])
                assert np.array_equal(second[bounds[i] : bounds[i + 1]], rows[key][1])


def test_a_fork_that_drops_a_batch_does_not_give_it_back() -> None:
    memory = SharedMemory(n_kept=1)
    array = memory.take((1, 100, 4), "float32")
    first = address_of(array)
    received = [ForkingPickler.loads(ForkingPickler.dumps(memory.tensor(array)))]
    del array
    child = os.fork()
    if not child:
        received.clear()
        os._exit(0)
    os.waitpid(child, 0)
    assert address_of(memory.take((1, 100, 4), "float32")) != first
    received.clear()
    assert address_of(memory.take((1, 100, 4), "float32")) == first


def test_a_worker_uses_memory_again_once_nobody_has_it() -> None:
    memory = SharedMemory(n_kept=2)
    array = memory.take((1, 100, 4), "float32")
    array[:] = 1
    first = address_of(array)
    received = ForkingPickler.loads(ForkingPickler.dumps(memory.tensor(array)))
    assert torch.equal(received, torch.ones(1, 100, 4))
    assert type(received) is torch.Tensor
    part = received[0, 1:3]
    del array, received
    assert address_of(memory.take((1, 90, 4), "float32")) != first
    assert torch.equal(part, torch.ones(2, 4))
    del part
    again = memory.take((2, 90, 4), "float16")
    assert address_of(again) == first
    view = again[0]
    del again
    others = [memory.take((1, 50, 4), "float32") for _ in range(3)]
    assert address_of(view) == first
    assert len({first, *map(address_of, others)}) == 4
    offsets = memory.take((3,), "int64")
    offsets[:] = 0, 1, 2
    assert ForkingPickler.loads(ForkingPickler.dumps(memory.tensor(offsets))).tolist() == [0, 1, 2]


def test_what_a_worker_raises_reaches_the_parent(store: FeatureStore) -> None:
    dataset = FeatureDataset(store, REFS, KEYS[:10])
    dataset.keys[7] = "nobody"
    with pytest.raises(StoreError, match=r"(?s)worker process .*lacks 1 of 5 keys: 'nobody'"):
        list(workers(dataset, 1, "fork", collate_fn=pad_batch))


def test_datasets_and_errors_are_pickled_small(dataset: FeatureDataset) -> None:
    assert dataset[0]["key"] == dataset.keys[0]
    frozen = pickle.dumps(dataset)
    assert len(frozen) < 3000
    again = pickle.loads(frozen)
    assert again.keys == dataset.keys
    assert torch.equal(again[3]["wavlm@12+0"], dataset[3]["wavlm@12+0"])
    error = pickle.loads(pickle.dumps(StoreError("a message")))
    assert (type(error), str(error)) == (StoreError, "a message")


def read_while_forking(path: Path) -> None:
    """Batches by threads of this process, and by forked workers that start meanwhile."""
    store = FeatureStore.open(path)
    by_threads = iter(TensorLoader(BatchLoader(store, REFS, batches() * 10, threads=2)))
    for keys in batches()[:3]:
        assert_equal_to_direct_reads(store, keys, next(by_threads))
        result = []
        for batch in workers(FeatureDataset(store, REFS), 2, "fork", collate_fn=collate):
            assert_equal_to_direct_reads(store, batch["keys"], [batch[name] for name in NAMES])
            result += batch["keys"]
        assert sorted(result) == sorted(KEYS)


def test_workers_may_be_forked_while_threads_read(store: FeatureStore) -> None:
    """In a process of its own, which a hang would not outlive."""
    code = (
        "import sys; from pathlib import Path; from tests.featurestore.loaders.test_torch import read_while_forking; "
        "read_while_forking(Path(sys.argv[1]))"
    )
    process = run_warm(code, store.path, cwd=ROOT)
    assert process.returncode == 0, process.stderr


@needs_cuda
def test_dataloader_pins_what_the_workers_read(dataset: FeatureDataset) -> None:
    for batch in workers(dataset, 2, "fork", collate_fn=collate, pin_memory=True):
        values, offsets = batch["wavlm@12+0"]
        assert values.is_pinned()
        assert offsets.is_pinned()
