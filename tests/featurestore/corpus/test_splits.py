"""Parts of a corpus are pure functions of manifest and seed, keep together what belongs together, and are balanced."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepser.members.folds import plan_folds
from featurestore.corpus.manifest import LabelScheme, Manifest
from featurestore.corpus.splits import (
    assign_balanced_sets,
    assign_folds,
    balanced_sets,
    deal,
    given_parts,
    group_folds,
    hold_out,
    speaker_groups,
    with_column,
)
from featurestore.errors import ManifestError
from tests.helpers.small_corpus import medusa

SCHEME = LabelScheme(("sad", "happy", "angry"))


def corpus(n: int = 600, n_speakers: int = 40, seed: int = 0, **columns: list) -> Manifest:
    """n utterances; speakers talk unequally much and each has classes of their own liking."""
    rng = np.random.default_rng(seed)
    speaker = np.minimum(rng.geometric(2 / n_speakers, n), n_speakers)
    liking = rng.dirichlet(np.ones(3), n_speakers + 1)
    label = [SCHEME.classes[rng.choice(3, p=liking[s])] for s in speaker]
    table = {
        "utterance_id": [f"u{i}" for i in range(n)],
        "path": [f"{i}.wav" for i in range(n)],
        "speaker": [f"s{s}" for s in speaker],
        "session": [f"{s % 5}" for s in speaker],
        "label": label,
        **columns,
    }
    return Manifest(pa.table(table), SCHEME)


def per_part(manifest: Manifest, column: str) -> dict[str, set[str]]:
    """Return the speakers of each part."""
    parts: dict[str, set[str]] = {}
    for part, speaker in zip(manifest.column(column), manifest.column("speaker"), strict=True):
        parts.setdefault(part, set()).add(speaker)
    return parts


# --- literal orders: they must never change, or no published run can be repeated

SPEAKERS = ["a", "a", "a", "b", "b", "c", "c", "d", "e", "f"]
LABELS = np.array([0, 0, 1, 1, 1, 0, 2, 2, 0, 1])


def test_literal_parts_are_pinned() -> None:
    assert group_folds(SPEAKERS, 3, seed=0).tolist() == [0, 0, 0, 2, 2, 1, 1, 0, 2, 1]
    assert group_folds(SPEAKERS, 3, seed=1).tolist() == PINNED_FOLDS_OF_SEED_1
    assert group_folds(SPEAKERS, 3, seed=0, labels=LABELS).tolist() == PINNED_LABELLED
    assert deal(SPEAKERS, (0.8, 0.2), seed=0).tolist() == PINNED_SHARES
    assert [sorted(drawn.tolist()) for drawn in balanced_sets(LABELS, seed=0, n_sets=2)] == PINNED_SETS
    manifest = corpus(12, 6)
    assert "".join(assign_folds(manifest, 3).column("fold")) == PINNED_CORPUS_FOLDS
    assert "".join(name[0] for name in hold_out(manifest, 0.25).column("split")) == PINNED_CORPUS_SPLIT


# --- folds


@given(n_speakers=st.integers(2, 12), n_folds=st.integers(2, 4), seed=st.integers(0, 9), labelled=st.booleans())
def test_no_speaker_is_in_two_folds(n_speakers: int, n_folds: int, seed: int, labelled: bool) -> None:
    speakers = [f"s{i % n_speakers}" for i in range(60)]
    labels = np.random.default_rng(seed).integers(-1, 3, 60) if labelled else None
    folds = group_folds(speakers, n_folds, seed=seed, labels=labels)
    assert all(len(set(folds[[s == name for s in speakers]])) == 1 for name in set(speakers))
    assert len(set(folds.tolist())) == min(n_folds, n_speakers)


def test_folds_are_balanced_in_size_and_classes() -> None:
    manifest = corpus(3000, 60)
    folds = assign_folds(manifest, 5)
    assert sorted(per_part(folds, "fold")) == ["1", "2", "3", "4", "5"]
    groups = list(per_part(folds, "fold").values())
    assert sum(map(len, groups)) == len(set().union(*groups))
    labels, fold = np.array(folds.labels), folds.column("fold")
    spread = [np.ptp([((labels == c) & (fold == f)).sum() for f in "12345"]) for c in SCHEME.classes]
    by_size = group_folds(speaker_groups(manifest).tolist(), 5)
    unaware = [np.ptp([((labels == c) & (by_size == f)).sum() for f in range(5)]) for c in SCHEME.classes]
    assert max(spread) < min(unaware)
    assert max(spread) < 0.15 * len(manifest) / 15
    assert np.ptp([(fold == f).sum() for f in "12345"]) < 0.05 * len(manifest) / 5


def test_folds_by_session_utterance_or_any_column() -> None:
    manifest = corpus()
    by_session = assign_folds(manifest, 5, by="session")
    pairs = set(zip(by_session.column("fold"), by_session.column("session"), strict=True))
    assert len(pairs) == 5
    assert len(set.intersection(*per_part(assign_folds(manifest, 2, by="utterance"), "fold").values())) > 10
    with pytest.raises(ManifestError, match="no column 'dialogue'"):
        assign_folds(manifest, 5, by="dialogue")
    with pytest.raises(ManifestError, match=r"session is empty \(1 row\): row 1"):
        assign_folds(with_column(manifest, "session", [None, *["1"] * 599]), 5, by="session")
    with pytest.raises(ManifestError, match=r"5 groups.*session.* 6 folds"):
        assign_folds(manifest, 6, by="session")


def test_an_unknown_speaker_is_nobody_else() -> None:
    manifest = corpus(6, speaker=["Unknown", None, "", "s1", "s1", "Unknown"])
    assert speaker_groups(manifest).tolist() == ["u:u0", "u:u1", "u:u2", "s:s1", "s:s1", "u:u5"]


def test_the_same_seed_gives_the_same_folds_and_another_others() -> None:
    first, repeated, other_seed = (assign_folds(corpus(), 4, seed=seed).column("fold").tolist() for seed in (3, 3, 4))
    assert first == repeated
    assert first != other_seed


def test_folds_within_train_are_what_a_member_is_trained_on() -> None:
    manifest = hold_out(corpus(split=["train"] * 500 + ["test"] * 100), 0.2)
    folded = assign_folds(manifest, 3, within=["train"])
    train = folded.column("split") == "train"
    assert all((fold is not None) == learns for fold, learns in zip(folded.column("fold"), train, strict=True))
    plan = plan_folds(folded, cv="fold")
    assert plan.names == ("1", "2", "3")
    assert ((plan.folds >= 0) == train).all()
    for fold in range(3):
        assert train[plan.train_at(fold)].all()
        assert set(np.flatnonzero(~train)) <= set(plan.judged_at(fold).tolist())
    folds = folded.column("fold")
    folds[np.flatnonzero(train)[0]] = None
    with pytest.raises(ManifestError, match=r"training.*fold"):
        plan_folds(with_column(folded, "fold", folds.tolist()), cv="fold")


# --- held-out part


def test_a_tenth_is_held_out_with_the_classes_of_the_whole() -> None:
    manifest = corpus(3000, 120)
    cut = hold_out(manifest, 0.1)
    split, labels = cut.column("split"), np.array(cut.labels)
    assert (split == "development").mean() == pytest.approx(0.1, abs=0.01)
    for name in SCHEME.classes:
        assert (labels[split == "development"] == name).mean() == pytest.approx((labels == name).mean(), abs=0.03)
    assert not set.intersection(*per_part(cut, "split").values())
    freely = hold_out(manifest, 0.1, by="utterance").column("split")
    assert (freely == "development").sum() == pytest.approx(300, abs=2)


def test_what_is_not_train_stays_where_it_is() -> None:
    splits = ["train"] * 300 + ["development"] * 100 + ["test1"] * 200
    cut = hold_out(corpus(split=splits), 0.1)
    assert cut.column("split").tolist()[300:] == splits[300:]
    assert set(cut.column("split").tolist()[:300]) == {"train", "development"}
    assert cut.column("split_was").tolist() == splits
    pooled = hold_out(corpus(split=splits), 0.1, within=["train", "development"])
    assert (pooled.column("split")[:400] == "development").sum() == pytest.approx(40, abs=10)
    with pytest.raises(ManifestError, match=r"test2.*development, test1, train"):
        hold_out(corpus(split=splits), 0.1, within=["test2"])
    for share in (0.0, 1.0):
        with pytest.raises(ManifestError, match="between 0 and 1"):
            hold_out(corpus(), share)
    with pytest.raises(ManifestError, match=r"10\.0%.* 1 group"):
        hold_out(corpus(4, speaker=["s"] * 4), 0.1)


# --- balanced sets


def test_balanced_sets_have_every_class_equally_often() -> None:
    manifest = assign_balanced_sets(hold_out(corpus(), 0.3), 4)
    column, labels = manifest.column("balanced_sets"), np.array(manifest.labels)
    held_out = manifest.column("split") == "development"
    rarest = min((labels[held_out] == name).sum() for name in SCHEME.classes)
    members = [np.array([str(k) in (sets or "").split(";") for sets in column]) for k in range(1, 5)]
    for member in members:
        assert not (member & ~held_out).any()
        assert [(labels[member] == name).sum() for name in SCHEME.classes] == [rarest] * 3
    assert len({tuple(member) for member in members}) == 4
    assert assign_balanced_sets(manifest, 4).column("balanced_sets").tolist() == column.tolist()
    with pytest.raises(ManifestError, match="need labels or votes"):
        assign_balanced_sets(Manifest(pa.table({"utterance_id": ["a"], "text": ["x"]})), within=())


def test_votes_stand_in_for_labels() -> None:
    table = pa.table(
        {"utterance_id": list("abcd"), "text": list("abcd"), "vote_x": [2, 1, 0, 1], "vote_y": [0, 3, 2, 1]}
    )
    column = assign_balanced_sets(Manifest(table), 2, within=()).column("balanced_sets")
    assert column[0] == "1;2"
    assert column[3] is None


# --- given partitions, columns, commands


def test_given_partitions_are_taken_over(tmp_path: Path) -> None:
    manifest = corpus(3)
    table = pa.table({"utterance_id": ["u2", "u9", "u0", "u1"], "split": ["Test1", "Train", "Train", "Validation"]})
    parted = given_parts(manifest, table)
    assert parted.column("split").tolist() == ["train", "development", "test1"]
    assert parted.notes == ["1 utterances of partitions are not in the manifest"]
    with pytest.raises(ManifestError, match=r"partitions: .*\(1 row\): row 2 'u1'"):
        given_parts(manifest, table.slice(0, 3))
    with pytest.raises(ManifestError, match="unknown split"):
        given_parts(manifest, pa.table({"utterance_id": ["u0", "u1", "u2"], "split": ["train", "train", "held"]}))
    with pytest.raises(ManifestError, match="repeats an earlier row"):
        given_parts(manifest, pa.table({"utterance_id": ["u0", "u1", "u2", "u2"], "fold": [1, 2, 3, 1]}))
    with pytest.raises(ManifestError, match="utterance_id and split or fold"):
        given_parts(manifest, pa.table({"utterance_id": ["u0"]}))


def test_splits_that_are_numbers_are_refused_with_an_option_that_works(tmp_path: Path) -> None:
    path, parts = tmp_path / "corpus.csv", tmp_path / "parts.csv"
    corpus(3).write(path)
    parts.write_text("utterance_id,split\nu0,0\nu1,1\nu2,2\n")
    refused = medusa("split", path, "-o", path, "--given", parts, exit_code=2).stderr
    remedy = "--split-name 0=train --split-name 1=development --split-name 2=test"
    assert f"{parts}: unknown split '0', '1', '2'" in " ".join(refused.split())
    assert remedy in " ".join(refused.split())
    medusa("split", path, "-o", path, "--given", parts, *remedy.split())
    assert Manifest.read(path).column("split").tolist() == ["train", "development", "test"]
    assert "no split" in medusa("split", path, "-o", path, "--given", parts, "--split-name", "0=a", exit_code=2).stderr
    assert "--given" in medusa("split", path, "-o", path, "--split-name", "0=train", "--folds", "2", exit_code=2).stderr


def test_a_manifest_whose_splits_are_numbers_names_the_command_that_takes_them(tmp_path: Path) -> None:
    path, mended = tmp_path / "corpus.csv", tmp_path / "mended.csv"
    path.write_text("utterance_id,text,label,split\nu0,x,a,0\nu1,y,a,2\n")
    with pytest.raises(ManifestError, match="medusa prepare csv TABLE --split-name"):
        Manifest.read(path)
    medusa("prepare", "csv", path, "-o", mended, "--split-name", "0=train", "--split-name", "2=test")
    assert Manifest.read(mended).column("split").tolist() == ["train", "test"]


def test_a_column_that_changes_leaves_its_former_values() -> None:
    manifest = corpus(3, fold=["1", "2", "3"])
    assert "fold_was" not in with_column(manifest, "fold", ["1", "2", "3"]).columns
    changed = with_column(with_column(manifest, "fold", ["a", "b", "c"]), "fold", ["x", "y", "z"])
    assert changed.column("fold_was").tolist() == ["a", "b", "c"]
    assert changed.column("fold").tolist() == ["x", "y", "z"]


def test_split_writes_what_it_shows(tmp_path: Path) -> None:
    path, out = tmp_path / "corpus.csv", tmp_path / "parted.csv"
    corpus().write(path)
    output = medusa(
        "split", path, "-o", out, "--hold-out", "0.2", "--folds", "3", "--balanced-sets", "2", "--seed", "7"
    ).stdout
    parted = Manifest.read(out)
    expected = assign_balanced_sets(
        assign_folds(hold_out(corpus(), 0.2, seed=7), 3, within=["train"], seed=7), 2, seed=7
    )
    for column in ("split", "fold", "balanced_sets"):
        assert parted.column(column).tolist() == expected.column(column).tolist()
    n_development = (parted.column("split") == "development").sum()
    assert any(line.split()[:2] == ["development", str(n_development)] for line in output.splitlines())
    (tmp_path / "parts.csv").write_text("utterance_id,fold\n" + "".join(f"u{i},{i % 2}\n" for i in range(600)))
    medusa("split", path, "-o", path, "--given", tmp_path / "parts.csv")
    assert Manifest.read(path).column("fold").tolist()[:3] == ["0", "1", "0"]
    assert "Nothing to do" in medusa("split", path, "-o", out, exit_code=2).stderr
    assert "can't make 50 folds" in medusa("split", path, "-o", out, "--folds", "50", exit_code=2).stderr


PINNED_FOLDS_OF_SEED_1 = [0, 0, 0, 2, 2, 1, 1, 0, 2, 1]
PINNED_LABELLED = [0, 0, 0, 2, 2, 1, 1, 0, 2, 1]
PINNED_SHARES = [0, 0, 0, 1, 1, 0, 0, 0, 0, 0]
PINNED_SETS = [[3, 5, 6, 7, 8, 9], [0, 1, 3, 6, 7, 9]]
PINNED_CORPUS_FOLDS = "211123233321"
PINNED_CORPUS_SPLIT = "dtttttdtdttt"


def test_folds_of_a_corpus_without_speakers_name_the_options_that_divide_it() -> None:
    table = pa.table({"utterance_id": ["a", "b"], "text": ["a", "b"], "label": ["sad", "sad"], "actor": ["1", "2"]})
    with pytest.raises(ManifestError, match=r"'actor'.*--by COLUMN.*--by utterance"):
        assign_folds(Manifest(table), 2)


def test_the_corpus_table_is_named_once_alone_or_by_its_option(tmp_path: Path) -> None:
    table = pa.table({"utterance_id": list("abcd"), "text": list("abcd"), "speaker": list("stuv")})
    Manifest(table, root=tmp_path).write(tmp_path / "m.csv")
    medusa("split", "-m", tmp_path / "m.csv", "-o", tmp_path / "option.csv", "--folds", "2")
    medusa("split", tmp_path / "m.csv", "-o", tmp_path / "alone.csv", "--folds", "2")
    assert (tmp_path / "option.csv").read_bytes() == (tmp_path / "alone.csv").read_bytes()
    result = medusa("split", tmp_path / "m.csv", "-m", tmp_path / "m.csv", "-o", tmp_path / "x.csv", exit_code=2)
    assert "--manifest" in result.stderr
