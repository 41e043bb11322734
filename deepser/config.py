"""Every setting of a member, as frozen dataclasses that are saved beside its weights."""

import dataclasses
import types
import typing
from dataclasses import dataclass, field
from typing import Any

from featurestore.errors import ConfigError

NETWORKS = ("deepser", "unimodal", "late-fusion", "cross-attention", "srpol", "baseline")
N_INPUTS = {"unimodal": (1, 1), "baseline": (1, None)}  # fewest and most feature sets; the others take two or more
POOLINGS = ("mean", "mean+std", "attention", "asp")
INPUT_NORMS = ("none", "standard")
SAMPLERS = ("shuffled", "balanced", "inverse-frequency")
SCHEDULES = ("constant", "cosine", "exponential")
CLASS_LOSSES = ("cross-entropy", "focal")
ATTRIBUTE_LOSSES = ("mse", "ccc", "gaussian-mse")
LOSS_TARGETS = ("soft", "one-hot", "vote-dropping")
CLASS_SCORES = ("macro_f1", "micro_f1", "accuracy", "uar")
SELECTIONS = (*CLASS_SCORES, "mean_ccc", "loss", "last")  # and ccc:<attribute>
SELECTED_ON = ("balanced", "all")
NORMALISATIONS = ("none", "corpus", "speaker")
ALL_VIEWS = "all"  # of TrainConfig.views: those that the store has


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


def _not_negative(config: Any, *names: str) -> None:
    for name in names:
        if getattr(config, name) < 0:
            raise ConfigError(f"{name} must not be below zero, found {getattr(config, name)}.")


def _selection(config: Any, default: str) -> None:
    rule = config.select
    if rule != default and rule not in SELECTIONS and not rule.startswith("ccc:"):
        raise ConfigError(f"select must be one of {', '.join(SELECTIONS)}, ccc:<attribute>; found {rule!r}.")


@dataclass(frozen=True)
class NetworkConfig:
    """A network's shape. The defaults are MEDUSA's (section 3), which leaves `input_norm` and `dropout` open."""

    d: int = 1024
    n_layers: int = 2  # transformer layers of each Enc; of srpol: LSTM layers
    n_heads: int = 8
    ff_multiple: int = 4
    dropout: float = 0.1
    input_norm: str = "standard"  # "standard": each dim standardised with the training split's mean and deviation
    kind: str = "deepser"
    # Of valid frames; "mean+std": their deviation too, "attention": their weighted mean, "asp": that and the deviation.
    pooling: str = "mean"
    pool_dim: int = 0  # hidden width of the two attentive poolings; 0: as wide as what is pooled
    lstm_dim: int = 2048  # of srpol
    align_s: float = 0.0  # of cross-attention: seconds between rows that see each other; 0: all do

    def __post_init__(self) -> None:
        _one_of(self, "kind", NETWORKS)
        _positive(self, "d", "n_layers", "n_heads", "ff_multiple", "lstm_dim")
        _not_negative(self, "pool_dim", "align_s")
        if self.align_s and self.kind != "cross-attention":
            raise ConfigError(f"--align {self.align_s:g}: it is of network cross-attention, found {self.kind}.")
        _fraction(self, "dropout")
        _one_of(self, "input_norm", INPUT_NORMS)
        _one_of(self, "pooling", POOLINGS)
        if self.kind not in ("srpol", "baseline") and self.d % self.n_heads:
            raise ConfigError(f"d={self.d} must be a multiple of n_heads={self.n_heads}; change one of them.")

    def check_inputs(self, n: int, names: str = "") -> None:
        """Raise ConfigError when a network of this kind can't take n feature sets."""
        fewest, most = N_INPUTS.get(self.kind, (2, None))
        actual = f"found {names or n}"
        if n < fewest:
            expected = "one feature set or more" if fewest == 1 else "two or more feature sets"
            alternatives = ", or use --network unimodal or baseline" if n == 1 else ""
            raise ConfigError(f"Network {self.kind} reads {expected}, {actual}; name more in --features{alternatives}.")
        if most is not None and n > most:
            raise ConfigError(f"Network {self.kind} reads one feature set, {actual}; name one, or another --network.")


@dataclass(frozen=True)
class LossConfig:
    """classification_weight * loss of the classes + attribute_weight * loss of the attributes; MEDUSA's by default."""

    classes: str = "cross-entropy"
    attributes: str = "mse"
    classification_weight: float = 1.5
    attribute_weight: float = 0.4
    focal_gamma: float = 2.0
    gaussian_sigma: float = 3.0  # of "gaussian-mse", in points of a scale from 1 to 7

    def __post_init__(self) -> None:
        _one_of(self, "classes", CLASS_LOSSES)
        _one_of(self, "attributes", ATTRIBUTE_LOSSES)
        _not_negative(self, "classification_weight", "attribute_weight", "focal_gamma")
        _positive(self, "gaussian_sigma")
        if not self.classification_weight + self.attribute_weight:
            raise ConfigError("A loss needs a weight above zero: classification_weight or attribute_weight.")


