"""`medusa bench meta`: how much time training all seeds of the meta-classifier at once saves, on made-up posteriors.

Three ways of the same training, with the same starts and batches: plain PyTorch (nn.Linear, autograd,
torch.optim.AdamW), one seed after another; ours, one seed after another; ours, all at once. Their weights are compared.
"""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich import box
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional as F

from deepser.training.samplers import balanced_subset
from deepser.training.targets import Targets
from ensemble.evaluation.align import Aligned, column_names
from ensemble.fusion.config import MetaConfig
from ensemble.fusion.linear import LinearSeeds, prepare, to_scale
from ensemble.fusion.training import fit_meta
from featurestore.errors import ConfigError
from featurestore.runtime.device import one_thread
from featurestore.runtime.durable import replace_text

PLAIN, ALONE, AT_ONCE = "plain PyTorch, one seed after another", "one seed after another", "all seeds at once"
LOW, HIGH = 1.0, 7.0
# Of 1,000 utterances; about MSP-Podcast's, from neutral to fear.
SHARES = (475, 235, 60, 50, 50, 40, 30, 20)
P_NO_CONSENSUS = 0.15
SAME = 1e-2  # weights are of size 1 to 10; float32 rounding grows over thousands of steps


@dataclass(frozen=True)
class MetaSettings:
    """Sizes of the data and of the training; the defaults are those of MSP-Podcast and of MEDUSA's ensemble."""

    n_utterances: int = 120_000
    n_members: int = 14
    n_classes: int = 8
    n_attributes: int = 3
    n_seeds: int = 6
    rounds: int = 40
    plain: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("n_utterances", "n_members", "n_seeds", "rounds"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, found {getattr(self, name)}.")
        if not 2 <= self.n_classes <= len(SHARES) or self.n_attributes < 0:
            raise ConfigError(
                f"2 to {len(SHARES)} classes and no negative number of attributes can be made up; found "
                f"{self.n_classes} and {self.n_attributes}."
            )


def run_meta(
    settings: MetaSettings, *, json_path: Path | None = None, progress: Callable[[str], None] | None = None
) -> dict[str, Any]:
    """Time every way of fitting, and return settings, figures and the greatest difference.

    {"settings", "threads", "figures": [{"way", "select", "wall_s", "cpu_s"}], "difference"}.

    difference: the greatest between a weight of ours and plain PyTorch's. Raises AssertionError where it exceeds SAME.
    """
    say = progress or (lambda _: None)
    say("making posteriors")
    aligned, targets = made_up(settings)
    held_out = np.arange(settings.n_utterances) % 10 == 0
    seeds = tuple(range(settings.n_seeds))
    # Plain AdamW shrinks the weights themselves, as ours does from a random start.
    last_round = MetaConfig(seeds=seeds, rounds=settings.rounds, select="last", start="random")
    chosen = MetaConfig(seeds=seeds, rounds=settings.rounds)
    figures: list[dict[str, Any]] = []

    def timed(way: str, config: MetaConfig, fit: Callable[[], list[Tensor]]) -> list[Tensor]:
        say(f"{way}, {config.select}")
        wall, cpu = time.perf_counter(), time.process_time()
        weights = fit()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        figures.append({"way": way, "select": config.select, "wall_s": wall, "cpu_s": cpu})
        return weights

    def ours(config: MetaConfig) -> list[Tensor]:
        return _weights(fit_meta(aligned, targets, config, held_out if config.select == "macro_f1" else None))

    def alone(config: MetaConfig) -> list[Tensor]:
        return [ours(replace(config, seeds=(seed,)))[0] for seed in seeds]

    ours(replace(last_round, rounds=1, seeds=(0,)))  # what only the first call costs
    difference = None
    if settings.plain:
        expected = timed(
            PLAIN, last_round, lambda: [train_plainly(aligned, targets, last_round, seed) for seed in seeds]
        )
    for config in (last_round, chosen):
        timed(ALONE, config, lambda config=config: alone(config))  # type: ignore[misc]
        trained = timed(AT_ONCE, config, lambda config=config: ours(config))  # type: ignore[misc]
        if settings.plain and config is last_round:
            difference = max(float((a - b).abs().max()) for a, b in zip(trained, expected, strict=True))
            assert difference < SAME, f"plain PyTorch learns other weights: they differ by {difference}"
    result = {
        "settings": asdict(settings), "threads": torch.get_num_threads(), "figures": figures, "difference": difference,
    }  # fmt: skip
    if json_path is not None:
        json_path.parent.mkdir(parents=True, exist_ok=True)
        replace_text(json_path, json.dumps(result, indent=2) + "\n")
    return result


def meta_table(result: dict[str, Any]) -> Table:
    """Return the seconds of every way, and their ratio to those of all seeds at once, as a table for the terminal."""
    settings = MetaSettings(**result["settings"])
    title = (
        f"{settings.n_seeds} seeds, {settings.n_members} members x {settings.n_utterances:,} utterances x "
        f"({settings.n_classes} + {settings.n_attributes}), {result['threads']} thread(s)"
    )
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False)
    for name in ("way", "round kept"):
        table.add_column(name)
    for name in ("wall s", "CPU s", "wall, of at once", "CPU, of at once"):
        table.add_column(name, justify="right")
    at_once = {figure["select"]: figure for figure in result["figures"] if figure["way"] == AT_ONCE}
    for figure in result["figures"]:
        base = at_once[figure["select"]]
        times = [f"{figure[name] / max(base[name], 1e-9):.1f}x" for name in ("wall_s", "cpu_s")]
        table.add_row(figure["way"], figure["select"], f"{figure['wall_s']:.2f}", f"{figure['cpu_s']:.2f}", *times)
    return table


