#!/usr/bin/env bash
# torch's optimisers load a compiler. Making any torch.optim.Optimizer (its `add_param_group`), and each of its methods that must not be
# compiled, imports torch._dynamo on the first call, with sympy and, where it is installed, triton: hundreds of modules and a
# second or more before the first step, in a program that compiles nothing. `import torch` and a backward pass load none of
# them, nor does torch.optim.adamw.adamw, the same fused step as a function, which leaves the same weights to the last bit.
# What trains in many short processes (folds, seeds, sweeps of small heads) pays it in each.
#
# Seen with: torch 2.13.0 (CPU), Python 3.11, Linux x86_64.
# Output seen (modules and seconds differ by machine): after a backward pass: compiler loaded False; after the function's step: False;
# after the class is made: True, 824 modules more, 1.4 s; the weights are equal: True
set -euo pipefail
here=$(mktemp -d); trap 'rm -rf "$here"' EXIT; cd "$here"
python3 -m venv venv && venv/bin/pip install --quiet torch==2.13.0 numpy==2.4.6
venv/bin/python - <<'PY'
import sys
import time

import torch
from torch.optim.adamw import adamw


def loaded():
    return {"torch._dynamo", "sympy"} <= sys.modules.keys()


def weights():
    torch.manual_seed(0)
    parameter = torch.randn(8, 8, requires_grad=True)
    parameter.square().sum().backward()
    return parameter


by_function = weights()
states = [loaded()]
moments = [torch.zeros_like(by_function) for _ in range(2)]
with torch.no_grad():
    adamw(
        [by_function], [by_function.grad], moments[:1], moments[1:], [], [torch.zeros(())], fused=True, amsgrad=False,
        beta1=0.9, beta2=0.999, lr=0.01, weight_decay=0.1, eps=1e-8, maximize=False,
    )
states.append(loaded())
by_class = weights()
n_modules, started = len(sys.modules), time.perf_counter()
optimiser = torch.optim.AdamW([by_class], lr=0.01, weight_decay=0.1, fused=True)
states.append(loaded())
seconds = time.perf_counter() - started
optimiser.step()
print(f"after a backward pass: compiler loaded {states[0]}; after the function's step: {states[1]}; after the class is made: "
      f"{states[2]}, {len(sys.modules) - n_modules} modules more, {seconds:.1f} s; the weights are equal: {torch.equal(by_function, by_class)}")
assert states == [False, False, True] and torch.equal(by_function, by_class), "the finding has changed"
PY
