"""Long inputs in overlapping windows: which frames each window computes and which of them are kept."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Window:
    """Frames [start, stop) are computed, frames [keep_start, keep_stop) kept; all counted from the input's first."""

    start: int
    stop: int
    keep_start: int
    keep_stop: int


def windows(n_frames: int, size: int, margin: int) -> list[Window]:
    """Cover n_frames with windows of at most `size`, every kept frame once and in order.

    A kept frame has at least `margin` frames of context inside its window on either side, except at the input's own
    ends. The last window is moved back so that it is full. An input of at most `size` frames is one window.
    """
    if n_frames <= size:
        return [Window(0, n_frames, 0, n_frames)]
    assert size > 2 * margin, (size, margin)
    plan, n_kept = [], 0
    for start in range(0, n_frames, size - 2 * margin):
        start = min(start, n_frames - size)
        stop = start + size
        keep_stop = n_frames if stop == n_frames else stop - margin
        plan.append(Window(start, stop, n_kept, keep_stop))
        n_kept = keep_stop
        if stop == n_frames:
            break
    return plan


def batches(costs: Sequence[int], budget: int) -> Iterator[range]:
    """Cut 0..len(costs) into runs whose padded cost (longest x count) stays within budget; one item always fits."""
    start, longest = 0, 0
    for i, cost in enumerate(costs):
        longest = max(longest, cost)
        if i > start and longest * (i + 1 - start) > budget:
            yield range(start, i)
            start, longest = i, cost
    if start < len(costs):
        yield range(start, len(costs))
