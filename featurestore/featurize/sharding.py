"""A manifest's utterances shared among processes or machines that don't talk to each other."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from featurestore.errors import ConfigError
from featurestore.runtime.launched import part_of_all


@dataclass(frozen=True)
class Shard:
    """Part `number` of `count`, counted from 1."""

    number: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise ConfigError(f"--shard {self}: expected I/N with I from 1 to N, such as 2/8.")

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Parse "2/8", the second of eight."""
        match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text.strip())
        if match is None:
            raise ConfigError(f"--shard {text}: expected I/N with I from 1 to N, such as 2/8, or auto.")
        return cls(int(match[1]), int(match[2]))

    @classmethod
    def of_task(cls, environment: Mapping[str, str] = os.environ) -> "tuple[Shard, str]":
        """Return this process's part, as torchrun, srun or a Slurm array numbers it, and which of them does.

        ConfigError where none of them started it.
        """
        task = part_of_all(environment)
        if task is None:
            raise ConfigError(
                "--shard auto: neither a Slurm array (SLURM_ARRAY_TASK_ID), nor srun (SLURM_PROCID) or torchrun (RANK) "
                "with several tasks started this process; give --shard I/N."
            )
        return cls(task.rank + 1, task.count), task.launcher

    def select(self, keys: Sequence[str], sizes: Sequence[float]) -> list[int]:
        """Return the positions of this part, longest first: the same on all machines, each in exactly one part.

        The longest are dealt first, there and back (1 2 3, 3 2 1, ...), so that the parts' sums differ by at most about
        the longest one. Ties are broken by key; the order of the manifest doesn't matter.
        """
        order = sorted(range(len(keys)), key=lambda i: (-sizes[i], keys[i]))
        chosen = []
        for first in range(0, len(order), self.count):
            forward = (first // self.count) % 2 == 0
            place = first + (self.number - 1 if forward else self.count - self.number)
            if place < len(order):
                chosen.append(order[place])
        return chosen
