"""Sources that lie, point elsewhere or never end are refused by name, and what is good beside them is taken."""

import os
import threading
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from featurestore.errors import ConfigError, StoreError
from featurestore.interchange.description import Description
from featurestore.interchange.exporting import export_features
from featurestore.interchange.importing import ImportReport, import_features
from featurestore.store.feature_store import FeatureStore

GOOD = np.arange(6, dtype=np.float32).reshape(2, 3)


def take(tmp_path: Path, format_name: str, path: Path) -> tuple[ImportReport, FeatureStore]:
    store = FeatureStore.open_or_create(tmp_path / "store")
    return import_features(store, "x", format_name, path, Description("x")), store


def reasons(report: ImportReport) -> str:
    return " | ".join(reason for _, reason in report.failed)


def test_a_virtual_dataset_whose_source_is_missing_is_refused_by_name(tmp_path: Path) -> None:
    layout = h5py.VirtualLayout(shape=(2, 3), dtype="f4")
    layout[:] = h5py.VirtualSource("gone.h5", "rows", shape=(2, 3))
    with h5py.File(tmp_path / "v.h5", "w") as file:
        file.create_virtual_dataset("virtual", layout)
        file["good"] = GOOD
    report, store = take(tmp_path, "hdf5", tmp_path / "v.h5")
    assert list(store["x"]) == ["good"]
    assert "'virtual'" in reasons(report)
    assert "gone.h5" in reasons(report)


def test_external_storage_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "secret.bin").write_bytes(bytes(range(24)))
    with h5py.File(tmp_path / "e.h5", "w") as file:
        file.create_dataset("outside", (2, 3), "f4", external=[(str(tmp_path / "secret.bin"), 0, 24)])
        file["good"] = GOOD
    report, store = take(tmp_path, "hdf5", tmp_path / "e.h5")
    assert list(store["x"]) == ["good"]
    assert "'outside'" in reasons(report)
    assert "secret.bin" in reasons(report)


def test_links_into_other_files_are_refused_by_name(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["rows"] = GOOD
    with h5py.File(tmp_path / "l.h5", "w") as file:
        file["linked"] = h5py.ExternalLink("other.h5", "/rows")
        file["soft"] = h5py.SoftLink("/good")
        file["good"] = GOOD
    report, store = take(tmp_path, "hdf5", tmp_path / "l.h5")
    assert list(store["x"]) == ["good"]
    assert "'linked' is a link to other.h5" in reasons(report)
    assert "'soft'" in reasons(report)


def test_a_dataset_that_was_never_written_is_not_rows_of_zeros(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "n.h5", "w") as file:
        file.create_dataset("huge", (1 << 40, 3), "f4", chunks=(1024, 3))
        file.create_dataset("reserved", (2, 3), "f4")
        file["good"] = GOOD
    report, store = take(tmp_path, "hdf5", tmp_path / "n.h5")
    assert list(store["x"]) == ["good"]
    assert "'huge'" in reasons(report)
    assert "'reserved' was never written" in reasons(report)


def test_a_huge_declared_array_is_an_error_that_names_it(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "h.h5", "w") as file:
        huge = file.create_dataset("huge", (1 << 40, 3), "f4", chunks=(1024, 3), compression="gzip")
        huge[:1024] = 1.0
        file["z"] = GOOD
    report, store = take(tmp_path, "hdf5", tmp_path / "h.h5")
    assert list(store["x"]) == ["z"]
    assert "'huge'" in reasons(report)
    assert "memory" in reasons(report)


@pytest.mark.parametrize("format_name", ["hdf5", "safetensors", "emotion2vec"])
def test_a_pipe_in_place_of_a_file_does_not_hang(tmp_path: Path, format_name: str) -> None:
    os.mkfifo(tmp_path / "pipe.npy")
    path = tmp_path / ("pipe" if format_name == "emotion2vec" else "pipe.npy")
    result: list[BaseException] = []

    def run() -> None:
        try:
            take(tmp_path, format_name, path)
        except StoreError as error:
            result.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive()
    assert "no regular file" in str(result[0])


def test_a_pipe_among_npy_files_is_named_and_the_others_taken(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    os.mkfifo(tmp_path / "d" / "a.npy")
    np.save(tmp_path / "d" / "b.npy", GOOD)
    report, store = take(tmp_path, "npy", tmp_path / "d")
    assert list(store["x"]) == ["b"]
    assert "a.npy is no regular file" in reasons(report)


def test_an_array_without_columns_that_sorts_first_ends_nothing(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    np.save(tmp_path / "d" / "a.npy", np.zeros((4, 0), np.float32))
    np.save(tmp_path / "d" / "b.npy", GOOD)
    report, store = take(tmp_path, "npy", tmp_path / "d")
    assert list(store["x"]) == ["b"]
    assert "(4, 0)" in reasons(report)


def test_pt_files_of_one_tensor_each_are_read_and_nothing_else_is_run(tmp_path: Path) -> None:
    (tmp_path / "d" / "s1").mkdir(parents=True)
    torch.save(torch.from_numpy(GOOD), tmp_path / "d" / "s1" / "a.pt")
    torch.save(torch.ones(3, requires_grad=True), tmp_path / "d" / "b.pt")
    torch.save({"rows": torch.ones(3)}, tmp_path / "d" / "dict.pt")
    torch.save(threading.Thread, tmp_path / "d" / "code.pt")
    (tmp_path / "d" / "broken.pt").write_bytes(b"no zip")
    report, store = take(tmp_path, "pt", tmp_path / "d")
    assert sorted(store["x"]) == ["b", "s1/a"]
    assert np.array_equal(store["x"]["s1/a"], GOOD)
    assert len(report.failed) == 3
    with pytest.raises(ConfigError, match="read, not written"):
        export_features(store["x"], "pt", tmp_path / "out")
