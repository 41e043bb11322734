"""Several processes fill one set as one process does, also when one of them is killed in the middle."""

import os
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow as pa
import pytest
import soundfile

from featurestore.asr.source import Transcript
from featurestore.asr.transcripts import Transcripts
from featurestore.augment.views import Noise, parse_views
from featurestore.corpus.manifest import Manifest
from featurestore.encoders import load_encoder
from featurestore.encoders.load import load_with
from featurestore.encoders.options import EncoderOptions
from featurestore.errors import ConfigError, SpecMismatch
from featurestore.featurize.engines import (
    featurize_on_devices,
    featurize_with_ray,
    visible_devices,
    with_absolute_paths,
    with_one_arithmetic,
    with_share_of_cores,
)
from featurestore.featurize.job import FeaturizeJob, FeaturizeOptions
from featurestore.featurize.run import FeaturizeReport, featurize, paced
from featurestore.runtime.stopping import Interrupted
from featurestore.store.feature_store import FeatureStore
from tests.helpers.fake_cuda import fake_cuda
from tests.helpers.small_text_encoder import save_text_encoder

N = 24


@pytest.fixture
def job(tmp_path: Path) -> FeaturizeJob:
    """24 noises, 2 files that are no audio, and the job of encoding them."""
    rng = np.random.default_rng(0)
    for i in range(N):
        soundfile.write(tmp_path / f"{i}.wav", 0.1 * rng.standard_normal(8_000 + 700 * i), 16_000)
    for i in (N, N + 1):
        (tmp_path / f"{i}.wav").write_text("no audio")
    table = pa.table({"utterance_id": [f"u{i}" for i in range(N + 2)], "path": [f"{i}.wav" for i in range(N + 2)]})
    Manifest(table, root=tmp_path).write(tmp_path / "m.csv")
    return FeaturizeJob(tmp_path / "m.csv", tmp_path / "store", "a", EncoderOptions("tiny-hubert"))


def manifest_of(job: FeaturizeJob) -> Path:
    assert isinstance(job.manifest, Path)
    return job.manifest


def store_of(job: FeaturizeJob) -> Path:
    assert isinstance(job.store, Path)
    return job.store


def same_as_alone(job: FeaturizeJob) -> None:
    store = FeatureStore.open(store_of(job))
    featurize(Manifest.read(manifest_of(job)), load_encoder("tiny-hubert", device="cpu"), store, "alone")
    assert sorted(store["a"]) == sorted(store["alone"])
    for key in store["alone"]:
        assert np.array_equal(store["a"][key], store["alone"][key])
    assert store["a"].verify() == []


def test_two_processes_do_what_one_does(job: FeaturizeJob) -> None:
    told: list[tuple[int, int, float]] = []
    report = featurize_on_devices(job, ["cpu", "cpu"], lambda *each: told.append(each))
    assert (report.done, report.skipped, len(report.failed)) == (N, 0, 2)
    assert told[-1][:2] == (N + 2, N + 2)
    assert len(FeatureStore.open(store_of(job))["a"].segments) == 2
    same_as_alone(job)
    again = featurize_on_devices(job, ["cpu", "cpu", "cpu"])
    assert (again.done, again.skipped, len(again.failed)) == (0, N, 2)


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


def test_a_stop_is_told_to_all_processes_and_counts_what_they_did(job: FeaturizeJob) -> None:
    before = signal.getsignal(signal.SIGTERM)

    def stop(done: int, total: int, audio_s: float) -> None:
        signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Interrupted, match="SIGTERM") as caught:
        featurize_on_devices(job, ["cpu", "cpu"], stop)
    assert signal.getsignal(signal.SIGTERM) is before
    n_done = caught.value.report.done
    assert n_done == (len(FeatureStore.open(store_of(job))["a"]) if n_done else 0)
    report = featurize_on_devices(job, ["cpu", "cpu"])
    assert (report.done, report.skipped) == (N - n_done, n_done)
    same_as_alone(job)


def test_an_error_of_a_process_is_raised_here(job: FeaturizeJob) -> None:
    job.run(device="cpu")
    other = replace(job, encoder=EncoderOptions("tiny-hubert", layers="1"))
    with pytest.raises(SpecMismatch, match="layer_01"):
        featurize_on_devices(other, ["cpu", "cpu"])


@pytest.fixture
def text_job(tmp_path: Path) -> FeaturizeJob:
    """Texts that were transcribed, of 8 of 9 utterances, for a small BERT."""
    rows = [Transcript(f"u{i}", " ".join(f"w{j}" for j in range(i)), "en", -0.1, 0.0, 1.0) for i in range(8)]
    texts = Transcripts(rows, "whisper-mini", tmp_path / "t.csv")
    texts.write()
    columns = {"utterance_id": [f"u{i}" for i in range(9)], "text": ["what the script had"] * 9}
    Manifest(pa.table(columns)).write(tmp_path / "m.csv")
    how = EncoderOptions(str(save_text_encoder(tmp_path / "bert")), source=texts.source)
    return FeaturizeJob(tmp_path / "m.csv", tmp_path / "store", "t", how, options=FeaturizeOptions(transcripts=texts))


