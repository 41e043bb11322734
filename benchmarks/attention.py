"""Which attention is faster on this CPU in bf16: torch's fused kernel, or the plain product of `deepser.networks`.

Run: python benchmarks/attention.py
"""

import time
from collections.abc import Callable
from functools import partial

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional as F

from deepser.networks.attention import attend

SHAPES = [(16, 4, 46, 32), (16, 4, 184, 32), (16, 8, 370, 128)]  # (B, heads, T, d_head)
REPEATS = 10


def median_ms(step: Callable[[], Tensor], inputs: tuple[Tensor, ...]) -> float:
    """Return the median time of forward and backward, in milliseconds."""
    times: list[float] = []
    for _ in range(REPEATS + 1):
        started = time.perf_counter()
        torch.autograd.grad(step().sum(), inputs)
        times.append(time.perf_counter() - started)
    return 1e3 * sorted(times[1:])[REPEATS // 2]


def main() -> None:
    table = Table(title=f"attention, forward and backward, {torch.get_num_threads()} thread(s)")
    for name in ("B, heads, T, d_head", "dtype", "fused ms", "ours ms", "fused / ours"):
        table.add_column(name, justify="right")
    for shape in SHAPES:
        valid = torch.arange(shape[2]) < torch.full((shape[0], 1), shape[2] - 5)
        for dtype in (torch.float32, torch.bfloat16):
            q, k, v = (torch.randn(shape, dtype=dtype, requires_grad=True) for _ in range(3))
            fused = median_ms(partial(F.scaled_dot_product_attention, q, k, v, valid[:, None, None, :]), (q, k, v))
            ours = median_ms(partial(attend, q, k, v, valid), (q, k, v))
            row = (str(shape), str(dtype).removeprefix("torch."), f"{fused:.2f}", f"{ours:.2f}", f"{fused / ours:.2f}")
            table.add_row(*row)
    Console().print(table)


if __name__ == "__main__":
    main()
