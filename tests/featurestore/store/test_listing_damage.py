"""`medusa store ls` shows what is damaged, and still lists the rest."""

import json
from pathlib import Path

import pytest

from featurestore.errors import StoreError
from featurestore.format.segment_writer import SegmentWriter
from featurestore.store.feature_store import FeatureStore
from featurestore.transfer.copy import push
from tests.helpers.small_corpus import medusa
from tests.helpers.small_store import SPEC, key, rows


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "store"
    for name in ("damaged", "group/whole", "whole"):
        opened = FeatureStore.open_or_create(path)
        with opened.writer(name, SPEC) as writer:
            writer.append(key(1), rows(1))
    return path


def test_ls_shows_a_set_whose_metadata_cannot_be_parsed(store: Path) -> None:
    (store / "damaged" / "zarr.json").write_text("{not json")
    shown = medusa("store", "ls", "-s", store, exit_code=1)
    assert "whole" in shown.stdout
    assert "group/whole" in shown.stdout
    assert "damaged" in shown.stdout


def test_ls_lists_the_others_where_one_fingerprint_is_wrong(store: Path) -> None:
    path = store / "damaged" / "zarr.json"
    metadata = json.loads(path.read_text())
    metadata["attributes"]["fingerprint"] = "0" * 16
    path.write_text(json.dumps(metadata))
    shown = medusa("store", "ls", "-s", store, exit_code=1)
    assert "group/whole" in shown.stdout


def test_a_key_that_stands_twice_in_a_segment_is_found_by_ls_verify_and_compact(store: Path) -> None:
    opened = FeatureStore.open(store)
    writer = SegmentWriter(store / "damaged", SPEC)
    for value in (2, 3):
        writer.append(b"twice", list(rows(value).astype(SPEC.row_type.stored)), 0.1)
    writer.commit()
    assert any("twice" in problem for problem in opened["damaged"].verify())
    with pytest.raises(StoreError, match=r"key .*twice"):
        opened.compact("damaged")
    shown = medusa("store", "ls", "-s", store, exit_code=1)
    assert "group/whole" in shown.stdout


def test_push_to_a_directory_writes_the_listings(store: Path, tmp_path: Path) -> None:
    push(store, str(tmp_path / "copy"))
    listing = json.loads((tmp_path / "copy" / ".listing.json").read_text())
    assert listing == {"medusa_listing": 1, "names": ["damaged", "group", "whole", "zarr.json"]}
    names = json.loads((tmp_path / "copy" / "whole" / ".listing.json").read_text())["names"]
    assert sorted(names) == sorted(path.name for path in (store / "whole").iterdir())
    assert FeatureStore.open(tmp_path / "copy")["whole"].verify() == []


def test_ls_leaves_columns_out_rather_than_wrapping_names(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    lines = medusa("store", "ls", "-s", store).stdout.splitlines()
    assert any(line.split()[:2] == ["group/whole", "audio"] for line in lines)
    assert max(len(line) for line in lines if "Left out" not in line) <= 50
    assert "encoder" in next(line for line in lines if "Left out" in line)
