"""Featurizing one manifest with several processes of this machine, one for each device; `ray_engine` has clusters.

Every process loads the encoder for itself and encodes one part of the manifest into the same store; segments need no
lock. A process that dies is replaced, and its successor does only what is missing.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from featurestore.encoders.options import EncoderOptions
from featurestore.errors import ConfigError, EncoderError
from featurestore.featurize.decode_ahead import MOST_THREADS, usable_cores
from featurestore.featurize.job import FeaturizeJob
from featurestore.featurize.parts import MAX_STARTS, Announce, Ended, outcome, with_compute
from featurestore.featurize.run import FeaturizeReport, Progress, paced
from featurestore.featurize.sharding import Shard
from featurestore.runtime.device import BFLOAT16_FROM
from featurestore.runtime.gpus import VISIBLE, capability_of, is_uuid, showing_only, visible_units
from featurestore.runtime.stopping import Interrupted, StopSignals

# Between two messages of a process: a message for each utterance of eight devices is as much as one parent can take,
# and a full pipe stops its sender.
PROGRESS_S = 0.2


def visible_devices(text: str) -> list[str]:
    """Return the devices of "all" (every CUDA device and MIG slice), "cuda:0,cuda:1", "cpu,cpu" or UUIDs.

    ConfigError where there is none.
    """
    if text != "all":
        devices = [part.strip() for part in text.split(",") if part.strip()]
        if not devices:
            raise ConfigError(f"--devices {text!r}: expected all, or names such as cuda:0,cuda:1 or MIG-UUID,MIG-UUID.")
        return devices
    units = visible_units()
    if units:
        return units
    import torch

    if not torch.cuda.is_available():
        raise ConfigError("--devices all: this machine has no CUDA device; use --device, or --devices cpu,cpu.")
    return [f"cuda:{i}" for i in range(torch.cuda.device_count())]


def featurize_on_devices(
    job: FeaturizeJob, devices: Sequence[str], progress: Progress | None = None, announce: Announce | None = None
) -> FeaturizeReport:
    """Run a job with one process per device, each with its part. Raises what a process raised, once all have ended.

    devices: of torch, or UUIDs of GPUs and MIG slices, each of which its process sees alone (as CUDA_VISIBLE_DEVICES).
    announce: takes a line for each process that has loaded the encoder: its device and its arithmetic.
    EncoderError when a part's process dies again and again. Interrupted after SIGINT or SIGTERM, once all processes
    have committed what they finished, with the report of them all. Processes whose parent is killed do the same.
    """
    return _Supervisor(job, devices, progress, announce).run()


class _Supervisor:
    """Starts a process per part, takes what they send, and starts one anew that died."""

    def __init__(
        self, job: FeaturizeJob, devices: Sequence[str], progress: Progress | None, announce: Announce | None
    ) -> None:
        self._job = with_share_of_cores(with_one_arithmetic(job, devices), devices)
        self._devices = devices
        self._progress = progress
        self._announce = announce
        self._context = multiprocessing.get_context("spawn")
        # A pipe for each, not one queue for all: a process killed while it holds a queue's lock would stop the others.
        self._running: dict[Connection, tuple[int, BaseProcess]] = {}
        self._starts = [0] * len(devices)
        self._counts: dict[int, tuple[int, int, float]] = {}  # of each part: utterances done, in all, seconds of audio
        self._ended = Ended()

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
        # In this process's environment, which the new one inherits: it imports torch as soon as it reads its job.
        with _deaf_to_ctrl_c(), showing_only(self._devices[part]):
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
        if kind == "started":
            if self._announce is not None:
                name = f"{self._devices[part]}: " if is_uuid(self._devices[part]) else ""
                self._announce(f"part {part + 1}/{len(self._devices)}: {name}{value}")
            return
        if kind == "progress":
            self._counts[part] = value
            self._report_progress()
            return
        del self._running[receiver]
        receiver.close()
        process.join()
        if kind in ("died", "lost"):
            self._replace(part, process, value)
        else:
            self._ended.take(kind, value)

    def _replace(self, part: int, dead: BaseProcess, reason: BaseException | None) -> None:
        if self._ended.signum:
            return
        if self._starts[part] < MAX_STARTS:
            self._start(part)
            return
        ending = f"exit code {dead.exitcode}" if reason is None else f"{type(reason).__name__}: {reason}"
        self._ended.errors.append(
            EncoderError(f"The process for {self._devices[part]} ended {MAX_STARTS} times before its time ({ending}).")
        )

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
    environment: dict[str, str] = {}
    for device in devices:
        compute = _auto_compute(device)
        if compute:
            environment[compute] = device
    if len(environment) > 1:
        kinds = " and ".join(f"{compute} on {device}" for compute, device in environment.items())
        raise ConfigError(
            f"--devices: --compute auto is {kinds}, whose rows differ; give --compute float32 or another."
        )
    return with_compute(job, next(iter(environment), "auto"))


def _auto_compute(device: str) -> str:
    """Return the arithmetic of `--compute auto` on a device; "" for a missing one, which its process reports."""
    import torch

    from featurestore.encoders.device import pick_compute

    if is_uuid(device):
        capability = capability_of(device)
        if capability is None:
            raise ConfigError(
                f"--devices {device}: nvidia-smi lists no such GPU or MIG slice, or not its compute capability. Give "
                "--compute bfloat16 or another, or a UUID of `nvidia-smi -L`."
            )
        return "bfloat16" if capability >= BFLOAT16_FROM else "float16"
    with suppress(RuntimeError, AssertionError):
        return str(pick_compute("auto", torch.device(device))).removeprefix("torch.")
    return ""


def with_share_of_cores(job: FeaturizeJob, devices: Sequence[str]) -> FeaturizeJob:
    """Return the job with decoding threads for one of several GPUs, where it does not name their number itself."""
    if job.options.workers is not None or not any(device.startswith("cuda") or is_uuid(device) for device in devices):
        return job
    workers = max(2, min(MOST_THREADS, usable_cores() // len(devices)))
    return replace(job, options=replace(job.options, workers=workers))


def _work(job: FeaturizeJob, shard: Shard, device: str, sender: Connection) -> None:
    with suppress(BrokenPipeError):  # the parent was killed; what this process finished is committed
        if is_uuid(device) and not _is_shown():
            missing = f"--devices: CUDA finds no {os.environ.get(VISIBLE)}; `nvidia-smi -L` lists GPUs and MIG slices."
            sender.send(("error", ConfigError(missing)))
            return
        progress = paced(lambda *counts: sender.send(("progress", counts)), PROGRESS_S)
        on = "cuda" if is_uuid(device) else device
        sender.send(outcome(job, shard, on, progress, lambda line: sender.send(("started", line))))


def _is_shown() -> bool:
    import torch

    return torch.cuda.is_available()


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """Let a process started inside ignore SIGINT until it encodes; each that still imports would print its traceback.

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
