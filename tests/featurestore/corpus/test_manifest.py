"""A manifest comes back from disk as it went, is addressed by name, and says by row and value what is wrong with it."""

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featurestore.corpus.manifest import LabelScheme, Manifest
from featurestore.corpus.ratings import Ratings
from featurestore.errors import ManifestError
from tests.helpers.messages import mentions

SCHEME = LabelScheme(("sad", "happy"), {"valence": (1.0, 7.0), "arousal": (0.0, 1.0)})


def table(**columns: object) -> pa.Table:
    return pa.table({"utterance_id": ["a", "b", "c"], "path": ["a.wav", "b.wav", "c.wav"], **columns})


def rated() -> Manifest:
    columns = table(
        label=["happy", None, "sad"],
        vote_happy=[2, 0, None],
        vote_sad=[1, 3, 0],
        attr_arousal=[0.25, None, 1.0],
        attr_valence=[1.0, 7.0, 4.0],
        fold=[1, 2, 3],
        split=["train", "test", None],
        snr_db=[3, 4, 5],
    )
    return Manifest(columns, SCHEME, "corpus", "rated")


def error(**columns: object) -> str:
    with pytest.raises(ManifestError) as caught:
        Manifest(table(**columns), name="bad")
    return str(caught.value)


# --- access


def test_votes_and_attributes_stand_in_the_schemes_order_not_the_tables() -> None:
    manifest = rated()
    np.testing.assert_array_equal(manifest.votes, [[1, 2], [3, 0], [0, 0]])
    np.testing.assert_array_equal(manifest.attributes, [[1.0, 0.25], [7.0, np.nan], [4.0, 1.0]])
    assert manifest.labels == ["happy", None, "sad"]


def test_names_are_strings_and_numbers_are_floats() -> None:
    manifest = rated()
    assert manifest.column("fold").tolist() == ["1", "2", "3"]
    assert manifest.column("snr_db").dtype == np.float64
    assert manifest.column("split").tolist() == ["train", "test", None]
    assert manifest.audio_path(1) == Path("corpus/b.wav")
    assert manifest.index("c") == 2
    assert len(manifest) == 3
    assert manifest.keys == ["a", "b", "c"]


def test_without_votes_or_attributes_there_are_none() -> None:
    manifest = Manifest(table())
    assert manifest.votes is None
    assert manifest.attributes.shape == (3, 0)
    assert manifest.scheme == LabelScheme()


def test_a_scheme_is_implied_by_the_columns() -> None:
    assert Manifest(table(vote_b=[1, 1, 1], vote_a=[0, 0, 1])).scheme.classes == ("b", "a")
    assert Manifest(table(label=["z", None, "y"])).scheme.classes == ("y", "z")
    assert Manifest(table(attr_valence=[1, 7, None])).scheme.attributes == {"valence": (1.0, 7.0)}


def test_rows_by_mask_and_by_index_keep_scheme_and_order() -> None:
    manifest = rated()
    assert manifest.rows(np.array([True, False, True])).keys == ["a", "c"]
    chosen = manifest.rows([2, 0])
    assert chosen.keys == ["c", "a"]
    assert chosen.index("a") == 1
    assert chosen.scheme == SCHEME
    assert len(manifest.rows([])) == 0
    with pytest.raises(ManifestError, match="distinct"):
        manifest.rows([1, 1])
    with pytest.raises(ManifestError, match="3 entries"):
        manifest.rows(np.array([True]))


def test_a_missing_column_is_named_with_the_near_ones() -> None:
    with pytest.raises(ManifestError, match=r"no column 'speaker', only .*'SpkrID'.*did you mean 'SpkrID'"):
        Manifest(table(SpkrID=["1", "2", "3"])).column("speaker")
    with pytest.raises(ManifestError, match=r"no utterance 'utt-2'.*Did you mean 'utt-1'"):
        Manifest(pa.table({"utterance_id": ["utt-1"], "text": ["x"]})).index("utt-2")
    with pytest.raises(ManifestError, match="no column 'path'"):
        Manifest(pa.table({"utterance_id": ["x"], "text": ["x"]})).audio_path(0)


