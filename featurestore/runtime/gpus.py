"""NVIDIA GPUs and their MIG slices by UUID: as nvidia-smi lists them, and as CUDA_VISIBLE_DEVICES names them.

CUDA shows a process one MIG slice at most, so that a process for each slice sees its own one alone.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

VISIBLE = "CUDA_VISIBLE_DEVICES"
ANSWER_S = 30.0  # nvidia-smi takes seconds on a machine without persistence mode
GPU_LINE = re.compile(r"GPU (?P<index>\d+): (?P<name>.*) \(UUID: (?P<uuid>GPU-[^)]+)\)")
SLICE_LINE = re.compile(r"\s+MIG .*\(UUID: (?P<uuid>MIG-[^)]+)\)")


@dataclass(frozen=True)
class Gpu:
    """A card, and the UUIDs of its MIG slices; none where MIG is off."""

    uuid: str
    name: str
    slices: tuple[str, ...] = ()


def is_uuid(device: str) -> bool:
    """Return whether a device is named by its UUID, such as GPU-5d5b..., or MIG-c6d4..."""
    return device.startswith(("GPU-", "MIG-"))


def installed_gpus() -> list[Gpu]:
    """Return the devices that `nvidia-smi -L` lists; none where it is not installed or fails."""
    gpus: list[Gpu] = []
    for line in _nvidia_smi("-L").splitlines():
        if (gpu := GPU_LINE.match(line)) is not None:
            gpus.append(Gpu(gpu["uuid"], gpu["name"]))
        elif (part := SLICE_LINE.match(line)) is not None and gpus:
            last = gpus.pop()
            gpus.append(Gpu(last.uuid, last.name, (*last.slices, part["uuid"])))
    return gpus


def visible_units(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Return the UUIDs of all MIG slices that this process may use, and of the cards without slices.

    Empty where no card has a slice, and where CUDA_VISIBLE_DEVICES names cards by numbers, which CUDA orders in its
    own way: then torch's list of devices is the right one.
    """
    gpus = installed_gpus()
    if not any(gpu.slices for gpu in gpus):
        return []
    units = {gpu.uuid: list(gpu.slices or [gpu.uuid]) for gpu in gpus}
    if VISIBLE not in environment:
        return [unit for each in units.values() for unit in each]
    visible: list[str] = []
    for name in (part.strip() for part in environment[VISIBLE].split(",")):
        if not is_uuid(name):
            return []
        # CUDA takes the beginning of a UUID as well.
        visible += [unit for uuid, each in units.items() for unit in each if unit.startswith(name) or uuid == name]
    return list(dict.fromkeys(visible))


def capability_of(uuid: str) -> tuple[int, int] | None:
    """Return the compute capability of the card that is, or has, this UUID; None where nvidia-smi does not say."""
    lines = _nvidia_smi("--query-gpu=uuid,compute_cap", "--format=csv,noheader").splitlines()
    capabilities = dict(line.split(", ", 1) for line in lines if ", " in line)
    for gpu in installed_gpus():
        if any(unit.startswith(uuid) for unit in (gpu.uuid, *gpu.slices)):
            match = re.fullmatch(r"(\d+)\.(\d+)", capabilities.get(gpu.uuid, "").strip())
            return None if match is None else (int(match[1]), int(match[2]))
    return None


@contextmanager
def showing_only(device: str) -> Iterator[None]:
    """Let a process started in the block see the device with this UUID alone; other names change nothing."""
    if not is_uuid(device):
        yield
        return
    before = os.environ.get(VISIBLE)
    os.environ[VISIBLE] = device
    try:
        yield
    finally:
        if before is None:
            del os.environ[VISIBLE]
        else:
            os.environ[VISIBLE] = before


def _nvidia_smi(*arguments: str) -> str:
    program = shutil.which("nvidia-smi")
    if program is None:
        return ""
    try:
        done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=ANSWER_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
