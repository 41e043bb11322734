"""One network's training: its stages, steps, choice of the best epoch, and what is saved of it after each epoch."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from deepser.config import TrainConfig
from deepser.networks.network import Network
from deepser.training.averaging import MovingAverage
from deepser.training.checkpoint import Saved, State, load_checkpoint, restore_optimiser, save_checkpoint
from deepser.training.data import Indices, Rows, TrainingData
from deepser.training.device import autocast
from deepser.training.losses import Mix, class_weights, confusion_factors, total_loss
from deepser.training.processes import World
from deepser.training.schedule import learning_rate
from deepser.training.selection import held_out_score
from featurestore.errors import ConfigError

Outputs = tuple[NDArray[np.float32], NDArray[np.float32]]  # class logits (n, C) and attributes (n, A)


@dataclass(frozen=True, eq=False)
class Job:
    """A network to train: on which clips (indices into the data's targets), how, and where its checkpoint goes."""

    network: Network
    data: TrainingData
    train_at: Indices
    dev_at: Indices  # selects the epoch that is kept
    config: TrainConfig
    directory: Path
    name: str = ""  # of the member, for messages


class Run:
    """A job between its checkpoints.

    Epoch by epoch: begin_epoch; for each batch begin_step, learn for each of its parts, end_step; judge; end_epoch.
    """

    def __init__(self, job: Job, world: World, steps_of_epoch: Sequence[int]) -> None:
        """steps_of_epoch: of each stage."""
        self.job, self.world, self.config = job, world, job.config
        self.network, self.targets = job.network.to(world.device), job.data.targets
        self.checkpoint = job.directory / "checkpoint.safetensors"
        self.values = job.data.views.attributes(self.targets.attribute_values)
        self.ranges = torch.tensor(self.targets.attribute_ranges, device=world.device).float().reshape(-1, 2)
        self.steps_of_epoch, self.steps = steps_of_epoch, 0  # steps: of this epoch
        self.state = State()
        self.best: dict[str, Tensor] = {}
        self.saved: Saved | None = world.once(
            lambda: load_checkpoint(self.checkpoint) if self.checkpoint.exists() else None
        )
        if self.saved is not None:
            self.state, self.best = self.saved.state, self.saved.best
            self.network.load_state_dict(self.saved.model)

    @property
    def history(self) -> list[dict[str, Any]]:
        """The record of every epoch so far."""
        return self.state.history

    @property
    def n_steps(self) -> int:
        return sum(n * stage.epochs for n, stage in zip(self.steps_of_epoch, self.config.stages, strict=True))

    @property
    def n_done(self) -> int:
        """Steps done, those that an early stop left out among them."""
        index, n = self.state.stage, self.steps
        for i, (of_epoch, stage) in enumerate(zip(self.steps_of_epoch, self.config.stages, strict=True)):
            n += of_epoch * (stage.epochs if i < index else self.state.epoch if i == index else 0)
        return n

    def open_stage(self, index: int) -> None:
        """Get ready for a stage, if it is this run's turn: from the best weights so far, with a new optimiser."""
        if self.state.stage != index:
            return
        self.stage = self.config.stages[index]
        self.rule = self.config.rule(self.stage)
        self.is_candidate = self.state.epoch == 0 and self._begin()
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(), lr=self.stage.lr, weight_decay=self.config.weight_decay, fused=True
        )
        self.average = MovingAverage(self.network, self.config.ema_decay)
        if self.saved is not None:
            restore_optimiser(self.optimiser, self.network, self.saved.optimiser)
            self.average.restore(self.saved.average)
            self.saved = None
        self._weigh()

    def _weigh(self) -> None:
        labels, n_classes = self.targets.labels[self.job.train_at], len(self.targets.classes)
        weights = class_weights(labels, n_classes, self.stage.class_weight_exponent)
        if self.state.confusion:
            weights *= np.array(self.state.confusion, np.float32)
        self.weights = torch.from_numpy(weights).to(self.world.device)

    @property
    def asks(self) -> bool:
        """Before its stage begins: must the held-out part be judged first?"""
        return self.is_candidate or bool(self.state.epoch == 0 and self.stage.confusion_exponent)

    def _begin(self) -> bool:
        """Start from the best weights so far; are they a candidate, since the rule is another than before?"""
        state, before = self.state, self.state.rule
        state.rule, state.waited, state.confusion = self.rule, 0, []
        if self.best:
            self.network.load_state_dict(self.best)
        if self.rule == "last":
            self.best, state.best_score = {}, None
            return False
        if not before or before == self.rule:
            return False
        state.best_score = None
        return True

    def judge_start(self, outputs: Outputs) -> None:
        """Weigh classes by how they are confused; take the weights that the stage starts from as the best so far."""
        if self.stage.confusion_exponent:
            labels = self.targets.labels[self.job.dev_at]
            self.state.confusion = confusion_factors(outputs[0], labels, self.stage.confusion_exponent).tolist()
            self._weigh()
        if self.is_candidate:
            self._keep_best(self._score(outputs), f"the start of {self.stage.name}")

    def wants(self, index: int, epoch: int) -> bool:
        """Is this epoch of a stage the next one that this run learns from?"""
        if (self.state.stage, self.state.epoch) != (index, epoch) or epoch >= self.stage.epochs:
            return False
        return not (self.stage.patience and self.state.waited >= self.stage.patience)

    def begin_epoch(self) -> None:
        """Every draw of an epoch depends on (seed, stage, epoch) alone; dropout also on the process."""
        config, at = self.config, (self.config.seed, self.state.stage, self.state.epoch)
        # The first of several processes draws as one alone does.
        of_process = (*at, self.world.rank) if self.world.rank else at
        self.draws = Draws(int(np.random.SeedSequence(of_process).generate_state(1)[0]), self.world.device)
        self.mix_rng = np.random.default_rng((5, *at))
        soft = self.targets.of_epoch(
            config.targets, smoothing=config.label_smoothing, seed=config.seed * 101 + at[1], epoch=at[2],
            drop_share=config.vote_drop_share,
        )  # fmt: skip
        self.soft = self.job.data.views.soft(soft)
        self.total_loss = 0.0
        self.network.train()

    def begin_step(self, at_epoch: float) -> None:
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.stage, at_epoch)
        self.optimiser.zero_grad(set_to_none=True)

    def learn(self, clips: Indices, rows: Rows | None, share: float) -> None:
        """Add the gradient of a batch's part: rows are those of this process's clips among `clips`, None without any.

        share: the part's share of the batch. ConfigError when the loss is no number.
        """
        with self.draws.in_use():
            loss = self._loss(clips, rows) * share
            value = loss.item()
            if not math.isfinite(value):
                of = f"{self.job.name}, " if self.job.name else ""
                raise ConfigError(
                    f"{of}{self.stage.name}, epoch {self.state.epoch + 1}: the loss became {value}. Lower --lr or use "
                    "--precision float32; the last epoch's checkpoint is kept."
                )
            (loss / self.world.size).backward()
        self.total_loss += value

    def _loss(self, clips: Indices, rows: Rows | None) -> Tensor:
        """The loss of all clips of a part, in every process: MixUp and the losses need the whole of it."""
        config, device, n = self.config, self.world.device, len(clips)
        mix = Mix.draw(n, config.mixup_p, config.mixup_alpha, self.mix_rng).to(device)
        y_c = mix(torch.from_numpy(self.soft[clips]).to(device))
        y_r = mix(torch.from_numpy(self.values[clips]).to(device))
        if rows is None:
            x = torch.zeros((0, self.network.body.width), device=device, requires_grad=True)
        else:
            with autocast(config.precision, device):
                x = self.network.embed(rows)
        mixed = mix(self.world.whole(x.float(), n))
        logits, attributes = (self.world.whole(y, n) for y in self.network.head(self.world.own(mixed)))
        return total_loss(self.stage.loss, logits, y_c, self.weights, attributes, y_r, self.ranges)

    def end_step(self) -> None:
        self.world.sum_gradients(self.network)
        if self.config.grad_clip:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.config.grad_clip)
        self.optimiser.step()
        self.average.update()
        self.steps += 1

    def _score(self, outputs: Outputs) -> float:
        """By the stage's rule, of what the network says of the held-out part."""
        return held_out_score(
            self.rule, self.config.select_on, *outputs, self.targets, self.job.dev_at, self.stage.loss,
            seed=self.config.seed,
        )  # fmt: skip

    def judge(self, outputs: Outputs) -> dict[str, float]:
        """The epoch's score, as its record names it; the network's weights are kept where it is the best one."""
        score = self._score(outputs)
        self._keep_best(score, f"{self.stage.name} epoch {self.state.epoch + 1}")
        return {f"dev_{self.rule}": score}

    def _keep_best(self, score: float, at: str) -> None:
        self.state.waited += 1
        if self.state.best_score is None or score > self.state.best_score:
            self.state.best_score, self.state.best_at, self.state.waited = score, at, 0
            self.best = {name: value.detach().clone() for name, value in self.network.state_dict().items()}

    def end_epoch(self, record: dict[str, Any]) -> None:
        """Put `record` behind the epoch's name, loss and learning rate in the history, and save all there is."""
        state, epoch = self.state, self.state.epoch
        own = {"loss": self.total_loss / max(self.steps, 1), "lr": learning_rate(self.stage, epoch)}
        state.history.append({"stage": self.stage.name, "epoch": epoch + 1, **own, **record})
        state.epoch, self.steps = epoch + 1, 0
        if self.world.first:
            save_checkpoint(self.checkpoint, self.network, self.optimiser, self.best, self.average.mean, state)

    def close_stage(self, index: int) -> None:
        if self.state.stage == index:
            self.average.settle()
            self.state.stage, self.state.epoch = index + 1, 0
            del self.optimiser, self.average

    def finish(self) -> None:
        """Leave the network with the weights that are kept."""
        if self.best:
            self.network.load_state_dict(self.best)


class Draws:
    """A sequence of torch's random numbers of its own, whatever is drawn in between."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self._seed, self._device = seed, device
        self._state: list[Tensor] = []

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Draw from here."""
        cuda = self._device.type == "cuda"
        if not self._state:
            torch.manual_seed(self._seed)
        else:
            torch.set_rng_state(self._state[0])
            if cuda:
                torch.cuda.set_rng_state(self._state[1], self._device)
        yield
        self._state = [torch.get_rng_state(), *([torch.cuda.get_rng_state(self._device)] if cuda else [])]
