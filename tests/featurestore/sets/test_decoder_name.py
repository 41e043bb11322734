"""The decoder's name of a file costs no look at the installed packages once it is known."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from featurestore.sets import sources


def test_the_resamplers_version_is_looked_up_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []
    version = sources.version
    monkeypatch.setattr(sources, "version", lambda name: looked.append(name) or version(name))
    sources._soxr_version.cache_clear()
    for i in range(3):
        soundfile.write(tmp_path / f"{i}.wav", np.zeros(100), 16_000)
        assert sources.decoder_name(tmp_path / f"{i}.wav").endswith(f"soxr {version('soxr')}")
    assert looked == ["soxr"]
