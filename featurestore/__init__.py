"""Corpora, encoders and the feature store: utterances are encoded once, then read by key, fast.

Names load when they are first used, so that `import featurestore` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from featurestore.audio import decode as decode
    from featurestore.corpus.label_scheme import LabelScheme as LabelScheme
    from featurestore.corpus.manifest import Manifest as Manifest
    from featurestore.corpus.ratings import Ratings as Ratings
    from featurestore.errors import (
        AudioError as AudioError,
    )
    from featurestore.errors import (
        ConfigError as ConfigError,
    )
    from featurestore.errors import (
        EncoderError as EncoderError,
    )
    from featurestore.errors import (
        ManifestError as ManifestError,
    )
    from featurestore.errors import (
        MedusaError as MedusaError,
    )
    from featurestore.errors import (
        SpecMismatch as SpecMismatch,
    )
    from featurestore.errors import (
        StoreError as StoreError,
    )
    from featurestore.format.spec import FeatureSpec as FeatureSpec
    from featurestore.loaders.batch_loader import BatchLoader as BatchLoader
    from featurestore.loaders.batch_loader import FeatureRef as FeatureRef
    from featurestore.rows.packed import Packed as Packed
    from featurestore.sets.feature_set import FeatureSet as FeatureSet
    from featurestore.sets.writer import FeatureWriter as FeatureWriter
    from featurestore.store.feature_store import FeatureStore as FeatureStore

_HOME = {
    "decode": "audio",
    "AudioError": "errors",
    "ConfigError": "errors",
    "EncoderError": "errors",
    "ManifestError": "errors",
    "MedusaError": "errors",
    "SpecMismatch": "errors",
    "StoreError": "errors",
    "FeatureSet": "sets.feature_set",
    "Packed": "rows.packed",
    "BatchLoader": "loaders.batch_loader",
    "FeatureRef": "loaders.batch_loader",
    "LabelScheme": "corpus.label_scheme",
    "Manifest": "corpus.manifest",
    "FeatureSpec": "format.spec",
    "FeatureStore": "store.feature_store",
    "FeatureWriter": "sets.writer",
    "Ratings": "corpus.ratings",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'featurestore' has no attribute {name!r}")
    return getattr(import_module(f"featurestore.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
