"""Featurizing one manifest with several processes: one per device of this machine, or workers of a Ray cluster.

Every process loads the encoder for itself and encodes one part of the manifest into the same store; segments need no
lock. A process that dies is replaced, and its successor does only what is missing.
"""

import multiprocessing
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from featurestore.encoders.catalog import ENCODERS
from featurestore.encoders.options import EncoderOptions
from featurestore.errors import ConfigError, EncoderError
from featurestore.featurize.decode_ahead import MOST_THREADS, usable_cores
from featurestore.featurize.job import FeaturizeJob
from featurestore.featurize.run import FeaturizeReport, Progress, paced
from featurestore.featurize.sharding import Shard
from featurestore.runtime.stage_clock import Padding
from featurestore.runtime.stopping import Interrupted, StopSignals

MAX_STARTS = 3  # of a process for one part
# Between two messages of a process: a message for each utterance of eight devices is as much as one parent can take,
# and a full pipe stops its sender.
PROGRESS_S = 0.2
STOP_S = 60.0  # for Ray's tasks to commit after a stop


def visible_devices(text: str) -> list[str]:
    """ "all" -> every CUDA device; "cuda:0,cuda:1" or "cpu,cpu" as they are; ConfigError where there is none."""
    if text != "all":
        return [part.strip() for part in text.split(",") if part.strip()]
    import torch

    if not torch.cuda.is_available():
        raise ConfigError("--devices all: this machine has no CUDA device; use --device, or --devices cpu,cpu.")
    return [f"cuda:{i}" for i in range(torch.cuda.device_count())]


def featurize_on_devices(
    job: FeaturizeJob, devices: Sequence[str], progress: Progress | None = None
) -> FeaturizeReport:
    """Run a job with one process per device, each with its part. Raises what a process raised, once all have ended.

    EncoderError when a part's process dies again and again. Interrupted after SIGINT or SIGTERM, once all processes
    have committed what they finished, with the report of them all. Processes whose parent is killed do the same.
    """
    return _Supervisor(job, devices, progress).run()


def featurize_with_ray(
    job: FeaturizeJob, n_parts: int, device: str, address: str | None = None, progress: Progress | None = None
) -> FeaturizeReport:
    """`n_parts` Ray tasks, retried by Ray when a worker or node dies; ConfigError where Ray is not installed.

    Manifest, audio and store must have the same paths on every node. A task asks for a GPU unless `device` is "cpu", or
    "auto" in a cluster without one. Raises what a task raised, once the others have finished, and Interrupted after
    SIGINT or SIGTERM, once all tasks have committed what they finished.
    """
    try:
        import ray
        from ray.exceptions import RayError
    except ImportError as error:
        raise ConfigError("--engine ray needs Ray: pip install 'medusa-ser[ray]'.") from error
    job = with_absolute_paths(job)
    if not ray.is_initialized():
        try:
            ray.init(address=address, log_to_driver=False)
        except Exception as error:  # of many kinds: no such cluster, no room, another version
            reason = (str(error).strip().splitlines() or [""])[0]
            raise ConfigError(
                f"--engine ray: Ray can't be started or reached ({type(error).__name__}: {reason[:200]}). Check "
                "RAY_ADDRESS and `ray status`, or use --devices."
            ) from error
    if device == "auto" and not ray.cluster_resources().get("GPU"):
        device = "cpu"
    task = ray.remote(max_retries=MAX_STARTS, num_cpus=1, num_gpus=0 if device == "cpu" else 1)(_outcome)
    waiting = [task.remote(job, Shard(i + 1, n_parts), device) for i in range(n_parts)]
    ended = _Ended()
    with StopSignals() as stop:
        while waiting:
            try:
                with stop.raising(FeaturizeReport()) if not ended.signum else nullcontext():
                    ready, waiting = ray.wait(waiting, timeout=STOP_S if ended.signum else None)
            except KeyboardInterrupt:  # Ray turns our Interrupted into a plain one
                ended.signum = stop.signum or signal.SIGINT
                for one in waiting:
                    ray.cancel(one)
                continue
            if not ready:
                break  # tasks out of reach; Ray ends them with this process
            try:
                kind, value = ray.get(ready[0])
            except RayError as error:
                if not ended.signum:  # else a task that had not started
                    ended.errors.append(EncoderError(f"a Ray task ended: {(str(error).splitlines() or [''])[0]}"))
                continue
            ended.take(kind, value)
            if progress is not None and ended.reports:
                so_far = merged(ended.reports)
                n_done = so_far.done + so_far.skipped + len(so_far.failed)
                progress(n_done, round(n_done * n_parts / len(ended.reports)), so_far.audio_s)
    return ended.report()


