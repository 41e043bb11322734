"""An export points at nothing outside itself."""

from pathlib import Path

import pytest

from ensemble.prediction.model import _check_inside
from featurestore.errors import ConfigError


@pytest.mark.parametrize("run", ["../elsewhere", "/etc", "members/../../m01"])
def test_a_member_outside_the_export_is_refused(run: str, tmp_path: Path) -> None:
    _check_inside(tmp_path, {"m01": ("members/m01", "")})
    with pytest.raises(ConfigError, match=r"members\.json.*m01.*outside"):
        _check_inside(tmp_path, {"m01": (run, "")})
