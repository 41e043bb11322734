"""A Ray cluster fills one set as one process does, also when a worker is killed; what it takes is planned first."""

import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from featurestore.encoders.options import EncoderOptions
from featurestore.errors import ConfigError, SpecMismatch
from featurestore.featurize import ray_engine
from featurestore.featurize.job import FeaturizeJob
from featurestore.featurize.parts import Ended
from featurestore.featurize.ray_engine import About, Workers, featurize_with_ray, plan_workers
from featurestore.featurize.run import FeaturizeReport
from featurestore.featurize.sharding import Shard
from featurestore.runtime.stopping import Interrupted
from featurestore.store.feature_store import FeatureStore
from tests.helpers.featurize_jobs import N, noises, same_as_alone, store_of, texts_as_alone, transcribed
from tests.helpers.messages import mentions

NODE = {"CPU": 64.0, "GPU": 8.0}


@pytest.fixture
def job(tmp_path: Path) -> FeaturizeJob:
    return noises(tmp_path)


@pytest.fixture
def ray() -> Iterator[Any]:
    """Ray on this machine, with two cores and no GPU."""
    ray = pytest.importorskip("ray", reason="Ray is an extra: pip install 'medusa-ser[ray]'")
    ray.init(num_cpus=2, num_gpus=0, include_dashboard=False, log_to_driver=False)
    yield ray
    ray.shutdown()


def test_a_worker_has_a_gpu_and_up_to_eight_cores_and_there_are_four_parts_for_each() -> None:
    assert plan_workers([NODE, NODE], "auto", None) == Workers(16, 8, 1, 64)
    assert plan_workers([{"CPU": 12.0, "GPU": 2.0}, {"CPU": 32.0}], "cuda", None) == Workers(2, 6, 1, 8)
    assert plan_workers([{"CPU": 2.0, "GPU": 4.0}], "auto", 6) == Workers(4, 1, 1, 6)


def test_cpus_of_a_cluster_are_used_only_when_requested() -> None:
    assert plan_workers([NODE], "cpu", None) == Workers(64, 1, 0, 256)
    assert plan_workers([{"CPU": 4.0}], "cpu", 3) == Workers(3, 1, 0, 3)
    with pytest.raises(ConfigError, match=r"no GPU.*--device cpu.*--device cuda"):
        plan_workers([{"CPU": 4.0}], "auto", None)


def test_a_cluster_that_grows_on_demand_gets_a_request_for_gpus() -> None:
    assert plan_workers([{"CPU": 4.0}], "cuda", None) == Workers(2, 4, 1, 8)
    assert plan_workers([], "cuda", 40) == Workers(10, 4, 1, 40)


def test_one_gpu_by_its_number_is_no_device_of_a_cluster() -> None:
    with pytest.raises(ConfigError, match="cuda:1"):
        plan_workers([NODE], "cuda:1", None)


class Later(str):
    """What a call of an actor gives at once: the name of its result."""


class FakeRay:
    """Actors of one process whose calls are answered in their order; nothing is computed."""

    def __init__(self, abouts: list[About], outcomes: list[tuple[str, Any]]) -> None:
        self.abouts, self.outcomes = list(abouts), list(outcomes)
        self.results: dict[str, Any] = {}
        self.resources: dict[str, Any] = {}
        self.ran: list[tuple[Shard, str]] = []
        self.killed = 0
        self.exceptions = ModuleType("exceptions")
        self.exceptions.RayError = RuntimeError  # type: ignore[attr-defined]

    def remote(self, **resources: Any) -> Any:
        self.resources = resources
        return lambda kind: type("Class", (), {"remote": staticmethod(lambda *arguments: FakeActor(self))})

    def wait(self, refs: list[Later], num_returns: int = 1, timeout: float | None = None) -> Any:
        return list(refs), []

    def get(self, ref: Later) -> Any:
        return self.results[ref]

    def kill(self, actor: Any, no_restart: bool = True) -> None:
        self.killed += not no_restart

    def later(self, value: Any) -> Later:
        name = Later(len(self.results))
        self.results[name] = value
        return name


class FakeActor:
    def __init__(self, ray: FakeRay) -> None:
        self._ray = ray
        self.about = self._method(lambda: ray.abouts.pop(0))
        self.run = self._method(self._run)

    def _run(self, shard: Shard, compute: str) -> Any:
        self._ray.ran.append((shard, compute))
        return self._ray.outcomes.pop(0)

    def _method(self, answer: Any) -> Any:
        return type("Method", (), {"remote": staticmethod(lambda *arguments: self._ray.later(answer(*arguments)))})


def crew(ray: FakeRay, job: FeaturizeJob, workers: Workers) -> Any:
    return ray_engine._Crew(ray, job, workers, None, lambda line: None)


H100, T4 = About("n1, cuda:0 (NVIDIA H100)", "bfloat16"), About("n2, cuda:0 (Tesla T4)", "float16")


def test_compute_auto_is_the_first_workers_and_another_is_refused(job: FeaturizeJob) -> None:
    ray = FakeRay([H100, H100], [("report", FeaturizeReport(done=1))] * 4)
    assert crew(ray, job, Workers(2, 8, 1, 4)).run().done == 4
    assert {compute for _, compute in ray.ran} == {"bfloat16"}
    assert ray.resources["num_gpus"] == 1
    mixed = FakeRay([H100, T4], [("report", FeaturizeReport(done=1))] * 4)
    with pytest.raises(ConfigError, match=r"bfloat16 on n1.*float16 on n2.*--compute"):
        crew(mixed, job, Workers(2, 8, 1, 4)).run()
    options = replace(job, encoder=EncoderOptions("tiny-hubert", compute="float32"))
    assert crew(FakeRay([H100, T4], [("report", FeaturizeReport())] * 4), options, Workers(2, 8, 1, 4)).run().done == 0


