"""The published systems as settings, and how single settings are changed.

What a paper leaves open is ours and the same everywhere: standardised inputs, AdamW's weight decay 0.01, gradients cut
at norm 1, a tenth of the training part held out by speaker. Ours too: MEDUSA's epochs (10 + 5); SRPOL's class weights
(exponent 1), the hidden width of its pooling (128), its 20 epochs of phase 2 and its sigma of 5 (the paper: 20 to 30,
and 3, 5 or 7), how it weighs confused classes, and that every second clip is drawn from an augmented view where the
store has some.
"""

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from deepser.config import (
    ALL_VIEWS,
    LossConfig,
    MemberConfig,
    NetworkConfig,
    StageConfig,
    TrainConfig,
    from_dict,
    to_dict,
)
from featurestore.errors import ConfigError
from featurestore.runtime.json_text import read_json

MEDUSA_NETWORK, MEDUSA_TRAIN = NetworkConfig(), TrainConfig()
# Below so many training utterances a user who names no preset gets "small".
SMALL_UTTERANCES = 10_000
# Table 1 of MEDUSA (arXiv 2506.09556): the features of its fourteen members.
MEDUSA_MEMBERS = (
    ("hubert-large", "roberta-large"),
    ("wavlm-large", "hubert-large", "roberta-large"),
    ("wavlm-large", "whisper-large-v3", "hubert-large"),
    ("wavlm-large", "modernbert-large"),
    *[("wavlm-large", "roberta-large")] * 4,
    *[("whisper-large-v3", "modernbert-large")] * 2,
    *[("whisper-large-v3", "roberta-large")] * 2,
    ("whisper-large-v3", "wavlm-large"),
    ("whisper-large-v3", "wavlm-large", "modernbert-large"),
)


@dataclass(frozen=True)
class Preset:
    """A system's settings: the feature sets it reads when none are named (none: they must be), network and training."""

    about: str
    features: tuple[str, ...]
    network: NetworkConfig
    train: TrainConfig


def _srpol(task: int, confusion_exponent: float = 0.0) -> Preset:
    """Return SRPOL's two phases: joint pre-training, then one task alone (its Gaussian penalty in Task 2).

    Clips are drawn from the augmented views that the store has, and all are clean where it has none.
    """
    joint = (0.75, 0.25) if task == 1 else (0.25, 0.75)  # of classes, of attributes
    task_weights = (1.0, 0.0) if task == 1 else (0.0, 1.0)
    phase1 = StageConfig(
        "joint", "shuffled", 1.0, epochs=50, lr=2e-5, warmup_epochs=3, schedule="cosine", min_lr=1e-7,
        samples_per_epoch=32_000, loss=LossConfig(classification_weight=joint[0], attribute_weight=joint[1]),
    )  # fmt: skip
    tuned = LossConfig("cross-entropy", "gaussian-mse", task_weights[0], task_weights[1], gaussian_sigma=5.0)
    phase2 = replace(phase1, name=f"task{task}", epochs=20, lr=5e-6, loss=tuned, confusion_exponent=confusion_exponent)
    train = TrainConfig(
        (phase1, phase2), batch_size=128, targets="one-hot", mixup_p=0.0, select_on="all",
        select="macro_f1" if task == 1 else "mean_ccc", drop_no_consensus=True, views=(ALL_VIEWS,),
    )  # fmt: skip
    network = NetworkConfig(d=1028, n_layers=2, dropout=0.0, kind="srpol", pooling="asp", pool_dim=128, lstm_dim=2048)
    about = f"SRPOL's multi-expert network, tuned for Task {task} ({'classes' if task == 1 else 'attributes'})"
    about += ", confused classes weigh more" if confusion_exponent else ""
    return Preset(about, ("whisper-large-v3", "wavlm-large", "roberta-large"), network, train)


def _baseline(task: int) -> Preset:
    """Return the challenge baseline's head and loss. It fine-tunes its encoder, on 12 s of audio.

    Ours is frozen, on all.
    """
    loss = LossConfig(attributes="ccc", classification_weight=float(task == 1), attribute_weight=float(task == 2))
    stage = StageConfig("baseline", "shuffled", 1.0, epochs=20, lr=1e-5, loss=loss)
    train = TrainConfig(
        (stage,), batch_size=32, targets="one-hot", mixup_p=0.0, select_on="all",
        select="macro_f1" if task == 1 else "mean_ccc", drop_no_consensus=task == 1,
    )  # fmt: skip
    network = NetworkConfig(d=1024, dropout=0.5, kind="baseline", pooling="asp")
    about = f"the challenge baseline's head for Task {task} over frozen WavLM (the official one fine-tunes it)"
    return Preset(about, ("wavlm-large",), network, train)


