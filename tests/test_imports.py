"""Imports go one way only: cli, benchmarks, ensemble, deepser, featurestore; and the last is light to import."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]
LAYERS = ["featurestore", "deepser", "ensemble", "benchmarks", "cli"]
HEAVY = ["torch", "transformers", "whisper", "zarr", "h5py", "numba", "pyarrow", "sklearn"]


def files_of(layer: str) -> list[Path]:
    module = REPO / f"{layer}.py"
    return [module] if module.exists() else sorted((REPO / layer).rglob("*.py"))


def imported_layers(source: Path) -> set[str]:
    """Every layer a file imports, also inside functions and under TYPE_CHECKING."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"), str(source))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            if node.level:  # an installation calls cli and benchmarks by other names: medusa_ser.cli
                assert source.is_relative_to(REPO / "benchmarks") or source == REPO / "cli.py", (
                    f"{source}:{node.lineno}: imports are written in full, not relative"
                )
                names.add("benchmarks")
            else:
                names.add(str(node.module).split(".")[0])
    return names & set(LAYERS)


@pytest.mark.parametrize("layer", LAYERS)
def test_a_package_imports_only_what_lies_below_it(layer: str) -> None:
    files = files_of(layer)
    assert files, f"{layer} has no files"
    below = set(LAYERS[: LAYERS.index(layer) + 1])
    wrong = {str(file.relative_to(REPO)): sorted(imported_layers(file) - below) for file in files}
    assert {file: names for file, names in wrong.items() if names} == {}


def test_the_test_sees_imports_inside_functions(tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text("def f():\n    from ensemble.fusion.linear import fit_meta\n    import deepser.enc as e\n")
    assert imported_layers(file) == {"ensemble", "deepser"}


@pytest.mark.parametrize("module", ["featurestore", "featurestore.errors", "featurestore.format.spec"])
def test_importing_the_store_loads_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(*sorted({HEAVY!r} & sys.modules.keys()))".replace("['", "{'").replace(
        "']", "'}"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_public_names_of_the_store_are_there() -> None:
    import featurestore

    for name in ("Manifest", "LabelScheme", "FeatureStore", "decode", "ManifestError"):
        assert getattr(featurestore, name).__name__ == name
