"""Trains networks: one stream of batches, read once, that all of them step on; a CPU resumes to the same weights."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deepser.config import TrainConfig
from deepser.networks.network import Network
from deepser.training import samplers
from deepser.training.data import Indices, TrainingData
from deepser.training.device import arithmetic, autocast
from deepser.training.processes import World
from deepser.training.run import DivergenceCheck, Epoch, Job, Outputs, Run, Stage
from deepser.training.standardise import standardise
from deepser.training.together import SharedReader, bucket_lengths, stream_key
from deepser.training.views import by_view
from featurestore.errors import ConfigError
from featurestore.runtime.transfer import to_host

History = list[dict[str, Any]]  # one record per epoch: stage, epoch, loss, lr, waiting_share, dev_<rule>, seconds
Progress = Callable[[int, int, str], None]  # (steps done, steps in all, what is going on)
OnEpoch = Callable[[Job, History], None]  # the history so far: what a resumed run had done, and the epoch just ended


def train(
    jobs: Sequence[Job],
    world: World,
    reader: SharedReader | None = None,
    *,
    progress: Progress | None = None,
    on_epoch: OnEpoch | None = None,
) -> list[History]:
    """Train the jobs' networks in place, on batches that are read once for all; returns each one's records.

    After each epoch a job's whole state goes to its directory/checkpoint.safetensors; called again after a kill, jobs
    go on from there, on a CPU to the weights of an undisturbed run. Jobs share samples, their order and the batches
    they are cut into, and must agree in what decides these (`together.stream_key`). Each has its own initial weights,
    dropout, MixUp, loss, schedule, selection and early stop, so that its weights are, on a CPU bit for bit, those of
    training it alone with the same config. Every draw depends on (seed, stage, epoch) alone. CUDA repeats itself to
    the last bit in `device.deterministic` at most.

    In several processes each batch is split (`World`): the step is that of one process on the whole batch but for the
    order of float sums, whatever the loss, and for dropout, which each process draws for its own clips. Each judges a
    share of the held-out part's batches. The first process alone writes, calls `progress` and `on_epoch`; a run may go
    on in another number of processes. "seconds" and "waiting_share" of a record are those of the shared epoch.

    Raises ConfigError when a loss diverges, a batch is smaller than the number of processes, or a stage draws no clip.
    """
    config = jobs[0].config
    assert len({stream_key(j.data, j.train_at, j.dev_at, j.config) for j in jobs}) == 1
    if max(config.batch_size // config.accumulate, 1) < world.size:
        parts = f" in {config.accumulate} parts" if config.accumulate > 1 else ""
        raise ConfigError(
            f"A batch of {config.batch_size}{parts} is too small for {world.size} processes: some would never have a "
            "clip. Raise --batch-size, or start fewer processes."
        )
    return _Stream(jobs, world, reader or SharedReader(), progress, on_epoch).to_the_end()


class _Stream:
    """The batches of the jobs' stages and epochs, and the runs that learn from them."""

    def __init__(
        self,
        jobs: Sequence[Job],
        world: World,
        reader: SharedReader,
        progress: Progress | None,
        on_epoch: OnEpoch | None,
    ) -> None:
        self.world, self.reader, self.config = world, reader, jobs[0].config
        self.progress, self.on_epoch = (progress, on_epoch) if world.first else (None, None)
        self.train_at, self.labels = jobs[0].train_at, jobs[0].data.targets.labels[jobs[0].train_at]
        self.available = jobs[0].data.views.available(self.train_at)
        self.lengths = bucket_lengths(jobs[0].data, self.config)
        steps = [len(self._batches(i, 0)) for i in range(len(self.config.stages))]
        for stage, n in zip(self.config.stages, steps, strict=True):
            if not n:
                raise ConfigError(
                    f"{stage.name} has nothing to learn from: no training utterance has a consensus label, and only "
                    f"such are drawn by sampler {stage.sampler}. Leave the stage out, or use sampler shuffled."
                )
        self.runs = [Run(job, world, steps) for job in jobs]
        if world.first:
            new = [run.job for run in self.runs if run.saved is None]
            standardise([j.network for j in new], [j.data for j in new], self.train_at, self.config.stride, reader)
        for run in self.runs:
            world.same(run.network)

    def to_the_end(self) -> list[History]:
        if self.on_epoch is not None:
            for run in self.runs:
                if run.history:
                    self.on_epoch(run.job, run.history)
        for index in range(len(self.config.stages)):
            self._stage(index)
        for run in self.runs:
            run.finish()
        return [run.history for run in self.runs]

    def _stage(self, index: int) -> None:
        stages = [stage for run in self.runs if (stage := run.open_stage(index)) is not None]
        candidates = [stage for stage in stages if stage.asks]
        for stage, outputs in zip(candidates, self._outputs(candidates), strict=True):
            stage.judge_start(outputs)
        for epoch in range(max((stage.config.epochs for stage in stages), default=0)):
            learning = [stage for stage in stages if stage.wants(epoch)]
            if learning:
                self._epoch(learning, index, epoch)
        for stage in stages:
            stage.close()

    def _batches(self, index: int, epoch: int) -> list[Indices]:
        order = samplers.epoch_order(
            self.config.stages[index], self.labels, seed=self.config.stream_seed * 101 + index, epoch=epoch,
            no_consensus_share=self.config.no_consensus_share,
        )  # fmt: skip
        clips = self.train_at[order]
        if len(self.available):
            seed = self.config.stream_seed * 101 + index
            clips = samplers.draw_views(clips, self.available, self.config.view_share, seed=seed, epoch=epoch)
        return samplers.batches(clips, self.config.batch_size, lengths=self.lengths)

    def _epoch(self, stages: Sequence[Stage], index: int, epoch: int) -> None:
        started = time.perf_counter()
        epochs = [stage.begin_epoch() for stage in stages]
        waited = self._steps(epochs, self._batches(index, epoch), epoch)
        records: list[dict[str, Any]] = [
            {"waiting_share": round(waited / max(time.perf_counter() - started, 1e-9), 4)} for _ in stages
        ]
        judged = [i for i, stage in enumerate(stages) if stage.rule != "last"]
        with ExitStack() as averages:
            for i in judged:
                averages.enter_context(stages[i].average.applied())
            for i, outputs in zip(judged, self._outputs([stages[i] for i in judged]), strict=True):
                records[i] |= stages[i].judge(outputs)
        for stage, learned, record in zip(stages, epochs, records, strict=True):
            stage.end_epoch(learned, {**record, "seconds": round(time.perf_counter() - started, 3)})
            if self.on_epoch is not None:
                self.on_epoch(stage.run.job, stage.run.history)

    def _outputs(self, stages: Sequence[Stage]) -> list[Outputs]:
        """Return the outputs of each stage's network for the held-out part."""
        if not stages:
            return []
        runs = [stage.run for stage in stages]
        networks, members, configs = zip(*((run.network, run.job.data, run.config) for run in runs), strict=True)
        return predict(
            networks, members, runs[0].job.dev_at, configs, self.world, self.reader, self.lengths
        )  # fmt: skip

    def _steps(self, epochs: Sequence[Epoch], batches: Sequence[Indices], epoch: int) -> float:
        """Make a step of every run on every batch, and return the seconds of waiting for batches."""
        config, waited = self.config, 0.0
        n = len(self.runs[0].targets.keys)
        parts = [
            [by_view(part, n) for part in np.array_split(batch, min(config.accumulate, len(batch)))]
            for batch in batches
        ]  # fmt: skip
        shares = [share for batch in parts for part in batch if len(share := self.world.share_of(part))]
        members = [learning.stage.run.job.data for learning in epochs]
        check = DivergenceCheck(epochs)
        with self.reader.open_batches(members, shares, config.stride, self.world.device) as read:
            for step, batch in enumerate(parts):
                for learning in epochs:
                    learning.begin_step(epoch + step / len(batches))
                for part in batch:
                    rows: list[Any] = [None] * len(epochs)
                    if len(self.world.share_of(part)):
                        waiting = time.perf_counter()
                        rows = next(read)
                        waited += time.perf_counter() - waiting
                    for learning, of_member in zip(epochs, rows, strict=True):
                        learning.learn(part, of_member, len(part) / len(batches[step]))
                for learning in epochs:
                    learning.end_step()
                check.end_step()
                if self.progress is not None:
                    stage = epochs[0].stage.config
                    title = f"{stage.name} epoch {epoch + 1}/{stage.epochs}"
                    self.progress(sum(run.n_done for run in self.runs), sum(run.n_steps for run in self.runs), title)
        check.close()
        return waited