def test_pandas_and_arrow_in_and_out() -> None:
    pytest.importorskip("pandas")
    manifest = rated()
    round_trip = Manifest.from_pandas(manifest.to_pandas().set_index("utterance_id"), SCHEME, "corpus")
    assert round_trip.keys == manifest.keys
    assert round_trip.column("fold").tolist() == ["1", "2", "3"]
    np.testing.assert_array_equal(round_trip.votes, manifest.votes)
    np.testing.assert_array_equal(round_trip.attributes, manifest.attributes)
    assert Manifest(manifest.to_arrow(), SCHEME).labels == manifest.labels


def test_scheme_and_root_travel_through_pandas_and_arrow() -> None:
    pytest.importorskip("pandas")
    manifest = rated()
    df = manifest.to_pandas()
    for derived in (Manifest.from_pandas(df[df.snr_db < 5]), Manifest.from_arrow(manifest.to_arrow().slice(0, 2))):
        assert derived.keys == ["a", "b"]
        assert derived.scheme == SCHEME
        assert derived.audio_path(0) == Path("corpus").absolute() / "a.wav"
    other_scheme = LabelScheme(("sad", "happy"), {"valence": (0.0, 9.0), "arousal": (0.0, 1.0)})
    assert Manifest.from_pandas(df, other_scheme, "elsewhere").scheme == other_scheme
    assert Manifest.from_pandas(df, root="elsewhere").audio_path(0) == Path("elsewhere/a.wav")


# --- ratings

RATINGS = Ratings.of(["c", "a", "a", "gone"], ["w1", "w1", "w2", "w1"], ["sad", "happy", "sad", "sad"])


def with_ratings() -> Manifest:
    return Manifest(table(), LabelScheme(("sad", "happy")), ratings=RATINGS)