def test_a_worker_whose_gpu_is_lost_is_started_again_and_its_part_done(job: FeaturizeJob) -> None:
    lost = ("lost", RuntimeError("CUDA error: uncorrectable ECC error"))
    ray = FakeRay([H100], [lost, *[("report", FeaturizeReport(done=2))] * 3])
    assert crew(ray, job, Workers(1, 8, 1, 3)).run().done == 6
    assert ray.killed == 1
    assert sorted(shard.number for shard, _ in ray.ran) == [1, 1, 2, 3]
    always = FakeRay([H100], [lost] * 3)
    with pytest.raises(RuntimeError, match="ECC"):
        crew(always, job, Workers(1, 8, 1, 1)).run()


def test_workers_that_cannot_work_are_named(job: FeaturizeJob) -> None:
    broken: Any = ConfigError("n3: --device cuda: not usable on this machine")
    with pytest.raises(Exception, match=r"no worker is left .*n3"):
        crew(FakeRay([broken], []), job, Workers(1, 8, 1, 2)).run()


def test_a_worker_loads_its_encoder_once_for_all_parts(job: FeaturizeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    from featurestore.encoders import load

    loads = []
    load_with = load.load_with
    monkeypatch.setattr(load, "load_with", lambda *arguments: loads.append(1) or load_with(*arguments))
    worker = ray_engine.Worker(job, "cpu")
    about = worker.about()
    assert isinstance(about, About)
    assert about.compute == "float32"
    ended = Ended()
    for i in range(3):
        ended.take(*worker.run(Shard(i + 1, 3), about.compute))
    assert (ended.report().done, len(loads)) == (N, 1)
    same_as_alone(job)


def test_a_worker_that_is_stopped_before_its_run_began_stops_at_the_first_utterance(job: FeaturizeJob) -> None:
    worker = ray_engine.Worker(job, "cpu")
    worker.stop(signal.SIGTERM)
    kind, (signum, report) = worker.run(Shard(1, 1), "float32")
    assert (kind, signum) == ("interrupted", signal.SIGTERM)
    assert report.done < N


def test_a_ray_that_fails_to_start_is_one_line_whatever_it_says(
    job: FeaturizeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    def init(**options: object) -> None:
        raise RuntimeError("The node has no room.\n" + "  at raylet.cc\n" * 50)

    broken = ModuleType("ray")
    broken.is_initialized, broken.init = (lambda: False), init  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ray", broken)
    with pytest.raises(ConfigError) as caught:
        featurize_with_ray(job, 1, "cpu")
    assert "RuntimeError: The node has no room." in str(caught.value)
    assert "raylet" not in str(caught.value)


def test_a_cluster_that_cannot_be_reached_is_one_line(job: FeaturizeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="Ray is an extra: pip install 'medusa-ser[ray]'")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(ConfigError, match=r"RAY_ADDRESS.*--devices"):
        featurize_with_ray(job, 1, "cpu", address="auto")  # no cluster runs here


@pytest.mark.slow
def test_ray_workers_take_transcripts(tmp_path: Path, ray: Any) -> None:
    job = transcribed(tmp_path)
    texts_as_alone(job, featurize_with_ray(job, 2, "cpu"))


@pytest.mark.slow
def test_ray_workers_do_what_one_process_does_although_one_is_killed(job: FeaturizeJob, ray: Any) -> None:
    psutil = pytest.importorskip("psutil")
    killed = []

    def kill_one() -> None:
        for _ in range(2400):
            for process in psutil.Process().children(recursive=True):
                if "Worker.run" in " ".join(process.cmdline()):
                    process.kill()
                    killed.append(process.pid)
                    return
            time.sleep(0.05)

    killer = threading.Thread(target=kill_one)
    killer.start()
    lines: list[str] = []
    counts: list[tuple[int, int, float]] = []
    try:
        report = featurize_with_ray(job, 4, "cpu", progress=lambda *each: counts.append(each), announce=lines.append)
    finally:
        killer.join()
    assert killed
    assert mentions(lines[0], "2 worker(s)", "1 core(s)", "4 parts")
    assert sum("float32" in line for line in lines) == 2
    assert report.done + report.skipped == N
    assert all(done <= total for done, total, _ in counts)
    same_as_alone(job)


@pytest.mark.slow
def test_a_stop_reaches_ray_workers_and_errors_come_back_as_they_are(job: FeaturizeJob, ray: Any) -> None:
    def stop(done: int, total: int, audio_s: float) -> None:
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(ConfigError, match=r"no GPU.*--device cpu"):
        featurize_with_ray(job, 3, "auto")
    with pytest.raises(Interrupted, match="SIGINT") as caught:
        featurize_with_ray(job, 3, "cpu", progress=stop)
    n_done = caught.value.report.done
    assert n_done == (len(FeatureStore.open(store_of(job))["a"]) if n_done else 0)
    assert featurize_with_ray(job, 2, "cpu").done == N - n_done
    other_layer = replace(job, encoder=EncoderOptions("tiny-hubert", layers="1"))
    with pytest.raises(SpecMismatch, match="layer_01"):
        featurize_with_ray(other_layer, 1, "cpu")
    same_as_alone(job)
