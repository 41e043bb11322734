"""The steps by name, each with the function that measures it and a short description."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from featurestore.errors import ConfigError

from .settings import Settings

Step = Callable[[Settings, Path], dict[str, Any]]
DISK_BYTES = 1 << 30


def machine(settings: Settings, work: Path) -> dict[str, Any]:
    """Return a description of the machine, and its rates of matrix products and of its disk."""
    import torch

    from featurestore.featurize.decode_ahead import usable_cores
    from featurestore.runtime.device import describe_device, pick_device

    from ..featurize.flops import matmul_peak

    device = pick_device(settings.device)
    figures: dict[str, Any] = {
        "torch": torch.__version__, "device": describe_device(device), "cores": usable_cores(),
        "cudnn": torch.backends.cudnn.version(),
    }  # fmt: skip
    if (program := shutil.which("nvidia-smi")) is not None:
        query = "--query-gpu=name,driver_version,clocks.max.sm,power.limit,memory.total"
        process = subprocess.run([program, query, "--format=csv,noheader"], capture_output=True, text=True, check=False)
        figures["nvidia-smi"] = process.stdout.strip()
    if device.type == "cuda":
        figures["capability"] = ".".join(map(str, torch.cuda.get_device_capability(device)))
    for compute in (torch.float32, torch.bfloat16, torch.float16):
        figures[f"tflop_per_s_{compute}".replace("torch.", "")] = matmul_peak(device, compute) / 1e12
    block = os.urandom(1 << 20)
    n_blocks = (DISK_BYTES >> 20) if not settings.tiny else 4
    started = time.perf_counter()
    with (work / "written").open("wb") as file:
        for _ in range(n_blocks):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    figures["disk_gb_per_s"] = n_blocks * len(block) / 1e9 / (time.perf_counter() - started)
    return figures


def _encoders(function: str, name: str, **options: Any) -> Step:
    def run(settings: Settings, work: Path) -> dict[str, Any]:
        from . import encoders

        result: dict[str, Any] = getattr(encoders, function)(name, settings, work, **options)
        return result

    return run


def _training(function: str) -> Step:
    def run(settings: Settings, work: Path) -> dict[str, Any]:
        from . import training

        result: dict[str, Any] = getattr(training, function)(settings, work)
        return result

    return run


_measure = partial(_encoders, "measure")
STEPS: dict[str, tuple[Step, str]] = {
    "machine": (machine, "versions, matrix products, disk"),
    **{
        f"rows:{name}": (_encoders("rows", name), "real weights: each arithmetic against a CPU, alone and in a batch")
        for name in ("tiny-hubert", "tiny-wavlm")
    },
    "resume": (_training("resume"), "a fit killed and continued, twice the same, with and without --deterministic"),
    **{
        f"attention:{name}": (_encoders("attention", name), "a pass of a new shape, with and without cuDNN's attention")
        for name in ("wavlm-large", "hubert-large")
    },
    **{
        f"featurize:{name}": (_measure(name), "files to segments, beside the field's ways")
        for name in ("wavlm-large", "hubert-large", "wavlm-base", "whisper-large-v3", "roberta-large")
    },
    "featurize-30s:wavlm-large": (_measure("wavlm-large", mean_s=30.0, peers=False), "clips of 20 to 30 s"),
    "featurize-layers:wavlm-large": (_measure("wavlm-large", layers="all", peers=False), "all layers stored"),
    "memory:wavlm-large": (_encoders("out_of_memory", "wavlm-large"), "batches too large for the card"),
    "train": (_training("train"), "d = 1,024, 5,000 clips, beside the field's loop"),
    "transcribe": (_training("transcribe"), "whisper.transcribe beside batches"),
}  # fmt: skip


def names(beginnings: Sequence[str]) -> list[str]:
    """Return the steps with these names or beginnings, in order; all for none. ConfigError for one without a match."""
    for beginning in beginnings:
        if not any(name == beginning or name.startswith(f"{beginning}:") for name in STEPS):
            raise ConfigError(f"no step {beginning!r}; known are {', '.join(STEPS)}")
    return [
        name
        for name in STEPS
        if not beginnings or any(name == beginning or name.startswith(f"{beginning}:") for beginning in beginnings)
    ]
