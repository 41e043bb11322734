"""What an utterance was made from, so that its id can't stand for other audio or text later (FORMAT.md, 3.6).

A segment that records identities holds these arrays beside those of `segment_info`:

    _source_digests  uint8 (n, 32): 16 bytes of the decoded samples or the text, then 16 bytes of the file
    _source_files    int64 (n, 3): the file's size in bytes, its date (mtime) in ns, and the number of its decoder
    _source_times_s  float64 (n, 3): start and end of the piece, and the length by the file's header
    _source_decoders uint8: the decoders' names, utf-8, each followed by a newline

No layer's name begins with an underscore, so these collide with none.
"""

import hashlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from math import nan

import numpy as np

from featurestore.errors import StoreError

DIGEST_BYTES = 16
UNKNOWN = -1  # in _source_files
NO_DIGEST = bytes(DIGEST_BYTES)
DECODERS = "_source_decoders"  # the array that is of the segment, not of its utterances
# dtype of each array, in the order in which the segment's name hashes them.
IDENTITY_ARRAYS = {
    "_source_digests": "|u1",
    "_source_files": "<i8",
    "_source_times_s": "<f8",
    "_source_decoders": "|u1",
}


@dataclass(frozen=True)
class Identity:
    """What one utterance was made from; a field at its default is not recorded.

    digest: BLAKE2b (16 bytes) of the samples as they were encoded (mono float32, little-endian, 16 kHz) or of the text
    (utf-8). file_digest: of the file's own bytes. n_bytes, mtime_ns: the file's size and date. start_s, end_s: the
    piece of the file, NaN for all of it. header_s: its length by the header. decoder: name and version.
    """

    digest: bytes = b""
    file_digest: bytes = b""
    n_bytes: int = UNKNOWN
    mtime_ns: int = UNKNOWN
    start_s: float = nan
    end_s: float = nan
    header_s: float = nan
    decoder: str = ""

    def __post_init__(self) -> None:
        for digest in (self.digest, self.file_digest):
            if digest and len(digest) != DIGEST_BYTES:
                raise StoreError(f"An identity's digest has {len(digest)} bytes; {DIGEST_BYTES} are expected.")
        if "\n" in self.decoder:
            raise StoreError(f"A decoder's name is one line; found {self.decoder!r}.")


@dataclass(frozen=True)
class Identities:
    """The identities of N utterances in columns; rows that record nothing are `~recorded`.

    digests, file_digests: uint8 (N, 16), zeros where not recorded. n_bytes, mtimes_ns: int64 (N,), -1. starts_s,
    ends_s, headers_s: float64 (N,), NaN. decoder_numbers: int64 (N,), -1; `decoders` has their names.
    """

    digests: np.ndarray
    file_digests: np.ndarray
    n_bytes: np.ndarray
    mtimes_ns: np.ndarray
    starts_s: np.ndarray
    ends_s: np.ndarray
    headers_s: np.ndarray
    decoder_numbers: np.ndarray
    decoders: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.digests)

    @property
    def recorded(self) -> np.ndarray:
        """Whether anything is recorded of an utterance, bool (N,)."""
        times_s = np.stack([self.starts_s, self.ends_s, self.headers_s])
        digests = self.digests.any(axis=1) | self.file_digests.any(axis=1)
        recorded: np.ndarray = digests | (self.n_bytes >= 0) | ~np.isnan(times_s).all(axis=0)
        return recorded

    def __getitem__(self, i: int) -> Identity:
        number = int(self.decoder_numbers[i])
        return Identity(
            _bytes(self.digests[i]),
            _bytes(self.file_digests[i]),
            int(self.n_bytes[i]),
            int(self.mtimes_ns[i]),
            float(self.starts_s[i]),
            float(self.ends_s[i]),
            float(self.headers_s[i]),
            "" if number < 0 else self.decoders[number],
        )

    def take(self, positions: np.ndarray) -> "Identities":
        """Return the utterances at these positions, in their order."""
        return Identities(
            self.digests[positions],
            self.file_digests[positions],
            self.n_bytes[positions],
            self.mtimes_ns[positions],
            self.starts_s[positions],
            self.ends_s[positions],
            self.headers_s[positions],
            self.decoder_numbers[positions],
            self.decoders,
        )


