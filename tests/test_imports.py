"""Imports go one way: cli, benchmarks, ensemble, deepser, featurestore; and within these, among their sub-packages."""

import ast
import subprocess
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]
LAYERS = ["featurestore", "deepser", "ensemble", "benchmarks", "cli"]
PACKAGES = LAYERS[:3]
HEAVY = ["torch", "transformers", "whisper", "zarr", "h5py", "numba", "pyarrow", "sklearn"]

# What a sub-package (or a module beside them) may import of ours, from the ground up. A new one adds its line, below
# all that import it. A name without a dot is of the same package; GROUND is open to all but itself.
GROUND = {"featurestore.errors", "featurestore.runtime"}
MAY_IMPORT = {
    "featurestore.errors": "",
    "featurestore.runtime": "errors",
    "featurestore.terminal": "",
    "featurestore.audio": "",
    "featurestore.rows": "",
    "featurestore.corpus": "audio",
    "featurestore.corpora": "audio corpus",
    "featurestore.recordings": "audio corpus",
    "featurestore.format": "rows",
    "featurestore.sets": "audio format rows",
    "featurestore.remote": "format",
    "featurestore.store": "format remote sets",
    "featurestore.transfer": "format remote sets store",
    "featurestore.loaders": "rows sets store",
    "featurestore.interchange": "audio format sets store",
    "featurestore.encoders": "audio format rows",
    "featurestore.augment": "audio corpus format sets store",
    "featurestore.featurize": "audio augment corpus encoders sets store",
    "featurestore.asr": "audio corpus encoders featurize format sets",
    "featurestore.commands": (
        "terminal audio corpus corpora recordings format sets store transfer interchange encoders augment featurize asr"
    ),
    "featurestore": "audio corpus format loaders rows sets store",  # the public names
    "deepser": "config members scores",  # the public names
    "deepser.config": "",
    "deepser.scores": "",
    "deepser.networks": "config",
    "deepser.training": (
        "config networks scores featurestore.augment featurestore.corpus featurestore.loaders featurestore.rows "
        "featurestore.sets featurestore.store"
    ),
    "deepser.members": (
        "config networks scores training featurestore.corpus featurestore.format featurestore.loaders "
        "featurestore.sets featurestore.store"
    ),
    "deepser.probes": (
        "config members scores training featurestore.corpus featurestore.format featurestore.loaders featurestore.rows "
        "featurestore.sets featurestore.store"
    ),
    "deepser.watch": "scores featurestore.terminal",
    "ensemble.evaluation": (
        "deepser.members deepser.scores deepser.training featurestore.audio featurestore.corpora featurestore.corpus "
        "featurestore.format featurestore.sets featurestore.store"
    ),
    "ensemble.fusion": (
        "evaluation deepser.config deepser.members deepser.probes deepser.scores deepser.training featurestore.corpus "
        "featurestore.format featurestore.store"
    ),
    "ensemble.experiments": (
        "evaluation fusion deepser.config deepser.members deepser.probes deepser.scores deepser.training "
        "featurestore.corpus featurestore.store"
    ),
    "ensemble.prediction": (
        "evaluation fusion deepser.members deepser.probes deepser.scores deepser.training featurestore.asr "
        "featurestore.audio featurestore.corpus featurestore.encoders featurestore.featurize featurestore.format "
        "featurestore.recordings featurestore.store"
    ),
    "ensemble.report": (
        "evaluation deepser.members deepser.probes deepser.scores deepser.watch featurestore.audio "
        "featurestore.corpus featurestore.sets featurestore.store"
    ),
    "ensemble.recipes": (
        "evaluation deepser.config deepser.members deepser.scores featurestore featurestore.corpus "
        "featurestore.encoders featurestore.loaders featurestore.sets featurestore.store"
    ),
    "ensemble.commands": (
        "evaluation experiments fusion prediction recipes report deepser.config deepser.members deepser.probes "
        "deepser.scores deepser.training deepser.watch featurestore.corpus featurestore.format featurestore.store "
        "featurestore.augment featurestore.commands featurestore.recordings featurestore.terminal"
    ),
    "ensemble": "evaluation fusion prediction",  # the public names
}

Arrows = Mapping[str, set[str]]


def files_of(layer: str) -> list[Path]:
    module = REPO / f"{layer}.py"
    return [module] if module.exists() else sorted((REPO / layer).rglob("*.py"))


def modules() -> dict[str, Path]:
    """Every module of the packages by its dotted name, a sub-package under its own."""
    files = [file for package in PACKAGES for file in files_of(package)]
    return {".".join(f.relative_to(REPO).with_suffix("").parts).removesuffix(".__init__"): f for f in files}


