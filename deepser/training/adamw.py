"""AdamW by torch's fused kernels, without `torch.optim.Optimizer`.

That class, once made, loads torch._dynamo with sympy and triton: a second or two before a step that needs none of them.
"""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.optim.adamw import adamw

BETAS, EPSILON = (0.9, 0.999), 1e-8  # torch's defaults


class AdamW:
    """AdamW (Loshchilov and Hutter, ICLR 2019), to the last bit as torch.optim.AdamW(fused=True) computes it.

    `state` holds by parameter, once it has had a gradient, what torch's does: `step` (), `exp_avg` and `exp_avg_sq` in
    the parameter's shape; all on its device. `lr` may be set before each step.
    """

    def __init__(self, parameters: Iterable[Tensor], *, lr: float, weight_decay: float) -> None:
        self.parameters, self.lr, self.weight_decay = list(parameters), lr, weight_decay
        self.state: dict[Tensor, dict[str, Tensor]] = {}

    def zero_grad(self) -> None:
        """Leave no parameter a gradient."""
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Move each parameter that has a gradient along it."""
        moved = [parameter for parameter in self.parameters if parameter.grad is not None]
        if not moved:
            return
        slots = [self._slots(parameter) for parameter in moved]
        adamw(
            moved, [parameter.grad for parameter in moved if parameter.grad is not None],
            [each["exp_avg"] for each in slots], [each["exp_avg_sq"] for each in slots], [],
            [each["step"] for each in slots], fused=True, amsgrad=False, beta1=BETAS[0], beta2=BETAS[1], lr=self.lr,
            weight_decay=self.weight_decay, eps=EPSILON, maximize=False,
        )  # fmt: skip

    def _slots(self, parameter: Tensor) -> dict[str, Tensor]:
        if parameter not in self.state:
            self.state[parameter] = {
                "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
                "exp_avg": torch.zeros_like(parameter, memory_format=torch.preserve_format),
                "exp_avg_sq": torch.zeros_like(parameter, memory_format=torch.preserve_format),
            }
        return self.state[parameter]
