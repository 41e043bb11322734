"""Trainers over cached features: networks, losses, members fitted fold by fold, and the scores of their predictions.

Names load when they are first used, so that `import deepser` costs nothing.
"""

from typing import TYPE_CHECKING

from featurestore.runtime.lazy_names import lazy_names

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

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "config": ["LossConfig", "MemberConfig", "NetworkConfig", "StageConfig", "TrainConfig"],
        "members.fit": ["fit_members"],
        "members.folds": ["FoldPlan", "plan_folds"],
        "members.member": ["Member"],
        "members.presets": ["find_preset", "member_config"],
        "scores.metrics": ["Evaluation", "ccc", "evaluate"],
    },
)
