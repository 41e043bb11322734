"""The types in which rows are stored: what lies on disk, what it is read as, and how floats become it."""

from dataclasses import dataclass
from typing import Any

import numpy as np

# int8 rows are read as float16 by default, so that nothing larger may be stored.
LARGEST_INT8_VALUE = 65504.0


@dataclass(frozen=True)
class RowType:
    """name: as `FeatureSpec.dtype` tells it. stored, read: numpy dtypes. scaled: one float32 scale per row beside it.

    float16, float32: as they are. bfloat16: the upper 16 bits of a float32 as uint16, which every tool can read; read
    as float32, exactly. int8: value = q * scale with scale = max|row| / 127; read as float16 (or float32).
    """

    name: str
    stored: str
    read: str
    scaled: bool = False

    @property
    def itemsize(self) -> int:
        return np.dtype(self.stored).itemsize

    @property
    def is_plain(self) -> bool:
        """Whether rows are read as they lie, without arithmetic."""
        return not self.scaled and np.dtype(self.stored) == np.dtype(self.read)

    def row_bytes(self, dim: int) -> int:
        """Bytes on disk of a row of `dim` values, with its scale."""
        return dim * self.itemsize + (4 if self.scaled else 0)


ROW_TYPES = {
    row_type.name: row_type
    for row_type in (
        RowType("float16", "<f2", "float16"),
        RowType("float32", "<f4", "float32"),
        RowType("bfloat16", "<u2", "float32"),
        RowType("int8", "|i1", "float16", scaled=True),
    )
}


def encode(rows: np.ndarray, row_type: RowType) -> tuple[np.ndarray, np.ndarray | None]:
    """Rows (T, D) of any float type as they are stored, C-contiguous, and the scales (T,) of int8 rows.

    Values that don't fit become infinite in float types; `first_bad_row` finds them. Rounding is to nearest, ties to
    even. int8 keeps every value within max|row| / 253 when read as float32; see FORMAT.md.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        if row_type.is_plain and (row_type.itemsize == 4 or rows.dtype != np.float32):
            return np.ascontiguousarray(rows, dtype=row_type.stored), None
        from featurestore.rows.kernels import quantise, to_bfloat16, to_float16

        if row_type.is_plain:
            return to_float16(rows), None
        return quantise(rows) if row_type.scaled else (to_bfloat16(rows), None)


def first_bad_row(stored: np.ndarray, scales: np.ndarray | None, row_type: RowType) -> int | None:
    """Return the first row (of what `encode` returned) that is NaN, infinite or too large for its type.

    None when all fit.
    """
    if scales is not None:
        bad = ~(scales <= np.float32(LARGEST_INT8_VALUE) / np.float32(127))
        return int(np.flatnonzero(bad)[0]) if bad.any() else None
    # By their bits, of float16 fifteen times as fast as np.isfinite: of each sign, infinity is the smallest that is not
    # finite.
    integer, infinity = _BITS[row_type.name]
    bits = stored.view(integer)
    sign = -np.iinfo(integer).min
    if not bits.size or (bits.max() < infinity and bits.view(f"u{bits.itemsize}").max() < sign + infinity):
        return None
    return int(np.flatnonzero(((bits & (sign - 1)) >= infinity).any(axis=1))[0])


# Of float types: signed integers as wide as a value, and the bits of infinity.
_BITS: dict[str, tuple[type[np.signedinteger[Any]], int]] = {
    "float16": (np.int16, 0x7C00),
    "bfloat16": (np.int16, 0x7F80),
    "float32": (np.int32, 0x7F800000),
}


def is_nan(row: np.ndarray, row_type: RowType) -> bool:
    """Return whether any value of a row as it is stored is NaN, not merely infinite."""
    if row_type.name != "bfloat16":
        return bool(np.isnan(row).any())
    return bool((np.bitwise_and(row, 0x7FFF) > 0x7F80).any())
