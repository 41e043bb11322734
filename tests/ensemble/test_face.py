"""The public names of `ensemble`: each is there, is what its own module has, is documented, and loads nothing early."""

import inspect
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import ensemble

PUBLIC = (
    "Aligned", "Assessment", "ForestConfig", "MetaConfig", "MetaState", "Model", "Predictions", "ScoringOptions",
    "System", "VoteConfig", "assess", "assess_parts", "export_model", "fit_ensemble", "load_meta", "load_posteriors",
    "open_system", "predict_meta", "read_predictions",
)  # fmt: skip


def test_the_public_names_are_these() -> None:
    assert tuple(ensemble.__all__) == PUBLIC
    assert set(PUBLIC) <= set(dir(ensemble))


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_is_documented_where_it_is_defined(name: str) -> None:
    value = getattr(ensemble, name)
    assert value.__name__ == name
    assert value is getattr(import_module(value.__module__), name)
    assert value.__module__.startswith("ensemble.")
    text = inspect.getdoc(value) or ""
    assert text.endswith(".")
    assert not text.startswith(f"{name}(")  # what a dataclass without a docstring has


def test_a_name_that_is_none_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'nothing'"):
        _ = ensemble.nothing


def test_importing_it_loads_no_module_of_it_and_nothing_heavy() -> None:
    code = "import sys, ensemble; print(*(name for name in sys.modules if name.startswith(('ensemble', 'torch'))))"
    repo = Path(__file__).resolve().parents[2]
    result = subprocess.run([sys.executable, "-c", code], cwd=repo, capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["ensemble"]