@dataclass(frozen=True)
class StageConfig:
    """One stage of training: what is drawn, how classes weigh, what is minimised, how fast, how long, what is kept.

    Samplers: "shuffled", every training clip once an epoch; "balanced", a new subset every epoch with as many clips of
    each class; "inverse-frequency", with replacement, each class as likely as the others.
    """

    name: str
    sampler: str
    class_weight_exponent: float  # weights (N / (C f_c)) ** exponent from the training split; 0 = uniform
    epochs: int
    lr: float
    warmup_epochs: float = 0.0
    schedule: str = "constant"  # or "cosine", "exponential": from lr to min_lr at the stage's end
    min_lr: float = 0.0
    loss: LossConfig = field(default_factory=LossConfig)
    samples_per_epoch: int = 0  # 0: as many as the sampler gives
    select: str = ""  # the rule of this stage; "": the run's
    patience: int = 0  # epochs without a better score before the stage ends; 0: it never ends early
    # Class weights are multiplied by ((0.1 + 1 - F1_c) / mean) ** exponent of the held-out part at the stage's start.
    confusion_exponent: float = 0.0

    def __post_init__(self) -> None:
        _one_of(self, "sampler", SAMPLERS)
        _one_of(self, "schedule", SCHEDULES)
        _positive(self, "epochs", "lr")
        _not_negative(self, "warmup_epochs", "min_lr", "samples_per_epoch", "patience", "confusion_exponent")
        if self.min_lr > self.lr or (self.schedule == "exponential" and not self.min_lr):
            need = "above zero and " if self.schedule == "exponential" else ""
            raise ConfigError(
                f"{self.name}: with schedule {self.schedule}, min_lr must be {need}at most lr={self.lr}, found "
                f"{self.min_lr}; such as --set train.stages.*.min_lr={self.lr / 100:g}."
            )
        _selection(self, "")


