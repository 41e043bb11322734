"""Rows normalised by speaker: numpy's statistics, shrunk where clips are few, the same for probes and networks."""

from pathlib import Path

import numpy as np
import pytest
import torch

from deepser.training.data import TrainingData
from deepser.training.normalise import Groups, GroupStatistics, Normalisation, new_groups
from deepser.training.targets import Targets
from featurestore.corpus.manifest import Manifest
from featurestore.errors import ConfigError, ManifestError
from featurestore.format.spec import FeatureSpec
from featurestore.loaders.batch_loader import FeatureRef
from featurestore.store.feature_store import FeatureStore
from tests.helpers.synthetic_corpus import corpus

BOTH = ("layer_01", "layer_02")


def test_a_speakers_rows_have_mean_0_and_deviation_1_without_shrinkage() -> None:
    rng = np.random.default_rng(0)
    groups = Groups.of(["a"] * 30 + ["b"] * 20)
    x = (rng.normal(size=(50, 4)) * [1, 2, 3, 0] + groups.codes[:, None] * 5).astype(np.float32)
    result = GroupStatistics.of(x, groups, 0.0).apply(x, groups.codes)
    for speaker in (1, 2):
        rows = result[groups.codes == speaker]
        np.testing.assert_allclose(rows.mean(0), 0, atol=1e-5)
        np.testing.assert_allclose(rows.std(0), [1, 1, 1, 0], atol=1e-4)  # a constant dim says nothing


def test_a_speaker_of_few_clips_is_shrunk_and_one_of_a_single_clip_is_everyone() -> None:
    x = np.random.default_rng(0).normal(2, 3, (63, 4)).astype(np.float32)
    groups = Groups.of(["a"] * 60 + ["b"] * 2 + ["c"])
    statistics = GroupStatistics.of(x, groups, 5.0)
    weight = 2 / 7
    np.testing.assert_allclose(statistics.mean[2], weight * x[60:62].mean(0) + (1 - weight) * x.mean(0), rtol=1e-5)
    assert groups.codes[62] == 0
    np.testing.assert_allclose(statistics.mean[0], x.mean(0), rtol=1e-5)
    np.testing.assert_allclose(statistics.inverse_std[0], 1 / x.std(0), rtol=1e-5)


def test_a_blend_of_speaker_and_corpus_is_the_moment_of_their_mixture() -> None:
    prior = (np.array([0.0, 1.0]), np.array([4.0, 9.0]))
    rows = np.random.default_rng(1).normal(3, 2, (10, 2)).astype(np.float32)
    statistics = GroupStatistics.of(rows, Groups.of(["a"] * 10), 10.0, prior)
    mean = 0.5 * rows.mean(0) + 0.5 * prior[0]
    square = 0.5 * (rows.var(0) + rows.mean(0) ** 2) + 0.5 * (prior[1] + prior[0] ** 2)
    np.testing.assert_allclose(statistics.mean[1], mean, rtol=1e-5)
    np.testing.assert_allclose(statistics.inverse_std[1], 1 / np.sqrt(square - mean**2), rtol=1e-4)


def test_a_running_estimate_is_that_of_the_speakers_clips_so_far() -> None:
    x = np.random.default_rng(0).normal(2, 3, (12, 4)).astype(np.float32)
    names = ["a", "b", "a", "a", "b", "c", "a", "b", "a", "b", "b", "a"]
    prior = (np.full(4, 1.0), np.full(4, 4.0))
    groups = Groups.running(names)
    result = GroupStatistics.of(x, groups, 5.0, prior)
    for i, name in enumerate(names):
        so_far = [j for j in range(i + 1) if names[j] == name]
        one_group = Groups.of([name] * len(so_far))
        expected = GroupStatistics.of(x[so_far], one_group, 5.0, prior)
        np.testing.assert_allclose(result.mean[groups.codes[i]], expected.mean[one_group.codes[0]], rtol=1e-5)
        np.testing.assert_allclose(
            result.inverse_std[groups.codes[i]], expected.inverse_std[one_group.codes[0]], rtol=1e-4
        )
        assert groups.n_clips[groups.codes[i]] == (len(so_far) if len(so_far) > 1 else 0)


def of_speakers(directory: Path, shrinkage: float = 0.0) -> tuple[FeatureStore, Manifest, Normalisation, FeatureRef]:
    store, manifest = corpus(directory)
    groups, ref = Groups.named("speaker", manifest), FeatureRef("first", BOTH)
    result = Normalisation("speaker", groups, shrinkage)
    result.prepare(store, [ref], manifest.keys)
    return store, manifest, result, ref


def test_frames_are_normalised_by_all_frames_of_their_speaker(tmp_path: Path) -> None:
    store, manifest, normalisation, ref = of_speakers(tmp_path)
    data = TrainingData(store, (ref,), Targets.from_manifest(manifest), normalisation=normalisation)
    speakers = manifest.column("speaker")
    clips = np.arange(len(manifest))
    with data.open_batches([clips[:40], clips[40:]], 1) as batches:
        rows = [(values.clone(), offsets.clone()) for ((values, offsets),) in batches]
    frames: list[list[np.ndarray]] = [[], []]
    for values, offsets in rows:
        for start, end in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
            for layer in (0, 1):
                frames[layer].append(values[layer, start:end].numpy())
    for layer in (0, 1):
        for speaker in set(speakers.tolist()):
            of_speaker = np.concatenate([f for f, s in zip(frames[layer], speakers, strict=True) if s == speaker])
            np.testing.assert_allclose(of_speaker.mean(0), 0, atol=2e-3)  # the store holds float16
            np.testing.assert_allclose(of_speaker.std(0), 1, atol=2e-3)


