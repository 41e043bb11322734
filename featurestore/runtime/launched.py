"""Which of several tasks this process is, by the environment variables of torchrun, srun or a Slurm array."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from featurestore.errors import ConfigError

TORCHRUN = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
# sbatch and salloc set SLURM_NTASKS for the one process of their script or shell, too; srun alone sets the step's.
STEP = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS")
ARRAY = ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_MAX")
PORTS = range(20_000, 32_000)  # below those that Linux gives out by itself


@dataclass(frozen=True)
class Task:
    """Task `rank` of `count`, and its number on its own machine; both count from 0."""

    rank: int
    count: int
    local: int
    launcher: str  # "torchrun", "srun", "array", or two of them


def task_of_launcher(environment: Mapping[str, str] = os.environ) -> Task | None:
    """Return this process's place among those of torchrun or srun; None where it runs alone.

    torchrun's variables come first, since srun may have started torchrun itself, once a machine.
    """
    if all(name in environment for name in TORCHRUN):
        rank, count = (_number(environment, name) for name in TORCHRUN[:2])
        local, launcher = _number(environment, "LOCAL_RANK", rank), "torchrun"
    elif all(name in environment for name in STEP):
        rank, count = (_number(environment, name) for name in STEP)
        local, launcher = _number(environment, "SLURM_LOCALID", rank), "srun"
    else:
        return None
    return Task(rank, count, local, launcher) if count > 1 else None


def task_of_array(environment: Mapping[str, str] = os.environ) -> Task | None:
    """Return this process's task of a Slurm job array; None outside an array.

    ConfigError for an array whose numbers aren't evenly spaced (`--array=1,2,7`): its tasks can't know their places.
    """
    if ARRAY[0] not in environment:
        return None
    number, count, first, last = (_number(environment, name) for name in ARRAY)
    step = _number(environment, "SLURM_ARRAY_TASK_STEP", 1)
    if count > 1:
        step = (last - first) // (count - 1)
    if first + step * (count - 1) != last or (number - first) % max(step, 1):
        raise ConfigError(
            f"The Slurm array has {count} tasks numbered from {first} to {last}, unevenly; --shard auto needs evenly "
            "spaced numbers, such as --array=0-7. Give --shard I/N otherwise."
        )
    return Task((number - first) // max(step, 1), count, 0, "array")


def part_of_all(environment: Mapping[str, str] = os.environ) -> Task | None:
    """Return this process's place among all that one submission starts: the array's tasks, and each one's processes."""
    array, part = task_of_array(environment), task_of_launcher(environment)
    if array is None or part is None:
        return array or part
    return Task(
        array.rank * part.count + part.rank,
        array.count * part.count,
        part.local,
        f"{array.launcher} and {part.launcher}",
    )


def rendezvous_of_step(environment: Mapping[str, str] = os.environ) -> str:
    """Return the URL at which the tasks of one srun meet: MASTER_ADDR and MASTER_PORT where set.

    By default on the step's first machine, at a port made of the numbers of job and step.
    """
    nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_NODELIST", "localhost")
    host = environment.get("MASTER_ADDR") or first_host(nodes)
    job, step = (_number(environment, name, 0) for name in ("SLURM_JOB_ID", "SLURM_STEP_ID"))
    port = environment.get("MASTER_PORT") or PORTS[(job * 31 + step) % len(PORTS)]
    return f"tcp://{host}:{port}"


def first_host(nodes: str) -> str:
    """Map "gpu[07-09,12],login1" -> "gpu07", as Slurm writes lists of machines."""
    match = re.match(r"(?P<prefix>[^\[,]+)(?:\[(?P<number>\d+)[^\]]*\](?P<suffix>[^\[,]*))?", nodes)
    if match is None:
        raise ConfigError(f"Slurm's list of machines {nodes!r} can't be read; set MASTER_ADDR to the first one's name.")
    return "".join(part or "" for part in match.groups())


def _number(environment: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = environment.get(name)
    if text is None and default is not None:
        return default
    try:
        return int(text or "")
    except ValueError:
        raise ConfigError(f"The environment variable {name} is {text!r}; expected a number.") from None
