"""How long a training loop waits for data: our loader, and torch's DataLoader over our dataset, on CPU or GPU.

The loop's step multiplies the rows by a matrix of --width columns and waits for the result, as a trainer waits for its
loss. "Waiting" is the time until the next batch arrives; "alone" is the same loop over batches that are on the device
already. The batches of every way are compared with those before they are timed. Each way reads --epochs epochs in one
go, so that all but the first begin with batches that were read ahead. Runs of the ways alternate; medians are printed.

Run: python -m benchmarks.loader --device cuda --width 4096
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils.data import DataLoader

from featurestore.loaders.batch_loader import BatchLoader, FeatureRef
from featurestore.loaders.torch import FeatureDataset, TensorLoader, collate
from featurestore.store.feature_store import FeatureStore

from .io.ours import NAME, write_store
from .io.peer_files import AnnBatch, write_zarr
from .io.peer_tables import write_litdata, write_lmdb
from .io.rows import Batch, Rows, Shape
from .io.ways import Place

REF = FeatureRef(NAME)

# From a number of epochs to the rows of each of their batches on the device, (L, sum T, D).
Epochs = Callable[[int], Iterable[Tensor]]


class Repeated:
    """Batches of indices as DataLoader's batch_sampler gives them, `n` times over."""

    def __init__(self, batches: list[list[int]]) -> None:
        self.batches = batches
        self.n = 1

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches * self.n)

    def __len__(self) -> int:
        return len(self.batches) * self.n


def ways(store: FeatureStore, batches: list[list[str]], device: torch.device) -> dict[str, Epochs]:
    """Return the loops over our store that are measured, by name."""
    all_keys = list(store[NAME])
    numbers = {key: i for i, key in enumerate(all_keys)}
    chosen = [[numbers[key] for key in keys] for keys in batches]

    def ours(threads: int, dtype: str = "float32", to: str = "") -> Epochs:
        loader = BatchLoader(store, [REF], [], threads=threads, dtype=dtype, keys=all_keys)

        def epochs(n: int) -> Iterable[Tensor]:
            return (rows.to(device) for ((rows, _),) in TensorLoader(loader.over(chosen * n), to or device))

        return epochs

    def torchs(workers: int, pin: bool = False) -> Epochs:
        sampler = Repeated(chosen)
        loader = DataLoader(
            FeatureDataset(store, [REF], all_keys), batch_sampler=sampler, collate_fn=collate, num_workers=workers,
            pin_memory=pin, persistent_workers=workers > 0, prefetch_factor=2 if workers else None,
        )  # fmt: skip

        def epochs(n: int) -> Iterable[Tensor]:
            sampler.n = n
            return (batch[NAME][0].to(device, non_blocking=pin) for batch in loader)

        return epochs

    measured = {
        "medusa, the consumer reads": ours(0),
        "medusa, 1 thread": ours(1),
        "medusa, 2 threads": ours(2),
        "medusa, 1 thread, float16": ours(1, "float16"),
        "DataLoader, no workers": torchs(0),
        "DataLoader, 2 workers": torchs(2),
    }
    if device.type == "cuda":
        measured["medusa, 1 thread, then .to(device)"] = ours(1, to="cpu")
        measured["DataLoader, 2 workers, pin_memory"] = torchs(2, pin=True)
    return measured


def peers(directory: Path, rows: Rows, batches: Sequence[Batch], device: torch.device) -> dict[str, Epochs]:
    """Return the same batches through other libraries, those that are installed, by name."""
    loops: dict[str, Epochs] = {}
    if find_spec("lmdb"):
        import lmdb

        write_lmdb(directory, rows)
        reading = lmdb.open(str(directory / "lmdb"), readonly=True, lock=False).begin(buffers=True)

        def from_lmdb(n: int) -> Iterable[Tensor]:
            for batch in [*batches] * n:
                values = [np.frombuffer(reading.get(key.encode()), rows.values.dtype) for key in batch.keys]
                yield torch.from_numpy(np.concatenate(values).reshape(1, -1, rows.dim)).float().to(device)

        loops["LMDB"] = from_lmdb
    if find_spec("datasets"):
        import datasets

        datasets.disable_progress_bars()
        column = [rows.of(i) for i in range(len(rows))]
        kind = datasets.Features({"rows": datasets.Array2D((None, rows.dim), "float16")})
        (directory / "hf").mkdir()
        datasets.Dataset.from_dict({"rows": column}, kind).save_to_disk(str(directory / "hf" / "rows"))
        stored = datasets.load_from_disk(str(directory / "hf" / "rows")).with_format("torch")
        loops["datasets, torch format"] = lambda n: (
            torch.cat(list(stored[batch.numbers]["rows"])).float()[None].to(device) for batch in [*batches] * n
        )
    if find_spec("annbatch"):
        (directory / "annbatch").mkdir()
        write_zarr(directory / "annbatch", rows)
        annbatch = AnnBatch(Place(directory / "annbatch", rows, max(len(batch.numbers) for batch in batches)))
        loops["annbatch"] = lambda n: (
            torch.from_numpy(values).float()[None].to(device) for values in annbatch.read([*batches] * n)
        )
    if find_spec("litdata"):
        from litdata import StreamingDataset

        (directory / "litdata").mkdir()
        write_litdata(directory / "litdata", rows)
        streamed = StreamingDataset(str(directory / "litdata"))
        loops["litData"] = lambda n: (
            torch.cat([torch.as_tensor(np.asarray(streamed[i]["rows"])) for i in batch.numbers])
            .float()[None]
            .to(device)
            for batch in [*batches] * n
        )
    return loops


