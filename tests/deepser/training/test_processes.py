"""Two processes take one process's steps on the same clips; one writes; a failure of one ends them all."""

import json
import os
import socket
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from deepser.config import LossConfig, MemberConfig, NetworkConfig, StageConfig
from deepser.members.fit import fit_members
from deepser.members.folds import FoldPlan
from deepser.networks.network import Network
from deepser.training import processes
from deepser.training.data import TrainingData
from deepser.training.device import resolve_precision
from deepser.training.processes import World, _own_device, joined, refuse_shared
from deepser.training.run import Job, Run
from deepser.training.targets import Targets
from deepser.training.together import SharedReader, sharing
from deepser.training.train import train
from featurestore.corpus.manifest import Manifest
from featurestore.errors import ConfigError
from featurestore.loaders.batch_loader import FeatureRef
from featurestore.store.feature_store import FeatureStore
from tests.helpers.fake_cuda import fake_cuda
from tests.helpers.synthetic_corpus import corpus, member
from tests.helpers.warm_python import WarmProcess

REPO = Path(__file__).resolve().parents[3]
UNIMODAL = NetworkConfig(d=8, n_heads=2, kind="unimodal")

# Each process logs what it reads; the second one is given other directories, where nothing may appear.
SCRIPT = """
import json, sys
from pathlib import Path
sys.path[:0] = sys.argv[3:4]
from tests.deepser.training.test_processes import configs, gradients, plan_of, run_directory
from deepser.members.fit import fit_members
from deepser.training.processes import joined
from deepser.training.together import SharedReader
from featurestore.corpus.manifest import Manifest
from featurestore.store.feature_store import FeatureStore

directory, what = Path(sys.argv[1]), sys.argv[2]
store, manifest = FeatureStore.open(directory / "store"), Manifest.read(directory / "m.csv")
with joined("cpu") as world:
    into = FeatureStore.open_or_create(directory / "two" / f"posteriors-{world.rank}")
    if what == "fit":
        read, log = SharedReader.open_batches, []
        def logged(self, members, batches, stride, device):
            log.append([[int(i) for i in batch] for batch in batches])
            return read(self, members, batches, stride, device)
        SharedReader.open_batches = logged
        gradients(store, manifest, directory, world)
        chosen, stop = configs(), None
    else:
        chosen = configs()[-1:]
        steps = []
        def stop(fold, done, total, text):
            steps.append(done)
            if len(steps) == 9:
                raise OSError("the disk is full")
    places = [run_directory(directory, world.rank) / c.name for c in chosen]
    fit_members(store, manifest, chosen, plan_of(manifest), places, world=world, into=into, progress=stop)
    if what == "fit":
        (directory / f"read-{world.rank}.json").write_text(json.dumps(log))
"""


def run_directory(directory: Path, rank: int) -> Path:
    return directory / "two" / f"runs-{rank}"


def plan_of(manifest: Manifest) -> FoldPlan:
    return FoldPlan(("all",), np.array([0 if i % 9 < 6 else -1 for i in range(len(manifest))]), "test")


def configs() -> list[MemberConfig]:
    """Two on one stream without anything drawn by the process, and one with dropout; every kind of loss among them."""
    stages = (
        StageConfig("a", "shuffled", 0.5, 2, 1e-3),
        StageConfig("b", "balanced", 0.0, 2, 1e-3, select="mean_ccc", loss=LossConfig("focal", "ccc")),
    )
    settings: dict[str, Any] = {"stages": stages, "select": "loss", "dev_fraction": 0.3, "mixup_p": 0.5, "stride": 2}
    first = member("first", batch_size=7, **settings)
    first = replace(first, network=replace(first.network, dropout=0.0))
    second = replace(first, name="other", network=replace(first.network, kind="late-fusion", pooling="asp"))
    dropping = member("dropping", batch_size=6, accumulate=2, **settings)
    return [*sharing([first, replace(second, train=replace(second.train, seed=1))]), dropping]


LOSSES = [
    LossConfig(classes, attributes, gaussian_sigma=3.0) for classes, attributes in (
        ("cross-entropy", "mse"), ("focal", "ccc"), ("cross-entropy", "gaussian-mse")
    )
] + [LossConfig(attribute_weight=0.0)]  # fmt: skip


