"""One network's training: its stages, steps, choice of the best epoch, and what is saved of it after each epoch."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from deepser.config import StageConfig, TrainConfig
from deepser.networks.network import Network
from deepser.training.adamw import AdamW
from deepser.training.averaging import MovingAverage
from deepser.training.checkpoint import Saved, State, load_checkpoint, restore_optimiser, save_checkpoint
from deepser.training.data import Indices, Rows, TrainingData
from deepser.training.device import arithmetic, autocast
from deepser.training.losses import Mix, class_weights, confusion_factors, total_loss
from deepser.training.processes import World
from deepser.training.schedule import learning_rate
from deepser.training.selection import held_out_score
from featurestore.errors import ConfigError
from featurestore.runtime.transfer import to_device, to_host

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
    """A job between its checkpoints: what lasts from stage to stage. `open_stage` returns what does the work of one."""

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

    def open_stage(self, index: int) -> "Stage | None":
        """Return a stage, ready to learn from the best weights so far; None where this run is past it already."""
        if self.state.stage != index:
            return None
        stage = self.config.stages[index]
        rule = self.config.rule(stage)
        is_candidate = self.state.epoch == 0 and self._begin(rule)
        optimiser = AdamW(self.network.parameters(), lr=stage.lr, weight_decay=self.config.weight_decay)
        average = MovingAverage(self.network, self.config.ema_decay)
        if self.saved is not None:
            restore_optimiser(optimiser, self.network, self.saved.optimiser)
            average.restore(self.saved.average)
            self.saved = None
        return Stage(self, stage, rule, optimiser, average, is_candidate, self.class_weights(stage))

    def _begin(self, rule: str) -> bool:
        """Start from the best weights so far; are they a candidate, since the rule is another than before?"""
        state, before = self.state, self.state.rule
        state.rule, state.waited, state.confusion = rule, 0, []
        if self.best:
            self.network.load_state_dict(self.best)
        if rule == "last":
            self.best, state.best_score = {}, None
            return False
        if not before or (before == rule and not (rule == "loss" and self._loss_differs())):
            return False
        state.best_score = None
        return True

    def _loss_differs(self) -> bool:
        """Return whether this stage minimises another loss than the one before, so that figures don't compare."""
        index = self.state.stage
        return index > 0 and self.config.stages[index].loss != self.config.stages[index - 1].loss

    def class_weights(self, stage: StageConfig) -> Tensor:
        """Return class weights (C,) on the device, by training frequency times the factors of confused classes."""
        labels, n_classes = self.targets.labels[self.job.train_at], len(self.targets.classes)
        weights = class_weights(labels, n_classes, stage.class_weight_exponent)
        if self.state.confusion:
            weights *= np.array(self.state.confusion, np.float32)
        return torch.from_numpy(weights).to(self.world.device)

    def keep_best(self, score: float, when: str) -> None:
        """Keep the network's weights where `score` is the best so far; when: the time at which they were judged."""
        self.state.waited += 1
        if self.state.best_score is None or score > self.state.best_score:
            self.state.best_score, self.state.best_at, self.state.waited = score, when, 0
            self.best = {name: value.detach().clone() for name, value in self.network.state_dict().items()}

    def finish(self) -> None:
        """Leave the network with the weights that are kept."""
        if self.best:
            self.network.load_state_dict(self.best)


@dataclass(eq=False)
class Stage:
    """A stage of a run, from `Run.open_stage` to `close`.

    Per epoch: `begin_epoch` returns what its batches are learned with (`Epoch`); then `judge` and `end_epoch`.
    """

    run: Run
    config: StageConfig
    rule: str  # what selects the epoch that is kept
    optimiser: AdamW
    average: MovingAverage
    is_candidate: bool  # are the weights that it starts from one, to be judged by this stage's rule?
    weights: Tensor  # (C,) of the classes

    @property
    def asks(self) -> bool:
        """Before it begins: must the held-out part be judged first?"""
        return self.is_candidate or bool(self.run.state.epoch == 0 and self.config.confusion_exponent)

    def judge_start(self, outputs: Outputs) -> None:
        """Weigh classes by how they are confused; take the weights that the stage starts from as the best so far."""
        run = self.run
        if self.config.confusion_exponent:
            labels = run.targets.labels[run.job.dev_at]
            run.state.confusion = confusion_factors(outputs[0], labels, self.config.confusion_exponent).tolist()
            self.weights = run.class_weights(self.config)
        if self.is_candidate:
            run.keep_best(self._score(outputs), f"the start of {self.config.name}")

    def wants(self, epoch: int) -> bool:
        """Return whether this epoch is the next one that the run learns from."""
        state = self.run.state
        if state.epoch != epoch or epoch >= self.config.epochs:
            return False
        return not (self.config.patience and state.waited >= self.config.patience)

    def begin_epoch(self) -> "Epoch":
        """Every draw of an epoch depends on (seed, stage, epoch) alone; dropout also on the process."""
        run, config = self.run, self.run.config
        position = (config.seed, run.state.stage, run.state.epoch)
        # The first of several processes draws as one alone does.
        of_process = (*position, run.world.rank) if run.world.rank else position
        draws = Draws(int(np.random.SeedSequence(of_process).generate_state(1)[0]), run.world.device)
        soft = run.targets.of_epoch(
            config.targets, smoothing=config.label_smoothing, seed=config.seed * 101 + position[1], epoch=position[2],
            drop_share=config.vote_drop_share,
        )  # fmt: skip
        run.network.train()
        return Epoch(self, draws, np.random.default_rng((5, *position)), run.job.data.views.soft(soft))

    def judge(self, outputs: Outputs) -> dict[str, float]:
        """Return the epoch's score, as its record names it; the network's weights are kept where it is the best one."""
        score = self._score(outputs)
        self.run.keep_best(score, f"{self.config.name} epoch {self.run.state.epoch + 1}")
        return {f"dev_{self.rule}": score}

    def _score(self, outputs: Outputs) -> float:
        """By the stage's rule, of the network's outputs for the held-out part."""
        run = self.run
        return held_out_score(
            self.rule, run.config.select_on, *outputs, run.targets, run.job.dev_at, self.config.loss,
            seed=run.config.seed, kind=run.config.targets,
        )  # fmt: skip

    def end_epoch(self, epoch: "Epoch", record: dict[str, Any]) -> None:
        """Put `record` behind the epoch's name, loss and learning rate in the history, and save all there is."""
        run, state = self.run, self.run.state
        figures = {"loss": epoch.total_loss / max(run.steps, 1), "lr": learning_rate(self.config, state.epoch)}
        state.history.append({"stage": self.config.name, "epoch": state.epoch + 1, **figures, **record})
        state.epoch, run.steps = state.epoch + 1, 0
        if run.world.first:
            save_checkpoint(run.checkpoint, run.network, self.optimiser, run.best, self.average.mean, state)

    def close(self) -> None:
        """Leave the network with the averaged weights, and the run at its next stage."""
        self.average.settle()
        self.run.state.stage, self.run.state.epoch = self.run.state.stage + 1, 0


