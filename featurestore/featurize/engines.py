"""Featurizing one manifest with several processes: one per device of this machine, or workers of a Ray cluster.

Every process loads the encoder for itself and encodes one part of the manifest into the same store; segments need no
lock. A process that dies is replaced, and its successor does only what is missing.
"""

import multiprocessing
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from featurestore.augment.views import View
from featurestore.errors import ConfigError, EncoderError
from featurestore.featurize.run import FeaturizeReport, featurize
from featurestore.featurize.sharding import Shard
from featurestore.runtime.stopping import Interrupted, StopSignals

MAX_STARTS = 3  # of a process for one part
STOP_S = 60.0  # for Ray's tasks to commit after a stop

# Told (utterances done, utterances in all, seconds of audio encoded).
Progress = Callable[[int, int, float], None]


@dataclass(frozen=True)
class Job:
    """All that a process needs. encoder: arguments of `load_encoder`; options: of `featurize`; view: None for clean."""

    manifest: Path
    store: Path
    name: str
    encoder: dict[str, Any]
    options: dict[str, Any] = field(default_factory=dict)
    view: View | None = None

    def run(self, shard: Shard, device: str, progress: Progress | None = None) -> FeaturizeReport:
        """Encode one part in this process."""
        from featurestore.augment.mixing import heard
        from featurestore.corpus.manifest import Manifest
        from featurestore.encoders import load_encoder
        from featurestore.store.feature_store import FeatureStore

        manifest, store = Manifest.read(self.manifest), FeatureStore.open_or_create(self.store)
        encoder = load_encoder(**self.encoder, device=device)
        if self.view is not None:
            encoder, manifest = self.view.encoder(encoder), heard(manifest, self.view, store)
        return featurize(
            manifest,
            encoder,
            store,
            self.name,
            shard=shard,
            progress=progress,
            **self.options,
        )


def visible_devices(text: str) -> list[str]:
    """ "all" -> every CUDA device; "cuda:0,cuda:1" or "cpu,cpu" as they are; ConfigError where there is none."""
    if text != "all":
        return [part.strip() for part in text.split(",") if part.strip()]
    import torch

    if not torch.cuda.is_available():
        raise ConfigError("--devices all: this machine has no CUDA device; use --device, or --devices cpu,cpu.")
    return [f"cuda:{i}" for i in range(torch.cuda.device_count())]


def featurize_on_devices(job: Job, devices: Sequence[str], progress: Progress | None = None) -> FeaturizeReport:
    """One process per device, each with its part. Raises what a process raised, once the others have finished.

    EncoderError when a part's process dies again and again. Interrupted after SIGINT or SIGTERM, once all processes
    have committed what they finished, with the report of them all. Processes whose parent is killed do the same.
    """
    context = multiprocessing.get_context("spawn")
    parts = [Shard(i + 1, len(devices)) for i in range(len(devices))]
    # A pipe for each, not one queue for all: a process killed while it holds a queue's lock would stop the others.
    running: dict[Connection, tuple[int, Any]] = {}
    starts = [0] * len(parts)
    told: dict[int, tuple[int, int, float]] = {}
    reports: list[FeaturizeReport] = []
    errors: list[BaseException] = []
    signum = 0

    def start(i: int) -> None:
        starts[i] += 1
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_work, args=(job, parts[i], devices[i], sender), daemon=True)
        with _deaf_to_ctrl_c():
            process.start()
        sender.close()  # ours: the process's own end closes with it, and wait tells
        running[receiver] = i, process

    with StopSignals() as stop:
        for i in range(len(parts)):
            start(i)
        while running:
            try:
                with stop.raising(FeaturizeReport()) if not signum else nullcontext():
                    ready = wait(list(running))
            except Interrupted as stopped:
                signum = stopped.signum
                for _, process in running.values():
                    process.terminate()
                continue
            for receiver in ready:
                assert isinstance(receiver, Connection)
                i, process = running[receiver]
                try:
                    kind, value = receiver.recv()
                except (EOFError, OSError):  # OSError: it died while it told something
                    kind, value = "died", None
                if kind == "progress":
                    told[i] = value
                    if progress is not None:
                        done, total, audio_s = (sum(each) for each in zip(*told.values(), strict=True))
                        progress(int(done), int(total), float(audio_s))
                    continue
                del running[receiver]
                receiver.close()
                process.join()
                if kind == "report":
                    reports.append(value)
                elif kind == "interrupted":
                    signum, report = signum or value[0], value[1]
                    reports.append(report)
                elif kind == "error":
                    errors.append(value)
                elif not signum and starts[i] < MAX_STARTS:
                    start(i)
                elif not signum:
                    died = f"the process for {devices[i]} died {MAX_STARTS} times ({process.exitcode})."
                    errors.append(EncoderError(died))
    if errors:
        raise errors[0]
    if signum:
        raise Interrupted(signum, merged(reports))
    return merged(reports)


