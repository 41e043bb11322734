"""Ensembles over cached posteriors: alignment by key, votes, meta-classifiers with their soups, and new audio.

`Model` loads when it is first used, so that the import costs nothing.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ensemble.prediction.model import Model as Model

__all__ = ["Model"]


def __getattr__(name: str) -> Any:
    if name != "Model":
        raise AttributeError(f"module 'ensemble' has no attribute {name!r}")
    from ensemble.prediction.model import Model

    return Model
