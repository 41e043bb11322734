"""The batch files of docs/slurm on a real Slurm, where one is installed: an array, preemption, four processes."""

import json
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import soundfile

from featurestore.corpus.manifest import Manifest
from featurestore.store.feature_store import FeatureStore
from tests.helpers.small_slurm import SmallSlurm, small_slurm
from tests.helpers.synthetic_corpus import corpus

pytestmark = pytest.mark.slow
REPO = Path(__file__).resolve().parents[1]
BATCH_FILES = REPO / "docs" / "slurm"
N = 12
OVER = ("COMPLETED", "FAILED", "TIMEOUT", "CANCELLED", "NODE_FAIL")


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallSlurm]:
    """Yield a cluster that finds `medusa` on its PATH."""
    directory = tmp_path_factory.mktemp("slurm")
    with small_slurm(directory) as cluster:
        (directory / "bin").mkdir()
        program = directory / "bin" / "medusa"
        program.write_text(f'#!/bin/sh\nPYTHONPATH="{REPO}" exec "{sys.executable}" -m cli "$@"\n')
        program.chmod(0o755)
        cluster.environment["PATH"] = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
        yield cluster


def noises(directory: Path, seconds: float) -> Path:
    directory.mkdir()
    rng = np.random.default_rng(0)
    for i in range(N):
        soundfile.write(directory / f"{i}.wav", 0.1 * rng.standard_normal(round(16_000 * seconds)), 16_000)
    columns = {"utterance_id": [f"u{i}" for i in range(N)], "path": [f"{i}.wav" for i in range(N)]}
    Manifest(pa.table(columns), root=directory).write(directory / "m.csv")
    return directory / "m.csv"


def submitted(slurm: SmallSlurm, *command: str, **environment: str) -> str:
    submission = slurm.run("sbatch", "--parsable", *command, **environment)
    assert submission.returncode == 0, submission.stderr
    return submission.stdout.strip().split(";")[0]


def test_an_array_encodes_a_part_in_each_task(slurm: SmallSlurm) -> None:
    manifest = noises(slurm.directory / "array", 0.5)
    store = manifest.parent / "store"
    job = submitted(
        slurm, "--array=0-1", str(BATCH_FILES / "featurize.sbatch"),
        ENCODER="logmel", MANIFEST=str(manifest), STORE=str(store),
    )  # fmt: skip
    slurm.wait(job, OVER)
    logs = [(slurm.directory / f"featurize-{job}_{i}.log").read_text() for i in range(2)]
    assert [re.findall(r"part (\d/\d), as array", log) for log in logs] == [["1/2"], ["2/2"]], logs
    assert sorted(FeatureStore.open(store)["logmel"]) == sorted(f"u{i}" for i in range(N))
    assert len(FeatureStore.open(store)["logmel"].segments) == 2


def test_a_preempted_part_commits_is_queued_again_and_ends(slurm: SmallSlurm) -> None:
    manifest = noises(slurm.directory / "preempted", 30.0)  # a second or two each
    store = manifest.parent / "store"
    job = submitted(
        slurm, "--array=0-0", "--partition=low", str(BATCH_FILES / "featurize.sbatch"),
        ENCODER="tiny-wavlm", MANIFEST=str(manifest), STORE=str(store),
    )  # fmt: skip
    log = slurm.directory / f"featurize-{job}_0.log"
    end = time.monotonic() + 120
    while time.monotonic() < end and not (log.exists() and "float32" in log.read_text()):
        time.sleep(0.1)  # until the encoder is loaded
    time.sleep(2.0)
    preempting = submitted(slurm, "--partition=high", "--exclusive", "--wrap=sleep 1")
    slurm.wait(preempting, OVER)
    slurm.wait(job, ("PENDING", *OVER))
    slurm.run("scontrol", "update", f"JobId={job}", "StartTime=now")  # in place of two minutes later
    values = slurm.wait(job, OVER)
    assert "stopped by SIGTERM" in log.read_text()
    assert "Restarts=1" in values
    assert "JobState=COMPLETED" in values, log.read_text()
    features = FeatureStore.open(store)["tiny-wavlm"]
    assert len(features) == N
    assert features.verify() == []


def test_tasks_of_srun_are_processes_of_one_training_run(slurm: SmallSlurm) -> None:
    directory = slurm.directory / "train"
    directory.mkdir()
    store, manifest = corpus(directory)
    frame = manifest.to_pandas()
    frame["split"] = ["train" if i % 9 < 6 else "test" for i in range(len(frame))]
    Manifest.from_pandas(frame).write(directory / "m.csv")
    job = submitted(
        slurm, str(BATCH_FILES / "train.sbatch"), "--name", "m01", "--epochs", "1", "--select", "last",
        "--preset", "small", "--device", "cpu",
        FEATURES="first", MANIFEST=str(directory / "m.csv"), STORE=str(store.path), RUNS=str(directory / "runs"),
    )  # fmt: skip
    slurm.wait(job, OVER)
    log = (slurm.directory / f"fit-deepser-{job}.log").read_text()
    assert log.count("training on") == 1, log
    assert log.count("posteriors/m01") == 1, log
    (start,) = json.loads((directory / "runs" / "m01" / "starts.json").read_text())
    assert len(start["devices"]) == 4
    assert len(FeatureStore.open(store.path)["posteriors/m01"]) == 30


def test_tasks_of_srun_that_would_each_encode_everything_are_refused(slurm: SmallSlurm) -> None:
    manifest = noises(slurm.directory / "refused", 0.5)
    store = manifest.parent / "store"
    command = ["medusa", "featurize", "--encoder", "logmel", "-m", str(manifest), "-s", str(store)]
    process = slurm.run("srun", "-n", "2", *command)
    assert process.returncode == 2
    assert process.stderr.count("--shard auto") == 2
    assert slurm.run("srun", "-n", "2", *command, "--shard", "auto").returncode == 0
    assert len(FeatureStore.open(store)["logmel"]) == N
