"""A run's state on disk: weights, optimiser and history in one safetensors file that is there whole or not at all."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from deepser.training.adamw import AdamW
from featurestore.errors import ConfigError
from featurestore.runtime.durable import replace_file, writing
from featurestore.runtime.json_text import read_json
from featurestore.runtime.weights_digest import weights_digest


@dataclass
class State:
    """How far a run has come; saved beside the weights after every epoch."""

    stage: int = 0
    epoch: int = 0  # finished epochs of the stage
    best_score: float | None = None
    best_at: str = ""
    rule: str = ""  # what best_score is a score of
    waited: int = 0  # epochs of the stage since the best one
    confusion: list[float] = field(default_factory=list)  # factors of the stage's class weights; []: 1
    history: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Saved:
    """What a checkpoint holds, tensors by the names of parameters (optimiser: "<slot>/<name>")."""

    state: State
    model: dict[str, Tensor]
    best: dict[str, Tensor]
    optimiser: dict[str, Tensor]
    average: dict[str, Tensor]


def save_checkpoint(
    path: Path,
    network: nn.Module,
    optimiser: AdamW,
    best: dict[str, Tensor],
    average: dict[str, Tensor],
    state: State,
) -> None:
    tensors = {f"model/{name}": value for name, value in network.state_dict().items()}
    tensors |= {f"best/{name}": value for name, value in best.items()}
    tensors |= {f"average/{name}": value for name, value in average.items()}
    for name, parameter in network.named_parameters():
        for slot, value in optimiser.state.get(parameter, {}).items():
            tensors[f"optimiser/{slot}/{name}"] = value
    save_atomically(tensors, path, {"state": json.dumps(asdict(state))})


def load_checkpoint(path: Path) -> Saved:
    """Return the state of a run; ConfigError when the file can't be read."""
    try:
        with safe_open(path, "pt") as file:
            state = State(**read_json(file.metadata()["state"]))
        tensors = load_file(path)
    except Exception as error:
        raise ConfigError(
            f"The checkpoint {path} can't be read ({error}); remove it to start this fold again."
        ) from error
    groups: dict[str, dict[str, Tensor]] = {"model": {}, "best": {}, "optimiser": {}, "average": {}}
    for name, value in tensors.items():
        group, _, rest = name.partition("/")
        groups[group][rest] = value
    return Saved(state, groups["model"], groups["best"], groups["optimiser"], groups["average"])


def load_weights(path: Path) -> dict[str, Tensor]:
    """Return a fitted network's tensors by name; ConfigError when the file can't be read."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ConfigError(
            f"{path} is damaged ({error}); restore it from a copy, or remove it and run the same `medusa fit-deepser` "
            "again, which trains this fold anew."
        ) from error


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """Return the identity of tensors by name, as a config.json records that of the weights it was written with."""
    parts = [(name.encode(), value.contiguous().numpy().tobytes()) for name, value in sorted(tensors.items())]
    return weights_digest(part for pair in parts for part in pair)


def check_digest(tensors: Mapping[str, Tensor], recorded: str | None, weights: Path, command: str) -> None:
    """Raise ConfigError where a file of weights is not the one that the config.json beside it was written with.

    recorded: `tensors_digest` as that config.json has it, None in one of an earlier version. command: makes them anew.
    """
    if recorded is not None and tensors_digest(tensors) != recorded:
        raise ConfigError(
            f"{weights} holds other weights than the config.json beside it describes: a run was stopped between the "
            f"two, or two runs wrote there at once. Run `{command}` again."
        )


def restore_optimiser(optimiser: AdamW, network: nn.Module, saved: dict[str, Tensor]) -> None:
    """Put saved slots into an optimiser, each on its parameter's device, where a fused optimiser needs `step`, too."""
    for name, parameter in network.named_parameters():
        slots = {key.partition("/")[0]: value for key, value in saved.items() if key.partition("/")[2] == name}
        if slots:
            optimiser.state[parameter] = {slot: value.to(parameter.device) for slot, value in slots.items()}


def save_atomically(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file that is there whole or not at all, whenever the process or the machine dies.

    Raises ConfigError naming the file and the reason when it can't be written.
    """
    contiguous = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}

    def write(file: IO[bytes]) -> None:
        try:
            save_file(contiguous, file.name, metadata)  # by name: safetensors.save would copy all of it in memory
        except SafetensorError as error:  # a full disk, for one
            raise OSError(str(error)) from error

    with writing(path, ConfigError):
        replace_file(path, write)
