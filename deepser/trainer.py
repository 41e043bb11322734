"""Trains one network: read a batch, step, select, checkpoint each epoch; resumes to the same weights."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from deepser import metrics, samplers
from deepser.checkpoint import State, load_checkpoint, restore_optimiser, save_checkpoint
from deepser.config import StageConfig, TrainConfig
from deepser.data import Indices, TrainingData
from deepser.device import autocast
from deepser.losses import Mix, class_weights, masked_mse, soft_cross_entropy
from deepser.network import DeepSER
from featurestore.errors import ConfigError
from featurestore.splits import balanced_sets

Progress = Callable[[int, int, str], None]  # (steps done, steps in all, what is going on)

N_STATISTICS_CLIPS = 2000  # enough to know a dim's mean and deviation without reading all of a large corpus
PREDICT_BATCH_SIZE = 64


def train(
    network: DeepSER,
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
        network: DeepSER,
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
        targets = data.targets.soft if config.targets == "soft" else data.targets.one_hot
        known = targets.sum(1, keepdims=True)
        self.targets = (1 - config.label_smoothing) * targets + config.label_smoothing * known / targets.shape[1]
        n_steps = [math.ceil(len(self._order(i, 0)) / config.batch_size) for i in range(len(config.stages))]
        self.n_steps = sum(n * stage.epochs for n, stage in zip(n_steps, config.stages, strict=True))
        self.state, self.best, self.resumed = State(), {}, None  # type: State, dict[str, Tensor], dict[str, Tensor] | None
        if self.checkpoint.exists():
            self.state, self.best, self.resumed = load_checkpoint(self.checkpoint, network)
        else:
            _standardise(network, data, train_at, config)
        past = [n * stage.epochs for n, stage in zip(n_steps, config.stages, strict=True)][: self.state.stage]
        self.done = sum(past) + n_steps[self.state.stage] * self.state.epoch

    def to_the_end(self) -> list[dict[str, Any]]:
        first = self.state.stage
        for index, stage in enumerate(self.config.stages[first:], start=first):
            if index > first:
                self.state.stage, self.state.epoch = index, 0
            self._stage(index, stage)
        if self.best:
            self.network.load_state_dict(self.best)
        return self.state.history

    def _stage(self, index: int, stage: StageConfig) -> None:
        if self.best and self.state.epoch == 0:
            self.network.load_state_dict(self.best)
        optimiser = torch.optim.AdamW(
            self.network.parameters(), lr=stage.lr, weight_decay=self.config.weight_decay, fused=True
        )
        if self.resumed is not None:
            restore_optimiser(optimiser, self.network, self.resumed)
            self.resumed = None
        labels, n_classes = self.data.targets.labels[self.train_at], len(self.data.targets.classes)
        weights = torch.from_numpy(class_weights(labels, n_classes, stage.class_weight_exponent)).to(self.device)
        for epoch in range(self.state.epoch, stage.epochs):
            started = time.perf_counter()
            row: dict[str, Any] = {
                "stage": stage.name,
                "epoch": epoch + 1,
                **self._epoch(optimiser, index, epoch, weights),
            }
            if self.config.select == "macro_f1":
                row["dev_macro_f1"] = self._score()
                self._keep_best(row["dev_macro_f1"], f"{stage.name} epoch {epoch + 1}")
            row["seconds"] = round(time.perf_counter() - started, 3)
            self.state.history.append(row)
            self.state.epoch = epoch + 1
            save_checkpoint(self.checkpoint, self.network, optimiser, self.best, self.state)

    def _epoch(self, optimiser: torch.optim.Optimizer, index: int, epoch: int, weights: Tensor) -> dict[str, float]:
        config, stage = self.config, self.config.stages[index]
        batches = samplers.batches(self._order(index, epoch), config.batch_size, lengths=self.lengths)
        torch.manual_seed(int(np.random.SeedSequence((config.seed, index, epoch)).generate_state(1)[0]))
        mix_rng = np.random.default_rng((5, config.seed, index, epoch))
        self.network.train()
        total_loss = waited = 0.0
        started = waiting = time.perf_counter()
        for step, (at, rows) in enumerate(self.data.read(batches, config.stride, self.device)):
            waited += time.perf_counter() - waiting
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(stage, epoch + step / len(batches))
            mix = Mix.draw(len(at), config.mixup_p, config.mixup_alpha, mix_rng).to(self.device)
            y_c = mix(torch.from_numpy(self.targets[at]).to(self.device))
            y_r = mix(torch.from_numpy(self.data.targets.attribute_values[at]).to(self.device))
            with autocast(config.precision, self.device):
                x = self.network.embed(rows)
            logits, attributes = self.network.head(mix(x.float()))
            loss = config.classification_weight * soft_cross_entropy(logits, y_c, weights)
            if attributes.shape[1]:
                loss = loss + config.attribute_weight * masked_mse(attributes, y_r)
            value = loss.item()
            if not math.isfinite(value):
                raise ConfigError(
                    f"{stage.name}, epoch {epoch + 1}: the loss became {value}. Lower --lr or use --precision float32; "
                    "the last epoch's checkpoint is kept."
                )
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(self.network.parameters(), config.grad_clip)
            optimiser.step()
            total_loss += value
            self.done += 1
            if self.progress is not None:
                self.progress(self.done, self.n_steps, f"{stage.name} epoch {epoch + 1}/{stage.epochs}")
            waiting = time.perf_counter()
        wall = max(time.perf_counter() - started, 1e-9)
        mean_loss = total_loss / max(len(batches), 1)
        return {"loss": mean_loss, "lr": learning_rate(stage, epoch), "waiting_share": round(waited / wall, 4)}

    def _order(self, index: int, epoch: int) -> Indices:
        at, seed = self.train_at, self.config.seed * 101 + index
        if self.config.stages[index].sampler == "shuffled":
            return at[samplers.shuffled(len(at), seed=seed, epoch=epoch)]
        share = self.config.no_consensus_share
        labels = self.data.targets.labels[at]
        return at[samplers.balanced_subset(labels, seed=seed, epoch=epoch, no_consensus_share=share)]

    def _score(self) -> float:
        """Mean macro-F1 over balanced draws from the whole held-out part, so that rare classes count as others do."""
        logits, _ = predict(self.network, self.data, self.dev_at, self.config, self.device)
        labels, classes = self.data.targets.labels[self.dev_at], self.data.targets.classes
        draws = balanced_sets(labels, seed=self.config.seed)
        scores = [metrics.classification(logits[d].argmax(1), labels[d], classes).macro_f1 for d in draws]
        return float(np.mean(scores))

    def _keep_best(self, score: float, at: str) -> None:
        if score > self.state.best_score:
            self.state.best_score, self.state.best_at = score, at
            self.best = {name: value.detach().clone() for name, value in self.network.state_dict().items()}


def predict(
    network: DeepSER, data: TrainingData, at: Indices, config: TrainConfig, device: torch.device
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


def learning_rate(stage: StageConfig, at_epoch: float) -> float:
    """The learning rate at a fractional epoch of a stage: linear warm-up, then constant or cosine to zero."""
    warm = min(1.0, (at_epoch + 1e-2) / stage.warmup_epochs) if stage.warmup_epochs else 1.0
    if stage.schedule == "constant":
        return stage.lr * warm
    return stage.lr * warm * 0.5 * (1 + math.cos(math.pi * at_epoch / stage.epochs))


def _standardise(network: DeepSER, data: TrainingData, train_at: Indices, config: TrainConfig) -> None:
    """Set each input's mean and deviation per stored layer and dim from (a sample of) the training clips."""
    if not network.standardises:
        return
    sample = np.sort(train_at[samplers.shuffled(len(train_at), seed=0, epoch=0)[:N_STATISTICS_CLIPS]])
    n_rows = [0] * len(data.refs)
    sums: list[Any] = [0.0] * len(data.refs)
    squares: list[Any] = [0.0] * len(data.refs)
    for _, rows in data.read(samplers.batches(sample, PREDICT_BATCH_SIZE), config.stride):
        for i, (values, _) in enumerate(rows):
            values = values.double()
            n_rows[i] += values.shape[1]
            sums[i] = sums[i] + values.sum(1, keepdim=True)
            squares[i] = squares[i] + values.square().sum(1, keepdim=True)
    for i in range(len(data.refs)):
        mean = sums[i] / max(n_rows[i], 1)
        variance = (squares[i] / max(n_rows[i], 1) - mean.square()).clamp(min=0)
        network.set_statistics(i, mean.float(), variance.sqrt().float())
