"""Damage is named by `verify` and never read: bits that flip, files that are cut, exchanged, lost, or foreign."""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr
from typer.testing import CliRunner

from cli import app
from featurestore.errors import StoreError
from featurestore.format.spec import FeatureSpec
from featurestore.rows.rowtypes import encode
from featurestore.store.feature_store import FeatureStore
from featurestore.store.verify import verify_store
from tests.helpers.small_store import NAME, SPEC, STORAGES, key, quick_directory, rows, same_rows, with_dtype, write

Storage = tuple[str, str]
TINY = FeatureSpec("audio", "e", "none", ("l",), 2)
N = 3  # utterances of the tiny store, the first of no rows


@pytest.fixture
def directory() -> Iterator[Path]:
    with quick_directory() as directory:
        yield directory


def problems(path: Path) -> list[str]:
    try:
        return [problem for found in verify_store(path).values() for problem in found]
    except StoreError as error:
        return [str(error)]


def contents(path: Path) -> list[bytes]:
    """Return what a reader finds: the keys, and each layer's rows as they are stored and as they are gathered."""
    features = FeatureStore.open(path)[NAME]
    keys = list(features)
    result = ["\n".join(keys).encode()]
    for layer in features.layers:
        stored, scales = features.stored_rows(keys, layer)
        packed = features.gather(keys, layer)
        result += [*(part.tobytes() for part in (*stored, *(scales or []))), packed.values.tobytes()]
        result.append(packed.offsets.tobytes())
    return result


def reads(path: Path, expected: list[bytes]) -> bool:
    """Whether a reader that verifies nothing reads the store; False where it raises StoreError, an error if wrongly."""
    try:
        result = contents(path)
    except StoreError:
        return False
    assert result == expected
    return True


def others_read_it(path: Path, n: int, spec: FeatureSpec) -> bool:
    """Whether zarr-python or h5py find every layer as it was written."""
    (segment,) = (path / NAME).glob("seg-*")
    expected = [np.concatenate([encode(rows(i, spec)[layer], spec.row_type)[0] for i in range(n)]) for layer in (0,)]
    if segment.is_dir():
        return np.array_equal(zarr.open_group(segment, mode="r")["l"][:], expected[0])
    with h5py.File(segment, "r") as file:
        return np.array_equal(file["l"][:], expected[0])


