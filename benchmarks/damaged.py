"""Small stores, ways to damage them, and the rule for readers: right rows or a StoreError, never anything else.

`damage_and_read` takes any bytes, which choose a store and edits of its files. So a fuzzer that generates bytes
explores damages; see fuzz_store.py.
"""

import json
import re
import shutil
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import google_crc32c
import numpy as np

from featurestore.errors import StoreError
from featurestore.format.segment_info import SMALL_ARRAYS, content_name
from featurestore.format.spec import FeatureSpec
from featurestore.sets.feature_set import FeatureSet
from featurestore.store.feature_store import FeatureStore
from featurestore.store.verify import verify_store

NAME = "a"
KINDS = [
    ("zarr", "", "float16"), ("hdf5", "", "float16"), ("zarr", "zstd", "float16"), ("zarr", "blosc", "float32"),
    ("hdf5", "gzip", "float16"), ("zarr", "", "int8"), ("hdf5", "", "bfloat16"), ("zarr", "blosc", "int8"),
]  # fmt: skip
INTEGERS = [0, 1, 2, 3, -1, 127, 128, 255, 256, 2**31 - 1, 2**31, 2**32, 2**48, 2**62, 2**63 - 1, -(2**63)]
LITERALS = [
    b"0", b"1", b"-1", b"2", b"4096", b"4294967296", b"9223372036854775808", b"1e400", b"0.5", b"NaN", b"null", b"true",
    b"[]", b"{}", b'""', b'"l0"', b'"zstd"', b'"\\ud800"', b'"../../x"', b"[[0, 1]]", b"9" * 5000, b"[" * 2000,
]  # fmt: skip
TOKEN = re.compile(rb'-?\d+(?:\.\d+)?|"[^"]*"|true|false|null|[\[\]{},:]')
MAX_EDITS = 8
HEADER_BYTES = 64  # of an HDF5 segment, before its JSON

Files = dict[str, bytes]
T = TypeVar("T")


class Choices:
    """Numbers taken from a fuzzer's bytes; zeros once all bytes are used."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._next = 0

    def __bool__(self) -> bool:
        return self._next < len(self._data)

    def take(self, n: int) -> bytes:
        part = self._data[self._next : self._next + n]
        self._next += n
        return part

    def below(self, limit: int) -> int:
        """Return 0 <= number < limit, from 1 byte for limits up to 256, else from 3."""
        return int.from_bytes(self.take(1 if limit <= 256 else 3), "little") % max(1, limit)


class Stores:
    """One small store of each kind below `directory`, with the rows that it holds."""

    def __init__(self, directory: Path) -> None:
        self.paths: list[Path] = []
        self.files: list[Files] = []
        self.contents: list[dict[tuple[str, str], bytes]] = []
        rng = np.random.default_rng(0)
        for number, (format, compress, dtype) in enumerate(KINDS):
            path = directory / str(number)
            spec = FeatureSpec("audio", "e", "none", ("l0", "l1"), 3, 50.0, dtype)
            store = FeatureStore.create(path)
            for start in (0, 3)[: 1 if compress else 2]:
                with store.writer(NAME, spec, format=format, compress=compress) as writer:
                    for i in range(start, start + 3):
                        writer.append(f"u/{i}", rng.standard_normal((2, i, 3)), duration_s=i / 2)
            self.paths.append(path)
            self.files.append(_read_files(path))
            features = store[NAME]
            self.contents.append(
                {(key, layer): _stored(features, key, layer) for key in features for layer in ("l0", "l1")}
            )


def damage_and_read(stores: Stores, data: bytes) -> tuple[int, int]:
    """Damage a store as `data` prescribes, read all of it, and count reads: (succeeded, raised StoreError).

    Raises AssertionError when a row is wrong, and lets any other error of a reader through.
    """
    choices = Choices(data)
    kind = choices.below(len(KINDS))
    repaired = bool(choices.below(2))
    files = dict(stores.files[kind])
    for _ in range(MAX_EDITS):
        if not choices:
            break
        _edit(files, choices)
    if repaired:
        files = repair(files)
    with _written(stores.paths[kind], stores.files[kind], files):
        return _read_all(stores.paths[kind], None if repaired else stores.contents[kind])


def _edit(files: Files, choices: Choices) -> None:
    name = sorted(files)[choices.below(len(files))]
    edited = EDITS[choices.below(len(EDITS))](files[name], choices, files)
    if edited is None:
        del files[name]
    else:
        files[name] = edited


def _flip(data: bytes, choices: Choices, files: Files) -> bytes:
    place = choices.below(len(data))
    return data[:place] + bytes([data[place] ^ 1 << choices.below(8)]) + data[place + 1 :] if data else data


def _overwrite(data: bytes, choices: Choices, files: Files) -> bytes:
    place = choices.below(len(data))
    new = choices.take(1 + choices.below(8))
    return data[:place] + new + data[place + len(new) :]


def _insert(data: bytes, choices: Choices, files: Files) -> bytes:
    place = choices.below(len(data) + 1)
    return data[:place] + choices.take(1 + choices.below(16)) + data[place:]


def _delete(data: bytes, choices: Choices, files: Files) -> bytes:
    place = choices.below(len(data))
    return data[:place] + data[place + 1 + choices.below(64) :]


def _cut(data: bytes, choices: Choices, files: Files) -> bytes:
    return data[: choices.below(len(data))]


def _another(data: bytes, choices: Choices, files: Files) -> bytes:
    return files[sorted(files)[choices.below(len(files))]]


def _copy_block(data: bytes, choices: Choices, files: Files) -> bytes:
    source = _another(data, choices, files)
    start, place = choices.below(len(source)), choices.below(len(data))
    block = source[start : start + 1 + choices.below(64)]
    return data[:place] + block + data[place + len(block) :]


def _remove(data: bytes, choices: Choices, files: Files) -> bytes | None:
    return None if len(files) > 1 else data


def _integer(data: bytes, choices: Choices, files: Files) -> bytes:
    size = (1, 4, 8)[choices.below(3)]
    place = choices.below(max(1, len(data) // size)) * size
    value = INTEGERS[choices.below(len(INTEGERS))] & (1 << 8 * size) - 1
    return data[:place] + value.to_bytes(size, "little") + data[place + size :]


def _token(data: bytes, choices: Choices, files: Files) -> bytes:
    """Replace or remove a token of a JSON file, or of an HDF5 segment's header."""
    json_end, block = _header_sizes(data)
    start, stop = (HEADER_BYTES, json_end) if json_end else (0, len(data))
    tokens = list(TOKEN.finditer(data, start, stop))
    if not tokens:
        return data
    chosen = tokens[choices.below(len(tokens))]
    literal = choices.below(len(LITERALS) + 2)
    new = b"" if literal == len(LITERALS) else tokens[choices.below(len(tokens))][0]
    new = LITERALS[literal] if literal < len(LITERALS) else new
    text = data[start : chosen.start()] + new + data[chosen.end() : stop]
    if not json_end:
        return text
    return _with_header(text, block) + data[block:]


