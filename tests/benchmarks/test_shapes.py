"""Every shape and type is read as it was written, and stands in the table with its floor."""

from pathlib import Path

import pytest

from benchmarks.io import shapes


@pytest.mark.slow
def test_every_shape_is_measured_beside_its_floor(tmp_path: Path) -> None:
    records = shapes.run(tmp_path, n_bytes=200_000, repeats=1)
    measured = {(record["shape"], record["way"]) for record in records}
    assert len(measured) == len(records) == 3 * len(shapes.SHAPES) + 2
    assert ("25 layers pooled", "float16 to float32") in measured
    assert all(record["gb_per_s"] > 0 and record["floor_gb_per_s"] > 0 for record in records)
    assert len(shapes.markdown(records).splitlines()) == len(records) + 2
