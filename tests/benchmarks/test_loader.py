"""The loader's benchmark reads the same batches every way, and its shares are shares."""

from pathlib import Path

import pytest

from benchmarks import loader as bench

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")


def test_every_way_is_checked_and_measured(tmp_path: Path) -> None:
    output = list(
        bench.run(tmp_path, n_utterances=30, dim=8, mean_s=0.6, batch=7, width=4, epochs=2, repeats=1, device="cpu")
    )
    names = [name for name, _, _ in output]
    assert names[0] == "alone"
    ours = [name for name in names if name.startswith(("medusa", "DataLoader"))]
    assert len(set(ours)) == len(ours) == 6
    assert all(ms > 0 and 0 <= waiting <= 1 for _, ms, waiting in output)


def test_other_rows_are_found(tmp_path: Path) -> None:
    import torch

    with pytest.raises(AssertionError, match="mine: batch 1"):
        bench.check("mine", lambda n: [torch.zeros(1, 2, 3), torch.ones(1, 2, 3)], [torch.zeros(1, 2, 3)] * 2)
