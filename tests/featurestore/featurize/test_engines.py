"""Several processes fill one set as one process does, also when one of them is killed in the middle."""

import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import soundfile

from featurestore.augment.views import Noise, parse_views
from featurestore.corpus.manifest import Manifest
from featurestore.encoders.options import EncoderOptions
from featurestore.errors import ConfigError, EncoderError, SpecMismatch
from featurestore.featurize import parts
from featurestore.featurize.engines import (
    featurize_on_devices,
    visible_devices,
    with_one_arithmetic,
    with_share_of_cores,
)
from featurestore.featurize.job import FeaturizeJob, FeaturizeOptions
from featurestore.featurize.parts import is_lost, merged, with_absolute_paths
from featurestore.featurize.run import paced
from featurestore.featurize.sharding import Shard
from featurestore.runtime.stopping import Interrupted
from featurestore.store.feature_store import FeatureStore
from tests.helpers.fake_cuda import fake_cuda
from tests.helpers.fake_nvidia_smi import MIG_A, MIG_B, WHOLE, fake_nvidia_smi
from tests.helpers.featurize_jobs import N, manifest_of, noises, same_as_alone, store_of, texts_as_alone, transcribed
from tests.helpers.messages import mentions


@pytest.fixture
def job(tmp_path: Path) -> FeaturizeJob:
    return noises(tmp_path)


@pytest.fixture
def quick_job(tmp_path: Path) -> FeaturizeJob:
    """Return the same with an encoder for which a process needn't import transformers."""
    return noises(tmp_path, "logmel")


def test_two_processes_do_what_one_does(quick_job: FeaturizeJob) -> None:
    job = quick_job
    calls: list[tuple[int, int, float]] = []
    lines: list[str] = []
    report = featurize_on_devices(job, ["cpu", "cpu"], lambda *each: calls.append(each), lines.append)
    assert sorted(line[:9] for line in lines) == ["part 1/2:", "part 2/2:"]
    assert all("cpu, float32" in line for line in lines)
    assert sum(report.decoders.values()) == N
    recorded = FeatureStore.open(store_of(job))["a"].provenance
    assert (recorded["device"], recorded["arithmetic"]) == ("cpu", "float32")
    assert (report.done, report.skipped, len(report.failed)) == (N, 0, 2)
    assert calls[-1][:2] == (N + 2, N + 2)
    assert len(FeatureStore.open(store_of(job))["a"].segments) == 2
    same_as_alone(job)
    repeated = featurize_on_devices(job, ["cpu"])
    assert (repeated.done, repeated.skipped, len(repeated.failed)) == (0, N, 2)


@pytest.mark.slow
def test_a_killed_process_is_replaced(job: FeaturizeJob) -> None:
    import multiprocessing

    def kill_one() -> None:
        while not (children := multiprocessing.active_children()):
            time.sleep(0.01)
        time.sleep(1.0)
        os.kill(children[0].pid or 0, signal.SIGKILL)

    killer = threading.Thread(target=kill_one)
    killer.start()
    report = featurize_on_devices(job, ["cpu", "cpu"])
    killer.join()
    assert report.done + report.skipped == N
    same_as_alone(job)


@pytest.mark.slow
def test_a_stop_is_reported_to_all_processes_and_counts_what_they_did(quick_job: FeaturizeJob, tmp_path: Path) -> None:
    n = 1000  # more than are encoded before the signal comes, unless this process has to wait for a core
    files = [f"{i % N}.wav" for i in range(n)]
    table = pa.table({"utterance_id": [f"u{i}" for i in range(n)], "path": files})
    Manifest(table, root=tmp_path).write(tmp_path / "many.csv")
    job = replace(quick_job, manifest=tmp_path / "many.csv")
    before = signal.getsignal(signal.SIGTERM)

    def stop(done: int, total: int, audio_s: float) -> None:
        signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Interrupted, match="SIGTERM") as caught:
        featurize_on_devices(job, ["cpu", "cpu"], stop)
    assert signal.getsignal(signal.SIGTERM) is before
    n_done = caught.value.report.done
    assert n_done == (len(FeatureStore.open(store_of(job))["a"]) if n_done else 0)
    report = job.run(device="cpu")
    assert (report.done, report.skipped) == (n - n_done, n_done)
    same_as_alone(job)


