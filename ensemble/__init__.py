"""Ensembles over cached posteriors: alignment by key, votes, meta-classifiers with their soups, and new audio.

Names load when they are first used, so that `import ensemble` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ensemble.evaluation.align import Aligned as Aligned
    from ensemble.evaluation.align import load_posteriors as load_posteriors
    from ensemble.evaluation.assess import Asked as Asked
    from ensemble.evaluation.assess import Assessment as Assessment
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

_HOME = {
    "Model": "prediction.model",
    "Predictions": "prediction.predictions",
    "export_model": "prediction.export",
    "System": "evaluation.system",
    "open_system": "evaluation.systems",
    "read_predictions": "evaluation.prediction_files",
    "Asked": "evaluation.assess",
    "Assessment": "evaluation.assess",
    "assess": "evaluation.assess",
    "assess_parts": "evaluation.parts",
    "Aligned": "evaluation.align",
    "load_posteriors": "evaluation.align",
    "fit_ensemble": "fusion.fit",
    "load_meta": "fusion.kinds",
    "predict_meta": "fusion.kinds",
    "MetaState": "fusion.state",
    "MetaConfig": "fusion.config",
    "ForestConfig": "fusion.config",
    "VoteConfig": "fusion.config",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'ensemble' has no attribute {name!r}")
    return getattr(import_module(f"ensemble.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
