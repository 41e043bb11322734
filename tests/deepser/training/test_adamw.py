"""AdamW: torch's own steps, without what its class loads."""

import pytest
import torch

from deepser.training.adamw import AdamW
from tests.helpers.warm_python import run_warm

SHAPES = [(3, 5), (7,), (1, 1), ()]


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_steps_are_torchs_to_the_last_bit(weight_decay: float) -> None:
    torch.manual_seed(0)
    ours = [torch.randn(shape, requires_grad=True) for shape in SHAPES]
    theirs = [parameter.detach().clone().requires_grad_() for parameter in ours]
    optimiser = AdamW(ours, lr=0.05, weight_decay=weight_decay)
    reference = torch.optim.AdamW(theirs, lr=0.05, weight_decay=weight_decay, fused=True)
    for step in range(20):
        optimiser.lr = reference.param_groups[0]["lr"] = 0.05 / (1 + step)
        for number, (mine, its) in enumerate(zip(ours, theirs, strict=True)):
            gradient = torch.randn(mine.shape) * 10.0 ** (step % 5 - 3)
            absent = number == 1 and step in (0, 7)  # as where a batch doesn't pass through a part of a network
            mine.grad, its.grad = (None, None) if absent else (gradient, gradient.clone())
        optimiser.step()
        reference.step()
        for mine, its in zip(ours, theirs, strict=True):
            assert mine.equal(its)
    for mine, its in zip(ours, theirs, strict=True):
        assert optimiser.state[mine].keys() == reference.state[its].keys()
        for slot, value in optimiser.state[mine].items():
            assert value.equal(reference.state[its][slot])
            assert value.dtype == reference.state[its][slot].dtype
    optimiser.zero_grad()
    assert all(parameter.grad is None for parameter in ours)
    before = [parameter.detach().clone() for parameter in ours]
    optimiser.step()
    assert all(map(torch.equal, ours, before))


def test_a_step_loads_no_compiler() -> None:
    code = """
    import sys, torch
    from deepser.training.adamw import AdamW
    weight = torch.ones(3, requires_grad=True)
    optimiser = AdamW([weight], lr=0.1, weight_decay=0.1)
    weight.sum().backward()
    optimiser.step()
    print(sorted({"torch._dynamo", "sympy", "triton"} & sys.modules.keys()), weight[0].item() < 1)
    """
    process = run_warm("\n".join(line.strip() for line in code.splitlines()))
    assert process.stdout == "[] True\n", process.stderr