def _small() -> Preset:
    """Return our preset for small corpora: a head over means and deviations with every regularisation we have."""
    stages = (
        StageConfig("stage1", "shuffled", 0.5, epochs=30, lr=1e-3, warmup_epochs=1, schedule="cosine", min_lr=1e-5),
    )
    train = TrainConfig(
        stages, batch_size=32, weight_decay=0.1, mixup_p=0.5, label_smoothing=0.1, ema_decay=0.95, select="last"
    )
    network = NetworkConfig(d=256, dropout=0.5, kind="baseline", pooling="mean+std")
    return Preset("a regularised head over means and deviations, for small corpora (ours)", (), network, train)


def default_preset(n_training: int, is_plain: bool) -> str:
    """Return the preset of a user who names none: "small" for a small corpus, if no other setting is given either."""
    return "small" if is_plain and n_training < SMALL_UTTERANCES else "medusa"


def _medusa(about: str, features: tuple[str, ...] = (), *, kind: str = "deepser", seed: int = 0) -> Preset:
    return Preset(about, features, replace(MEDUSA_NETWORK, kind=kind), replace(MEDUSA_TRAIN, seed=seed))


PRESETS: dict[str, Preset] = {
    "small": _small(),
    "medusa": _medusa("DeepSER and MEDUSA's stages 1 and 2, on any features"),
    **{
        f"medusa-{number:02d}": _medusa(f"member {number} of MEDUSA's Table 1", features, seed=number)
        for number, features in enumerate(MEDUSA_MEMBERS, start=1)
    },
    "medusa-late-fusion": _medusa("DeepSER without fusion Encs, MEDUSA's stages", kind="late-fusion"),
    "cross-attention": _medusa("cross-modal attention between Encs, MEDUSA's stages", kind="cross-attention"),
    "unimodal": _medusa("one Enc over one feature set, MEDUSA's stages", kind="unimodal"),
    "srpol-task1": _srpol(1),
    "srpol-task1-confused": _srpol(1, confusion_exponent=1.0),
    "srpol-task2": _srpol(2),
    "baseline-frozen": _baseline(1),
    "baseline-frozen-task2": _baseline(2),
}


def find_preset(name: str) -> Preset:
    """Return the preset of a name; ConfigError lists the presets."""
    if name not in PRESETS:
        raise ConfigError(f"--preset {name!r}: expected one of {', '.join(PRESETS)}.")
    return PRESETS[name]


def member_config(
    name: str, features: Iterable[str], preset: Preset, changes: Mapping[str, Any] | None = None
) -> MemberConfig:
    """Return a member by a preset, with `changes` by dotted path, as they stand in config.json.

    A path's "*" stands for every item: {"network.d": 128, "train.stages.*.schedule": "cosine"}. ConfigError names a
    path that leads nowhere, and a value of the wrong type or out of range.
    """
    values: dict[str, Any] = {"network": to_dict(preset.network), "train": to_dict(preset.train)}
    for path, value in (changes or {}).items():
        _put(values, path.split("."), value, path)
    network = from_dict(NetworkConfig, values["network"], "network")
    train = from_dict(TrainConfig, values["train"], "train")
    return MemberConfig(name, tuple(features), network, train)


def parse_changes(texts: Iterable[str]) -> dict[str, Any]:
    """Parse "train.mixup_alpha=0.4" into a change; the value is JSON, or text where it is no JSON."""
    changes: dict[str, Any] = {}
    for text in texts:
        path, separator, value = text.partition("=")
        if not (path and separator):
            raise ConfigError(f"--set {text!r}: expected PATH=VALUE, such as train.mixup_alpha=0.4.")
        try:
            changes[path] = read_json(value)
        except ValueError:
            changes[path] = value
    return changes


def _put(values: Any, path: list[str], value: Any, setting: str) -> None:
    """Set the item at `path` inside nested dicts and lists that a config became."""
    first, *further = path
    if first == "*" and isinstance(values, (list, tuple)):
        for item in values:
            _put(item, further, value, setting)
        return
    names = list(values) if isinstance(values, dict) else [str(i) for i in range(len(values))]
    if first not in names:
        raise ConfigError(
            f"There is no setting {setting!r}: instead of {first!r} expected {', '.join(names) or 'none'}."
        )
    place = first if isinstance(values, dict) else int(first)
    if not further:
        values[place] = copy.deepcopy(value)
    elif isinstance(values[place], (dict, list, tuple)):
        if isinstance(values[place], tuple):
            values[place] = list(values[place])
        _put(values[place], further, value, setting)
    else:
        raise ConfigError(f"There is no setting {setting!r}: {first!r} is {values[place]!r}, without parts.")
