"""Where an utterance's sound lies: one name for one file, however a manifest writes its path."""

from pathlib import Path

import pandas as pd

from featurestore.corpus.division import real_paths
from featurestore.corpus.manifest import Manifest


def test_a_file_has_one_name_whatever_links_and_dots_lead_to_it(tmp_path: Path) -> None:
    root = tmp_path.resolve()
    (root / "disk" / "deep").mkdir(parents=True)
    for place in ("disk/a.wav", "disk/deep/b.wav", "c.wav"):
        (root / place).touch()
    (root / "linked").symlink_to(root / "disk" / "deep")
    (root / "another.wav").symlink_to(root / "disk" / "a.wav")
    leads_to = {
        "disk/a.wav": "disk/a.wav",
        str(root / "disk" / "a.wav"): "disk/a.wav",
        "./disk//deep/../a.wav": "disk/a.wav",
        "another.wav": "disk/a.wav",
        "linked/b.wav": "disk/deep/b.wav",
        "linked/../a.wav": "disk/a.wav",  # the folder above the one that the link leads to, as the system has it
        "c.wav": "c.wav",
        "not/there.wav": "not/there.wav",
        "disk/deep/..": "disk",
    }
    frame = pd.DataFrame({"utterance_id": [f"u{i}" for i in range(len(leads_to))], "path": list(leads_to)})
    frame.to_csv(root / "m.csv", index=False)
    assert real_paths(Manifest.read(root / "m.csv")) == [str(root / place) for place in leads_to.values()]
