"""Featurizing one manifest with the workers of a Ray cluster: an actor for each GPU, which pulls part after part.

A worker loads the encoder once and encodes the parts that it is given into the same store; segments need no lock. There
are more parts than workers, so that a slow one is not waited for. Ray replaces a worker that dies, which does again
what is missing of its part.
"""

import signal
import time
from collections import deque
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from featurestore.corpus.manifest import Manifest
from featurestore.encoders.options import EncoderOptions
from featurestore.errors import ConfigError, EncoderError
from featurestore.featurize.job import FeaturizeJob
from featurestore.featurize.parts import MAX_STARTS, Announce, Ended, outcome, with_absolute_paths, with_compute
from featurestore.featurize.run import FeaturizeReport, Progress
from featurestore.featurize.sharding import Shard
from featurestore.runtime.stopping import StopSignals, stop_runs

PARTS_OF_A_WORKER = 4
CORES_OF_A_GPU = 8  # for decoding; fewer where a node has not so many for each of its GPUs
CORES_UNKNOWN = 4  # for a GPU that the cluster will add
POLL_S = 1.0
STOP_S = 60.0  # for workers to commit after a stop
PATIENCE_S = 30.0  # before a message that no worker has started


@dataclass(frozen=True)
class Workers:
    """How many workers are asked for, what each takes of its node, and the parts that they share."""

    count: int
    n_cpus: int
    n_gpus: int
    n_parts: int

    def __str__(self) -> str:
        each = f"a GPU and {self.n_cpus} cores" if self.n_gpus else f"{self.n_cpus} core(s)"
        return f"{self.count} worker(s) with {each} each, {self.n_parts} parts"


