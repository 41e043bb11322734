"""The settings of a member that have an option of their own: one table for `fit-deepser`, for recipes and for help."""

from dataclasses import dataclass
from typing import Any

from deepser.config import (
    LOSS_TARGETS,
    NETWORKS,
    NORMALISATIONS,
    POOLINGS,
    SCHEDULES,
    SELECTIONS,
    NetworkConfig,
    TrainConfig,
)

_MEDUSA = {"network": NetworkConfig(), "train": TrainConfig()}  # the preset whose values the help shows


@dataclass(frozen=True)
class Setting:
    """One option: --`option` sets `path` in config.json ("*": in every stage).

    kind: of its values. panel, help: where and how `medusa fit-deepser --help` shows it. least: the smallest value.
    """

    option: str
    path: str
    kind: type
    panel: str
    help: str
    least: int | None = None

    @property
    def default(self) -> str:
        """The value that preset medusa has, as text; "none" for an empty list."""
        first, *rest = self.path.split(".")
        value: Any = _MEDUSA[first]
        for name in rest:
            value = value[0 if name == "*" else int(name)] if isinstance(value, tuple) else getattr(value, name)
        return "none" if value == () else str(value)


SETTINGS = (
    Setting("network", "network.kind", str, "Network", f"{', '.join(NETWORKS)}."),
    Setting("d", "network.d", int, "Network", "Width of the network."),
    Setting("n-layers", "network.n_layers", int, "Network", "Transformer layers of each encoder block."),
    Setting("n-heads", "network.n_heads", int, "Network", "Attention heads; they divide d."),
    Setting("pooling", "network.pooling", str, "Network", f"{', '.join(POOLINGS)}."),
    Setting("align", "network.align_s", float, "Network", "cross-attention: seconds between rows that see each other."),
    Setting("dropout", "network.dropout", float, "Network", "Share of units dropped."),
    Setting("stride", "train.stride", int, "Network", "Frames averaged into one."),
    Setting("epochs", "train.stages.0.epochs", int, "Stages", "Stage 1: all clips.", 1),
    Setting("stage2-epochs", "train.stages.1.epochs", int, "Stages", "Stage 2: balanced; 0: none.", 0),
    Setting("lr", "train.stages.0.lr", float, "Stages", "Learning rate of stage 1."),
    Setting("stage2-lr", "train.stages.1.lr", float, "Stages", "Learning rate of stage 2."),
    Setting("schedule", "train.stages.*.schedule", str, "Stages", f"{', '.join(SCHEDULES)}."),
    Setting("warmup-epochs", "train.stages.0.warmup_epochs", float, "Stages", "Linear warm-up of stage 1."),
    Setting("seed", "train.seed", int, "Training", "Seed of weights, order and MixUp."),
    Setting("batch-size", "train.batch_size", int, "Training", "Utterances per step."),
    Setting("weight-decay", "train.weight_decay", float, "Training", "Weight decay of AdamW."),
    Setting("mixup", "train.mixup_p", float, "Training", "Share of clips mixed."),
    Setting("targets", "train.targets", str, "Training", f"{', '.join(LOSS_TARGETS)}."),
    Setting(
        "normalise",
        "train.normalise",
        str,
        "Training",
        f"Whose statistics standardise the rows: {', '.join(NORMALISATIONS)}.",
    ),
    Setting("label-smoothing", "train.label_smoothing", float, "Training", "Share of the target spread evenly."),
    Setting("views", "train.views", str, "Training", "Augmented views to draw from: noise1,mix1; all: those there."),
    Setting("view-share", "train.view_share", float, "Training", "Share of clips drawn from views."),
    Setting(
        "select",
        "train.select",
        str,
        "Training",
        f"Score that chooses the epoch to keep: {', '.join(SELECTIONS)}, ccc:ATTRIBUTE.",
    ),
    Setting("precision", "train.precision", str, "System", "auto, float32, bfloat16."),
)
PATHS = {setting.option: setting.path for setting in SETTINGS}