@cache
def imported(source: Path) -> set[str]:
    """Every dotted name a file imports, also inside functions and under TYPE_CHECKING."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"), str(source))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            if node.level:  # an installation calls cli and benchmarks by other names: medusa_ser.cli
                assert source.is_relative_to(REPO / "benchmarks") or source == REPO / "cli.py", (
                    f"{source}:{node.lineno}: imports are written in full, not relative"
                )
                names.add("benchmarks")
            else:
                names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def imported_layers(source: Path) -> set[str]:
    """Every layer a file imports."""
    return {name.split(".")[0] for name in imported(source)} & set(LAYERS)


@cache
def module_arrows() -> dict[str, set[str]]:
    """Which of our modules each of them imports."""
    ours, arrows = modules(), {}
    for module, file in ours.items():
        imported_modules = {name if name in ours else name.rpartition(".")[0] for name in imported(file)}
        arrows[module] = (imported_modules & ours.keys()) - {module}
    return arrows


def room_of(module: str) -> str:
    return ".".join(module.split(".")[:2])


def room_arrows() -> dict[str, set[str]]:
    """Which sub-packages each of them imports."""
    arrows: dict[str, set[str]] = {}
    for module, targets in module_arrows().items():
        room = room_of(module)
        arrows.setdefault(room, set()).update({room_of(target) for target in targets} - {room})
    return arrows


def allowed(room: str) -> set[str]:
    """Return what the table lets a sub-package import, in full names."""
    package, names = room.split(".")[0], MAY_IMPORT[room].split()
    full = {name if name.split(".")[0] in PACKAGES else f"{package}.{name}" for name in names}
    return full if room in GROUND else full | GROUND


def circle(arrows: Arrows) -> Iterable[str]:
    """Return a circle, as the names along it; none where there is none."""
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        return list(reversed(error.args[1]))
    return []


@pytest.mark.parametrize("layer", LAYERS)
def test_a_package_imports_only_what_lies_below_it(layer: str) -> None:
    files = files_of(layer)
    assert files, f"{layer} has no files"
    below = set(LAYERS[: LAYERS.index(layer) + 1])
    wrong = {str(file.relative_to(REPO)): sorted(imported_layers(file) - below) for file in files}
    assert {file: names for file, names in wrong.items() if names} == {}


def test_a_sub_package_imports_only_what_the_table_allows() -> None:
    arrows = room_arrows()
    assert arrows.keys() == MAY_IMPORT.keys()
    wrong = {(room, target) for room, targets in arrows.items() for target in targets - allowed(room)}
    assert wrong == set()


def test_no_sub_packages_import_each_other_in_a_circle() -> None:
    assert circle(room_arrows()) == []
    assert circle({room: allowed(room) for room in MAY_IMPORT}) == [], "the table itself goes in a circle"


def test_no_files_import_each_other_in_a_circle() -> None:
    arrows = module_arrows()
    assert len(arrows) > 200
    assert circle(arrows) == []


def test_circles_are_found() -> None:
    assert set(circle({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": set()})) == {"a", "b", "c"}


@pytest.mark.parametrize("room", [room for room in MAY_IMPORT if (REPO / room.replace(".", "/")).is_dir()])
def test_a_sub_package_says_in_its_first_line_what_it_is_for(room: str) -> None:
    text = ast.get_docstring(ast.parse((REPO / room.replace(".", "/") / "__init__.py").read_text(encoding="utf-8")))
    assert text
    assert text.splitlines()[0].endswith(".")


def test_the_test_sees_imports_inside_functions(tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text("def f():\n    from ensemble.fusion.linear import fit_meta\n    import deepser.enc as e\n")
    assert imported_layers(file) == {"ensemble", "deepser"}


def loaded_with(module: str, names: Iterable[str]) -> list[str]:
    """Return which of these modules a program has loaded once it has imported `module`."""
    code = f"import sys, {module}; print(*sorted(set({[*names]!r}) & sys.modules.keys()))"
    process = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=True)
    return process.stdout.split()


@pytest.mark.parametrize("module", ["featurestore", "featurestore.errors", "featurestore.format.spec"])
def test_importing_the_store_loads_nothing_heavy(module: str) -> None:
    assert loaded_with(module, HEAVY) == []


def test_a_recipe_is_planned_without_numpy() -> None:
    assert loaded_with("ensemble.recipes.execute", [*HEAVY, "numpy"]) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_type_checkers_see_the_names_that_load_when_they_are_used(package: str) -> None:
    tree = ast.parse((REPO / package / "__init__.py").read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    homes = {
        alias.asname: each.module for each in block.body if isinstance(each, ast.ImportFrom) for alias in each.names
    }
    module = import_module(package)
    assert sorted(homes) == module.__all__
    for name, home in homes.items():
        assert getattr(module, name) is getattr(import_module(str(home)), name)
        assert name in dir(module)


def test_the_public_names_of_the_store_are_there() -> None:
    import featurestore

    for name in ("Manifest", "LabelScheme", "FeatureStore", "decode", "ManifestError"):
        assert getattr(featurestore, name).__name__ == name
