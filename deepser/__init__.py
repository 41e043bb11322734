"""Trainers over cached features: networks, losses, members fitted fold by fold, and the scores of their predictions.

Names load when they are first used, so that `import deepser` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deepser.config import LossConfig as LossConfig
    from deepser.config import MemberConfig as MemberConfig
    from deepser.config import NetworkConfig as NetworkConfig
    from deepser.config import StageConfig as StageConfig
    from deepser.config import TrainConfig as TrainConfig
    from deepser.members.fit import fit_members as fit_members
    from deepser.members.folds import FoldPlan as FoldPlan
    from deepser.members.folds import plan_folds as plan_folds
    from deepser.members.member import Member as Member
    from deepser.members.presets import find_preset as find_preset
    from deepser.members.presets import member_config as member_config
    from deepser.scores.metrics import Evaluation as Evaluation
    from deepser.scores.metrics import ccc as ccc
    from deepser.scores.metrics import evaluate as evaluate

_HOME = {
    "LossConfig": "config",
    "MemberConfig": "config",
    "NetworkConfig": "config",
    "StageConfig": "config",
    "TrainConfig": "config",
    "fit_members": "members.fit",
    "FoldPlan": "members.folds",
    "plan_folds": "members.folds",
    "Member": "members.member",
    "find_preset": "members.presets",
    "member_config": "members.presets",
    "Evaluation": "scores.metrics",
    "ccc": "scores.metrics",
    "evaluate": "scores.metrics",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'deepser' has no attribute {name!r}")
    return getattr(import_module(f"deepser.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
