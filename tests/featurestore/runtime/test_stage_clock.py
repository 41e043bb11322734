"""The stage clock: seconds by stage from every thread, nothing when nobody measures."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import soundfile

from featurestore.corpus.manifest import Manifest
from featurestore.encoders import load_encoder
from featurestore.featurize.parts import merged
from featurestore.featurize.run import featurize
from featurestore.runtime.stage_clock import STAGES, Padding, StageClock, measured, padded_batch, stage
from featurestore.store.feature_store import FeatureStore


def test_seconds_are_summed_over_threads_and_only_while_measured() -> None:
    def work(_: int) -> None:
        with stage("decode"):
            time.sleep(0.02)

    with measured(StageClock()) as clock, ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
        padded_batch([3, 5], 5)
    work(0)
    padded_batch([1], 1)
    assert clock.seconds()["decode"] >= 0.08
    assert clock.seconds()["write"] == clock.busy_s() == 0.0
    assert clock.batches == [((3, 5), 5)]
    assert list(clock.seconds()) == list(STAGES)


def test_a_run_is_measured_without_changing_it(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for i in range(4):
        soundfile.write(tmp_path / f"{i}.wav", 0.1 * rng.standard_normal(8_000 * (i + 1)), 16_000)
    table = pa.table({"utterance_id": list("abcd"), "path": [f"{i}.wav" for i in range(4)]})
    manifest, encoder = Manifest(table, root=tmp_path), load_encoder("tiny-hubert", device="cpu")
    store = FeatureStore.create(tmp_path / "store")
    featurize(manifest, encoder, store, "plain")
    with measured(StageClock()) as clock:
        report = featurize(manifest, encoder, store, "measured")
    seconds = clock.seconds()
    assert all(seconds[name] > 0 for name in ("decode", "encode", "pack", "copy", "write"))
    assert seconds["mel"] == 0.0
    assert clock.busy_s() <= report.wall_s
    assert sorted(n for frames, _ in clock.batches for n in frames) == sorted(
        encoder.n_frames(8_000 * (i + 1)) for i in range(4)
    )


def test_a_report_has_the_share_of_padding(tmp_path: Path) -> None:
    for i in range(4):
        soundfile.write(tmp_path / f"{i}.wav", np.random.default_rng(i).uniform(-0.1, 0.1, 8_000 * (i + 1)), 16_000)
    table = pa.table({"utterance_id": list("abcd"), "path": [f"{i}.wav" for i in range(4)]})
    manifest, encoder = Manifest(table, root=tmp_path), load_encoder("tiny-hubert", device="cpu")
    store = FeatureStore.create(tmp_path / "store")
    frames = [encoder.n_frames(8_000 * (i + 1)) for i in range(4)]
    one_by_one, batched = (
        featurize(manifest, encoder, store, "alone"),
        featurize(manifest, encoder, store, "a", batch_s=60),
    )
    assert (one_by_one.padding.n_valid, one_by_one.padding.share) == (sum(frames), 0.0)
    assert batched.padding.share == 1 - sum(frames) / (4 * max(frames))
    nothing = featurize(manifest, encoder, store, "a")
    assert np.isnan(nothing.padding.share)
    assert merged([one_by_one, batched]).padding == Padding(2 * sum(frames), sum(frames) + 4 * max(frames))
    names = [sorted(p.name for p in (store.path / s).glob("seg-*")) for s in ("plain", "measured")]
    assert names[0] == names[1]