def loop_s(batches: Iterable[Tensor], weight: Tensor) -> tuple[float, float]:
    """Return the seconds of a loop over the batches, and how many of them it waited for the next batch."""
    waited = 0.0
    started = requested = time.perf_counter()
    for rows in batches:
        waited += time.perf_counter() - requested
        (rows[0].float() @ weight).relu_().sum().item()
        requested = time.perf_counter()
    ended = time.perf_counter()
    return ended - started, waited + ended - requested


def check(name: str, epochs: Epochs, expected: list[Tensor]) -> None:
    for i, (rows, wanted_rows) in enumerate(zip(epochs(1), expected, strict=True)):
        if not torch.equal(rows.float(), wanted_rows):
            raise AssertionError(f"{name}: batch {i} isn't what the store holds")


def run(
    directory: Path,
    *,
    n_utterances: int,
    dim: int,
    mean_s: float,
    batch: int,
    width: int,
    epochs: int,
    device: str,
    repeats: int = 3,
) -> Iterator[tuple[str, float, float]]:
    """Yield (name, ms per batch, share of the time spent waiting) of every way; "alone" comes first."""
    target = torch.device(device)
    rows = Rows.random(Shape(n_utterances, dim, mean_s), seed=0)
    write_store(directory, rows)
    store = FeatureStore.open(directory / "store")
    chosen = rows.random_batches(batch, 0, 0)
    batches = [b.keys for b in chosen]
    weight = torch.randn(dim, width, device=target)
    # The rows themselves, from memory and not from the store.
    expected = [
        torch.cat([torch.from_numpy(rows.of(i)) for i in b.numbers]).float()[None].to(target)
        for b in rows.random_batches(batch, 0, 0)
    ]
    measured: dict[str, Epochs] = {
        "alone": lambda n: expected * n,
        **ways(store, batches, target),
        **peers(directory, rows, chosen, target),
    }
    for name, of in measured.items():
        check(name, of, expected)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in measured}
    for _ in range(repeats):
        for name, of in measured.items():
            times[name].append(loop_s(of(epochs), weight))
    for name, pairs in times.items():
        total = statistics.median(wall for wall, _ in pairs)
        yield name, 1e3 * total / (epochs * len(batches)), statistics.median(waited / wall for wall, waited in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description="How long a training loop waits for data.")
    parser.add_argument("--utterances", type=int, default=600)
    parser.add_argument("--dim", type=int, default=1024)
    parser.add_argument("--mean-s", type=float, default=5.5)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--width", type=int, default=64, help="columns of the step's matrix: how long it computes")
    parser.add_argument("--epochs", type=int, default=5, help="in one go, with one loader")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--directory", type=Path, help="where to write; default: the system's temporary one")
    arguments = parser.parse_args()
    table = Table(title=f"{arguments.device}, {torch.get_num_threads()} thread(s) of torch")
    for name in ("way", "ms per batch", "of alone", "waiting"):
        table.add_column(name, justify="left" if name == "way" else "right")
    with tempfile.TemporaryDirectory(dir=arguments.directory) as directory:
        alone_ms = 0.0
        for name, ms, waiting in run(
            Path(directory), n_utterances=arguments.utterances, dim=arguments.dim, mean_s=arguments.mean_s,
            batch=arguments.batch, width=arguments.width, epochs=arguments.epochs, device=arguments.device,
            repeats=arguments.repeats,
        ):  # fmt: skip
            alone_ms = alone_ms or ms
            table.add_row(name, f"{ms:.2f}", f"{ms / alone_ms:.2f}", f"{waiting:.1%}")
    Console().print(table)


if __name__ == "__main__":
    main()
