"""Every setting of a member, as frozen dataclasses that are saved beside its weights."""

import dataclasses
import types
import typing
from dataclasses import dataclass, field
from typing import Any

from featurestore.errors import ConfigError

SAMPLERS = ("shuffled", "balanced")
SELECTIONS = ("macro_f1", "last")
INPUT_NORMS = ("none", "standard")
LOSS_TARGETS = ("soft", "one-hot")


def _positive(config: Any, *names: str) -> None:
    for name in names:
        if getattr(config, name) <= 0:
            raise ConfigError(f"{name} must be above zero, found {getattr(config, name)}.")


def _fraction(config: Any, *names: str) -> None:
    for name in names:
        if not 0.0 <= getattr(config, name) < 1.0:
            raise ConfigError(f"{name} must be at least 0 and below 1, found {getattr(config, name)}.")


def _one_of(config: Any, name: str, allowed: tuple[str, ...]) -> None:
    if getattr(config, name) not in allowed:
        raise ConfigError(f"{name} must be one of {', '.join(allowed)}; found {getattr(config, name)!r}.")


@dataclass(frozen=True)
class NetworkConfig:
    """DeepSER's shape. The defaults are the paper's (MEDUSA, section 3); `input_norm` and `dropout` it leaves open."""

    d: int = 1024
    n_layers: int = 2
    n_heads: int = 8
    ff_multiple: int = 4
    dropout: float = 0.1
    input_norm: str = "standard"  # "standard": each dim standardised with the training split's mean and deviation

    def __post_init__(self) -> None:
        _positive(self, "d", "n_layers", "n_heads", "ff_multiple")
        _fraction(self, "dropout")
        _one_of(self, "input_norm", INPUT_NORMS)
        if self.d % self.n_heads:
            raise ConfigError(f"d={self.d} must be a multiple of n_heads={self.n_heads}; change one of them.")


@dataclass(frozen=True)
class StageConfig:
    """One stage of training: what is drawn, how classes are weighted, how fast, how long."""

    name: str
    sampler: str  # "shuffled": every training clip once an epoch; "balanced": a new equal-count subset every epoch
    class_weight_exponent: float  # weights (N / (C f_c)) ** exponent from the training split; 0 = uniform
    epochs: int
    lr: float
    warmup_epochs: float = 0.0
    schedule: str = "constant"  # or "cosine", to zero at the stage's end

    def __post_init__(self) -> None:
        _one_of(self, "sampler", SAMPLERS)
        _one_of(self, "schedule", ("constant", "cosine"))
        _positive(self, "epochs", "lr")


@dataclass(frozen=True)
class TrainConfig:
    """How a member is trained. The defaults are MEDUSA's stages 1 and 2."""

    stages: tuple[StageConfig, ...] = (
        StageConfig("stage1", "shuffled", 0.5, epochs=10, lr=1e-5),
        StageConfig("stage2", "balanced", 0.0, epochs=5, lr=1e-5),
    )
    batch_size: int = 16
    weight_decay: float = 0.01
    grad_clip: float = 1.0
    classification_weight: float = 1.5
    attribute_weight: float = 0.4
    targets: str = "soft"
    label_smoothing: float = 0.0
    mixup_p: float = 0.3
    mixup_alpha: float = 0.2
    no_consensus_share: float = 0.125  # stage 2: no-consensus clips, as a share of the balanced count
    dev_fraction: float = 0.1  # of the training part, speaker-disjoint; used for selection alone
    select: str = (
        "macro_f1"  # best epoch of the last stage by mean macro-F1 on balanced held-out sets; "last": no held-out part
    )
    stride: int = 1  # frames averaged into one on reading
    seed: int = 0
    precision: str = "auto"  # "auto": bf16 autocast where the device multiplies in bf16, else float32

    def __post_init__(self) -> None:
        if not self.stages:
            raise ConfigError("A member needs at least one stage of training.")
        _positive(self, "batch_size", "stride", "mixup_alpha")
        _fraction(self, "mixup_p", "dev_fraction", "no_consensus_share", "label_smoothing")
        _one_of(self, "select", SELECTIONS)
        _one_of(self, "targets", LOSS_TARGETS)
        _one_of(self, "precision", ("auto", "float32", "bfloat16"))


@dataclass(frozen=True)
class MemberConfig:
    """One member of an ensemble: which features, which network, how trained. Saved as config.json."""

    name: str
    features: tuple[str, ...]  # feature references, e.g. "whisper-base@3+4"
    network: NetworkConfig = field(default_factory=NetworkConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        if len(self.features) < 2:
            found = ", ".join(self.features) or "none"
            raise ConfigError(f"DeepSER fuses two or more feature sets, found {found}; name more in --features.")


def to_dict(config: Any) -> dict[str, Any]:
    """A config as plain JSON-able values."""
    return dataclasses.asdict(config)


def from_dict(cls: type, values: dict[str, Any], where: str = "config") -> Any:
    """The dataclass `cls` from plain values; an unknown or mistyped field is a ConfigError that names it."""
    hints = typing.get_type_hints(cls)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise ConfigError(f"{where}: unknown field {unknown[0]!r}; the fields are {', '.join(hints)}.")
    return cls(**{key: _convert(hints[key], value, f"{where}.{key}") for key, value in values.items()})


def _convert(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint) and isinstance(value, dict):
        return from_dict(typing.cast(type, hint), value, where)
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"{where}: expected a list, found {value!r}.")
        inner = typing.get_args(hint)[0]
        return tuple(_convert(inner, item, f"{where}[{i}]") for i, item in enumerate(value))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    expected = hint if isinstance(hint, (type, types.UnionType)) else object
    if not isinstance(value, expected) or (isinstance(value, bool) and expected in (int, float)):
        raise ConfigError(f"{where}: expected {getattr(hint, '__name__', hint)}, found {value!r}.")
    return value
