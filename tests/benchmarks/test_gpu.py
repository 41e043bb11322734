"""The steps for a GPU: what they add up to, and each of their lines on a CPU with small models."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from benchmarks.gpu.encoders import repeated, union_s
from benchmarks.gpu.record import AIMS, add, markdown, missed, read
from benchmarks.gpu.steps import STEPS, names
from featurestore.corpus.manifest import Manifest
from featurestore.errors import ConfigError

REPO = Path(__file__).resolve().parents[2]


def test_steps_add_to_one_file_and_what_falls_short_is_listed(tmp_path: Path) -> None:
    path = tmp_path / "gpu.json"
    add(path, "featurize:wavlm-large", {"x_per_file": 12.0, "x_padded": 3.0, "mfu": 0.4, "busy": float("nan")})
    add(path, "train", {"x_field": 5.0})
    steps = add(path, "resume", {"error": "took longer than 480 s"})
    assert list(read(path)) == ["featurize:wavlm-large", "train", "resume"]
    lines = list(missed(steps))
    assert len(lines) == 3
    assert lines[0].startswith("featurize:wavlm-large: 12, aim 20 ")
    assert "busy not measured" in lines[1]
    assert "480 s" in lines[2]
    table = markdown(steps)
    assert "| train | x_field | 5 |" in table
    assert table.count("\n- ") == 3


def test_kernels_that_overlap_are_counted_once() -> None:
    assert union_s([(0.0, 2.0), (1.0, 3.0), (5.0, 6.0), (5.2, 5.5)]) == 4.0
    assert union_s([]) == 0.0


def test_a_corpus_of_few_files_has_many_keys() -> None:
    table = pa.table(
        {"utterance_id": ["a", "b"], "path": ["a.flac", "b.flac"], "text": ["", ""], "duration_s": [1.0, 2.0]}
    )
    many = repeated(Manifest(table, root=Path("x")), 3, 5)
    assert len(set(many.keys)) == 5
    assert set(many.column("path")) == {"a.flac", "b.flac"}
    for path, seconds in zip(many.column("path"), many.column("duration_s"), strict=True):
        assert seconds == {"a.flac": 1.0, "b.flac": 2.0}[path]


def test_every_aim_is_of_a_step_and_every_step_of_a_script() -> None:
    from fnmatch import fnmatch

    assert all(any(fnmatch(step, aim.steps) for step in STEPS) for aim in AIMS)
    scripts = [(REPO / "benchmarks" / f"{name}-gpu.sh").read_text() for name in ("featurize", "train", "transcribe")]
    run = {name for text in scripts for name in names(text.split("benchmarks.gpu")[-1].replace('"$@"', "").split())}
    assert run == set(STEPS)
    with pytest.raises(ConfigError, match="no step 'x'"):
        names(["x"])


@pytest.mark.slow
@pytest.mark.parametrize("script", ["featurize", "train", "transcribe"])
def test_a_script_runs_every_line_on_a_cpu(script: str, tmp_path: Path) -> None:
    process = subprocess.run(
        ["sh", f"benchmarks/{script}-gpu.sh", "--tiny", "--device", "cpu", "--json", str(tmp_path / "gpu.json"),
         "--directory", str(tmp_path)],
        cwd=REPO, env={**os.environ, "PYTHON": sys.executable}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    steps = json.loads((tmp_path / "gpu.json").read_text())
    assert process.returncode == 0, steps
    assert "missed aims:" in process.stdout or "all aims are met" in process.stdout
    assert not any("error" in record for record in steps.values())
    if script == "featurize":
        for name, record in steps.items():
            if name.startswith("featurize:"):
                assert record["worst_row_float32"] < 1e-3
                assert record["x_per_file"] > 0 < record["mfu"]
        assert steps["memory:wavlm-large"]["failed"] == 0
        assert np.isfinite(steps["attention:wavlm-large"]["shipped"]["new_shape_ms"])
    if script == "train":
        assert steps["resume"]["killed_same_weights"] is True
        assert steps["train"]["x_field"] > 0
    assert (tmp_path / "gpu.md").read_text().startswith("# On a GPU")