def texts_as_alone(job: FeaturizeJob, report: FeaturizeReport) -> None:
    assert (report.done, report.empty_texts, [key for key, _ in report.failed]) == (8, 1, ["u8"])
    store = FeatureStore.open(store_of(job))
    assert isinstance(job.encoder, EncoderOptions)
    encoder = load_with(job.encoder, "cpu")
    texts = job.options.transcripts
    featurize(Manifest.read(manifest_of(job)), encoder, store, "alone", transcripts=texts)
    assert sorted(store["t"]) == sorted(store["alone"])
    for key in store["alone"]:
        assert np.array_equal(store["t"][key], store["alone"][key])


@pytest.mark.parametrize("n", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_processes_take_transcripts(text_job: FeaturizeJob, n: int) -> None:
    texts_as_alone(text_job, featurize_on_devices(text_job, ["cpu"] * n))


@pytest.mark.slow
def test_ray_workers_take_transcripts(text_job: FeaturizeJob) -> None:
    ray = pytest.importorskip("ray", reason="Ray is an extra: pip install 'medusa-ser[ray]'")
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        report = featurize_with_ray(text_job, 2, "cpu")
    finally:
        ray.shutdown()
    texts_as_alone(text_job, report)


def test_a_cluster_that_cannot_be_reached_is_one_line(text_job: FeaturizeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="Ray is an extra: pip install 'medusa-ser[ray]'")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(ConfigError, match=r"Ray can't be started or reached.*RAY_ADDRESS.*--devices"):
        featurize_with_ray(text_job, 1, "cpu", address="auto")  # no cluster runs here


def test_a_ray_that_fails_to_start_is_one_line_whatever_it_says(
    text_job: FeaturizeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    def init(**options: object) -> None:
        raise RuntimeError("The node has no room.\n" + "  at raylet.cc\n" * 50)

    broken = ModuleType("ray")
    broken.is_initialized, broken.init = (lambda: False), init  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ray", broken)
    errors = ModuleType("ray.exceptions")
    errors.RayError = RuntimeError  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ray.exceptions", errors)
    with pytest.raises(ConfigError) as caught:
        featurize_with_ray(text_job, 1, "cpu")
    assert "RuntimeError: The node has no room." in str(caught.value)
    assert "raylet" not in str(caught.value)


def test_devices_are_named_or_all() -> None:
    assert visible_devices("cuda:0, cuda:3") == ["cuda:0", "cuda:3"]
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="no CUDA device"):
            visible_devices("all")


@pytest.mark.slow
def test_ray_workers_do_what_one_process_does_although_one_is_killed(job: FeaturizeJob) -> None:
    ray = pytest.importorskip("ray", reason="Ray is an extra: pip install 'medusa-ser[ray]'")
    psutil = pytest.importorskip("psutil")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)

    killed = []

    def kill_one() -> None:
        for _ in range(600):
            for process in psutil.Process().children(recursive=True):
                if "_outcome" in " ".join(process.cmdline()):
                    time.sleep(1.0)
                    process.kill()
                    killed.append(process.pid)
                    return
            time.sleep(0.05)

    killer = threading.Thread(target=kill_one)
    killer.start()
    try:
        report = featurize_with_ray(job, 4, "cpu")
    finally:
        killer.join()
        ray.shutdown()
    assert killed
    assert report.done + report.skipped == N
    same_as_alone(job)


@pytest.mark.slow
def test_a_stop_reaches_ray_workers_and_errors_come_back_as_they_are(job: FeaturizeJob) -> None:
    ray = pytest.importorskip("ray", reason="Ray is an extra: pip install 'medusa-ser[ray]'")
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)

    def stop(done: int, total: int, audio_s: float) -> None:
        signal.raise_signal(signal.SIGINT)

    try:
        with pytest.raises(Interrupted, match="SIGINT") as caught:
            featurize_with_ray(job, 3, "auto", progress=stop)  # with one worker, part after part
        assert 0 < caught.value.report.done < N
        store = FeatureStore.open(store_of(job))
        assert len(store["a"]) >= caught.value.report.done
        other = replace(job, encoder=EncoderOptions("tiny-hubert", layers="1"))
        with pytest.raises(SpecMismatch, match="layer_01"):
            featurize_with_ray(other, 1, "cpu")
        report = featurize_with_ray(job, 2, "cpu")
    finally:
        ray.shutdown()
    assert report.done + report.skipped == N
    same_as_alone(job)


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
    asked = FeaturizeJob(
        tmp_path / "m.csv", tmp_path, "a", EncoderOptions("tiny-hubert"), None, FeaturizeOptions(None, 3)
    )
    assert with_share_of_cores(asked, eight) is asked


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
