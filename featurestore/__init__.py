"""Corpora, encoders and the feature store: utterances are encoded once, then read by key, fast.

Names load when they are first used, so that `import featurestore` costs nothing.
"""

from typing import TYPE_CHECKING

from featurestore.runtime.lazy_names import lazy_names

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

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "audio": ["decode"],
        "corpus.label_scheme": ["LabelScheme"],
        "corpus.manifest": ["Manifest"],
        "corpus.ratings": ["Ratings"],
        "errors": [
            "AudioError",
            "ConfigError",
            "EncoderError",
            "ManifestError",
            "MedusaError",
            "SpecMismatch",
            "StoreError",
        ],
        "format.spec": ["FeatureSpec"],
        "loaders.batch_loader": ["BatchLoader", "FeatureRef"],
        "rows.packed": ["Packed"],
        "sets.feature_set": ["FeatureSet"],
        "sets.writer": ["FeatureWriter"],
        "store.feature_store": ["FeatureStore"],
    },
)
