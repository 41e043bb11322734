import errno
import os
from pathlib import Path

import pytest
import torch

from deepser.training.adamw import AdamW
from deepser.training.checkpoint import (
    State,
    load_checkpoint,
    restore_optimiser,
    save_atomically,
    save_checkpoint,
)
from featurestore.errors import ConfigError


def test_a_place_that_cannot_be_written_is_named_with_the_systems_reason(tmp_path: Path) -> None:
    (tmp_path / "fold-1").write_text("a file where a directory is needed")
    path = tmp_path / "fold-1" / "checkpoint.safetensors"
    with pytest.raises(ConfigError) as caught:
        save_atomically({"weight": torch.zeros(3)}, path)
    assert str(path) in str(caught.value)
    assert any(os.strerror(reason) in str(caught.value) for reason in (errno.EEXIST, errno.ENOTDIR))
    assert [p.name for p in tmp_path.iterdir()] == ["fold-1"]


def test_a_checkpoint_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    network = torch.nn.Linear(2, 1)
    optimiser = AdamW(network.parameters(), lr=1e-3, weight_decay=0.01)
    network(torch.ones(1, 2)).sum().backward()
    optimiser.step()
    state = State(stage=1, epoch=2, best_score=0.5, best_at="stage1 epoch 2", rule="macro_f1", history=[{"loss": 1.5}])
    path = tmp_path / "deep" / "checkpoint.safetensors"
    best = {name: value.clone() for name, value in network.state_dict().items()}
    save_checkpoint(path, network, optimiser, best, {"weight": torch.ones(1, 2)}, state)
    saved = load_checkpoint(path)
    assert saved.state == state
    assert saved.average.keys() == {"weight"}
    assert saved.optimiser["exp_avg/weight"].equal(optimiser.state[network.weight]["exp_avg"])
    for name, value in network.state_dict().items():
        assert saved.model[name].equal(value)
        assert saved.best[name].equal(value)


def test_every_slot_of_the_optimiser_comes_back_on_its_parameters_device() -> None:
    # A fused AdamW refuses a `step` that is on the CPU while its parameter is on a card; "meta" stands for one here.
    network = torch.nn.Linear(2, 1, device="meta")
    optimiser = AdamW(network.parameters(), lr=1e-3, weight_decay=0.01)
    saved = {f"{slot}/{name}": torch.zeros(shape) for name, shape in (("weight", (1, 2)), ("bias", (1,)))
             for slot, shape in (("step", ()), ("exp_avg", shape), ("exp_avg_sq", shape))}  # fmt: skip
    restore_optimiser(optimiser, network, saved)
    for parameter in network.parameters():
        assert set(optimiser.state[parameter]) == {"step", "exp_avg", "exp_avg_sq"}
        assert {value.device.type for value in optimiser.state[parameter].values()} == {"meta"}