@dataclass(eq=False)
class Epoch:
    """An epoch of a stage: for each batch `begin_step`, `learn` for each of its parts, `end_step`."""

    stage: Stage
    draws: "Draws"  # of dropout
    mix_rng: np.random.Generator
    soft: NDArray[np.float32]  # class targets of every clip
    losses: Tensor = field(init=False)  # float64 on the device: the sum over the steps so far

    def __post_init__(self) -> None:
        device = self.stage.run.world.device
        dtype = torch.float32 if device.type == "mps" else torch.float64
        self.losses = torch.zeros((), dtype=dtype, device=device)

    @property
    def total_loss(self) -> float:
        """The sum of the steps' losses; waits for the device."""
        return float(self.losses)

    def begin_step(self, at_epoch: float) -> None:
        """Set the learning rate of a fractional epoch, and no gradient."""
        self.stage.optimiser.lr = learning_rate(self.stage.config, at_epoch)
        self.stage.optimiser.zero_grad()

    def learn(self, clips: Indices, rows: Rows | None, share: float) -> None:
        """Add the gradient of a batch's part: rows are those of this process's clips among `clips`, None without any.

        share: the part's share of the batch. Whether the loss is a number is seen by `DivergenceCheck`, a step late.
        """
        run = self.stage.run
        with self.draws.in_use(), arithmetic(run.config.precision, run.world.device):
            loss = self._loss(clips, rows) * share
            (loss / run.world.size).backward()
        self.losses = self.losses + loss.detach()

    def check(self, total: float) -> None:
        """Raise ConfigError when a sum of losses is not a number."""
        if math.isfinite(total):
            return
        run = self.stage.run
        of = f"{run.job.name}, " if run.job.name else ""
        raise ConfigError(
            f"{of}{self.stage.config.name}, epoch {run.state.epoch + 1}: the loss became {total}. Lower --lr or use "
            "--precision float32; the last epoch's checkpoint is kept."
        )

    def _loss(self, clips: Indices, rows: Rows | None) -> Tensor:
        """Return the loss of all clips of a part, in every process: MixUp and the losses need the whole of it."""
        run = self.stage.run
        config, world, n = run.config, run.world, len(clips)
        drawn = Mix.draw(n, config.mixup_p, config.mixup_alpha, self.mix_rng)
        weight, partner, soft, values = to_device(
            [drawn.weight.numpy(), drawn.partner.numpy(), self.soft[clips], run.values[clips]], world.device
        )
        mix = Mix(weight, partner)
        y_c, y_r = mix(soft), mix(values)
        if rows is None:
            x = torch.zeros((0, run.network.body.width), device=world.device, requires_grad=True)
        else:
            with autocast(config.precision, world.device):
                x = run.network.embed(rows)
        mixed = mix(world.whole(x.float(), n))
        logits, attributes = (world.whole(y, n) for y in run.network.head(world.share_of(mixed)))
        return total_loss(self.stage.config.loss, logits, y_c, self.stage.weights, attributes, y_r, run.ranges)

    def end_step(self) -> None:
        """Step along the gradient of all processes."""
        run = self.stage.run
        run.world.sum_gradients(run.network)
        if run.config.grad_clip:
            nn.utils.clip_grad_norm_(run.network.parameters(), run.config.grad_clip)
        self.stage.optimiser.step()
        self.stage.average.update()
        run.steps += 1


class DivergenceCheck:
    """Looks at the losses of several epochs' steps, each a step late: by then they are there, and nothing stands still.

    One wait a step, whatever the number of members, so that the host is never more than two steps ahead of the device.
    """

    def __init__(self, epochs: Sequence[Epoch]) -> None:
        self._epochs = epochs
        self._before: Callable[[], NDArray[Any]] | None = None

    def end_step(self) -> None:
        """Check the step before this one; ConfigError where a loss became no number."""
        on_their_way = to_host(torch.stack([epoch.losses for epoch in self._epochs]))
        self.close()
        self._before = on_their_way

    def close(self) -> None:
        """Check the last step."""
        if self._before is not None:
            for epoch, total in zip(self._epochs, self._before().tolist(), strict=True):
                epoch.check(total)
        self._before = None


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
