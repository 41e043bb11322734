"""A Slurm cluster of this machine alone, run by this user in a directory: slurmctld and slurmd."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue")
STARTED_S = 60.0
N_CPUS, N_GPUS = 8, 4  # declared, independent of the machine

CONFIG = """ClusterName=small
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={port}
SlurmdPort={port_of_node}
SrunPortRange={ports}
AuthType=auth/none
CredType=cred/none
StateSaveLocation={directory}/state
SlurmdSpoolDir={directory}/spool
SlurmctldPidFile={directory}/slurmctld.pid
SlurmdPidFile={directory}/slurmd.pid
SlurmctldLogFile={directory}/slurmctld.log
SlurmdLogFile={directory}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
ReturnToService=2
MpiDefault=none
JobRequeue=1
KillWait=30
SchedulerParameters=sched_interval=1,batch_sched_delay=0,requeue_delay=0
PriorityType=priority/basic
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs={n_cpus} Gres=gpu:{n_gpus} State=UNKNOWN
PartitionName=low Nodes={host} Default=YES PriorityTier=1 GraceTime=20 MaxTime=INFINITE State=UP
PartitionName=high Nodes={host} PriorityTier=10 MaxTime=INFINITE State=UP
"""


class SmallSlurm:
    """The running cluster; partition `low` gives way to `high` after 20 s."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.environment = {**os.environ, "SLURM_CONF": str(directory / "slurm.conf")}

    def run(self, *command: str, timeout_s: float = 300.0, **environment: str) -> "subprocess.CompletedProcess[str]":
        """Run a command that finds the cluster."""
        return subprocess.run(
            command, env={**self.environment, **environment}, cwd=self.directory, capture_output=True, text=True,
            timeout=timeout_s, check=False,
        )  # fmt: skip

    def wait(self, job: str, states: Sequence[str], timeout_s: float = 300.0) -> str:
        """Wait until a job, or all tasks of an array, are in one of these states; returns the last answer."""
        end = time.monotonic() + timeout_s
        text = ""
        while time.monotonic() < end:
            text = self.run("scontrol", "--oneliner", "show", "job", job).stdout
            result = [part.removeprefix("JobState=") for part in text.split() if part.startswith("JobState=")]
            if result and all(state in states for state in result):
                return text
            time.sleep(0.3)
        raise AssertionError(f"job {job} is not in {states}: {text}")


@contextmanager
def small_slurm(directory: Path) -> Iterator[SmallSlurm]:
    """Start the cluster, and end it; skips where Slurm is not installed or does not start here."""
    paths = {name: shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") for name in PROGRAMS}
    lacking = [name for name, path in paths.items() if path is None]
    if lacking:
        pytest.skip(f"Slurm is not installed ({', '.join(lacking)}); Debian: apt-get install slurm-wlm")
    for name in ("state", "spool"):
        (directory / name).mkdir(parents=True)
    host = socket.gethostname().split(".")[0]
    ports = _free_ports(2)
    config = CONFIG.format(
        host=host, user=_user(), port=ports[0], port_of_node=ports[1], ports="40000-49999", directory=directory,
        n_cpus=N_CPUS, n_gpus=N_GPUS,
    )  # fmt: skip
    (directory / "slurm.conf").write_text(config)
    for i in range(N_GPUS):
        (directory / f"gpu{i}").touch()  # handed out as if it were one
    (directory / "gres.conf").write_text(f"Name=gpu File={directory}/gpu[0-{N_GPUS - 1}]\n")
    cluster = SmallSlurm(directory)
    commands = [
        [str(paths["slurmctld"]), "-D", "-i", "-f", str(directory / "slurm.conf")],
        [str(paths["slurmd"]), "-D", "-f", str(directory / "slurm.conf"), "-N", host],
    ]  # fmt: skip
    daemons: list[subprocess.Popen[bytes]] = []
    try:
        for command in commands:
            with (directory / f"{Path(command[0]).name}.out").open("wb") as log:
                daemons.append(subprocess.Popen(command, env=cluster.environment, stdout=log, stderr=log))
            time.sleep(1.0)
        end = time.monotonic() + STARTED_S
        while " idle" not in f" {cluster.run('sinfo', '-h', '-o', '%T').stdout}":
            ended = [command[0] for command, daemon in zip(commands, daemons, strict=True) if daemon.poll() is not None]
            if ended or time.monotonic() > end:
                pytest.skip(f"Slurm does not start here ({', '.join(ended) or 'no node'}); see {directory}/*.log")
            time.sleep(0.5)
        yield cluster
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
            try:
                daemon.wait(15)
            except subprocess.TimeoutExpired:
                daemon.kill()


def _user() -> str:
    import pwd

    return pwd.getpwuid(os.getuid()).pw_name


def _free_ports(n: int) -> list[int]:
    sockets = [socket.socket() for _ in range(n)]
    for listener in sockets:
        listener.bind(("127.0.0.1", 0))
    ports = [listener.getsockname()[1] for listener in sockets]
    for listener in sockets:
        listener.close()
    return ports
