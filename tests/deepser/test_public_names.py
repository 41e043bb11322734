import subprocess
import sys
from pathlib import Path

import pytest

import deepser

REPO = Path(__file__).resolve().parents[2]
PUBLIC = {
    "Evaluation", "FoldPlan", "LossConfig", "Member", "MemberConfig", "NetworkConfig", "StageConfig", "TrainConfig",
    "ccc", "evaluate", "find_preset", "fit_members", "member_config", "plan_folds",
}  # fmt: skip


def test_the_public_names_are_these_and_each_loads() -> None:
    assert set(deepser.__all__) == PUBLIC
    for name in PUBLIC:
        assert getattr(deepser, name).__module__.startswith("deepser.")
        assert name in dir(deepser)
    with pytest.raises(AttributeError, match="nothing"):
        deepser.nothing  # noqa: B018


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import sys, deepser; print(*sorted({'torch', 'sklearn', 'scipy', 'numba', 'zarr'} & sys.modules.keys()))"
    process = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=True)
    assert process.stdout.split() == []
