"""`medusa featurize --augment`: sets beside the clean one, done once, refused for text and without --augment."""

from pathlib import Path

import numpy as np
import soundfile

from featurestore.store.feature_store import FeatureStore
from tests.helpers.messages import mentions
from tests.helpers.small_corpus import ACTORS, copy_clips, medusa


def test_views_are_made_beside_the_clean_set(demo_corpus: Path, tmp_path: Path) -> None:
    copy_clips(demo_corpus, tmp_path / "corpus")
    csv, store_path = tmp_path / "m.csv", tmp_path / "store"
    n = 8 * len(ACTORS)
    medusa("prepare", "ravdess", "--root", tmp_path / "corpus", "-o", csv)
    soundfile.write(tmp_path / "hum.wav", np.sin(np.arange(16_000) / 9), 16_000)
    make = ("featurize", "--encoder", "logmel", "-m", csv, "-s", store_path)
    options = ("--augment", "noise:snr=0..5", "--augment", "mix", "--views", "2", "--noise", tmp_path)
    planned = medusa(*make, *options, "--dry-run").stdout
    assert planned.count(f"{n} utterances to encode") == 4
    assert not store_path.exists()
    medusa(*make, *options)
    store = FeatureStore.open(store_path)
    views = ["logmel+mix1", "logmel+mix2", "logmel+noise1", "logmel+noise2"]
    assert sorted(store.names()) == [*views, "mixing/mix1", "mixing/mix2"]
    assert {len(store[name]) for name in store.names()} == {n}
    assert "0 done, 48 there already" in medusa(*make, *options, "--shard", "1/1").stdout
    checked = medusa(*make, "--augment", "noise:snr=0..5", "--noise", tmp_path, "--check", "3").stdout
    assert mentions(checked, "logmel+noise1", "largest", "difference")
    assert "view" in medusa(*make, "--augment", "noise", exit_code=2).stderr
    medusa(*make, "--pool", "mean", "--name", "pooled")
    unlike = medusa(*make, "--name", "pooled", *options[:2], "--views", "1", "--noise", tmp_path, exit_code=2).stderr
    assert mentions(unlike, "pooled+noise1", "would be no view of pooled", "pool: stored mean, asked none")
    assert "pooled+noise1" not in FeatureStore.open(store_path)
    assert "--augment" in medusa(*make, "--views", "2", exit_code=2).stderr