def test_ratings_stand_in_the_order_of_the_rows() -> None:
    manifest = with_ratings()
    assert manifest.ratings is not None
    np.testing.assert_array_equal(manifest.ratings.counts(["sad", "happy"]), [[1, 1], [0, 0], [1, 0]])
    chosen = manifest.rows([2, 0])
    np.testing.assert_array_equal(chosen.ratings.counts(["sad", "happy"]), [[1, 0], [1, 1]])
    assert rated().ratings is None
    changed = manifest.with_table(manifest.to_arrow().append_column("note", pa.array(["x", "y", "z"])))
    assert changed.has("note")
    assert len(changed.ratings) == 3


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_ratings_are_kept_beside_the_manifest(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"m{suffix}"
    with_ratings().write(path)
    reread = Manifest.read(path)
    assert reread.ratings is not None
    assert reread.ratings.annotators == ("w1", "w2")
    np.testing.assert_array_equal(reread.ratings.counts(["sad", "happy"]), [[1, 1], [0, 0], [1, 0]])
    Manifest(table()).write(path)
    assert Manifest.read(path).ratings is None, "another manifest of that name must not find the former one's ratings"


# --- on disk

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
KEYS = st.lists(TEXT.filter(lambda key: key.strip() != ""), min_size=1, max_size=6, unique=True)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@given(keys=KEYS, data=st.data())
def test_any_key_text_and_number_comes_back(tmp_path_factory: pytest.TempPathFactory, suffix, keys, data) -> None:
    def column(values: st.SearchStrategy) -> list:
        return data.draw(st.lists(values, min_size=len(keys), max_size=len(keys)))

    numbers = column(st.none() | st.floats(0, 1e300))
    columns = {
        "utterance_id": pa.array(keys, pa.string()),
        "text": pa.array([text or "." for text in column(TEXT)], pa.string()),
        "label": pa.array(column(st.none() | st.sampled_from(["sad", "happy"])), pa.string()),
        "vote_happy": pa.array(numbers, pa.float64()),
        "vote_sad": pa.array(column(st.integers(0, 9)), pa.int64()),
    }
    manifest = Manifest(pa.table(columns), LabelScheme(("sad", "happy")))
    path = tmp_path_factory.mktemp("m") / f"m{suffix}"
    manifest.write(path)
    reread = Manifest.read(path)
    assert reread.scheme == manifest.scheme
    assert reread.keys == keys
    assert reread.texts == manifest.texts
    assert reread.labels == manifest.labels
    np.testing.assert_array_equal(reread.column("vote_happy"), manifest.column("vote_happy"))
    np.testing.assert_array_equal(reread.votes, manifest.votes)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_everything_about_a_manifest_comes_back(tmp_path: Path, suffix: str) -> None:
    manifest = rated()
    manifest.root = tmp_path
    manifest.write(tmp_path / f"m{suffix}")
    reread = Manifest.read(tmp_path / f"m{suffix}")
    assert reread.scheme == SCHEME
    assert reread.columns == manifest.columns
    assert reread.name == "m"
    np.testing.assert_array_equal(reread.attributes, manifest.attributes)
    assert reread.audio_path(0) == tmp_path / "a.wav"
    # A parquet file carries its scheme; a table that lost its sidecar is read by what its columns imply.
    os.unlink(tmp_path / "m.scheme.json")
    implied = Manifest.read(tmp_path / f"m{suffix}").scheme if suffix == ".parquet" else None
    assert implied in (SCHEME, None)


def test_audio_paths_hold_from_wherever_the_manifest_is_written(tmp_path: Path) -> None:
    corpus = tmp_path / "data" / "corpus"
    corpus.mkdir(parents=True)
    manifest = Manifest(table(), root=corpus)
    for name in ("data/corpus/m.csv", "data/m.csv", "m.csv", "data/corpus/lists/m.csv", "elsewhere/m.csv"):
        path = tmp_path / name
        manifest.write(path)
        reread = Manifest.read(path)
        assert os.path.normpath(reread.audio_path(0)) == str(corpus / "a.wav")
        assert os.path.isabs(reread.column("path")[0]) == (name == "elsewhere/m.csv")


def test_a_byte_order_mark_is_not_part_of_the_first_name(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_bytes("\ufeffutterance_id,text\né,grüß\n".encode())
    assert Manifest.read(tmp_path / "m.csv").keys == ["é"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    Manifest(table(), root=tmp_path).write(path)
    before = path.read_bytes()
    with pytest.raises(ManifestError, match=r"\['strange'\] hold lists.*\.parquet"):
        Manifest(table(strange=[["no"], ["csv"], ["cells"]]), root=tmp_path).write(path)
    with pytest.raises(ManifestError, match="can't be written"):
        Manifest(table(), root=tmp_path).write(path / "below_a_file.csv")
    with pytest.raises(ManifestError, match=r"\.csv.*\.parquet.*'\.txt'"):
        Manifest(table(), root=tmp_path).write(tmp_path / "m.txt")
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.csv", "m.scheme.json"]


# --- what is wrong


def test_each_kind_of_bad_row_is_named_by_row_and_value() -> None:
    repeated = error(utterance_id=["a", "b", "a"])
    assert mentions(repeated, "utterance_id", "repeats", "1 row", "row 3 'a'")
    assert mentions(error(utterance_id=[None, " ", "c"]), "utterance_id", "empty", "2 rows", "row 1", "row 2")
    assert mentions(error(vote_x=[1, -1, 0]), "vote_x", "0 or more", "1 row", "row 2 -1.0")
    assert mentions(error(vote_x=["1", "", "many"]), "vote_x", "number", "1 row", "row 3 'many'")
    assert mentions(error(vote_x=[1.0, float("inf"), 2.0]), "vote_x", "number", "1 row", "row 2 inf")
    assert mentions(error(attr_v=[0.5, 1, 7]), "attr_v", "1 to 7", "1 row", "row 1 0.5")
    assert mentions(error(duration_s=[1, 1, -2]), "duration_s", "0 or more", "1 row", "row 3 -2.0")
    assert mentions(error(path=["a", None, "c"]), "path", "text", "1 row", "row 2")
    unknown = error(split=["train", "training", "Test1"])
    assert mentions(unknown, "split", "row 2 'training'", "row 3 'Test1'")
    with pytest.raises(ManifestError, match=r"label.*\['sad', 'happy'\] \(1 row\): row 1 'angry'"):
        Manifest(table(label=["angry", "sad", None]), LabelScheme(("sad", "happy")))


def test_all_problems_come_at_once_and_long_lists_are_cut() -> None:
    ids = [f"u{i}" for i in range(100)]
    columns = {"utterance_id": ids, "text": ids, "vote_a": [-1] * 100, "duration_s": ["x"] * 100}
    with pytest.raises(ManifestError) as caught:
        Manifest(pa.table(columns))
    message = str(caught.value)
    assert "has 2 problems" in message
    assert message.count("and 90 more") == 2


def test_whole_tables_that_are_no_manifest() -> None:
    with pytest.raises(ManifestError, match=r"no column 'utterance_id', only 'FileName'.*did you mean 'FileName'"):
        Manifest(pa.table({"FileName": ["a"]}))
    with pytest.raises(ManifestError, match=r"'path'.*'text'"):
        Manifest(pa.table({"utterance_id": ["a"]}))
    with pytest.raises(ManifestError, match="has no rows"):
        Manifest(table().slice(0, 0))


def test_the_scheme_and_the_columns_must_agree() -> None:
    with pytest.raises(ManifestError, match=r"vote.*\['a', 'b'\].*\['a'\]"):
        Manifest(table(vote_a=[1, 1, 1]), LabelScheme(("a", "b")))
    with pytest.raises(ManifestError, match=r"attr_ .*\['arousal'\].*\[\]"):
        Manifest(table(), LabelScheme((), {"arousal": (1, 7)}))
    with pytest.raises(ManifestError, match="distinct names"):
        LabelScheme(("a", "a"))
    with pytest.raises(ManifestError, match="low < high"):
        LabelScheme((), {"arousal": (7, 1)})


BAD_FILES = {
    "empty.csv": (b"", "no header"),
    "latin.csv": ("utterance_id,text\na,grüß\n".encode("latin-1"), "Save it again as UTF-8"),
    "semicolons.csv": (b"utterance_id;text\na;b\n", "separated by semicolons, expected commas.*prepare csv"),
    "twice.csv": (b"utterance_id,text,text\na,b,c\n", "columns of the same name: 'text'"),
    "ragged.csv": (b"utterance_id,text\na,b\nc\nd,e,f\n", "2 rows .* 2 cells .row 2 has 1: 'c'; row 3 has 3: 'd,e,f'"),
    "not.parquet": (b"PAR1 no", "can't be read as parquet"),
    "table.xlsx": (b"PK", "ends in .csv or .parquet, found '.xlsx'"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_file_that_is_no_table_is_named_with_the_reason(tmp_path: Path, name: str) -> None:
    content, expected = BAD_FILES[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ManifestError, match=expected) as caught:
        Manifest.read(tmp_path / name)
    assert name in str(caught.value)


def test_a_scheme_says_what_became_of_the_corpus_labels(tmp_path: Path) -> None:
    scheme = LabelScheme(("sad", "happy"), corpus_labels={"sad": "sad", "hap": "happy", "exc": "happy", "xxx": None})
    Manifest(table(), scheme).write(tmp_path / "m.csv")
    assert Manifest.read(tmp_path / "m.csv").scheme == scheme
    with pytest.raises(ManifestError, match=r"'exc'.*'glad'.*\['sad'\]"):
        LabelScheme(("sad",), corpus_labels={"exc": "glad"})


def test_missing_files_and_bad_sidecars_are_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"gone\.csv"):
        Manifest.read(tmp_path / "gone.csv")
    with pytest.raises(ManifestError, match="is a directory"):
        Manifest.read(tmp_path)
    (tmp_path / "m.csv").write_text("utterance_id,text\na,b\n")
    for content in ("{", "[]", '{"classes": ["a"], "attributes": {"v": [1]}}', '{"classes": [], "colours": {}}'):
        (tmp_path / "m.scheme.json").write_text(content)
        with pytest.raises(ManifestError, match=r"m\.scheme\.json: .*JSON"):
            Manifest.read(tmp_path / "m.csv")
