"""Durations, and what utterances were made from, go out of a store and come back with the rows."""

from dataclasses import replace
from itertools import product
from math import nan
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from featurestore.errors import StoreError
from featurestore.format.identity import Identity
from featurestore.format.spec import FeatureSpec
from featurestore.interchange import EXPORTED
from featurestore.interchange.description import Description
from featurestore.interchange.exporting import export_features
from featurestore.interchange.importing import import_features
from featurestore.interchange.origins import NO_ORIGINS, place_of
from featurestore.sets.feature_set import FeatureSet
from featurestore.store.feature_store import FeatureStore
from tests.helpers.messages import mentions

SPEC = FeatureSpec("audio", "e", "none", ("layer_06",), 3, 50.0)
RECORDED = {
    "a/é": (1.5, Identity(b"1" * 16, b"2" * 16, 48_044, 1_700_000_000_123_456_789, 0.25, nan, 1.5, "soundfile 0.13")),
    "b": (nan, Identity(b"3" * 16)),
    "c": (2.0, None),
}


def filled(store: FeatureStore, origins: bool = True) -> FeatureSet:
    with store.writer("set", SPEC) as writer:
        for key, (duration_s, identity) in RECORDED.items():
            rows = np.ones((1, 2, 3), np.float32)
            writer.append(key, rows, *((duration_s, identity) if origins else ()))
    return store["set"]


@pytest.mark.parametrize("format_name", EXPORTED)
@pytest.mark.parametrize("container", ["zarr", "hdf5"])
def test_an_export_and_its_import_keep_durations_and_identities(
    format_name: str, container: str, tmp_path: Path
) -> None:
    export_features(filled(FeatureStore.create(tmp_path / "a")), format_name, tmp_path / "out")
    into = FeatureStore.create(tmp_path / "b")
    report = import_features(into, "set", format_name, tmp_path / "out", Description("e"), container=container)
    assert (report.done, report.notes) == (3, [])
    keys = list(RECORDED)
    np.testing.assert_array_equal(into["set"].durations_s(keys), [duration_s for duration_s, _ in RECORDED.values()])
    identities = into["set"].identities(keys)
    assert identities.recorded.tolist() == [True, True, False]
    for i, (_, identity) in enumerate(RECORDED.values()):
        np.testing.assert_equal(vars(identities[i]), vars(identity or Identity()))


def test_one_utterance_of_many_that_was_encoded_again_is_exported_again_and_not_taken_for_what_was_imported(
    tmp_path: Path,
) -> None:
    sets, keys = [], [f"u{i:03d}" for i in range(100)]
    for name, value in (("before", 1), ("after", 2)):
        with FeatureStore.create(tmp_path / name).writer("set", SPEC) as writer:
            for key in keys:
                number = value if key == "u041" else 1
                identity = Identity(bytes([number]) * 16, decoder="soundfile 0.13")
                writer.append(key, np.full((1, 2, 3), number, np.float32), 1.0, identity)
        sets.append(FeatureStore.open(tmp_path / name)["set"])
    before, after = sets
    out, into = tmp_path / "out", FeatureStore.create(tmp_path / "imported")
    export_features(before, "npy", out)
    assert import_features(into, "set", "npy", out, Description("e")).done == 100
    written = export_features(after, "npy", out, resume=True)
    assert (written.done, written.skipped) == (1, 99)
    assert mentions(written.notes[0], 1, "'u041'")
    assert np.load(out / "u041.npy")[0, 0] == 2
    with pytest.raises(StoreError, match=r"other rows for 'u041' than .*u041\.npy"):
        import_features(into, "set", "npy", out, Description("e"))
    assert export_features(after, "npy", out, resume=True).skipped == 100


@pytest.mark.parametrize("format_name", EXPORTED)
def test_an_import_of_an_export_knows_what_the_rows_are_and_options_say_otherwise(
    format_name: str, tmp_path: Path
) -> None:
    columns, extra = ("sad", "glad"), {"oof": "fold", "adapted": "speaker"}
    spec = FeatureSpec("posteriors", "e", "none", ("posteriors",), 2, dtype="float32", columns=columns, extra=extra)
    store = FeatureStore.create(tmp_path / "a")
    with store.writer("p", spec) as writer:
        writer.append("k", np.array([[[0.25, 0.75]]], np.float32), 1.5)
    pooled = FeatureSpec("text", "e", "none", ("layer_06",), 4, 0.0, pool="mean+std", source="transcripts:x")
    with store.writer("q", pooled) as writer:
        writer.append("k", np.ones((1, 1, 4), np.float32), 1.5)
    into = FeatureStore.create(tmp_path / "b")
    for name, layer in (("p", "posteriors"), ("q", "layer_06")):
        export_features(store[name], format_name, tmp_path / name / "out")
        layers = {} if format_name in ("hdf5", "safetensors") else {layer: ""}
        report = import_features(into, name, format_name, tmp_path / name / "out", Description("e"), layers=layers)
        assert into[name].spec == replace(store[name].spec, weights="imported")
        assert "--kind" in report.notes[0]
    described = Description("e", kind="audio", pool="none")
    assert import_features(into, "r", format_name, tmp_path / "q" / "out", described).notes == []
    assert (into["r"].spec.kind, into["r"].spec.pool) == ("audio", "none")