def gradients(store: FeatureStore, manifest: Manifest, directory: Path, world: World) -> None:
    """Of one step on batches of 7 and of 1, for every loss: written by the first process."""
    refs = tuple(FeatureRef(name, ("layer_01", "layer_02")) for name in ("first", "second"))
    data = TrainingData(store, refs, Targets.from_manifest(manifest))
    result: dict[str, np.ndarray] = {}
    for i, loss in enumerate(LOSSES):
        stage = StageConfig("a", "shuffled", 0.5, 1, 1e-3, loss=loss)
        config = member("g", stages=(stage,), mixup_p=0.7).train
        torch.manual_seed(0)
        network = Network(((2, 6), (2, 4)), 3, data.targets.attribute_ranges, configs()[0].network)
        for clips in (np.arange(11, 18), np.arange(31, 32)):
            run = Run(Job(network, data, np.arange(90), np.arange(0), config, directory), world, [1])
            stage = run.open_stage(0)
            assert stage is not None
            epoch = stage.begin_epoch()
            epoch.begin_step(0)
            share = world.share_of(clips)
            with data.open_batches([share], 1) as batches:
                epoch.learn(clips, next(batches) if len(share) else None, 1.0)
            world.sum_gradients(network)
            of = f"{i}/{len(clips)}"
            result[f"{of}/loss"] = np.array(epoch.total_loss)
            result |= {f"{of}/{n}": p.grad.numpy().copy() for n, p in network.named_parameters() if p.grad is not None}
    if world.first:
        np.savez(directory / f"gradients-{world.size}.npz", **result)