def test_a_batch_on_a_device_and_one_on_the_cpu_are_the_same(tmp_path: Path) -> None:
    """The device's way, one gather, run here on the CPU beside the CPU's, a loop over clips."""
    _, manifest, normalisation, ref = of_speakers(tmp_path, 5.0)
    lengths = torch.tensor([3, 0, 4, 1])
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    values, clips = torch.randn(2, 8, 6), np.array([4, 7, 2, 89])
    ((normalised, _),) = normalisation.apply([ref], clips, [(values, offsets)])
    for i, clip in enumerate(clips):
        for layer in (0, 1):
            rows = values[layer, offsets[i] : offsets[i + 1]].numpy()
            expected = normalisation.statistics["first", BOTH[layer]].apply(
                rows, np.full(len(rows), normalisation.groups.codes[clip])
            )
            np.testing.assert_array_equal(normalised[layer, offsets[i] : offsets[i + 1]].numpy(), expected)
    one_row = torch.randn(2, 4, 6)
    ((gathered, _),) = normalisation.apply([ref], clips, [(one_row, torch.arange(5))])
    for layer in (0, 1):
        expected = normalisation.statistics["first", BOTH[layer]].apply(
            one_row[layer].numpy(), normalisation.groups.codes[clips]
        )
        np.testing.assert_array_equal(gathered[layer].numpy(), expected)
    ((of_views, _),) = normalisation.apply([ref], clips + len(manifest), [(one_row, torch.arange(5))])
    assert torch.equal(of_views, gathered)  # an augmented view has the speaker of its utterance


def test_a_pooled_set_has_the_statistics_that_a_probe_has(tmp_path: Path) -> None:
    store, names = FeatureStore.create(tmp_path / "store"), [f"s{i % 3}" for i in range(20)]
    x = np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32)
    spec = FeatureSpec("audio", "e", "none", ("layer_00",), 6, dtype="float32", pool="mean+std")
    with store.writer("pooled", spec) as writer:
        for i in range(20):
            writer.append(f"u{i}", x[i][None, None])
    groups = Groups.of(names)
    normalisation = Normalisation("speaker", groups, 5.0)
    normalisation.prepare(store, [FeatureRef("pooled", ("layer_00",))], [f"u{i}" for i in range(20)])
    actual, expected = normalisation.statistics["pooled", "layer_00"], GroupStatistics.of(x, groups, 5.0)
    np.testing.assert_allclose(actual.mean, expected.mean, rtol=1e-6)
    np.testing.assert_allclose(actual.inverse_std, expected.inverse_std, rtol=1e-6)


def test_a_clip_that_holds_no_numbers_is_named_before_it_spoils_its_speaker(tmp_path: Path) -> None:
    store = FeatureStore.create(tmp_path / "store")
    with store.writer("f", FeatureSpec("audio", "e", "none", ("layer_00",), 2, 50.0, dtype="float32")) as writer:
        for i in range(4):
            writer.append(f"u{i}", np.full((1, 3, 2), 1e30 if i == 2 else i, np.float32))
    normalisation = Normalisation("speaker", Groups.of(["a"] * 4), 5.0)
    with pytest.raises(ConfigError, match=r"'f', layer_00.*'u2'"):
        normalisation.prepare(store, [FeatureRef("f", ("layer_00",))], [f"u{i}" for i in range(4)])


def test_kept_statistics_are_taken_only_where_they_were_made_of_the_same(tmp_path: Path) -> None:
    _, _, normalisation, ref = of_speakers(tmp_path, 5.0)
    path, made_of = tmp_path / "kept.safetensors", {"first": "abc", "utterances": "12"}
    normalisation.save(path, [ref], made_of)
    restored = Normalisation("speaker", normalisation.groups, 5.0)
    assert restored.restore(path, [ref], made_of)
    for layer in BOTH:
        np.testing.assert_array_equal(
            restored.statistics["first", layer].mean, normalisation.statistics["first", layer].mean
        )
        np.testing.assert_allclose(
            restored.priors["first", layer][1], normalisation.priors["first", layer][1], rtol=1e-6
        )
    assert not Normalisation("speaker", normalisation.groups, 6.0).restore(path, [ref], made_of)
    assert not Normalisation("speaker", normalisation.groups, 5.0).restore(path, [ref], made_of | {"first": "abd"})
    assert not Normalisation("speaker", normalisation.groups, 5.0).restore(tmp_path / "none", [ref], made_of)


def test_without_speakers_nobody_is_normalised_by_their_own_clips(tmp_path: Path) -> None:
    assert new_groups("speaker", 3, None).codes.tolist() == [0, 0, 0]
    assert new_groups("speaker", 3, ["a", "a", "b"]).codes.tolist() == [1, 1, 0]
    assert new_groups("corpus", 3, ["a", "a", "b"]).codes.tolist() == [1, 1, 1]
    _, manifest = corpus(tmp_path)
    frame = manifest.to_arrow().to_pandas()
    with pytest.raises(ManifestError, match="'speaker'"):
        Groups.named("speaker", Manifest.from_pandas(frame.drop(columns="speaker")))
    with pytest.raises(ManifestError, match=r"[Nn]o speaker.*--normalise speaker"):
        Groups.named("speaker", Manifest.from_pandas(frame.assign(speaker="Unknown")))