@dataclass
class _Ended:
    """How the parts ended: their reports, the errors of those that failed, and the signal that stopped them, or 0."""

    reports: list[FeaturizeReport] = field(default_factory=list)
    errors: list[BaseException] = field(default_factory=list)
    signum: int = 0

    def take(self, kind: str, value: Any) -> None:
        """Add what `_outcome` returned for one part."""
        if kind == "error":
            self.errors.append(value)
        elif kind == "interrupted":
            self.signum = self.signum or value[0]
            self.reports.append(value[1])
        else:
            self.reports.append(value)

    def report(self) -> FeaturizeReport:
        """Return the report of all parts; raises the first part's error, or Interrupted with that report."""
        if self.errors:
            raise self.errors[0]
        if self.signum:
            raise Interrupted(self.signum, merged(self.reports))
        return merged(self.reports)


class _Supervisor:
    """Starts a process per part, takes what they send, and starts one anew that died."""

    def __init__(self, job: FeaturizeJob, devices: Sequence[str], progress: Progress | None) -> None:
        self._job = with_share_of_cores(with_one_arithmetic(job, devices), devices)
        self._devices = devices
        self._progress = progress
        self._context = multiprocessing.get_context("spawn")
        # A pipe for each, not one queue for all: a process killed while it holds a queue's lock would stop the others.
        self._running: dict[Connection, tuple[int, BaseProcess]] = {}
        self._starts = [0] * len(devices)
        self._counts: dict[int, tuple[int, int, float]] = {}  # of each part: utterances done, in all, seconds of audio
        self._ended = _Ended()

    def run(self) -> FeaturizeReport:
        """Run all parts to their end; raises as `featurize_on_devices`."""
        with StopSignals() as stop:
            for part in range(len(self._devices)):
                self._start(part)
            while self._running:
                try:
                    with stop.raising(FeaturizeReport()) if not self._ended.signum else nullcontext():
                        ready = wait(list(self._running))
                except Interrupted as stopped:
                    self._stop(stopped.signum)
                    continue
                for receiver in ready:
                    assert isinstance(receiver, Connection)
                    self._receive(receiver)
        return self._ended.report()

    def _start(self, part: int) -> None:
        self._starts[part] += 1
        receiver, sender = self._context.Pipe(duplex=False)
        shard = Shard(part + 1, len(self._devices))
        process = self._context.Process(target=_work, args=(self._job, shard, self._devices[part], sender), daemon=True)
        with _deaf_to_ctrl_c():
            process.start()
        sender.close()  # ours: the process's own end closes with it, and `wait` returns its pipe
        self._running[receiver] = part, process

    def _stop(self, signum: int) -> None:
        self._ended.signum = signum
        for _, process in self._running.values():
            process.terminate()

    def _receive(self, receiver: Connection) -> None:
        part, process = self._running[receiver]
        try:
            kind, value = receiver.recv()
        except (EOFError, OSError):  # OSError: it died while it sent something
            kind, value = "died", None
        if kind == "progress":
            self._counts[part] = value
            self._report_progress()
            return
        del self._running[receiver]
        receiver.close()
        process.join()
        if kind == "died":
            self._replace(part, process)
        else:
            self._ended.take(kind, value)

    def _replace(self, part: int, dead: BaseProcess) -> None:
        if self._ended.signum:
            return
        if self._starts[part] < MAX_STARTS:
            self._start(part)
            return
        died = f"the process for {self._devices[part]} died {MAX_STARTS} times ({dead.exitcode})."
        self._ended.errors.append(EncoderError(died))

    def _report_progress(self) -> None:
        if self._progress is not None:
            done, total, audio_s = (sum(each) for each in zip(*self._counts.values(), strict=True))
            self._progress(int(done), int(total), float(audio_s))