def predict(
    networks: Sequence[Network],
    members: Sequence[TrainingData],
    indices: Indices,
    configs: Sequence[TrainConfig],
    world: World,
    reader: SharedReader | None = None,
    lengths: Indices | None = None,
) -> list[Outputs]:
    """Each network's logits (n, C) and attributes (n, A) of the clips `indices`, in that order, read once for all.

    lengths: (N,), by which clips are put together in batches, by default those of the first one's data; whose share is
    whose doesn't change the batches.
    """
    reader = reader or SharedReader()
    lengths = members[0].lengths() if lengths is None else lengths
    outputs, judged = [], list[list[Tensor]]()
    for network, data in zip(networks, members, strict=True):
        network.to(world.device).eval()
        targets = data.targets
        widths = (len(targets.classes), len(targets.attributes))
        outputs.append(tuple(np.zeros((len(indices), width), np.float32) for width in widths))
        judged.append([])
    batches = samplers.batches(np.argsort(lengths[indices], kind="stable"), configs[0].batch_size)[
        world.rank :: world.size
    ]
    clips = [indices[batch] for batch in batches]
    with reader.open_batches(members, clips, configs[0].stride, world.device) as read:
        for _, rows in zip(batches, read, strict=True):
            for network, of_member, config, collected in zip(networks, rows, configs, judged, strict=True):
                with torch.inference_mode(), arithmetic(config.precision, world.device):
                    with autocast(config.precision, world.device):
                        x = network.embed(of_member)
                    scores = network.head(x.float())  # in float32, as it is trained
                    collected.append(torch.cat([values.float() for values in scores], dim=1))
    if batches:
        order = np.concatenate(batches)
        # They stay on the device until all are there: one wait, however many batches and members.
        fetched = to_host(torch.cat([torch.cat(collected) for collected in judged], dim=1))()
        start = 0
        for arrays in outputs:
            for array in arrays:
                array[order] = fetched[:, start : start + array.shape[1]]
                start += array.shape[1]
    return [(world.sum(logits), world.sum(attributes)) for logits, attributes in outputs]