class IdentityColumns:
    """Identities of the utterances of a segment in the making: 81 bytes each, none before the first is recorded."""

    def __init__(self) -> None:
        self._n = 0
        self._is_given = bytearray()
        self._digests = bytearray()
        self._files = array("q")
        self._times_s = array("d")
        self._numbers: dict[str, int] = {}

    def cut(self, n: int) -> None:
        """Keep those of the first n utterances."""
        self._n = min(self._n, n)
        n = min(n, len(self._is_given))  # which is 0 where filling up was interrupted
        del self._is_given[n:], self._digests[2 * DIGEST_BYTES * n :], self._files[3 * n :], self._times_s[3 * n :]

    def append(self, one: Identity | None) -> None:
        """Add one utterance's; None where it has none."""
        if one is not None or self._is_given:
            self._fill()
            given, one = one is not None, one or Identity()
            self._digests += (one.digest or NO_DIGEST) + (one.file_digest or NO_DIGEST)
            self._files.extend((one.n_bytes, one.mtime_ns, self._number(one.decoder)))
            self._times_s.extend((one.start_s, one.end_s, one.header_s))
            self._is_given.append(given)
        self._n += 1

    def extend(self, many: Identities | int) -> None:
        """Add those of several utterances; a number stands for so many without, as do those that record nothing."""
        if isinstance(many, int) or not many.recorded.any():
            n = many if isinstance(many, int) else len(many)
            if self._is_given:
                self._fill_up(n)
            self._n += n
            return
        self._fill()
        recorded = many.recorded
        numbers = np.array([*map(self._number, many.decoders), UNKNOWN], np.int64)  # the last is that of UNKNOWN
        decoder_numbers = np.where(recorded, numbers[many.decoder_numbers], UNKNOWN)
        self._digests += np.concatenate([many.digests, many.file_digests], axis=1).tobytes()
        self._files.frombytes(np.stack([many.n_bytes, many.mtimes_ns, decoder_numbers], axis=1).tobytes())
        self._times_s.frombytes(np.stack([many.starts_s, many.ends_s, many.headers_s], axis=1).tobytes())
        self._is_given += recorded.tobytes()
        self._n += len(many)

    def arrays(self, n: int) -> dict[str, np.ndarray]:
        """Return the arrays that a segment of the first n utterances holds; nothing where none has an identity."""
        if 1 not in self._is_given[:n]:
            return {}
        files = np.array(self._files[: 3 * n], np.int64).reshape(n, 3)
        names = list(self._numbers)
        used = sorted(names[i] for i in np.unique(files[:, 2]).tolist() if i >= 0)
        places = np.array([*(used.index(name) if name in used else UNKNOWN for name in names), UNKNOWN], np.int64)
        files[:, 2] = places[files[:, 2]]
        return {
            "_source_digests": np.frombuffer(self._digests, "|u1")[: 2 * DIGEST_BYTES * n].reshape(n, -1),
            "_source_files": files.astype("<i8", copy=False),
            "_source_times_s": np.frombuffer(self._times_s)[: 3 * n].reshape(n, 3).astype("<f8", copy=False),
            "_source_decoders": np.frombuffer("".join(f"{name}\n" for name in used).encode(), "|u1"),
        }

    def _number(self, decoder: str) -> int:
        return self._numbers.setdefault(decoder, len(self._numbers)) if decoder else UNKNOWN

    def _fill(self) -> None:
        """Write that nothing is recorded of the utterances before the first of which something is."""
        if not self._is_given:
            self._fill_up(self._n)

    def _fill_up(self, n: int) -> None:
        self._digests += bytes(2 * DIGEST_BYTES * n)
        self._files.frombytes(np.full(3 * n, UNKNOWN, np.int64).tobytes())
        self._times_s.frombytes(np.full(3 * n, nan).tobytes())
        self._is_given += bytes(n)


def shapes(n_utterances: int, decoder_bytes: int) -> dict[str, tuple[int, ...]]:
    """Return each array's shape."""
    return {
        "_source_digests": (n_utterances, 2 * DIGEST_BYTES),
        "_source_files": (n_utterances, 3),
        "_source_times_s": (n_utterances, 3),
        "_source_decoders": (decoder_bytes,),
    }


def problems(arrays: dict[str, np.ndarray]) -> list[str]:
    """Return what would lead a reader outside the decoders' names, or is no text, as sentences."""
    try:
        names = arrays["_source_decoders"].tobytes().decode()
    except UnicodeDecodeError:
        return ["_source_decoders is no utf-8: the file is damaged."]
    numbers = arrays["_source_files"][:, 2]
    if names and not names.endswith("\n"):
        return ["_source_decoders does not end with a newline: the file is damaged."]
    if len(numbers) and not UNKNOWN <= int(numbers.min()) <= int(numbers.max()) < names.count("\n"):
        return ["_source_files numbers a decoder that _source_decoders does not name: the file is damaged."]
    return []


def from_arrays(parts: Sequence[dict[str, np.ndarray] | int]) -> Identities:
    """Join the arrays of several segments; a number stands for so many utterances without identities."""
    decoders: list[str] = []
    numbers: dict[str, int] = {}
    digests, files, times_s = [], [], []
    for part in parts:
        if isinstance(part, int):
            digests.append(np.zeros((part, 2 * DIGEST_BYTES), np.uint8))
            files.append(np.full((part, 3), UNKNOWN, np.int64))
            times_s.append(np.full((part, 3), nan))
            continue
        names = part["_source_decoders"].tobytes().decode().splitlines()
        for name in names:
            if numbers.setdefault(name, len(decoders)) == len(decoders):
                decoders.append(name)
        joined = part["_source_files"].copy()
        has_digest = joined[:, 2] >= 0
        joined[has_digest, 2] = np.array([numbers[name] for name in names], np.int64)[joined[has_digest, 2]]
        digests.append(part["_source_digests"])
        files.append(joined)
        times_s.append(part["_source_times_s"])
    all_digests = np.concatenate(digests) if digests else np.zeros((0, 2 * DIGEST_BYTES), np.uint8)
    all_files = np.concatenate(files) if files else np.zeros((0, 3), np.int64)
    all_times_s = np.concatenate(times_s) if times_s else np.zeros((0, 3))
    return Identities(
        all_digests[:, :DIGEST_BYTES],
        all_digests[:, DIGEST_BYTES:],
        all_files[:, 0],
        all_files[:, 1],
        all_times_s[:, 0],
        all_times_s[:, 1],
        all_times_s[:, 2],
        all_files[:, 2],
        tuple(decoders),
    )


def digest_of_text(text: str) -> bytes:
    """Return the digest of a text; a lone surrogate, which utf-8 can't hold, counts as it is."""
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=DIGEST_BYTES).digest()


def _bytes(digest: np.ndarray) -> bytes:
    value = digest.tobytes()
    return b"" if value == NO_DIGEST else value