EDITS: list[Callable[[bytes, Choices, Files], bytes | None]] = [
    _flip, _overwrite, _insert, _delete, _cut, _another, _copy_block, _remove, _integer, _token, _token, _integer,
]  # fmt: skip


def _header_sizes(data: bytes) -> tuple[int, int]:
    """Return the offsets at which an HDF5 segment's JSON and its user block end; zeros for other files."""
    match = re.match(rb"medusa-segment 1 block=(\d+) json=(\d+) ", data)
    return (HEADER_BYTES + int(match[2]), int(match[1])) if match else (0, 0)


def _with_header(text: bytes, block: int) -> bytes:
    """Return a user block whose first line agrees with its JSON."""
    header = f"medusa-segment 1 block={block} json={len(text)} crc32c={google_crc32c.value(text):08x}\n".encode()
    block_start = header + b" " * (HEADER_BYTES - 1 - len(header)) + b"\n" + text
    return block_start + bytes(max(0, block - len(block_start)))


def repair(files: Files) -> Files:
    """Make checksums and names agree with the damaged content where possible, so that damage gets past them."""
    fixed = dict(files)
    for name, data in files.items():
        end, block = _header_sizes(data)
        if end:
            fixed[name] = _with_header(data[HEADER_BYTES:end], block) + data[block:]
        elif re.search(r"/l\d/c/0/0$", name):
            fixed[name] = _with_chunk_checksums(data)
    _repair_fingerprints(fixed)
    renamed: Files = {}
    for segment in sorted({name.split("/")[1] for name in fixed if name.startswith(f"{NAME}/seg-")}):
        inside = {name: data for name, data in fixed.items() if name.split("/")[1:2] == [segment]}
        for name in inside:
            del fixed[name]
        for name, data in inside.items():
            renamed[name.replace(segment, _content_name(inside, segment), 1)] = data
    return fixed | renamed


def _with_chunk_checksums(data: bytes) -> bytes:
    """Correct the checksums of a shard: of its index, and of its chunk if it holds a single compressed one."""
    if len(data) < 20:
        return data
    index = data[-20:-4]
    offset, size = struct.unpack("<2Q", index)
    if size >= 4 and offset + size <= len(data) - 20:
        chunk = data[offset : offset + size - 4]
        data = data[:offset] + chunk + google_crc32c.value(chunk).to_bytes(4, "little") + data[offset + size :]
    checksum: int = google_crc32c.value(index)
    return data[:-4] + checksum.to_bytes(4, "little")