@dataclass(frozen=True)
class TrainConfig:
    """How a member is trained. The defaults are MEDUSA's stages 1 and 2."""

    stages: tuple[StageConfig, ...] = (
        StageConfig("stage1", "shuffled", 0.5, epochs=10, lr=1e-5),
        StageConfig("stage2", "balanced", 0.0, epochs=5, lr=1e-5),
    )
    batch_size: int = 16
    weight_decay: float = 0.01
    grad_clip: float = 1.0  # the gradient's norm at most; 0: any
    targets: str = "soft"  # "vote-dropping": the votes that are left when annotators are dropped anew each epoch
    label_smoothing: float = 0.0
    mixup_p: float = 0.3
    mixup_alpha: float = 0.2
    no_consensus_share: float = 0.125  # balanced draws: no-consensus clips, as a share of the balanced count
    dev_fraction: float = 0.1  # of the training part, speaker-disjoint; used for selection alone
    select: str = "macro_f1"  # the epoch kept: the best on the held-out part by this score; "last": no held-out part
    stride: int = 1  # frames averaged into one on reading
    seed: int = 0
    precision: str = "auto"  # "auto": bf16 autocast where the device multiplies in bf16, else float32
    select_on: str = "balanced"  # class scores: mean over balanced draws from the held-out part; "all": the whole of it
    accumulate: int = 1  # parts in which a batch goes through the network: the same step in less memory
    ema_decay: float = 0.0  # weights judged and kept: an exponential mean over steps; 0: the last step's
    vote_drop_share: float = 0.2  # of an utterance's annotators, with targets "vote-dropping"
    drop_no_consensus: bool = False  # clips without a consensus label teach nothing, not even their attributes
    views: tuple[str, ...] = ()  # augmented views that training clips are drawn from, by label; ("all",): those there
    view_share: float = 0.5  # of the training clips that are drawn from a view instead of the clean set
    # Members that share one stream of batches have these two in common; everything else that is drawn (weights,
    # dropout, MixUp, dropped votes, the draws that epochs are judged on) goes by each one's own seed.
    order_seed: int | None = None  # of the order of clips, the held-out part and the folds; null: seed
    bucket_by: str = ""  # the feature set by whose lengths clips are put together in batches; "": the member's first
    # Rows less the mean of their speaker (or corpus), by its deviation, from clips without their labels.
    normalise: str = "none"
    shrinkage: float = 5.0  # clips that everyone's statistics count for beside a speaker's own

    def __post_init__(self) -> None:
        if not self.stages:
            raise ConfigError("A member needs at least one stage of training.")
        for name in ("mixup_p", "view_share"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigError(f"{name} must be 0 to 1, found {getattr(self, name)}.")
        if len(set(self.views)) < len(self.views) or ("all" in self.views and len(self.views) > 1):
            raise ConfigError(f"views must name each view once, or be all; found {', '.join(self.views)}.")
        if not self.holds_out and any(stage.confusion_exponent for stage in self.stages):
            raise ConfigError("confusion_exponent weighs by what is confused in the held-out part; there is none.")
        _positive(self, "batch_size", "stride", "mixup_alpha", "accumulate")
        if self.seed < 0 or (self.order_seed or 0) < 0:
            raise ConfigError(f"seed and order_seed must not be below zero, found {self.seed}, {self.order_seed}.")
        _not_negative(self, "weight_decay", "grad_clip", "shrinkage")
        _one_of(self, "normalise", NORMALISATIONS)
        _fraction(self, "dev_fraction", "no_consensus_share", "label_smoothing")
        _fraction(self, "vote_drop_share", "ema_decay")
        _selection(self, "macro_f1")
        _one_of(self, "select_on", SELECTED_ON)
        _one_of(self, "targets", LOSS_TARGETS)
        _one_of(self, "precision", ("auto", "float32", "bfloat16"))

    @property
    def stream_seed(self) -> int:
        """Of what is read, and in which order."""
        return self.seed if self.order_seed is None else self.order_seed

    def rule(self, stage: StageConfig) -> str:
        """Return the score that selects the epoch of a stage; without a held-out part it is the last."""
        return (stage.select or self.select) if self.dev_fraction else "last"

    @property
    def holds_out(self) -> bool:
        """Does any stage select on a held-out part?"""
        return any(self.rule(stage) != "last" for stage in self.stages)

    @property
    def learns_classes(self) -> bool:
        return any(stage.loss.classification_weight > 0 for stage in self.stages)

    @property
    def learns_attributes(self) -> bool:
        return any(stage.loss.attribute_weight > 0 for stage in self.stages)

    @staticmethod
    def upgraded(values: dict[str, Any]) -> dict[str, Any]:
        """Convert settings saved before a stage had a loss of its own, with the loss's weights beside the stages."""
        values = dict(values)
        weights = {name: values.pop(name) for name in ("classification_weight", "attribute_weight") if name in values}
        if weights and isinstance(values.get("stages"), (list, tuple)):
            values["stages"] = [{"loss": weights, **stage} for stage in values["stages"]]
        return values


@dataclass(frozen=True)
class MemberConfig:
    """One member of an ensemble: which features, which network, how trained. Saved as config.json."""

    name: str
    features: tuple[str, ...]  # feature references, e.g. "whisper-base@3+4"
    network: NetworkConfig = field(default_factory=NetworkConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        self.network.check_inputs(len(self.features), ", ".join(self.features) or "none")
        if self.network.align_s and self.train.normalise != "none":
            raise ConfigError(
                f"--align with --normalise {self.train.normalise}: times of tokens can't be normalised; leave one out."
            )


def to_dict(config: Any) -> dict[str, Any]:
    """Return a config as plain JSON-able values."""
    return dataclasses.asdict(config)


def from_dict(cls: type, values: dict[str, Any], place: str = "config") -> Any:
    """Return the dataclass `cls` from plain values; an unknown or mistyped field is a ConfigError that names it."""
    hints = typing.get_type_hints(cls)
    if not isinstance(values, dict):
        raise ConfigError(f"{place}: expected settings by name ({', '.join(hints)}), found {values!r}.")
    values = cls.upgraded(values) if hasattr(cls, "upgraded") else values
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise ConfigError(f"{place}: unknown field {unknown[0]!r}; the fields are {', '.join(hints)}.")
    return cls(**{key: _convert(hints[key], value, f"{place}.{key}") for key, value in values.items()})


def _convert(hint: Any, value: Any, place: str) -> Any:
    if dataclasses.is_dataclass(hint) and isinstance(value, dict):
        return from_dict(typing.cast(type, hint), value, place)
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"{place}: expected a list, found {value!r}.")
        inner = typing.get_args(hint)[0]
        return tuple(_convert(inner, item, f"{place}[{i}]") for i, item in enumerate(value))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    assert isinstance(hint, (type, types.UnionType)), f"a field of {place} is of a type that no config has: {hint}"
    if not isinstance(value, hint) or (isinstance(value, bool) and hint in (int, float)):
        raise ConfigError(f"{place}: expected {getattr(hint, '__name__', hint)}, found {value!r}.")
    return value