def test_an_error_of_a_process_is_raised_here(quick_job: FeaturizeJob) -> None:
    quick_job.run(device="cpu")
    pooled = replace(quick_job, encoder=EncoderOptions("logmel", pool="mean"))
    with pytest.raises(SpecMismatch, match=r"pool: .*none.*mean"):
        featurize_on_devices(pooled, ["cpu", "cpu"])


@pytest.mark.slow
@pytest.mark.parametrize("n", [1, 2])
def test_processes_take_transcripts(tmp_path: Path, n: int) -> None:
    job = transcribed(tmp_path)
    lines: list[str] = []
    texts_as_alone(job, featurize_on_devices(job, ["cpu"] * n, announce=lines.append))
    assert [line.partition(": ")[2] for line in lines] == ["cpu (1 threads), float32"] * n
    recorded = FeatureStore.open(store_of(job))["t"].provenance
    assert (recorded["device"], recorded["arithmetic"]) == ("cpu (1 threads)", "float32")


def test_the_report_of_all_parts_says_once_what_a_new_view_lacks(job: FeaturizeJob) -> None:
    few = replace(job, manifest=Manifest.read(manifest_of(job)).rows(np.arange(4)))
    replace(few, encoder=EncoderOptions("tiny-hubert", layers="2,4")).run()
    (noise,) = parse_views(["noise"])
    view = replace(few, name=noise.name("a"), view=noise, encoder=EncoderOptions("tiny-hubert", layers="4"))
    (note,) = merged([view.run(Shard(number, 2)) for number in (1, 2)]).notes
    assert mentions(note, "a+noise1", "layer_02")
    assert view.run().notes == []


def test_devices_are_named_or_all() -> None:
    assert visible_devices("cuda:0, cuda:3") == ["cuda:0", "cuda:3"]
    with pytest.raises(ConfigError, match="expected all"):
        visible_devices(" ,")
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="no CUDA device"):
            visible_devices("all")


def test_all_devices_are_every_mig_slice_and_the_cards_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_nvidia_smi(tmp_path, monkeypatch)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible_devices("all") == [MIG_A, MIG_B, WHOLE]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", f"{MIG_B[:12]}")
    assert visible_devices("all") == [MIG_B]


