import json
from pathlib import Path

import pytest

import ensemble.recipes.demo
from ensemble.recipes.demo import forget, steps
from tests.helpers.small_corpus import copy_clips, medusa


@pytest.fixture
def small_demo(demo_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run the demo on 48 clips with members and a meta-classifier that hardly train, and return its directory."""
    corpus = copy_clips(demo_corpus, tmp_path / "corpus")
    monkeypatch.setattr(ensemble.recipes.demo, "CORPUS", corpus)
    monkeypatch.setattr(ensemble.recipes.demo, "CLIP", corpus / "Actor_04" / "03-01-05-01-01-01-04.ogg")
    monkeypatch.setattr(
        ensemble.recipes.demo, "SMALL", ensemble.recipes.demo.SMALL | {"epochs": "1", "d": "16", "stage2-epochs": "1"}
    )
    monkeypatch.setattr(ensemble.recipes.demo, "META", ensemble.recipes.demo.META | {"rounds": "1", "seeds": "2"})
    return tmp_path / "run"


@pytest.fixture
def smaller_demo(small_demo: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Leave two encoders and two members of it."""
    monkeypatch.setattr(ensemble.recipes.demo, "ENCODERS", {"tiny-hubert": "2,3", "logmel": "last"})
    monkeypatch.setattr(ensemble.recipes.demo, "MEMBERS", {"m1": "tiny-hubert,logmel", "m2": "logmel,tiny-hubert"})
    return small_demo


def test_the_demo_ends_in_table_confusion_and_prediction_and_can_be_repeated(smaller_demo: Path) -> None:
    ends_in_table_confusion_and_prediction_and_can_be_repeated(smaller_demo)


@pytest.mark.slow
def test_the_demo_of_every_encoder_and_member_does_so(small_demo: Path) -> None:
    ends_in_table_confusion_and_prediction_and_can_be_repeated(small_demo)


def ends_in_table_confusion_and_prediction_and_can_be_repeated(small_demo: Path) -> None:
    output = medusa("demo", "--directory", small_demo).stdout
    for _, arguments in steps(small_demo):
        assert f"$ medusa {arguments[0]}" in output
    table = output[output.index("$ medusa fit-meta") :]
    for row in (*ensemble.recipes.demo.MEMBERS, "probe", "majority vote", "soft vote", "meta (single)", "meta (soup)"):
        assert row in table
    assert "48 utterances scored" in table
    probe = output[output.index("$ medusa probe") : output.index("$ medusa fit-deepser")]
    assert "nested" in probe
    assert all(f"{encoder}@" in probe for encoder in ensemble.recipes.demo.ENCODERS)
    assert "03-01-05-01-01-01-04.ogg" in table[table.index("$ medusa predict") :]
    assert (small_demo / "confusion.png").exists()
    page = (small_demo / "report.html").read_text()
    assert all(name in page for name in ensemble.recipes.demo.MEMBERS)
    assert "featurize-tiny-hubert" in page  # and what it took
    (heat_map,) = json.loads(page.partition('id="data">')[2].partition("</script>")[0])["probes"]
    assert heat_map["parts"]["all folds"]["sets"] == list(ensemble.recipes.demo.ENCODERS)
    repeated = medusa("demo", "--directory", small_demo).stdout
    assert repeated.count("0 done, 48 there already") == len(ensemble.recipes.demo.ENCODERS)
    assert repeated[repeated.index("$ medusa evaluate") :] == output[output.index("$ medusa evaluate") :]


def test_fresh_forgets_only_what_the_demo_made(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "mine.txt").touch()
    (tmp_path / "runs").symlink_to(tmp_path / "elsewhere")
    forget(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_the_demo_has_four_members_and_each_reads_sets_that_it_encodes() -> None:
    assert len(ensemble.recipes.demo.MEMBERS) >= 4
    for features in ensemble.recipes.demo.MEMBERS.values():
        assert set(features.split(",")) <= set(ensemble.recipes.demo.ENCODERS)
    assert ensemble.recipes.demo.CLIP.is_file()
