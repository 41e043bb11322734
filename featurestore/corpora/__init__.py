"""Readers of corpora: each takes the directory of one corpus in its own layout and returns its manifest."""

from collections.abc import Callable
from pathlib import Path

from featurestore.corpora.ravdess import read_ravdess
from featurestore.corpora.table import read_table
from featurestore.manifest import Manifest

__all__ = ["CORPORA", "read_ravdess", "read_table"]

CORPORA: dict[str, Callable[[Path], Manifest]] = {"ravdess": read_ravdess}