def with_one_arithmetic(job: FeaturizeJob, devices: Sequence[str]) -> FeaturizeJob:
    """Return the job with what `--compute auto` is on these devices; ConfigError where it differs between them.

    It is part of a set's specification: else the second process to write would be refused half way.
    """
    if not isinstance(job.encoder, EncoderOptions) or job.encoder.compute != "auto":
        return job
    import torch

    from featurestore.encoders.device import pick_compute

    found: dict[str, str] = {}
    for device in devices:
        with suppress(RuntimeError, AssertionError):  # no such device, which its process reports
            found[str(pick_compute("auto", torch.device(device))).removeprefix("torch.")] = device
    if len(found) > 1:
        kinds = " and ".join(f"{compute} on {device}" for compute, device in found.items())
        raise ConfigError(
            f"--devices: --compute auto is {kinds}, whose rows differ; give --compute float32 or another."
        )
    return replace(job, encoder=replace(job.encoder, compute=next(iter(found), "auto")))


def with_share_of_cores(job: FeaturizeJob, devices: Sequence[str]) -> FeaturizeJob:
    """Return the job with decoding threads for one of several GPUs, where it does not name their number itself."""
    if job.options.workers is not None or not any(device.startswith("cuda") for device in devices):
        return job
    workers = max(2, min(MOST_THREADS, usable_cores() // len(devices)))
    return replace(job, options=replace(job.options, workers=workers))


def with_absolute_paths(job: FeaturizeJob) -> FeaturizeJob:
    """Return the job as a worker in another directory can run it."""
    manifest = job.manifest.resolve() if isinstance(job.manifest, Path) else job.manifest
    store = job.store.resolve() if isinstance(job.store, Path) else job.store
    encoder = job.encoder
    if isinstance(encoder, EncoderOptions):
        is_directory = encoder.name not in ENCODERS and Path(encoder.name).is_dir()
        name = str(Path(encoder.name).resolve()) if is_directory else encoder.name
        encoder = replace(encoder, name=name, weights=encoder.weights and encoder.weights.resolve())
    weights = job.weights and job.weights.resolve()
    return replace(job, manifest=manifest, store=store, encoder=encoder, weights=weights)


def merged(reports: Sequence[FeaturizeReport]) -> FeaturizeReport:
    """Return the parts' reports as one; its time is the longest one's."""
    return FeaturizeReport(
        done=sum(report.done for report in reports),
        skipped=sum(report.skipped for report in reports),
        failed=[failure for report in reports for failure in report.failed],
        audio_s=sum(report.audio_s for report in reports),
        wall_s=max((report.wall_s for report in reports), default=0.0),
        empty_texts=sum(report.empty_texts for report in reports),
        constant=[key for report in reports for key in report.constant],
        n_again=sum(report.n_again for report in reports),
        n_unrecorded=sum(report.n_unrecorded for report in reports),
        n_unreachable=sum(report.n_unreachable for report in reports),
        padding=Padding(
            sum(report.padding.n_valid for report in reports), sum(report.padding.n_padded for report in reports)
        ),
    )


def _outcome(job: FeaturizeJob, shard: Shard, device: str, progress: Progress | None = None) -> tuple[str, Any]:
    """Return "report" and the part's, "interrupted" with signal and report, or "error" and the exception."""
    try:
        return "report", job.run(shard, device, progress)
    except Interrupted as stop:
        return "interrupted", (stop.signum, stop.report)
    except Exception as error:
        return "error", error


def _work(job: FeaturizeJob, shard: Shard, device: str, sender: Connection) -> None:
    with suppress(BrokenPipeError):  # the parent was killed; what this process finished is committed
        sender.send(_outcome(job, shard, device, paced(lambda *counts: sender.send(("progress", counts)), PROGRESS_S)))


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """A process started inside ignores SIGINT until it encodes; each that still imports would print its traceback.

    A terminal sends SIGINT to all of them; the parent, which gets it too, ends them by SIGTERM.
    """
    if threading.current_thread() is not threading.main_thread():  # only there may handlers be set
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
