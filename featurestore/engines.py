"""Featurizing one manifest with several processes: one per device of this machine, or workers of a Ray cluster.

Every process loads the encoder for itself and encodes one part of the manifest into the same store; segments need no
lock. A process that dies is replaced, and its successor does only what is missing.
"""

import multiprocessing
import queue
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from featurestore.augment import View
from featurestore.errors import ConfigError, EncoderError
from featurestore.featurize import FeaturizeReport, featurize
from featurestore.sharding import Shard
from featurestore.stopping import Interrupted

MAX_STARTS = 3  # of a process for one part

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
        from featurestore.encoders import load_encoder
        from featurestore.manifest import Manifest
        from featurestore.mixing import heard
        from featurestore.store import FeatureStore

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

    EncoderError when a part's process dies again and again; Interrupted after SIGINT or SIGTERM, which processes obey.
    """
    context = multiprocessing.get_context("spawn")
    messages: Any = context.Queue()
    parts = [Shard(i + 1, len(devices)) for i in range(len(devices))]
    running: dict[int, Any] = {}
    starts = [0] * len(parts)
    told: dict[int, tuple[int, int, float]] = {}
    reports: dict[int, FeaturizeReport] = {}
    errors: list[BaseException] = []

    def start(i: int) -> None:
        starts[i] += 1
        running[i] = context.Process(target=_work, args=(job, parts[i], devices[i], i, messages), daemon=True)
        running[i].start()

    try:
        for i in range(len(parts)):
            start(i)
        while running:
            try:
                i, kind, value = messages.get(timeout=0.2)
            except queue.Empty:
                for i in [i for i, process in running.items() if not process.is_alive() and messages.empty()]:
                    code = running.pop(i).exitcode
                    if starts[i] < MAX_STARTS:
                        start(i)
                    else:
                        errors.append(EncoderError(f"the process for {devices[i]} died {MAX_STARTS} times ({code})."))
                continue
            if kind == "progress":
                told[i] = value
                if progress is not None:
                    done, total, audio_s = (sum(each) for each in zip(*told.values(), strict=True))
                    progress(int(done), int(total), float(audio_s))
                continue
            running.pop(i).join()
            if kind == "report":
                reports[i] = value
            else:
                errors.append(Interrupted(*value) if kind == "interrupted" else value)
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.join()
    if errors:
        raise errors[0]
    return merged(list(reports.values()))


def featurize_with_ray(
    job: Job, n_parts: int, device: str, address: str | None = None, progress: Progress | None = None
) -> FeaturizeReport:
    """`n_parts` Ray tasks, retried by Ray when a worker or node dies; ConfigError where Ray is not installed.

    Manifest, audio and store must have the same paths on every node. A task asks for a GPU unless `device` is "cpu".
    """
    try:
        import ray
    except ImportError as error:
        raise ConfigError("--engine ray needs Ray: pip install 'medusa-ser[ray]'.") from error
    job = replace(job, manifest=job.manifest.resolve(), store=job.store.resolve())
    if not ray.is_initialized():
        ray.init(address=address, log_to_driver=False)
    task = ray.remote(max_retries=MAX_STARTS, num_cpus=1, num_gpus=0 if device == "cpu" else 1)(_ray_work)
    waiting = [task.remote(job, Shard(i + 1, n_parts), device) for i in range(n_parts)]
    reports: list[FeaturizeReport] = []
    while waiting:
        ready, waiting = ray.wait(waiting)
        reports += ray.get(ready)
        so_far = merged(reports)
        if progress is not None:
            n_done = so_far.done + so_far.skipped + len(so_far.failed)
            progress(n_done, round(n_done * n_parts / len(reports)), so_far.audio_s)
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


def _ray_work(job: Job, shard: Shard, device: str) -> FeaturizeReport:
    return job.run(shard, device)


def _work(job: Job, shard: Shard, device: str, i: int, messages: Any) -> None:
    try:
        report = job.run(shard, device, lambda *told: messages.put((i, "progress", told)))
    except Interrupted as stop:
        messages.put((i, "interrupted", (stop.signum, stop.report)))
    except BaseException as error:
        messages.put((i, "error", error))
    else:
        messages.put((i, "report", report))
    messages.close()
    messages.join_thread()