def torchrun(script: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run([*command, *arguments], env=environment, capture_output=True, text=True, timeout=300)


def in_two_processes(code: str, *arguments: object) -> None:
    """Run a program twice with the variables that torchrun sets, from an interpreter that has imported torch."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
    both = [
        WarmProcess(code, *arguments, environment={**os.environ, **meeting, "RANK": rank, "LOCAL_RANK": rank})
        for rank in ("0", "1")
    ]
    for process in both:
        _, errors = process.communicate()
        assert process.returncode == 0, errors


@dataclass(frozen=True)
class Both:
    """A corpus in `directory`; "one" and "two" hold what one and two processes made of it."""

    directory: Path
    store: FeatureStore
    manifest: Manifest
    script: Path
    read_by_one: list[list[list[int]]]

    def weights(self, which: str, name: str) -> dict[str, np.ndarray]:
        return load_file(self.directory / which / name / "fold-all" / "model.safetensors")

    def records(self, which: str, name: str) -> list[dict[str, Any]]:
        path = self.directory / which / name / "fold-all" / "metrics.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Both:
    directory = tmp_path_factory.mktemp("both")
    store, manifest = corpus(directory)
    manifest.write(directory / "m.csv")
    manifest = Manifest.read(directory / "m.csv")
    (directory / "two").mkdir()
    script = directory / "script.py"
    script.write_text(SCRIPT)
    in_two_processes(SCRIPT, directory, "fit", REPO)
    open_batches, log = SharedReader.open_batches, []

    def logged(self: SharedReader, members: Any, batches: Any, *further: Any) -> Any:
        log.append([[int(i) for i in batch] for batch in batches])
        return open_batches(self, members, batches, *further)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SharedReader, "open_batches", logged)
        into = FeatureStore.create(directory / "one" / "posteriors")
        places = [directory / "one" / c.name for c in configs()]
        fit_members(store, manifest, configs(), plan_of(manifest), places, world=World(), into=into)
    gradients(store, manifest, directory, World())
    return Both(directory, store, manifest, script, log)


def test_the_gradient_is_that_of_the_whole_batch(both: Both) -> None:
    by_one, by_two = (np.load(both.directory / f"gradients-{n}.npz") for n in (1, 2))
    assert set(by_one) == set(
        by_two
    )  # a parameter that no process has a gradient of has none, so that it doesn't decay
    assert not any(name.startswith("3/") and "head.attributes" in name for name in by_two)
    for name in by_one:
        largest = np.abs(by_one[name]).max()
        np.testing.assert_allclose(by_two[name], by_one[name], rtol=1e-4, atol=1e-6 + 1e-5 * largest, err_msg=name)
    assert any(np.abs(by_one[name]).max() > 1e-3 for name in by_one if "body" in name)


def test_two_processes_train_as_one_does(both: Both) -> None:
    for config in configs()[:2]:
        by_one, by_two = (both.records(which, config.name) for which in ("one", "two/runs-0"))
        assert [list(row) for row in by_one] == [list(row) for row in by_two]
        for a, b in zip(by_one, by_two, strict=True):
            for key in set(a) - {"seconds", "waiting_share"}:
                assert a[key] == (b[key] if isinstance(a[key], str) else pytest.approx(b[key], rel=2e-3)), key
        weights = both.weights("two/runs-0", config.name)
        for name, value in both.weights("one", config.name).items():
            # Adam makes a step of a gradient that is zero but for rounding (that of the keys' biases).
            if not name.endswith("qkv.bias"):
                np.testing.assert_allclose(weights[name], value, atol=2e-3, err_msg=name)
        judged = [FeatureStore.open(both.directory / p)[f"posteriors/{config.name}"] for p in
                  ("one/posteriors", "two/posteriors-0")]  # fmt: skip
        assert list(judged[0]) == list(judged[1])
        for key in judged[0]:
            np.testing.assert_allclose(judged[0][key], judged[1][key], atol=2e-2)


def test_dropout_differs_by_process_and_all_else_stays(both: Both) -> None:
    by_one, by_two = (both.records(which, "dropping") for which in ("one", "two/runs-0"))
    assert [(row["stage"], row["epoch"], row["lr"]) for row in by_one] == [
        (row["stage"], row["epoch"], row["lr"]) for row in by_two
    ]
    np.testing.assert_allclose([row["loss"] for row in by_one], [row["loss"] for row in by_two], rtol=0.2)


def test_the_same_clips_are_drawn_each_by_one_process(both: Both) -> None:
    parts = [json.loads((both.directory / f"read-{rank}.json").read_text()) for rank in (0, 1)]
    assert len(parts[0]) == len(parts[1]) == len(both.read_by_one)
    seen_by_both = 0
    for whole_batches, first, second in zip(both.read_by_one, *parts, strict=True):
        clips = [i for batch in whole_batches for i in batch]
        split = [i for half in (first, second) for batch in half for i in batch]
        assert sorted(clips) == sorted(split)
        seen_by_both += bool(first) and bool(second)
    assert seen_by_both == len(both.read_by_one)  # epochs and what is judged: each pass has several batches


def test_only_the_first_process_writes(both: Both) -> None:
    assert len(list(run_directory(both.directory, 0).iterdir())) == len(configs())
    assert not run_directory(both.directory, 1).exists()
    assert not FeatureStore.open(both.directory / "two" / "posteriors-1").names()


def test_a_runs_starts_record_the_device_of_every_process(both: Both) -> None:
    (start,) = json.loads((run_directory(both.directory, 0) / configs()[0].name / "starts.json").read_text())
    assert start["devices"] == ["cpu (1 threads)"] * 2
    assert start["precision"] == "float32"
    assert start["torch"] == torch.__version__


def test_precision_auto_that_differs_between_processes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def gathered(values: list[str], value: str) -> None:
        values[:] = [value, "float32"]  # of a card before Ampere

    monkeypatch.setattr(processes.dist, "all_gather_object", gathered)
    fake_cuda(monkeypatch, (9, 0))
    world = World(0, 2, torch.device("cuda:0"))
    with pytest.raises(ConfigError, match=r"--precision auto.*bfloat16.*process 0.*float32.*process 1"):
        world.one_precision("auto")
    assert world.one_precision("float32") == "float32"


@pytest.mark.slow
def test_a_failure_ends_all_processes_and_one_process_goes_on(both: Both, tmp_path: Path) -> None:
    (tmp_path / "store").symlink_to(both.directory / "store")
    both.manifest.write(tmp_path / "m.csv")
    (tmp_path / "two").mkdir()
    process = torchrun(both.script, str(tmp_path), "fail", str(REPO))
    assert process.returncode != 0
    assert "the disk is full" in process.stderr
    config = configs()[-1]
    run = run_directory(tmp_path, 0) / config.name
    assert (run / "fold-all" / "checkpoint.safetensors").exists()
    into = FeatureStore.create(tmp_path / "posteriors")
    fit_members(both.store, both.manifest, [config], plan_of(both.manifest), [run], world=World(), into=into)
    resumed = [json.loads(row) for row in (run / "fold-all" / "metrics.jsonl").read_text().splitlines()]
    undisturbed = both.records("two/runs-0", "dropping")
    assert resumed[0]["loss"] == undisturbed[0]["loss"]
    np.testing.assert_allclose([row["loss"] for row in resumed], [row["loss"] for row in undisturbed], rtol=0.2)


def test_a_batch_smaller_than_the_world_is_refused(both: Both, tmp_path: Path) -> None:
    config = member("m", batch_size=4, accumulate=2).train
    data = TrainingData(both.store, (FeatureRef("first"),), Targets.from_manifest(both.manifest))
    job = Job(Network(((2, 6),), 3, [], UNIMODAL), data, np.arange(3), np.arange(0), config, tmp_path)
    with pytest.raises(ConfigError, match=r"batch of 4.*2 parts.*3 processes"):
        train([job], World(size=3))


def test_without_torchrun_there_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")  # a job scheduler's, say
    monkeypatch.delenv("RANK", raising=False)
    with joined("cpu") as world:
        assert world == World()


def test_a_process_that_sees_one_card_takes_it_whatever_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "pick_device", torch.device)
    made_current = fake_cuda(monkeypatch, (9, 0))
    assert _own_device("cuda", 3, 4) == torch.device("cuda:0")
    assert made_current == [torch.device("cuda:0")]
    fake_cuda(monkeypatch, (9, 0), (9, 0))
    assert _own_device("cuda", 1, 4) == torch.device("cuda:1")
    with pytest.raises(ConfigError, match=r"Process 3 .* 2 CUDA devices"):
        _own_device("cuda", 2, 4)


def test_two_processes_on_one_card_are_named() -> None:
    refuse_shared(["n1 GPU-a", "n2 GPU-a", "n1 GPU-b"])  # the same number on another machine is another card
    with pytest.raises(ConfigError, match=r"Processes 0 and 2 .*n1 GPU-a"):
        refuse_shared(["n1 GPU-a", "n1 GPU-b", "n1 GPU-a"])


def test_srun_starts_processes_of_one_run(tmp_path: Path) -> None:
    code = ("from deepser.training.processes import joined\nimport os\n"
            "with joined('cpu') as world:\n"
            "    print(world.rank, world.size, world.once(lambda: os.environ['SLURM_PROCID']))")  # fmt: skip
    step = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NODELIST": "localhost", "SLURM_STEP_ID": "0",
            "SLURM_JOB_ID": str(os.getpid()), "OMP_NUM_THREADS": "1"}  # fmt: skip
    tasks = [
        WarmProcess(
            code, cwd=REPO, environment={**os.environ, **step, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)}
        )
        for rank in (0, 1)
    ]
    assert [task.communicate(timeout=120)[0].split() for task in tasks] == [["0", "2", "0"], ["1", "2", "0"]]


@pytest.mark.slow
def test_the_command_runs_under_torchrun(both: Both, tmp_path: Path) -> None:
    frame = both.manifest.to_pandas()
    frame["split"] = ["train" if i % 9 < 6 else "test" for i in range(len(frame))]
    Manifest.from_pandas(frame).write(tmp_path / "m.csv")
    store = tmp_path / "store"
    corpus(tmp_path)
    process = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "cli",
         "fit-deepser", "--features", "first,second", "--seeds", "2", "-m", str(tmp_path / "m.csv"), "-s", str(store),
         "--runs", str(tmp_path / "runs"), "--set", "network.d=16", "--n-heads", "2", "--epochs", "1",
         "--stage2-epochs", "1", "--select", "last"],
        capture_output=True, text=True, timeout=300, cwd=REPO,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    assert [line for line in process.stdout.splitlines() if line.startswith("training on")] == [
        f"training on cpu (1 threads); cpu (1 threads): {resolve_precision('auto', torch.device('cpu'))}"
    ]
    for seed in (0, 1):
        assert process.stdout.count(f"posteriors/first_second_s{seed}") == 1
        assert len(FeatureStore.open(store)[f"posteriors/first_second_s{seed}"]) == 30
