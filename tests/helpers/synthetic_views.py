"""Augmented views beside the synthetic corpus' sets, and a text set that has none."""

import numpy as np

from featurestore.augment.mixing import mixed_from, viewed_part
from featurestore.augment.views import parse_views
from featurestore.corpus.manifest import Manifest
from featurestore.format.spec import FeatureSpec
from featurestore.store.feature_store import FeatureStore

LABELS = ("mix1", "noise1", "noise2")


def add_views(store: FeatureStore, manifest: Manifest, *, lacking: int = 0) -> None:
    """Add two noise views and a mixed view of `first` and `second`; the first `lacking` utterances have no noise1.

    A mixed clip has the rows of both utterances. `words` is a text set of one row or two for each utterance.
    """
    rng = np.random.default_rng(1)
    for view in [*parse_views(["noise"], n_views=2), *parse_views(["mix"])]:
        viewed_part(manifest, view, store)
        partners = mixed_from(store, view.label, manifest.keys) if view.mix else [(None, 1.0)] * len(manifest)
        for name in ("first", "second"):
            clean = store[name]
            with store.writer(view.name(name), view.spec(clean.spec)) as writer:
                for i, (key, actual) in enumerate(zip(manifest.keys, partners, strict=True)):
                    if view.label == "noise1" and i < lacking:
                        continue
                    assert actual is not None
                    keys = [key] if actual[0] is None else [key, actual[0]]
                    rows = [[clean.array(k, layer) for k in keys] for layer in clean.layers]
                    joined = [np.concatenate(of_layer) for of_layer in rows]
                    writer.append(key, [r + 0.1 * rng.normal(size=r.shape).astype(np.float32) for r in joined])
    spec = FeatureSpec("text", "words", "none", ("layer_01",), 5)
    with store.writer("words", spec) as writer:
        for i, key in enumerate(manifest.keys):
            writer.append(key, [rng.normal(size=(1 + i % 2, 5))])
