"""The benchmark of data larger than memory: what it reads, and that it names the cgroup which it can't make."""

import json
from pathlib import Path

import pytest

from benchmarks import larger
from benchmarks.io.disk import direct_is_possible
from featurestore.errors import ConfigError


def test_each_epoch_reads_all_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if not direct_is_possible(tmp_path):
        pytest.skip("no O_DIRECT there")
    assert larger.write(tmp_path, 0, 2) == larger.BATCH
    larger.read(tmp_path, 2)
    result = json.loads(capsys.readouterr().out)
    assert len(result["gb_per_s"]) == len(result["from_disk"]) == 2
    assert result["disk_gb_per_s"] > 0


def test_a_cgroup_that_cannot_be_made_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(larger, "HIERARCHIES", 2 * ((tmp_path / "none", "memory.max"),))
    with pytest.raises(ConfigError, match="medusa-bench"):
        larger.run(tmp_path, limit_bytes=1, times=1, epochs=1)
