"""The decoder's name of a file costs no look at the installed packages once it is known."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from featurestore.runtime import provenance
from featurestore.sets.sources import decoder_name


def test_the_resamplers_version_is_looked_up_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []
    version = provenance.version
    monkeypatch.setattr(provenance, "version", lambda name: looked.append(name) or version(name))
    provenance.installed_version.cache_clear()
    for i in range(3):
        soundfile.write(tmp_path / f"{i}.wav", np.zeros(100), 16_000)
        assert decoder_name(tmp_path / f"{i}.wav").endswith(f"soxr {version('soxr')}")
    assert looked == ["soxr"]
