"""A manifest's utterances shared among processes or machines that don't talk to each other."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from featurestore.errors import ConfigError


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
        """ "2/8" -> the second of eight."""
        match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text.strip())
        if match is None:
            raise ConfigError(f"--shard {text}: expected I/N with I from 1 to N, such as 2/8.")
        return cls(int(match[1]), int(match[2]))

    def select(self, keys: Sequence[str], sizes: Sequence[float]) -> list[int]:
        """Positions of this part, longest first: the same on every machine, each position in exactly one part.

        The longest are dealt first, there and back (1 2 3, 3 2 1, ...), so that the parts' sums differ by at most about
        the longest one. Ties are broken by key; the order of the manifest doesn't matter.
        """
        order = sorted(range(len(keys)), key=lambda i: (-sizes[i], keys[i]))
        chosen = []
        for first in range(0, len(order), self.count):
            there = (first // self.count) % 2 == 0
            place = first + (self.number - 1 if there else self.count - self.number)
            if place < len(order):
                chosen.append(order[place])
        return chosen
