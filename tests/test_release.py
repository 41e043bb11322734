"""What a release is made of: one version, sections of the change log, a source distribution without tests or audio."""

import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest

from featurestore.audio import AUDIO_SUFFIXES

REPO = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return the files of a source distribution of this tree, built from a copy."""
    directory = tmp_path_factory.mktemp("sdist")
    source = directory / "source"
    for name in ("featurestore", "deepser", "ensemble", "benchmarks", "tests", "docs", "findings"):
        shutil.copytree(REPO / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "_build", "*.npy"))
    for path in REPO.iterdir():
        if path.is_file() and not path.name.startswith("."):
            shutil.copy(path, source)
    build = f"from setuptools import build_meta; build_meta.build_sdist({str(directory)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True)
    (path,) = directory.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        return [member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()]


@pytest.mark.slow
def test_the_source_distribution_holds_no_tests_and_no_audio_but_the_demos(sdist: list[str]) -> None:
    assert not [name for name in sdist if name.startswith(("tests/", "docs/", "findings/", "shared/"))]
    audio = [name for name in sdist if Path(name).suffix in AUDIO_SUFFIXES]
    assert len(audio) == 384
    assert all(name.startswith("featurestore/demo_corpus/Actor_") for name in audio)


def test_the_source_distribution_holds_what_the_wheel_is_built_from(sdist: list[str]) -> None:
    modules = {
        path.relative_to(REPO).as_posix()
        for package in ("featurestore", "deepser", "ensemble", "benchmarks")
        for path in (REPO / package).rglob("*.py")
    }
    texts = {"README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "constraints.txt", "pyproject.toml"}
    assert modules | {"cli.py", "setup.py"} | texts <= set(sdist)


def test_the_version_stands_in_one_place() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", PROJECT["version"])
    for name in ("setup.py", "CITATION.cff", "cli.py", "docs/conf.py", "featurestore/__init__.py"):
        assert PROJECT["version"] not in (REPO / name).read_text(encoding="utf-8"), name


def test_the_change_log_sorts_the_changes_of_this_version() -> None:
    text = (REPO / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.split(r"^## ", text, flags=re.MULTILINE)[1]
    assert newest.startswith(PROJECT["version"])
    assert re.findall(r"^### (.*)$", newest, re.MULTILINE) == ["Added", "Changed", "Fixed", "Format"]


def test_each_direct_dependency_has_a_tested_version() -> None:
    lines = (REPO / "constraints.txt").read_text(encoding="utf-8").splitlines()
    tested = {re.sub(r"[-_.]+", "-", line.split("==")[0]).lower() for line in lines if "==" in line}
    extras = PROJECT["optional-dependencies"]
    direct = [*PROJECT["dependencies"], *extras["dev"], *extras["docs"], *extras["opensmile"], *extras["vad"]]
    names = {re.sub(r"[-_.]+", "-", re.split(r"[\[<>=]", line)[0]).lower() for line in direct}
    assert sorted(names - tested - {"setuptools"}) == []
