"""A first download, against a local server in the hub's form: whole, resumed, refused for the disk, offline."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from featurestore.encoders.hub import _files_to_fetch, _whole
from featurestore.encoders.weights import EMBEDDED
from tests.helpers.hub_server import Hub

REPO = Path(__file__).resolve().parents[3]
CODE = (
    "import sys; from featurestore.encoders import load_encoder; from featurestore.errors import EncoderError\n"
    "try: print(load_encoder('someone/speech', device='cpu').spec.weights)\n"
    "except EncoderError as error: print(error); sys.exit(2)\n"
)


def fetch(cache: Path, endpoint: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Load someone/speech in a process of its own, where huggingface_hub reads its environment anew."""
    environment = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"}
    environment |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1", **variables}
    return subprocess.run(
        [sys.executable, "-c", CODE], env=environment, cwd=REPO, capture_output=True, text=True, check=False
    )


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    directory = tmp_path / "hub" / "someone" / "speech"
    shutil.copytree(EMBEDDED / "tiny-hubert", directory)
    (directory / "training.log").write_text("not read by any encoder")
    return directory


@pytest.mark.slow
def test_a_download_goes_on_after_a_break_and_is_then_read_without_a_network(repository: Path, tmp_path: Path) -> None:
    """Only what an encoder reads is fetched; one line of output, no question and no code of the repository."""
    weights, cache = repository / "model.safetensors", tmp_path / "cache"
    # huggingface_hub writes 10 MB at a time, and goes on after the last one that it wrote.
    save_file({**load_file(weights), "unread": np.zeros(25_000_000, np.uint8)}, weights, {"format": "pt"})
    with Hub(repository.parents[1], cut=25_000_000) as hub:
        online = fetch(cache, hub.url)
        assert online.returncode == 0, online.stdout + online.stderr
        first, second = hub.ranges["model.safetensors"]
        assert first is None
        assert second == "bytes=20971520-"
        assert "training.log" not in hub.ranges
    offline = fetch(cache, "http://127.0.0.1:9")
    assert (offline.returncode, offline.stdout) == (0, online.stdout)


@pytest.mark.slow
def test_a_disk_without_room_and_a_missing_network_end_in_one_line(repository: Path, tmp_path: Path) -> None:
    with Hub(repository.parents[1], claimed=1 << 60) as hub:
        full = fetch(tmp_path / "cache", hub.url)
        assert full.returncode == 2
        assert "HF_HOME" in full.stdout
        assert hub.ranges == {}
        shutil.rmtree(repository)
        unknown = fetch(tmp_path / "cache", hub.url)
        assert "no such repository" in unknown.stdout
    unreachable = fetch(tmp_path / "cache", "http://127.0.0.1:9")
    for result in (full, unknown, unreachable):
        assert result.returncode == 2
        assert result.stdout.count("\n") == 1
    assert "hf download someone/speech" in unreachable.stdout


def test_safetensors_go_before_pickles_and_indexes_before_weights() -> None:
    sizes = dict.fromkeys(
        ["config.json", "tokenizer.json", "1_Pooling/config.json", "README.md", "model.safetensors.index.json",
         "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "pytorch_model.bin"],
        1,
    )  # fmt: skip
    small, weights = _files_to_fetch(sizes)
    assert small == ["config.json", "tokenizer.json", "1_Pooling/config.json", "model.safetensors.index.json"]
    assert weights == ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    assert _files_to_fetch({"config.json": 1, "pytorch_model.bin": 1})[1] == ["pytorch_model.bin"]


def test_a_snapshot_that_lacks_a_shard_is_not_whole(tmp_path: Path) -> None:
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    (tmp_path / "config.json").write_text("{}")
    index = {"weight_map": {"a": shards[0], "b": shards[1]}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / shards[0]).touch()
    assert not _whole(tmp_path)
    (tmp_path / shards[1]).touch()
    assert _whole(tmp_path)