def featurize_with_ray(
    job: Job, n_parts: int, device: str, address: str | None = None, progress: Progress | None = None
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
    job = replace(job, manifest=job.manifest.resolve(), store=job.store.resolve())
    if not ray.is_initialized():
        ray.init(address=address, log_to_driver=False)
    if device == "auto" and not ray.cluster_resources().get("GPU"):
        device = "cpu"
    task = ray.remote(max_retries=MAX_STARTS, num_cpus=1, num_gpus=0 if device == "cpu" else 1)(_outcome)
    waiting = [task.remote(job, Shard(i + 1, n_parts), device) for i in range(n_parts)]
    reports: list[FeaturizeReport] = []
    errors: list[BaseException] = []
    signum = 0
    with StopSignals() as stop:
        while waiting:
            try:
                with stop.raising(FeaturizeReport()) if not signum else nullcontext():
                    ready, waiting = ray.wait(waiting, timeout=STOP_S if signum else None)
            except KeyboardInterrupt:  # Ray turns our Interrupted into a plain one
                signum = stop.signum or signal.SIGINT
                for one in waiting:
                    ray.cancel(one)
                continue
            if not ready:
                break  # tasks out of reach; Ray ends them with this process
            try:
                kind, value = ray.get(ready[0])
            except RayError as error:
                if not signum:  # else a task that had not started
                    errors.append(EncoderError(f"a Ray task ended: {(str(error).splitlines() or [''])[0]}"))
                continue
            if kind == "error":
                errors.append(value)
            elif kind == "interrupted":
                signum = signum or value[0]
                reports.append(value[1])
            else:
                reports.append(value)
            if progress is not None and reports:
                so_far = merged(reports)
                n_done = so_far.done + so_far.skipped + len(so_far.failed)
                progress(n_done, round(n_done * n_parts / len(reports)), so_far.audio_s)
    if errors:
        raise errors[0]
    if signum:
        raise Interrupted(signum, merged(reports))
    return merged(reports)


def merged(reports: Sequence[FeaturizeReport]) -> FeaturizeReport:
    """The parts' reports as one; its time is the longest one's."""
    return FeaturizeReport(
        done=sum(report.done for report in reports),
        skipped=sum(report.skipped for report in reports),
        failed=[failure for report in reports for failure in report.failed],
        audio_s=sum(report.audio_s for report in reports),
        wall_s=max((report.wall_s for report in reports), default=0.0),
        empty_texts=sum(report.empty_texts for report in reports),
    )


def _outcome(job: Job, shard: Shard, device: str, progress: Progress | None = None) -> tuple[str, Any]:
    """ "report" and the part's, "interrupted" with signal and report, or "error" and the exception."""
    try:
        return "report", job.run(shard, device, progress)
    except Interrupted as stop:
        return "interrupted", (stop.signum, stop.report)
    except Exception as error:
        return "error", error


def _work(job: Job, shard: Shard, device: str, sender: Connection) -> None:
    with suppress(BrokenPipeError):  # the parent was killed; what this process finished is committed
        sender.send(_outcome(job, shard, device, lambda *told: sender.send(("progress", told))))


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