def _repair_fingerprints(files: Files) -> None:
    try:
        attributes = json.loads(files[f"{NAME}/zarr.json"])["attributes"]
        old, new = attributes["fingerprint"], FeatureSpec.from_json(attributes["spec"]).fingerprint
    except (KeyError, ValueError, TypeError, RecursionError, StoreError):
        return
    if isinstance(old, str) and old and old != new:
        for name, data in files.items():
            if name.endswith("zarr.json"):
                files[name] = data.replace(old.encode(), new.encode())


def _content_name(inside: Files, segment: str) -> str:
    """Return the name that the segment's content calls for."""
    try:
        if segment.endswith(".h5"):
            (data,) = inside.values()
            header = json.loads(data[HEADER_BYTES : _header_sizes(data)[0]])
            raw = {name: data[slice(at, at + n)] for name, (at, n) in header["arrays"].items()}
            fingerprint = header["attributes"]["fingerprint"]
        else:
            fingerprint = json.loads(inside[f"{NAME}/{segment}/zarr.json"])["attributes"]["fingerprint"]
            files = {name: f"{NAME}/{segment}/{name}/c/0" for name in SMALL_ARRAYS}
            raw = {name: inside.get(file, inside.get(f"{file}/0", b"")) for name, file in files.items()}
        small = {name: np.frombuffer(raw[name], dtype) for name, dtype in SMALL_ARRAYS.items()}
        return content_name(fingerprint, small) + segment[20:]
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError):
        return segment


def _read_files(path: Path) -> Files:
    files = sorted(entry for entry in path.rglob("*") if entry.is_file())
    return {str(file.relative_to(path)): file.read_bytes() for file in files}


@contextmanager
def _written(path: Path, original: Files, files: Files) -> Iterator[None]:
    """Within, `path` holds `files` instead of `original`."""
    before, after = _units(original), _units(files)
    try:
        _replace(path, before, after)
        yield
    finally:
        _replace(path, after, before)


def _units(files: Files) -> dict[str, Files]:
    """Return the files grouped by the unit that is replaced at once: a segment, or a file outside segments."""
    units: dict[str, Files] = {}
    for name, data in files.items():
        parts = name.split("/")
        units.setdefault("/".join(parts[:2]) if "/seg-" in name else name, {})[name] = data
    return units


def _replace(path: Path, old: dict[str, Files], new: dict[str, Files]) -> None:
    for unit in old:
        if unit not in new:
            shutil.rmtree(path / unit) if (path / unit).is_dir() else (path / unit).unlink()
    for unit, files in new.items():
        present = old.get(unit, {})
        for name in set(present) - set(files):
            (path / name).unlink()
        for name, data in files.items():
            if present.get(name) != data:
                if name not in present:
                    (path / name).parent.mkdir(parents=True, exist_ok=True)
                (path / name).write_bytes(data)


def _stored(features: FeatureSet, key: str, layer: str) -> bytes:
    """Return the bytes of an utterance's rows and scales as stored, and of its rows as read."""
    rows, scales = features.stored_rows([key], layer)
    array = features.array(key, layer)
    gathered = features.gather([key], layer).values
    assert array.tobytes() == gathered.tobytes(), f"{key}: an array and gathered rows differ"
    return rows[0].tobytes() + (scales[0].tobytes() if scales else b"") + array.tobytes()


def _read_all(path: Path, contents: dict[tuple[str, str], bytes] | None) -> tuple[int, int]:
    """Call every reader of a store and count reads: (succeeded, raised StoreError).

    contents: the right bytes by key and layer; None: the rows are not compared.
    """
    n_read = n_refused = 0

    def attempt(read: Callable[[], T]) -> T | None:
        nonlocal n_read, n_refused
        try:
            result = read()
        except StoreError:
            n_refused += 1
            return None
        n_read += 1
        return result

    problems = attempt(lambda: [problem for group in verify_store(path).values() for problem in group])
    features = attempt(lambda: FeatureStore.open(path)[NAME])
    keys = [] if features is None else attempt(lambda: list(features)) or []
    if features is None or not keys:
        return n_read, n_refused
    attempt(lambda: features.durations_s(keys))
    for layer in features.layers:
        attempt(partial(features.announce, keys, layer))
        packed = attempt(partial(features.gather, keys, layer, dtype="float32"))
        assert packed is None or packed.lengths.tolist() == features.lengths(keys).tolist()
        for key in keys:
            rows = attempt(partial(_stored, features, key, layer))
            if contents is not None and rows is not None:
                assert rows == contents.get((key, layer)), f"wrong rows of {key!r}, {layer}, were read"
    if contents is not None and problems == []:
        assert set(keys) <= {key for key, _ in contents}, "a key that nobody wrote, and verify is silent"
    return n_read, n_refused
