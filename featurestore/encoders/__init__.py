"""Encoders by name: what they are, where their weights are, and how to load them.

Importing this package loads no torch; `load_encoder` does, except for `logmel`.
"""

from featurestore.encoders.base import Encoder
from featurestore.encoders.catalog import ENCODERS, EncoderEntry
from featurestore.encoders.load import load_encoder

__all__ = ["ENCODERS", "Encoder", "EncoderEntry", "load_encoder"]
