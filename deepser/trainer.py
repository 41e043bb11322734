"""Trains one network: read a batch, step, select, checkpoint each epoch; resumes to the same weights."""

import math
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from deepser import samplers
from deepser.averaging import MovingAverage
from deepser.checkpoint import Saved, State, load_checkpoint, restore_optimiser, save_checkpoint
from deepser.config import StageConfig, TrainConfig
from deepser.data import Indices, Rows, TrainingData
from deepser.device import autocast
from deepser.losses import Mix, class_weights, total_loss
from deepser.networks.network import Network
from deepser.schedule import learning_rate
from deepser.selection import held_out_score
from deepser.standardise import standardise
from featurestore.errors import ConfigError

Progress = Callable[[int, int, str], None]  # (steps done, steps in all, what is going on)

PREDICT_BATCH_SIZE = 64


def train(
    network: Network,
    data: TrainingData,
    train_at: Indices,
    dev_at: Indices,
    config: TrainConfig,
    directory: Path,
    *,
    device: torch.device,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Train `network` in place on the clips `train_at`, selecting on `dev_at`; returns the metrics of every epoch.

    After each epoch the whole state goes to `directory`/checkpoint.safetensors; called again after a kill, training
    continues from there to the weights of an undisturbed run. Every draw depends on (seed, stage, epoch) alone.
    Each stage starts from the best weights so far with a new optimiser. Raises ConfigError when the loss diverges.
    """
    network.to(device)
    return _Run(network, data, train_at, dev_at, config, directory, device, progress).to_the_end()


class _Run:
    """One training run, between its checkpoints."""

    def __init__(
        self,
        network: Network,
        data: TrainingData,
        train_at: Indices,
        dev_at: Indices,
        config: TrainConfig,
        directory: Path,
        device: torch.device,
        progress: Progress | None,
    ) -> None:
        self.network, self.data, self.config, self.device, self.progress = network, data, config, device, progress
        self.train_at, self.dev_at = train_at, dev_at
        self.checkpoint = directory / "checkpoint.safetensors"
        self.lengths = data.lengths()
        self.ranges = torch.tensor(data.targets.attribute_ranges, dtype=torch.float32, device=device).reshape(-1, 2)
        of_epoch = [math.ceil(len(self._order(i, 0)) / config.batch_size) for i in range(len(config.stages))]
        self.n_steps = [n * stage.epochs for n, stage in zip(of_epoch, config.stages, strict=True)]
        self.state = State()
        self.best: dict[str, Tensor] = {}
        self.resumed: Saved | None = None
        if self.checkpoint.exists():
            self.resumed = load_checkpoint(self.checkpoint, network)
            self.state, self.best = self.resumed.state, self.resumed.best
        else:
            standardise(network, data, train_at, config)
        self.done = sum(self.n_steps[: self.state.stage]) + of_epoch[self.state.stage] * self.state.epoch

    def to_the_end(self) -> list[dict[str, Any]]:
        first = self.state.stage
        for index, stage in enumerate(self.config.stages[first:], start=first):
            if index > first:
                self.state.stage, self.state.epoch = index, 0
                self.done = sum(self.n_steps[:index])
            self._stage(index, stage)
        if self.best:
            self.network.load_state_dict(self.best)
        return self.state.history

    def _stage(self, index: int, stage: StageConfig) -> None:
        state, rule = self.state, self.config.rule(stage)
        if state.epoch == 0:
            self._begin(stage, rule)
        optimiser = torch.optim.AdamW(
            self.network.parameters(), lr=stage.lr, weight_decay=self.config.weight_decay, fused=True
        )
        average = MovingAverage(self.network, self.config.ema_decay)
        if self.resumed is not None:
            restore_optimiser(optimiser, self.network, self.resumed.optimiser)
            average.restore(self.resumed.average)
            self.resumed = None
        labels, n_classes = self.data.targets.labels[self.train_at], len(self.data.targets.classes)
        weights = torch.from_numpy(class_weights(labels, n_classes, stage.class_weight_exponent)).to(self.device)
        for epoch in range(state.epoch, stage.epochs):
            if stage.patience and state.waited >= stage.patience:
                break
            started = time.perf_counter()
            done = self._epoch(optimiser, average, index, epoch, weights)
            row: dict[str, Any] = {"stage": stage.name, "epoch": epoch + 1, **done}
            if rule != "last":
                with average.applied():
                    row[f"dev_{rule}"] = self._score(stage, rule)
                    self._keep_best(row[f"dev_{rule}"], f"{stage.name} epoch {epoch + 1}")
            row["seconds"] = round(time.perf_counter() - started, 3)
            state.history.append(row)
            state.epoch = epoch + 1
            save_checkpoint(self.checkpoint, self.network, optimiser, self.best, average.mean, state)
        average.settle()

    def _begin(self, stage: StageConfig, rule: str) -> None:
        """Start a stage from the best weights so far; where the rule is another than before, they are a candidate."""
        state = self.state
        if self.best:
            self.network.load_state_dict(self.best)
        if rule == "last":
            self.best, state.best_score = {}, None
        elif state.rule and state.rule != rule:
            state.best_score = None
            self._keep_best(self._score(stage, rule), f"the start of {stage.name}")
        state.rule, state.waited = rule, 0

    def _epoch(
        self, optimiser: torch.optim.Optimizer, average: MovingAverage, index: int, epoch: int, weights: Tensor
    ) -> dict[str, float]:
        config, stage = self.config, self.config.stages[index]
        batches = samplers.batches(self._order(index, epoch), config.batch_size, lengths=self.lengths)
        parts = [np.array_split(batch, min(config.accumulate, len(batch))) for batch in batches]
        torch.manual_seed(int(np.random.SeedSequence((config.seed, index, epoch)).generate_state(1)[0]))
        mix_rng = np.random.default_rng((5, config.seed, index, epoch))
        soft = self.data.targets.of_epoch(
            config.targets, smoothing=config.label_smoothing, seed=self._seed(index), epoch=epoch,
            drop_share=config.vote_drop_share,
        )  # fmt: skip
        self.network.train()
        total_value = waited = 0.0
        started = time.perf_counter()
        with closing(self.data.read([part for batch in parts for part in batch], config.stride, self.device)) as reader:
            for step, batch in enumerate(parts):
                for group in optimiser.param_groups:
                    group["lr"] = learning_rate(stage, epoch + step / len(batches))
                optimiser.zero_grad(set_to_none=True)
                for part in batch:
                    waiting = time.perf_counter()
                    at, rows = next(reader)
                    waited += time.perf_counter() - waiting
                    mix = Mix.draw(len(at), config.mixup_p, config.mixup_alpha, mix_rng).to(self.device)
                    loss = self._loss(stage, at, rows, mix, soft, weights) * (len(part) / len(batches[step]))
                    value = loss.item()
                    if not math.isfinite(value):
                        raise ConfigError(
                            f"{stage.name}, epoch {epoch + 1}: the loss became {value}. Lower --lr or use --precision "
                            "float32; the last epoch's checkpoint is kept."
                        )
                    loss.backward()
                    total_value += value
                if config.grad_clip:
                    nn.utils.clip_grad_norm_(self.network.parameters(), config.grad_clip)
                optimiser.step()
                average.update()
                self.done += 1
                if self.progress is not None:
                    self.progress(self.done, sum(self.n_steps), f"{stage.name} epoch {epoch + 1}/{stage.epochs}")
        wall = max(time.perf_counter() - started, 1e-9)
        mean_loss = total_value / max(len(batches), 1)
        return {"loss": mean_loss, "lr": learning_rate(stage, epoch), "waiting_share": round(waited / wall, 4)}

    def _loss(
        self, stage: StageConfig, at: Indices, rows: Rows, mix: Mix, soft: NDArray[np.float32], weights: Tensor
    ) -> Tensor:
        y_c = mix(torch.from_numpy(soft[at]).to(self.device))
        y_r = mix(torch.from_numpy(self.data.targets.attribute_values[at]).to(self.device))
        with autocast(self.config.precision, self.device):
            x = self.network.embed(rows)
        logits, attributes = self.network.head(mix(x.float()))
        return total_loss(stage.loss, logits, y_c, weights, attributes, y_r, self.ranges)

    def _seed(self, index: int) -> int:
        return self.config.seed * 101 + index

    def _order(self, index: int, epoch: int) -> Indices:
        stage, labels = self.config.stages[index], self.data.targets.labels[self.train_at]
        share = self.config.no_consensus_share
        order = samplers.epoch_order(stage, labels, seed=self._seed(index), epoch=epoch, no_consensus_share=share)
        return self.train_at[order]

    def _score(self, stage: StageConfig, rule: str) -> float:
        logits, attributes = predict(self.network, self.data, self.dev_at, self.config, self.device)
        return held_out_score(
            rule, self.config.select_on, logits, attributes, self.data.targets, self.dev_at, stage.loss,
            seed=self.config.seed,
        )  # fmt: skip

    def _keep_best(self, score: float, at: str) -> None:
        self.state.waited += 1
        if self.state.best_score is None or score > self.state.best_score:
            self.state.best_score, self.state.best_at, self.state.waited = score, at, 0
            self.best = {name: value.detach().clone() for name, value in self.network.state_dict().items()}


def predict(
    network: Network, data: TrainingData, at: Indices, config: TrainConfig, device: torch.device
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Class logits (n, C) and attributes (n, A) of the clips `at`, in that order."""
    logits = np.zeros((len(at), len(data.targets.classes)), np.float32)
    attributes = np.zeros((len(at), len(data.targets.attributes)), np.float32)
    if not len(at):
        return logits, attributes
    by_length = np.argsort(data.lengths()[at], kind="stable")
    batches = samplers.batches(by_length, PREDICT_BATCH_SIZE)
    network.to(device).eval()
    read = data.read([at[b] for b in batches], config.stride, device)
    with torch.inference_mode(), autocast(config.precision, device):
        for places, (_, rows) in zip(batches, read, strict=True):
            y_c, y_r = network(rows)
            logits[places] = y_c.float().cpu().numpy()
            attributes[places] = y_r.float().cpu().numpy()
    return logits, attributes
