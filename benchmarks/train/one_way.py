"""One way of training in a process of its own: `python -m benchmarks.train.one_way < job.json`, JSON on stdout.

So the peak memory, and a limit on the process, are those of this way alone.
"""

import json
import resource
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from deepser.networks.network import Network
from deepser.training import train as trainer
from deepser.training.data import TrainingData
from deepser.training.device import resolve_precision
from deepser.training.processes import World
from deepser.training.run import Job
from featurestore.loaders.batch_loader import FeatureRef
from featurestore.runtime.device import pick_device
from featurestore.store.feature_store import FeatureStore

from .corpus import Modality, made, member_config
from .field import check, plain_like, train_plainly

SAMPLED_EVERY_S = 0.05


class Memory(threading.Thread):
    """The most anonymous memory and resident memory, in bytes, of this process and its workers together (Linux).

    Anonymous memory is private to a process. Resident memory also counts the pages of mapped files that happen to be in
    the page cache, which the kernel takes back when it needs them. Shared pages count once in each process.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.anonymous = self.resident = 0
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(SAMPLED_EVERY_S):
            self.sample()

    def sample(self) -> None:
        statuses = [each for pid in _processes() if (each := _status(pid))]
        self.anonymous = max(self.anonymous, sum(each.get("RssAnon", 0) + each.get("RssShmem", 0) for each in statuses))
        self.resident = max(self.resident, sum(each.get("VmRSS", 0) for each in statuses))

    def end(self) -> dict[str, int | None]:
        self.sample()
        self._ended.set()
        self.join()
        if not self.resident:  # not Linux
            unit = 1 if sys.platform == "darwin" else 1024
            return {"anonymous": None, "resident": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
        return {"anonymous": self.anonymous, "resident": self.resident}


def _processes() -> list[str]:
    """Return this process and its children."""
    pids = ["self"]
    for path in Path("/proc/self/task").glob("*/children"):
        pids += path.read_text().split()
    return pids


def _status(pid: str) -> dict[str, int]:
    """Return bytes by name; nothing where the process has ended, or the system has no /proc."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    parts = [line.split() for line in lines if line.endswith(" kB")]
    return {part[0].rstrip(":"): int(part[1]) * 1024 for part in parts}


def train_one_way(job: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of one way; `run.py` writes the job."""
    torch.set_num_threads(job["threads"])
    modalities = [Modality(*each) for each in job["modalities"]]
    corpus = made(Path(job["directory"]), job["n_utterances"], modalities, job["mean_s"], job["seed"])
    n = job["first_n"] or job["n_utterances"]  # how much of the corpus is trained on
    device = pick_device(job["device"])
    precision = resolve_precision(job["precision"], device)
    names = corpus.names
    config = member_config(
        names, d=job["d"], n_layers=job["n_layers"], n_heads=job["n_heads"], batch=job["batch"],
        epochs=1 + job["epochs"], precision=precision,
    )  # fmt: skip
    torch.manual_seed(job["seed"])
    targets = corpus.targets
    inputs = [(1, modality.dim) for modality in modalities]
    network = Network(inputs, len(targets.classes), targets.attribute_ranges, config.network)
    memory = Memory()
    memory.start()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    cpu_marks: list[float] = []  # seconds of all threads, after each step
    if job["way"] == "field":
        plain = plain_like(network, [modality.dim for modality in modalities], config.network, len(targets.attributes))
        first_rows = [torch.from_numpy(np.load(corpus.npy(m, 0))).float() for m in range(len(names))]
        difference = check(network, plain, first_rows)
        if job["compile"]:
            plain.compile(dynamic=True)
        epochs: Any = list(
            train_plainly(corpus, plain, config, job["workers"], device, lambda: cpu_marks.append(time.process_time()))
        )
        details = {"apart": difference}
    else:
        data = TrainingData(FeatureStore.open(corpus.store), tuple(FeatureRef(name) for name in names), targets)
        padding = count_padding(network, device)
        if job["compile"]:
            network.body.compile(dynamic=True)
        with tempfile.TemporaryDirectory(dir=job["directory"]) as directory:
            run = Job(network, data, np.arange(n), np.arange(0), config.train, Path(directory))
            (epochs,) = trainer.train(
                [run], World(device=device),
                progress=lambda done, total, what: cpu_marks.append(time.process_time()),
            )  # fmt: skip
        details = {"padding_share": padding.share}
    n_steps, warm = len(cpu_marks) // len(epochs), epochs[1:]
    cpu_s = (cpu_marks[-1] - cpu_marks[n_steps - 1]) / len(warm)
    return {
        **details,
        **({"padding_share": float(np.mean([each["padding_share"] for each in warm]))} if "apart" in details else {}),
        "precision": precision if job["way"] == "medusa" else "float32",
        "device": str(device),
        "n_parameters": sum(p.numel() for p in network.parameters()),
        "n_clips": n,
        "n_steps": n_steps,
        "cpu_s": cpu_s,  # of an epoch; of this process, its loader's workers left out
        "epoch_s": [each["seconds"] for each in warm],
        "waiting_shares": [each["waiting_share"] for each in warm],
        "first_epoch_s": epochs[0]["seconds"],
        "first_waiting_share": epochs[0]["waiting_share"],
        "losses": [each["loss"] for each in epochs],
        "peak_bytes": memory.end(),
        "cuda_peak_bytes": torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
    }


@dataclass
class Padding:
    """Valid frames of a body's sequences, counted on the device so that nothing waits, and all their frames."""

    valid: Tensor
    n_frames: int = 0

    @property
    def share(self) -> float:
        return 1 - float(self.valid) / self.n_frames


def count_padding(network: Network, device: torch.device) -> Padding:
    """Count the frames of all sequences that the network's body takes from now on.

    The counts add up in one tensor: a tensor for each step, kept to the end, would break up the memory that the steps
    reuse.
    """
    counted = Padding(torch.zeros((), dtype=torch.int64, device=device))

    def count(body: nn.Module, inputs: Any) -> None:
        for _, valid in inputs[0]:
            counted.valid.add_(valid.sum())
            counted.n_frames += valid.numel()

    network.body.register_forward_pre_hook(count)
    return counted


def limit_memory(n_bytes: int) -> None:
    """Limit private writable memory (RLIMIT_DATA); mapped files and the page cache don't count."""
    resource.setrlimit(resource.RLIMIT_DATA, (n_bytes, n_bytes))


if __name__ == "__main__":
    job = json.load(sys.stdin)
    if job["limit_bytes"]:
        limit_memory(job["limit_bytes"])
    print(json.dumps(train_one_way(job)))