def flips(file: Path, step: int, first: int) -> Iterator[tuple[int, int]]:
    """Flip one bit after the other, every `step`-th from `first` on; each is back in place when the next one flips."""
    data = file.read_bytes()
    handle = os.open(file, os.O_RDWR)
    try:
        for bit in range(first % step, 8 * len(data), step):
            os.pwrite(handle, bytes([data[bit // 8] ^ 1 << bit % 8]), bit // 8)
            yield bit // 8, bit % 8
            os.pwrite(handle, data[bit // 8 : bit // 8 + 1], bit // 8)
    finally:
        os.close(handle)


OTHERS = [(("zarr", "blosc"), "float16"), (("zarr", ""), "int8"), (("hdf5", ""), "int8")]


@pytest.mark.parametrize(
    ("storage", "dtype", "step"),
    [
        *(
            pytest.param(s, "float16", 131, marks=() if s == ("hdf5", "gzip") else pytest.mark.slow)
            for s in STORAGES
            if s[1] != "blosc"
        ),
        *(pytest.param(*other, 131, marks=() if other[0] == ("zarr", "") else pytest.mark.slow) for other in OTHERS),
        *(pytest.param(*other, 7, marks=pytest.mark.slow) for other in OTHERS),
        # Every bit: some minutes each.
        *(pytest.param(s, "float16", 1, marks=pytest.mark.slow) for s in STORAGES if s[1] != "blosc"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else str(value),
)
def test_a_flipped_bit_is_named_and_never_read(directory: Path, storage: Storage, dtype: str, step: int) -> None:
    """Every byte of a store is covered: `verify` names each flip; a reader raises or returns the right rows."""
    spec = FeatureSpec(**{**TINY.to_json(), "dtype": dtype})
    path = directory / "s"
    write(path, storage, range(N), 1 << 20, spec)
    assert problems(path) == []
    assert all(same_rows(FeatureStore.open(path)[NAME], i) for i in range(N))
    assert others_read_it(path, N, spec)
    expected = contents(path)
    n_flips = n_read = 0
    for file in sorted(entry for entry in path.rglob("*") if entry.is_file()):
        segment = [entry for entry in (file, *file.parents) if entry.name.startswith("seg-")]
        concerned = segment[0] if segment else file.parent
        for byte, bit in flips(file, step, n_flips):
            n_flips += 1
            place = f"{file.relative_to(path)}, byte {byte}, bit {bit}"
            reported = problems(path)
            assert any(str(concerned) in problem for problem in reported), f"{place}: {reported}"
            n_read += reads(path, expected)
    assert n_flips > 150
    assert 0 < n_read < n_flips, "some flips, such as in another reader's metadata, don't concern ours"
    assert contents(path) == expected


def shards(path: Path, name: str) -> list[Path]:
    return sorted((path / NAME).glob(f"seg-*/{name}"))


def exchange(first: Path, second: Path) -> None:
    """Swap two files or directories."""
    aside = first.with_name("aside")
    first.rename(aside)
    second.rename(first)
    aside.rename(second)


def _exchange_segments(path: Path) -> str:
    first, second = sorted((path / NAME).glob("seg-*"))[:2]
    exchange(first, second)
    return first.name


def _exchange_layers(path: Path) -> str:
    first = shards(path, "l0/c/0/0")[0]
    exchange(first, first.parents[3] / "l1/c/0/0")
    return str(first.parents[3])


def _exchange_layer_directories(path: Path) -> str:
    first = shards(path, "l0")[0]
    exchange(first, first.parent / "l1")
    return str(first.parent)


def _exchange_shards(path: Path) -> str:
    first, second = shards(path, "l0/c/0/0")[:2]
    exchange(first, second)
    return str(first.parents[3])


def _exchange_durations(path: Path) -> str:
    first, second = shards(path, "durations_s")[:2]
    exchange(first, second)
    return str(first.parent)


def _in_each_segment(name: str, how: Callable[[Path], object]) -> Callable[[Path], str]:
    """Do something to a segment's file `name`; "" is an HDF5 segment itself."""

    def damage(path: Path) -> str:
        file = shards(path, name)[0] if name else sorted((path / NAME).glob("seg-*.h5"))[0]
        how(file)
        return str(file if file.exists() or name != "zarr.json" else file.parent)

    return damage


def _cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def _empty(file: Path) -> None:
    os.truncate(file, 0)


def _longer(file: Path) -> None:
    with file.open("ab") as handle:
        handle.write(b"\0" * 8)


def _rows_of_another_set(path: Path) -> str:
    float32_store = path.with_name("other")
    write(float32_store, ("zarr", ""), range(3), 1 << 20, with_dtype("float32"))
    (segment,) = (float32_store / NAME).glob("seg-*")
    shutil.copytree(segment, path / NAME / segment.name)
    return segment.name


def _foreign(where: str) -> Callable[[Path], str]:
    def damage(path: Path) -> str:
        entry_path = path / NAME / where
        entry_path.parent.mkdir(parents=True, exist_ok=True)
        entry_path.write_text("mine")
        return str((entry_path if entry_path.parent != path / NAME / "more" else entry_path.parent).resolve())

    return damage


def _foreign_in_segment(path: Path) -> str:
    entry = shards(path, "l0")[0] / "notes.txt"
    entry.write_text("mine")
    return str(entry)


def _lost(where: str) -> Callable[[Path], str]:
    def damage(path: Path) -> str:
        (path / where).unlink()
        return str((path / where).parent)

    return damage


def _not_json(where: str) -> Callable[[Path], str]:
    def damage(path: Path) -> str:
        (path / where).write_text("{")
        return str(path / where)

    return damage


FILES = ["zarr.json", "l0/zarr.json", "l0/c/0/0", "keys/c/0", "checksums/c/0/0", "checksums/zarr.json"]
ZARR_DAMAGE: dict[str, Callable[[Path], str]] = {
    "two segments are exchanged": _exchange_segments,
    "two layers' files are exchanged": _exchange_layers,
    "two layers are exchanged": _exchange_layer_directories,
    "two segments' rows are exchanged": _exchange_shards,
    "two segments' durations are exchanged": _exchange_durations,
    "a segment of another set": _rows_of_another_set,
    "a file beside the segments": _foreign("notes.txt"),
    "a file beside the sets": _foreign("../notes.txt"),
    "a directory beside the segments": _foreign("more/notes.txt"),
    "a file within a segment": _foreign_in_segment,
    "the set's metadata are lost": _lost(f"{NAME}/zarr.json"),
    "the parent's metadata are lost": _lost("set/zarr.json"),
    "the store's metadata are lost": _lost("zarr.json"),
    "the set's metadata are damaged": _not_json(f"{NAME}/zarr.json"),
    "the store's metadata are damaged": _not_json("zarr.json"),
    **{f"{name} is {what}": _in_each_segment(name, how)
       for name in FILES
       for what, how in (("cut", _cut), ("empty", _empty), ("lost", Path.unlink), ("longer", _longer))},
}  # fmt: skip
HDF5_DAMAGE = {
    "two segments are exchanged": _exchange_segments,
    "a segment is cut": _in_each_segment("", _cut),
    "a segment is empty": _in_each_segment("", _empty),
    "a segment is longer": _in_each_segment("", _longer),
}
DAMAGE = [(("zarr", ""), name, how) for name, how in ZARR_DAMAGE.items()]
DAMAGE += [(("hdf5", ""), name, how) for name, how in HDF5_DAMAGE.items()]
DAMAGE += [(("zarr", "zstd"), name, ZARR_DAMAGE[name]) for name in ZARR_DAMAGE if "exchanged" in name or "l0/c" in name]


@pytest.fixture(scope="module")
def whole_stores() -> Iterator[dict[Storage, Path]]:
    with quick_directory() as directory:
        for storage in {storage for storage, _, _ in DAMAGE}:
            write(directory / "-".join(storage), storage, range(12), 2500)
        yield {storage: directory / "-".join(storage) for storage, _, _ in DAMAGE}


@pytest.mark.parametrize(("storage", "name", "damage"), DAMAGE, ids=[f"{'-'.join(s)} {name}" for s, name, _ in DAMAGE])
def test_medusa_store_verify_names_it_and_exits_with_1(
    whole_stores: dict[Storage, Path], directory: Path, storage: Storage, name: str, damage: Callable[[Path], str]
) -> None:
    """And no reader finds a row that nobody wrote there."""
    path = directory / "s"
    shutil.copytree(whole_stores[storage], path)
    assert len(list((path / NAME).glob("seg-*"))) >= 2
    damaged_place = damage(path)
    verified = CliRunner().invoke(app, ["store", "verify", "-s", str(path)])
    assert verified.exit_code == 1, verified.output
    assert damaged_place in verified.stderr
    assert "problem" in verified.stdout
    try:
        features = FeatureStore.open(path)[NAME]
        result = list(features)
    except StoreError:
        return
    assert result
    for problem in result:
        i = int(problem.split()[-1])
        for layer in features.layers:
            with contextlib.suppress(StoreError):
                assert same_rows(features, i, [layer])


def test_a_whole_store_has_no_problems(whole_stores: dict[Storage, Path]) -> None:
    for path in whole_stores.values():
        assert verify_store(path) == {NAME: []}
        assert verify_store(path, NAME) == {NAME: []}
        assert CliRunner().invoke(app, ["store", "verify", NAME, "-s", str(path)]).exit_code == 0


def test_what_is_no_store_is_no_damage(directory: Path) -> None:
    (directory / "notes").mkdir()
    for path in (directory / "none", directory, directory / "notes"):
        with pytest.raises(StoreError, match="not a feature store"):
            verify_store(path)
    FeatureStore.create(directory / "s")
    with pytest.raises(StoreError, match="no feature set 'a'"):
        verify_store(directory / "s", "a")
    assert verify_store(directory / "s") == {}


def test_what_an_interruption_leaves_is_no_damage(directory: Path) -> None:
    """Directories of sets that were never written, temporary files, and sets that were being removed."""
    path = directory / "s"
    write(path, ("zarr", ""), range(3), 1 << 20)
    (path / "set" / "b").mkdir()
    (path / "c").mkdir()
    for temporary in (path / ".tmp-0", path / "c" / ".tmp-0", path / NAME / ".tmp-0"):
        temporary.write_text("{")
    shutil.copytree(path / NAME, path / "set" / ".tmp-removed-0")
    assert problems(path) == []
    assert FeatureStore.open(path).names() == [NAME]


def test_a_segment_that_is_lost_whole_takes_its_keys_along(directory: Path) -> None:
    """Nothing tells of it: its keys are missing, as if they had never been written, and a second run writes them."""
    path = directory / "s"
    write(path, ("hdf5", ""), range(12), 2500)
    next((path / NAME).glob("seg-*.h5")).unlink()
    assert problems(path) == []
    features = FeatureStore.open(path)[NAME]
    missing = [i for i in range(12) if key(i) not in features]
    assert missing
    with pytest.raises(StoreError, match=f"lacks {len(missing)} of {len(missing)} keys"):
        features.gather([key(i) for i in missing])
    write(path, ("hdf5", ""), range(12), 2500)
    assert all(same_rows(FeatureStore.open(path)[NAME], i) for i in range(12))
    assert SPEC.fingerprint == features.spec.fingerprint