def plan_workers(nodes: Sequence[dict[str, float]], device: str, n_parts: int | None) -> Workers:
    """Return the workers for a cluster whose nodes have these resources ("CPU", "GPU").

    ConfigError for "auto" where no node has a GPU now: the CPUs are taken only when they are asked for, since a cluster
    that grows on demand may be without GPUs for the moment.
    """
    n_gpus = sum(int(node.get("GPU", 0)) for node in nodes)
    n_cores = max(1, sum(int(node.get("CPU", 0)) for node in nodes))
    if device == "cpu":
        count = min(n_cores, n_parts or n_cores)
        return Workers(count, 1, 0, n_parts or PARTS_OF_A_WORKER * count)
    if device not in ("auto", "cuda"):
        raise ConfigError(f"--engine ray --device {device}: Ray gives each worker a GPU of its own; use cuda or cpu.")
    if not n_gpus and device == "auto":
        raise ConfigError(
            f"--engine ray: the cluster has no GPU at this moment ({len(nodes)} node(s), {n_cores} cores). Give "
            "--device cpu to encode on its CPUs, or --device cuda to wait for GPUs that it adds on demand."
        )
    on_demand = -(-(n_parts or 2 * PARTS_OF_A_WORKER) // PARTS_OF_A_WORKER)
    count = n_gpus or on_demand
    of_each = [int(node.get("CPU", 0)) // int(node["GPU"]) for node in nodes if int(node.get("GPU", 0))]
    n_cpus = max(1, min(CORES_OF_A_GPU, *of_each)) if of_each else CORES_UNKNOWN
    return Workers(count, n_cpus, 1, n_parts or PARTS_OF_A_WORKER * count)


def featurize_with_ray(
    job: FeaturizeJob,
    n_parts: int | None,
    device: str,
    address: str | None = None,
    progress: Progress | None = None,
    announce: Announce | None = None,
) -> FeaturizeReport:
    """Run a job on a Ray cluster; ConfigError where Ray is not installed, or has no GPU and `device` is "auto".

    n_parts: see `plan_workers`. Manifest, audio and store must have the same paths on every node. The arithmetic of
    `auto` is the first worker's, and ConfigError where another worker's is not the same. Raises what a worker raised,
    once the others have finished, and Interrupted after SIGINT or SIGTERM, once all have committed what they finished.
    """
    ray = _ray(address)
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    workers = plan_workers(nodes, device, n_parts)
    announce = announce or (lambda line: None)
    announce(f"Ray: {workers}")
    return _Crew(ray, with_absolute_paths(job), workers, progress, announce).run()


def _ray(address: str | None) -> Any:
    try:
        import ray
    except ImportError as error:
        raise ConfigError("--engine ray needs Ray: pip install 'medusa-ser[ray]'.") from error
    if not ray.is_initialized():
        try:
            ray.init(address=address, log_to_driver=False)
        except Exception as error:  # of many kinds: no such cluster, no room, another version
            reason = (str(error).strip().splitlines() or [""])[0]
            raise ConfigError(
                f"--engine ray: Ray can't be started or reached ({type(error).__name__}: {reason[:200]}). Check "
                "RAY_ADDRESS and `ray status`, or use --devices."
            ) from error
    return ray


@dataclass(frozen=True)
class About:
    """Where a worker computes, for people, and what `--compute auto` is there."""

    place: str
    compute: str


class Worker:
    """The actor's class: keeps manifest and encoder from part to part.

    `run` works in one thread of the actor, `counts` and `stop` answer in another.
    """

    def __init__(self, job: FeaturizeJob, device: str) -> None:
        self._job, self._device = job, device
        self._loaded: FeaturizeJob | None = None
        self._counts = (0, 0, 0.0)
        self._signum = 0

    def about(self) -> About | Exception:
        """Return this worker's device, or the reason why it can't compute."""
        import socket

        from featurestore.encoders.device import pick_compute
        from featurestore.runtime.device import describe_device, pick_device

        try:
            on = pick_device(self._device)
        except ConfigError as error:
            return ConfigError(f"{socket.gethostname()}: {error}")
        compute = str(pick_compute("auto", on)).removeprefix("torch.")
        return About(f"{socket.gethostname()}, {describe_device(on)}", compute)

    def run(self, shard: Shard, compute: str) -> tuple[str, Any]:
        """Encode one part; returns what `outcome` does. compute: what `auto` stands for."""
        self._counts = (0, 0, 0.0)
        try:
            job = self._open(compute)
        except Exception as error:
            return "error", error
        return outcome(job, shard, self._device, self._progress)

    def counts(self) -> tuple[int, int, float]:
        """Return how far the part at hand is: utterances done, in all, and seconds of audio."""
        return self._counts

    def stop(self, signum: int) -> None:
        """Commit what is finished, and end the part at hand."""
        self._signum = signum
        stop_runs(signum)

    def _open(self, compute: str) -> FeaturizeJob:
        from featurestore.encoders.load import load_with

        if self._loaded is None:
            job = with_compute(self._job, compute)
            if isinstance(job.encoder, EncoderOptions):
                job = replace(job, encoder=load_with(job.encoder, self._device))
            if isinstance(job.manifest, Path):
                job = replace(job, manifest=Manifest.read(job.manifest))
            self._loaded = job
        return self._loaded

    def _progress(self, done: int, total: int, audio_s: float) -> None:
        self._counts = (done, total, audio_s)
        if self._signum:  # it came before the run was there to be stopped
            stop_runs(self._signum)


@dataclass
class _Crew:
    """The workers of one job: gives each the next part, and gathers what became of the parts."""

    ray: Any
    job: FeaturizeJob
    workers: Workers
    progress: Progress | None
    announce: Announce
    ended: Ended = field(default_factory=Ended)

    def __post_init__(self) -> None:
        self._left = deque(Shard(i + 1, self.workers.n_parts) for i in range(self.workers.n_parts))
        self._starts = dict.fromkeys(self._left, 0)
        self._starting: dict[Any, Any] = {}  # actors that have not said yet where they are, by what they will say
        self._running: dict[Any, tuple[Any, Shard]] = {}
        self._compute = ""
        self._place = ""  # of the worker whose arithmetic it is
        self._failure: Exception | None = None  # why a worker could not work

    def run(self) -> FeaturizeReport:
        """Run all parts to their end; raises as `featurize_with_ray`."""
        device = "cuda" if self.workers.n_gpus else "cpu"
        # Ray itself starts a worker again that died, on another node if need be, and sends it its part again.
        actor = self.ray.remote(
            num_cpus=self.workers.n_cpus, num_gpus=self.workers.n_gpus, max_concurrency=2,
            max_restarts=-1, max_task_retries=MAX_STARTS - 1,
        )(Worker)  # fmt: skip
        job = self._with_threads(self.job)
        actors = [actor.remote(job, device) for _ in range(self.workers.count)]
        self._starting = {each.about.remote(): each for each in actors}
        started = time.monotonic()
        try:
            with StopSignals() as stop:
                while self._left or self._running:
                    try:
                        with stop.raising(FeaturizeReport()) if not self.ended.signum else nullcontext():
                            ready = self._wait()
                            self._show()
                    except KeyboardInterrupt:  # Ray turns our Interrupted into a plain one
                        self._stop(stop.signum or signal.SIGINT)
                        continue
                    if not ready and self.ended.signum:
                        break  # workers out of reach; they end with this process
                    for ref in ready:
                        self._take(ref)
                    if not self._compute and started and time.monotonic() - started > PATIENCE_S:
                        self.announce("Ray: no worker has started yet; `ray status` says what is missing")
                        started = 0.0
        finally:
            for each in actors:
                self.ray.kill(each)
        return self.ended.report()

    def _with_threads(self, job: FeaturizeJob) -> FeaturizeJob:
        """Return the job with as many decoding threads as a worker has cores, where it names no number."""
        if job.options.workers is not None or not self.workers.n_gpus:
            return job
        return replace(job, options=replace(job.options, workers=max(2, self.workers.n_cpus)))

    def _wait(self) -> list[Any]:
        refs = [*self._running, *([] if self.ended.signum else self._starting)]
        if not refs:
            raise EncoderError(f"--engine ray: no worker is left ({self._failure}); `ray status` says more.")
        ready: list[Any] = self.ray.wait(refs, timeout=STOP_S if self.ended.signum else POLL_S)[0]
        return ready

    def _stop(self, signum: int) -> None:
        self.ended.signum = signum
        self._left.clear()
        for actor, _ in self._running.values():
            actor.stop.remote(signum)

    def _take(self, ref: Any) -> None:
        """Take what a worker sent, and give it its next part."""
        if ref in self._starting:
            actor = self._starting.pop(ref)
            try:
                about = self.ray.get(ref)
            except self.ray.exceptions.RayError as error:
                about = EncoderError(_first_line(error))
            if isinstance(about, Exception):
                self.announce(f"a Ray worker can't work: {about}")
                self._failure = about
                return
            if not self._agrees(about):
                return
            self.announce(f"Ray worker: {about.place}, {self._compute_of(about)}")
        else:
            actor, shard = self._running.pop(ref)
            try:
                kind, value = self.ray.get(ref)
            except self.ray.exceptions.RayError as error:
                self._again(shard, MAX_STARTS, EncoderError(f"Part {shard}: its Ray worker died: {_first_line(error)}"))
                kind, value = "", None
            if kind == "lost" and not self.ended.signum:
                self.ray.kill(actor, no_restart=False)  # a process whose GPU or files are gone; Ray starts another
                self._again(shard, self._starts[shard], value)
            elif kind:
                self.ended.take(kind, value)
        if self._left and not self.ended.signum:
            shard = self._left.popleft()
            self._starts[shard] += 1
            self._running[actor.run.remote(shard, self._compute)] = actor, shard

    def _agrees(self, about: About) -> bool:
        """Take the first worker's arithmetic for `auto`; False, and an error, where another one's differs."""
        if not self._compute:
            self._compute, self._place = about.compute, about.place
        options = self.job.encoder
        is_auto = isinstance(options, EncoderOptions) and options.compute == "auto"
        if is_auto and about.compute != self._compute:
            self._fail(ConfigError(
                f"--engine ray: --compute auto is {self._compute} on {self._place} and {about.compute} on "
                f"{about.place}, whose rows differ; give --compute {self._compute} or another."
            ))  # fmt: skip
            return False
        return True

    def _compute_of(self, about: About) -> str:
        options = self.job.encoder
        return options.compute if isinstance(options, EncoderOptions) and options.compute != "auto" else about.compute

    def _again(self, shard: Shard, n_starts: int, error: BaseException) -> None:
        """Put a part back that a worker left; an error where it was started so often already."""
        if n_starts < MAX_STARTS:
            self._left.append(shard)
        elif not self.ended.signum:
            self.ended.errors.append(error)

    def _fail(self, error: BaseException) -> None:
        """End with an error once the parts at hand are done."""
        self.ended.errors.append(error)
        self._left.clear()

    def _show(self) -> None:
        """Report how far the parts are, as those that have one say."""
        if self.progress is None:
            return
        reports = self.ended.reports
        done = sum(report.done + report.skipped + len(report.failed) for report in reports)
        total, audio_s, n_known = done, sum(report.audio_s for report in reports), len(reports)
        refs = [actor.counts.remote() for actor, _ in self._running.values()]
        if refs:
            ready = self.ray.wait(refs, num_returns=len(refs), timeout=POLL_S)[0]
            for ref in ready:
                try:
                    of_part = self.ray.get(ref)
                except self.ray.exceptions.RayError:
                    continue  # it died, which its part's own end says
                if of_part[1]:
                    done, total, audio_s, n_known = (
                        done + of_part[0], total + of_part[1], audio_s + of_part[2], n_known + 1,
                    )  # fmt: skip
        if n_known:
            self.progress(done, round(total * self.workers.n_parts / n_known), audio_s)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
