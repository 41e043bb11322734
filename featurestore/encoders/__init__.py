"""Encoders by name: what they are, where their weights are, and how to load them.

Names load when they are first used: the catalogue takes no time, loading an encoder takes torch (but for `logmel`).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from featurestore.encoders.base import Encoder as Encoder
    from featurestore.encoders.catalog import ENCODERS as ENCODERS
    from featurestore.encoders.catalog import EncoderEntry as EncoderEntry
    from featurestore.encoders.load import load_encoder as load_encoder

_HOME = {"ENCODERS": "catalog", "Encoder": "base", "EncoderEntry": "catalog", "load_encoder": "load"}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'featurestore.encoders' has no attribute {name!r}")
    return getattr(import_module(f"featurestore.encoders.{_HOME[name]}"), name)