@pytest.mark.slow
def test_a_process_for_a_uuid_sees_that_device_alone(job: FeaturizeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    exact = replace(job, encoder=EncoderOptions("tiny-hubert", compute="float32"))
    # The message is the process's own: it names what CUDA was shown there.
    with pytest.raises(ConfigError, match=f"CUDA finds no {MIG_A};"):
        featurize_on_devices(exact, [MIG_A])
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""


def test_compute_auto_of_a_mig_slice_is_its_cards(
    job: FeaturizeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=f"{MIG_A}.*--compute"):
        with_one_arithmetic(job, [MIG_A])  # no nvidia-smi here
    fake_nvidia_smi(tmp_path, monkeypatch)
    encoder = with_one_arithmetic(job, [MIG_A, MIG_B]).encoder
    assert isinstance(encoder, EncoderOptions)
    assert encoder.compute == "bfloat16"
    with pytest.raises(ConfigError, match=r"bfloat16 on MIG-.* and float16 on GPU-"):
        with_one_arithmetic(job, [MIG_A, WHOLE])
    assert with_share_of_cores(job, [MIG_A, MIG_B]).options.workers is not None


def test_a_lost_gpu_or_file_system_is_another_processs_work_and_a_wrong_option_is_not() -> None:
    assert is_lost(RuntimeError("CUDA error: uncorrectable ECC error encountered"))
    assert is_lost(OSError(116, "Stale file handle"))
    wrapped = EncoderError("reading failed")
    wrapped.__cause__ = OSError(5, "Input/output error")
    assert is_lost(wrapped)
    assert not is_lost(OSError(28, "No space left on device"))
    assert not is_lost(ConfigError("--device cuda:9: not usable (CUDA error: invalid device ordinal)"))


def test_a_process_whose_gpu_is_lost_is_replaced_twice_and_then_named(
    quick_job: FeaturizeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = quick_job

    def lost(*arguments: object, **options: object) -> None:
        raise OSError(116, "Stale file handle", "store")

    monkeypatch.setattr(FeaturizeJob, "run", lost)
    assert parts.outcome(job, parts.Shard(1, 1), "cpu")[0] == "lost"
    monkeypatch.undo()
    (tmp_path / "lost.csv").symlink_to("/proc/self/mem")  # whose reading is an EIO in every process
    with pytest.raises(EncoderError, match=r"3 times.*Input/output error"):
        featurize_on_devices(replace(job, manifest=tmp_path / "lost.csv"), ["cpu"])


def test_every_relative_path_of_a_job_is_absolute_to_a_worker_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for directory in ("weights", "encoder", "noises"):
        (tmp_path / directory).mkdir()
    soundfile.write(tmp_path / "noises" / "a.wav", np.ones(1600, np.float32) / 4, 16_000)
    (view,) = parse_views(["noise"], noises=Path("noises"))
    options = EncoderOptions("encoder", weights=Path("weights"))
    job = with_absolute_paths(FeaturizeJob(Path("m.csv"), Path("store"), "x", options, view, weights=Path("weights")))
    assert isinstance(job.encoder, EncoderOptions)
    assert job.view is not None
    ((_, noise),) = job.view.steps
    assert isinstance(noise, Noise)
    assert noise.files is not None
    paths = (job.manifest, job.store, job.encoder.name, job.encoder.weights, job.weights, noise.files.directory)
    assert [str(path) for path in paths] == [
        str(tmp_path / name) for name in ("m.csv", "store", "encoder", "weights", "weights", "noises")
    ]
    hub = with_absolute_paths(FeaturizeJob(Path("m.csv"), "s3://bucket/store", "x", EncoderOptions("wavlm-large")))
    assert (hub.store, hub.encoder) == ("s3://bucket/store", EncoderOptions("wavlm-large"))


def test_a_process_sends_its_progress_five_times_a_second_and_at_its_end() -> None:
    now_s, sent = 0.0, []
    progress = paced(lambda *counts: sent.append(counts[0]), 0.2, lambda: now_s)
    for done in range(1, 1001):
        now_s += 0.001
        progress(done, 1000, float(done))
    assert len(sent) <= 7
    assert sent[0] == 1
    assert sent[-1] == 1000


def test_several_gpus_share_the_cores_for_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from featurestore.featurize import engines

    monkeypatch.setattr(engines, "usable_cores", lambda: 64)
    job = FeaturizeJob(tmp_path / "m.csv", tmp_path, "a", EncoderOptions("tiny-hubert"))
    eight = [f"cuda:{i}" for i in range(8)]
    assert with_share_of_cores(job, eight).options.workers == 8
    assert with_share_of_cores(job, ["cuda:0", "cuda:1"]).options.workers == 16
    assert with_share_of_cores(job, ["cpu", "cpu"]) is job
    options = FeaturizeJob(
        tmp_path / "m.csv", tmp_path, "a", EncoderOptions("tiny-hubert"), None, FeaturizeOptions(None, 3)
    )
    assert with_share_of_cores(options, eight) is options


def test_compute_auto_is_the_same_on_all_devices_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_cuda(monkeypatch, (9, 0), (7, 5), (8, 0))
    job = FeaturizeJob(tmp_path / "m.csv", tmp_path, "a", EncoderOptions("tiny-hubert"))

    def compute(*devices: str) -> str:
        encoder = with_one_arithmetic(job, devices).encoder
        assert isinstance(encoder, EncoderOptions)
        return encoder.compute

    assert (compute("cuda:0", "cuda:2"), compute("cuda:1"), compute("cpu", "cpu")) == ("bfloat16", "float16", "float32")
    for mixed in (["cuda:0", "cuda:1"], ["cpu", "cuda:0"]):
        with pytest.raises(ConfigError, match=r"--compute auto is .*; give --compute"):
            with_one_arithmetic(job, mixed)
