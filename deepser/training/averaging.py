"""An exponential moving average of a network's parameters."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class MovingAverage:
    """mean = decay * mean + (1 - decay) * parameter after every step, by name; it starts from what they are."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.network = network
        self.mean = {name: p.detach().clone() for name, p in network.named_parameters()} if decay else {}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the parameters as they are now."""
        if self.mean:
            current = [p.detach() for _, p in self.network.named_parameters()]
            torch._foreach_lerp_(list(self.mean.values()), current, 1 - self.decay)

    def restore(self, mean: dict[str, Tensor]) -> None:
        """Go on from a saved `mean`."""
        for name, value in self.mean.items():
            value.copy_(mean[name])

    @torch.no_grad()
    def settle(self) -> None:
        """Make the mean the network's parameters."""
        parameters = dict(self.network.named_parameters())
        for name, value in self.mean.items():
            parameters[name].copy_(value)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Let the network have the mean for its parameters inside the block."""
        parameters = dict(self.network.named_parameters())
        saved = {name: parameters[name].detach().clone() for name in self.mean}
        self.settle()
        try:
            yield
        finally:
            with torch.no_grad():
                for name, value in saved.items():
                    parameters[name].copy_(value)
