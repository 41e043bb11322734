"""Ensembles over cached posteriors: alignment by key, votes, meta-classifiers with their soups, and new audio.

Names load when they are first used, so that `import ensemble` costs nothing.
"""

from typing import TYPE_CHECKING

from featurestore.runtime.lazy_names import lazy_names

if TYPE_CHECKING:
    from ensemble.evaluation.align import Aligned as Aligned
    from ensemble.evaluation.align import load_posteriors as load_posteriors
    from ensemble.evaluation.assess import Assessment as Assessment
    from ensemble.evaluation.assess import ScoringOptions as ScoringOptions
    from ensemble.evaluation.assess import assess as assess
    from ensemble.evaluation.parts import assess_parts as assess_parts
    from ensemble.evaluation.prediction_files import read_predictions as read_predictions
    from ensemble.evaluation.system import System as System
    from ensemble.evaluation.systems import open_system as open_system
    from ensemble.fusion.config import ForestConfig as ForestConfig
    from ensemble.fusion.config import MetaConfig as MetaConfig
    from ensemble.fusion.config import VoteConfig as VoteConfig
    from ensemble.fusion.fit import fit_ensemble as fit_ensemble
    from ensemble.fusion.kinds import load_meta as load_meta
    from ensemble.fusion.kinds import predict_meta as predict_meta
    from ensemble.fusion.state import MetaState as MetaState
    from ensemble.prediction.export import export_model as export_model
    from ensemble.prediction.model import Model as Model
    from ensemble.prediction.predictions import Predictions as Predictions

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "evaluation.align": ["Aligned", "load_posteriors"],
        "evaluation.assess": ["ScoringOptions", "Assessment", "assess"],
        "evaluation.parts": ["assess_parts"],
        "evaluation.prediction_files": ["read_predictions"],
        "evaluation.system": ["System"],
        "evaluation.systems": ["open_system"],
        "fusion.config": ["ForestConfig", "MetaConfig", "VoteConfig"],
        "fusion.fit": ["fit_ensemble"],
        "fusion.kinds": ["load_meta", "predict_meta"],
        "fusion.state": ["MetaState"],
        "prediction.export": ["export_model"],
        "prediction.model": ["Model"],
        "prediction.predictions": ["Predictions"],
    },
)
