"""What a training step asks of a GPU: one wait, whatever the number of feature sets and members."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from deepser.networks.network import Network
from deepser.training.data import Rows, TrainingData
from deepser.training.processes import World
from deepser.training.run import DivergenceCheck, Epoch, Job, Run
from deepser.training.targets import Targets
from deepser.training.together import take_layers
from featurestore.errors import ConfigError
from featurestore.loaders.batch_loader import FeatureRef
from tests.helpers.device_work import META, counted
from tests.helpers.synthetic_corpus import corpus, member

CLIPS = np.arange(11, 18)
KINDS = ("deepser", "late-fusion", "cross-attention", "srpol", "baseline")


def epoch_of(data: TrainingData, n_sets: int, kind: str, directory: Path, device: torch.device) -> Epoch:
    config = member("g", batch_size=7, mixup_p=0.7)
    torch.manual_seed(0)
    network = Network(((2, 6),) * n_sets, 3, data.targets.attribute_ranges, replace(config.network, kind=kind))
    world = World(device=device)
    run = Run(Job(network, data, np.arange(90), np.arange(0), config.train, directory), world, [1])
    stage = run.open_stage(0)
    assert stage is not None
    return stage.begin_epoch()


def rows_of(n_sets: int, device: torch.device) -> Rows:
    """Lengths that differ, and a clip without rows."""
    offsets = torch.tensor([0, 4, 4, 9, 10, 17, 20, 22])
    return [(torch.ones((3, 22, 6), device=device), offsets) for _ in range(n_sets)]


@pytest.fixture
def data(tmp_path: Path) -> TrainingData:
    store, manifest = corpus(tmp_path)
    return TrainingData(store, (FeatureRef("first"),), Targets.from_manifest(manifest))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("n_sets", "n_members"), [(2, 1), *(pytest.param(*sizes, marks=pytest.mark.slow) for sizes in ((3, 2), (4, 3)))]
)
def test_a_step_is_one_wait_for_any_number_of_feature_sets_and_members(
    data: TrainingData, kind: str, n_sets: int, n_members: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The fused one, a kernel or two on CUDA, takes no meta parameters.
    monkeypatch.setattr("deepser.training.run.AdamW", partial(torch.optim.AdamW, foreach=True))
    with counted(monkeypatch) as work:
        epochs = [epoch_of(data, n_sets, kind, tmp_path / str(i), META) for i in range(n_members)]
        check = DivergenceCheck(epochs)
        for step in range(3):
            if step == 2:
                work.start_anew()
            rows = rows_of(n_sets, META)
            for epoch in epochs:
                epoch.begin_step(step / 3)
                epoch.learn(CLIPS, take_layers(rows, [(i, [0, 2]) for i in range(n_sets)]), 1.0)
                epoch.end_step()
            check.end_step()
    assert work.waits == 1, work.waited_for
    # Of each member what MixUp draws and the targets, and of each of its feature sets where rows go.
    assert (work.inward, work.outward) == (n_members * (1 + n_sets), 1)


def test_a_loss_that_is_no_number_is_seen_at_the_next_step_or_at_the_end(data: TrainingData, tmp_path: Path) -> None:
    epochs = [epoch_of(data, 2, "deepser", tmp_path / str(i), torch.device("cpu")) for i in range(2)]
    check = DivergenceCheck(epochs)
    check.end_step()
    epochs[1].losses = epochs[1].losses + torch.nan
    check.end_step()
    with pytest.raises(ConfigError, match="the loss became nan"):
        check.end_step()
    check = DivergenceCheck(epochs)
    check.end_step()
    with pytest.raises(ConfigError, match="the loss became nan"):
        check.close()
