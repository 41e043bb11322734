"""The wheel holds every module of the tree, under four names of its own, and runs beside another's `cli.py`."""

import json
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]
OURS = ["featurestore", "deepser", "ensemble", "benchmarks"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the wheel of this tree, built from a copy: setuptools leaves its files beside the source."""
    directory = tmp_path_factory.mktemp("wheel")
    source = directory / "source"
    for name in OURS:
        shutil.copytree(REPO / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "cli.py", "README.md", "LICENSE"):
        shutil.copy(REPO / name, source)
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", directory]
    subprocess.run([*build, source], check=True, capture_output=True)
    (path,) = directory.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the `bin` of an environment with the wheel.

    It also has another package's `cli` and `benchmarks`.
    """
    directory = tmp_path_factory.mktemp("environment")
    venv.create(directory, symlinks=True)
    python = directory / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel]
    subprocess.run(install, check=True, capture_output=True)
    (packages,) = directory.glob("lib/python*/site-packages")
    # As paths only: the .pth files there, with this tree's editable installation, are not read.
    site_packages = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (packages / "packages-of-the-tests.pth").write_text("\n".join(site_packages))
    for name in ("cli", "benchmarks"):
        (packages / f"{name}.py").write_text("raise SystemExit('this is of another package')\n")
    return directory / "bin"


def run(*command: str | Path, cwd: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    process = subprocess.run(list(map(str, command)), cwd=cwd, env=environment, capture_output=True, text=True)
    assert process.returncode == 0, f"{command}\n{process.stdout}\n{process.stderr}"
    return process.stdout


@pytest.mark.slow
def test_the_wheel_holds_every_module_and_no_top_level_name_but_four(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    top = {name.split("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == {
        "featurestore", "deepser", "ensemble", "medusa_ser",
    }  # fmt: skip
    modules = {str(path.relative_to(REPO)) for name in OURS for path in (REPO / name).rglob("*.py")} | {"cli.py"}
    mapped = {f"medusa_ser/{name}" if name.startswith(("cli.py", "benchmarks/")) else name for name in modules}
    assert {name for name in names if name.endswith(".py")} == mapped


def test_the_wheel_holds_the_scripts_and_styles_of_the_report(wheel: Path) -> None:
    assets = {str(path.relative_to(REPO)) for path in (REPO / "ensemble" / "report" / "assets").iterdir()}
    assert len(assets) > 9
    assert assets <= set(zipfile.ZipFile(wheel).namelist())


@pytest.mark.slow
def test_the_command_runs_beside_a_package_with_a_cli_of_its_own(installed: Path, tmp_path: Path) -> None:
    assert run(installed / "medusa", "--version", cwd=tmp_path).startswith("medusa-ser ")
    assert "--directory" in run(installed / "medusa", "demo", "--help", cwd=tmp_path)


@pytest.mark.slow
def test_a_benchmark_that_starts_its_own_modules_finds_them(installed: Path, tmp_path: Path) -> None:
    small = ["--utterances", "12", "--features", "8@10,6@5", "--mean-s", "2", "--d", "16", "--n-heads", "2"]
    one_epoch = ["--batch", "4", "--epochs", "1", "--precision", "float32", "--workers", "", "--directory", tmp_path]
    run(installed / "medusa", "bench", "train", *small, *one_epoch, "--json", tmp_path / "train.json", cwd=tmp_path)
    assert json.loads((tmp_path / "train.json").read_text())["ways"]


@pytest.mark.slow
def test_cli_and_benchmarks_run_as_modules_of_medusa_ser(installed: Path, tmp_path: Path) -> None:
    python = installed / "python"
    assert run(python, "-m", "medusa_ser.cli", "--version", cwd=tmp_path).startswith("medusa-ser ")
    assert "--width" in run(python, "-m", "medusa_ser.benchmarks.loader", "--help", cwd=tmp_path)
    torchrun = [python, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    printed = run(*torchrun, "-m", "medusa_ser.cli", "--version", cwd=tmp_path)
    assert printed.count("medusa-ser ") == 2