@pytest.mark.parametrize("format_name", EXPORTED)
def test_the_only_layer_of_an_export_keeps_its_name(format_name: str, tmp_path: Path) -> None:
    store, into = FeatureStore.create(tmp_path / "a"), FeatureStore.create(tmp_path / "b")
    with store.writer("set", replace(SPEC, layers=("layer_03", "layer_06"))) as writer:
        writer.append("k", np.stack([np.zeros((2, 3), np.float32), np.ones((2, 3), np.float32)]), 1.5)
    export_features(store["set"], format_name, tmp_path / "out", layers=["layer_06"])
    import_features(into, "set", format_name, tmp_path / "out", Description("e"))
    assert into["set"].layers == ("layer_06",)
    assert into["set"].array("k", "layer_06").all()
    layers = {} if format_name in ("hdf5", "safetensors") else {"mine": ""}
    import_features(into, "named", format_name, tmp_path / "out", Description("e"), layers=layers)
    assert into["named"].layers == (("mine",) if layers else ("layer_06",))


def test_an_export_without_a_record_says_how_to_import_it(tmp_path: Path) -> None:
    store = FeatureStore.create(tmp_path / "a")
    spec = FeatureSpec("posteriors", "e", "none", ("posteriors",), 2, dtype="float32", columns=("sad", "glad"))
    with store.writer("p", spec) as writer:
        writer.append("k", np.array([[[0.25, 0.75]]], np.float32))
    notes = export_features(store["p"], "npy", tmp_path / "out").notes
    assert "--kind posteriors --columns sad,glad" in notes[0]


def test_directories_of_layers_are_not_taken_for_a_part_of_the_ids(tmp_path: Path) -> None:
    store, layers = FeatureStore.create(tmp_path / "a"), ("layer_02", "layer_06")
    with store.writer("set", replace(SPEC, layers=layers)) as writer:
        for key, origin in RECORDED.items():
            writer.append(key, np.arange(12, dtype=np.float32).reshape(2, 2, 3), *origin)
    export_features(store["set"], "npy", tmp_path / "out")
    into = FeatureStore.create(tmp_path / "b")
    with pytest.raises(StoreError, match="--layer layer_02=layer_02 --layer layer_06=layer_06"):
        import_features(into, "set", "npy", tmp_path / "out", Description("e"))
    assert "set" not in into
    import_features(into, "set", "npy", tmp_path / "out", Description("e"), layers={layer: layer for layer in layers})
    for key, layer in product(RECORDED, layers):
        np.testing.assert_array_equal(into["set"].array(key, layer), store["set"].array(key, layer))
    alone = import_features(into, "alone", "npy", tmp_path / "out" / "layer_06", Description("e"))
    assert alone.done == 3


def test_a_source_without_them_says_so_once(tmp_path: Path) -> None:
    export_features(filled(FeatureStore.create(tmp_path / "a"), origins=False), "npy", tmp_path / "out")
    assert not place_of(tmp_path / "out").exists()
    report = import_features(FeatureStore.create(tmp_path / "b"), "s", "npy", tmp_path / "out", Description("e"))
    assert report.notes.count(NO_ORIGINS) == 1


def test_an_export_over_another_leaves_no_record_of_the_other(tmp_path: Path) -> None:
    target = tmp_path / "out.h5"
    export_features(filled(FeatureStore.create(tmp_path / "a")), "hdf5", target)
    assert place_of(target).is_file()
    plain = filled(FeatureStore.create(tmp_path / "b"), origins=False)
    export_features(plain, "hdf5", target, overwrite=True)
    assert not place_of(target).exists()


def test_keys_without_their_directories_keep_the_record(tmp_path: Path) -> None:
    export_features(filled(FeatureStore.create(tmp_path / "a")), "npy", tmp_path / "out")
    into = FeatureStore.create(tmp_path / "b")
    import_features(into, "s", "npy", tmp_path / "out", Description("e"), flatten=True)
    assert into["s"].durations_s(["é"])[0] == 1.5
    (tmp_path / "out" / "x").mkdir()
    np.save(tmp_path / "out" / "x" / "é.npy", np.zeros((1, 3), np.float16))  # of another tool, added later
    import_features(into, "t", "npy", tmp_path / "out", Description("e"))
    assert not into["t"].identities(["x/é"]).recorded.any()
    assert into["t"].durations_s(["a/é"])[0] == 1.5


@pytest.mark.parametrize("damage", ["bytes", "columns", "digest"])
def test_a_damaged_record_is_named_and_nothing_is_written(damage: str, tmp_path: Path) -> None:
    export_features(filled(FeatureStore.create(tmp_path / "a")), "npy", tmp_path / "out")
    record = place_of(tmp_path / "out")
    if damage == "bytes":
        record.write_bytes(b"PAR1 no")
    else:
        table = parquet.read_table(record)
        place = table.column_names.index("digest")
        bad = pa.array(["zz"] * len(table))
        table = table.drop_columns(["digest"]) if damage == "columns" else table.set_column(place, "digest", bad)
        parquet.write_table(table, record)
    into = FeatureStore.create(tmp_path / "b")
    with pytest.raises(StoreError, match=record.name):
        import_features(into, "s", "npy", tmp_path / "out", Description("e"))
    assert "s" not in into