def made_up(settings: MetaSettings) -> tuple[Aligned, Targets]:
    """Return members that predict some classes better than others, and votes of three annotators, one guessing."""
    rng = np.random.default_rng(settings.seed)
    n, n_members, n_classes = settings.n_utterances, settings.n_members, settings.n_classes
    shares = np.array(SHARES[:n_classes], np.float64)
    truth = rng.choice(n_classes, n, p=shares / shares.sum())
    logits = rng.normal(size=(n_members, n, n_classes)).astype(np.float32)
    knows = rng.uniform(0.2, 1.5, (n_members, n_classes)).astype(np.float32)
    logits[:, np.arange(n), truth] += knows[:, truth]
    probabilities = np.exp(logits)
    probabilities /= probabilities.sum(2, keepdims=True)
    target = np.clip(4 + rng.normal(size=(n, settings.n_attributes)), LOW, HIGH).astype(np.float32)
    noise = rng.normal(size=(n_members, n, settings.n_attributes)).astype(np.float32)
    values = np.concatenate([probabilities, np.clip(target + noise, LOW, HIGH)], 2)
    votes = (
        np.full((n, n_classes), 1e-9) + 2 * np.eye(n_classes)[truth] + np.eye(n_classes)[rng.integers(0, n_classes, n)]
    )
    classes = tuple(f"class {c}" for c in range(n_classes))
    attributes = tuple(f"attribute {a}" for a in range(settings.n_attributes))
    keys = tuple(str(i) for i in range(n))
    members = tuple(f"m{m:02d}" for m in range(n_members))
    targets = Targets(
        keys, classes, attributes, ((LOW, HIGH),) * settings.n_attributes,
        np.where(rng.random(n) < P_NO_CONSENSUS, -1, truth),
        (votes / votes.sum(1, keepdims=True)).astype(np.float32), target,
    )  # fmt: skip
    return Aligned(members, keys, column_names(classes, attributes), values, ("fold",) * n_members), targets


def train_plainly(aligned: Aligned, targets: Targets, config: MetaConfig, seed: int) -> Tensor:
    """Train one seed in plain PyTorch, with our start and batches: (F, C + A) weights, the last row the bias."""
    n_classes, ranges = len(targets.classes), targets.attribute_ranges
    x = prepare(aligned.values, n_classes, ranges)
    soft, attributes = torch.from_numpy(targets.soft), torch.from_numpy(targets.attribute_values)
    n_inputs, n_outputs = x.shape[1] + 1, n_classes + len(ranges)
    draw = torch.randn(n_inputs, n_outputs, generator=torch.Generator().manual_seed(seed)) / (3 * n_inputs) ** 0.5
    linear = nn.Linear(n_inputs - 1, n_outputs)
    with torch.no_grad():
        linear.weight.copy_(draw[:-1].T)
        linear.bias.copy_(draw[-1])
    optimizer = torch.optim.AdamW(linear.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    n_steps, epoch = 0, 0
    with one_thread():
        for _ in range(config.rounds):
            n_steps = 0
            while n_steps < config.steps_per_round:
                order = torch.from_numpy(balanced_subset(targets.labels, seed=seed, epoch=epoch))
                for batch in order.split(config.batch_size):
                    outputs = linear(x[batch])
                    loss = config.classification_weight * F.cross_entropy(outputs[:, :n_classes], soft[batch])
                    if ranges:
                        values = attributes[batch]
                        rated = ~values.isnan()
                        predicted = to_scale(outputs[:, n_classes:], ranges)
                        loss = loss + config.attribute_weight * F.mse_loss(predicted[rated], values[rated])
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    n_steps += 1
                epoch += 1
    return torch.cat([linear.weight.detach().T, linear.bias.detach()[None]])


def _weights(seeds: LinearSeeds) -> list[Tensor]:
    """Return a (F, C + A) per seed, the last row the bias."""
    maps = zip(seeds.state.tensors["weight"], seeds.state.tensors["bias"], strict=True)
    return [torch.cat([weight, bias[None]]) for weight, bias in maps]
