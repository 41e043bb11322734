"""Who this process is among several, from the variables that torchrun, srun and Slurm arrays set."""

import pytest

from featurestore.commands.shards import part_to_do
from featurestore.errors import ConfigError
from featurestore.featurize.sharding import Shard
from featurestore.runtime.launched import Task, first_host, rendezvous_of_step, task_of_array, task_of_launcher

SRUN = {"SLURM_PROCID": "2", "SLURM_STEP_NUM_TASKS": "4", "SLURM_NTASKS": "4", "SLURM_LOCALID": "0"}
TORCHRUN = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "MASTER_ADDR": "n1", "MASTER_PORT": "29500"}


def array(number: int, first: int, last: int, count: int, step: int = 1) -> dict[str, str]:
    values = {"ID": number, "MIN": first, "MAX": last, "COUNT": count, "STEP": step}
    return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in values.items()}


def test_srun_numbers_its_tasks() -> None:
    assert task_of_launcher(SRUN) == Task(2, 4, 0, "srun")


def test_torchrun_started_by_srun_numbers_the_processes() -> None:
    assert task_of_launcher(SRUN | TORCHRUN) == Task(5, 8, 1, "torchrun")


def test_the_script_of_sbatch_with_four_tasks_is_one_process() -> None:
    # sbatch -n 4 without srun: Slurm sets these for the script, which runs once.
    assert task_of_launcher({"SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_LOCALID": "0"}) is None


def test_one_task_of_srun_is_one_process() -> None:
    assert task_of_launcher(SRUN | {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"}) is None


@pytest.mark.parametrize(
    ("environment", "part"),
    [
        (SRUN, "3/4"),
        (TORCHRUN, "6/8"),
        (array(0, 0, 7, 8), "1/8"),
        (array(8, 1, 8, 8), "8/8"),
        (array(6, 0, 6, 4, step=2), "4/4"),
        (array(5, 3, 5, 2), "2/2"),  # --array=3,5: what failed of a larger one, started again
        (array(4, 4, 4, 1), "1/1"),
        (array(1, 0, 1, 2) | SRUN, "7/8"),
    ],
)
def test_shard_auto_is_the_place_among_all_tasks(environment: dict[str, str], part: str) -> None:
    assert str(Shard.of_task(environment)[0]) == part


def test_every_task_of_an_array_of_steps_has_a_part_of_its_own() -> None:
    parts = [
        Shard.of_task(array(number, 0, 2, 3) | SRUN | {"SLURM_PROCID": str(rank)})[0].number
        for number in range(3)
        for rank in range(4)
    ]
    assert sorted(parts) == list(range(1, 13))


def test_featurize_in_several_tasks_needs_its_parts_as_an_option(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SRUN.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=r"srun started 4 tasks.*--shard auto"):
        part_to_do(None, "encode")
    assert part_to_do("auto", "encode") == Shard(3, 4)
    assert part_to_do("2/8", "encode") == Shard(2, 8)


def test_an_array_with_gaps_is_refused() -> None:
    with pytest.raises(ConfigError, match="--shard I/N"):
        task_of_array(array(2, 1, 7, 3))


def test_shard_auto_alone_is_refused() -> None:
    with pytest.raises(ConfigError, match="SLURM_ARRAY_TASK_ID"):
        Shard.of_task({})


def test_a_variable_that_is_no_number_is_named() -> None:
    with pytest.raises(ConfigError, match="SLURM_PROCID"):
        task_of_launcher(SRUN | {"SLURM_PROCID": "two"})


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("gpu[07-09,12],login1", "gpu07"),
        ("n1", "n1"),
        ("n1,n2", "n1"),
        ("a[3]-ib,b", "a3-ib"),
        ("n-1.x", "n-1.x"),
    ],
)
def test_the_first_host_of_slurms_list(nodes: str, first: str) -> None:
    assert first_host(nodes) == first


def test_tasks_of_one_step_meet_on_its_first_machine_and_two_steps_apart() -> None:
    step = {"SLURM_STEP_NODELIST": "gpu[07-09]", "SLURM_JOB_ID": "812345", "SLURM_STEP_ID": "0"}
    url = rendezvous_of_step(step)
    assert url.startswith("tcp://gpu07:")
    assert url != rendezvous_of_step(step | {"SLURM_STEP_ID": "1"})
    assert rendezvous_of_step(step | {"MASTER_ADDR": "other", "MASTER_PORT": "1234"}) == "tcp://other:1234"
