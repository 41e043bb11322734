"""Which hidden states an encoder keeps, and what the store calls them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from featurestore.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class LayerChoice:
    """Which hidden states to keep: their numbers, their arrays' names, and whether they are summed into one."""

    numbers: tuple[int, ...]
    names: tuple[str, ...]
    summed: bool = False

    @property
    def deepest(self) -> int:
        return max(self.numbers)

    @classmethod
    def parse(cls, text: str, n_layers: int, encoder: str) -> LayerChoice:
        """Read `last`, `all`, `last4`, `last4-sum` or numbers such as `6,12,24`; ConfigError with the range."""
        text = text.strip().lower()
        match = re.fullmatch(r"last(\d*)(-sum)?", text)
        if text == "all":
            numbers = tuple(range(n_layers + 1))
        elif match:
            n_last = int(match[1] or 1)
            if not 1 <= n_last <= n_layers + 1:
                raise ConfigError(
                    f"--layers {text}: {encoder} has layers 0 to {n_layers}, expected at most all of them."
                )
            numbers = tuple(range(n_layers + 1 - n_last, n_layers + 1))
            if match[2]:
                return cls(numbers, (f"last{n_last}_sum",), summed=True)
        else:
            try:
                numbers = tuple(int(part) for part in text.split(","))
            except ValueError:
                raise ConfigError(
                    f"--layers {text}: expected last, all, last4, last4-sum or numbers such as 6,12,24 "
                    f"(0 to {n_layers} for {encoder})."
                ) from None
            wrong = [k for k in numbers if not 0 <= k <= n_layers]
            if wrong:
                raise ConfigError(f"--layers {text}: {encoder} has layers 0 to {n_layers}, found {wrong[0]}.")
            if len(set(numbers)) < len(numbers):
                raise ConfigError(f"--layers {text}: a layer is named twice; name each layer once.")
            numbers = tuple(sorted(numbers))
        return cls(numbers, tuple(layer_name(k) for k in numbers))


def layer_name(number: int) -> str:
    """Return the store's array name of one layer: 6 -> "layer_06"."""
    return f"layer_{number:02d}"


def chosen(states: Iterable[tuple[int, Tensor]], choice: LayerChoice) -> Iterator[Tensor]:
    """Yield the chosen hidden states of (number, (B, T, D)) in rising order, or their one float32 sum."""
    total: Tensor | None = None
    for number, state in states:
        if number not in choice.numbers:
            continue
        if not choice.summed:
            yield state
        else:
            total = state.float() if total is None else total + state.float()
    if total is not None:
        yield total
