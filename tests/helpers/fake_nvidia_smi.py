"""An nvidia-smi that lists an A100 with two MIG slices and a T4 without."""

import os
from pathlib import Path

import pytest

A100 = "GPU-5d5ba0d6-4f5c-4a50-a9ac-3e0a3bd5a8a1"
WHOLE = "GPU-0a1b2c3d-1111-2222-3333-444455556666"
MIG_A, MIG_B = "MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f", "MIG-cba663e8-9bed-5b25-b243-5985ef7c9beb"
SCRIPT = f"""#!/bin/sh
case "$1" in
-L) cat <<END
GPU 0: NVIDIA A100-SXM4-40GB (UUID: {A100})
  MIG 3g.20gb     Device  0: (UUID: {MIG_A})
  MIG 3g.20gb     Device  1: (UUID: {MIG_B})
GPU 1: Tesla T4 (UUID: {WHOLE})
END
;;
*) printf '%s, 8.0\\n%s, 7.5\\n' {A100} {WHOLE} ;;
esac
"""


def fake_nvidia_smi(directory: Path, patch: pytest.MonkeyPatch) -> None:
    """Put the fake program before all others of its name."""
    place = directory / "bin"
    place.mkdir()
    (place / "nvidia-smi").write_text(SCRIPT)
    (place / "nvidia-smi").chmod(0o755)
    patch.setenv("PATH", f"{place}{os.pathsep}{os.environ['PATH']}")
