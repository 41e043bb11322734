"""Fixtures that more than one test package uses; data outside the repository is found beside it, or the test skips."""

import functools
import gc
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Before torch, numba or transformers are imported: they read these once.
os.environ["HF_HUB_OFFLINE"] = "1"
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
os.environ.setdefault("NUMBA_NUM_THREADS", "2")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.pop("COLUMNS", None)  # a shell's or xdist's: outputs are those of a pipe

# A shell's background jobs ignore Ctrl-C, and so would the programs that tests start; tests that interrupt need it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import pytest
import typer.testing
from hypothesis import HealthCheck, settings

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
REPO = Path(__file__).resolve().parents[1]

# A shared machine may stall any single example; wrong results, not slow ones, are what the property tests look for.
settings.register_profile("medusa", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("medusa")


# The command line is put together once, not anew for each of a thousand calls of `medusa`: 40 ms each.
typer.testing._get_command = functools.cache(typer.testing._get_command)  # type: ignore[attr-defined]

# Modules and tests are there to stay: looking through them for garbage takes a twentieth of the time.
gc.set_threshold(20_000, 20, 20)


def pytest_collection_finish() -> None:
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest test, lest one process be left with it in the end."""
    items.sort(key=lambda item: item.path.name != "test_demo.py")


def _outside_the_repository(variable: str, default: Path, what: str) -> Path:
    path = Path(os.environ.get(variable, default))
    if not path.is_dir():
        pytest.skip(f"{what} not found at {path}; set {variable} to its directory")
    return path


@pytest.fixture(scope="session")
def ravdess_dir() -> Path:
    """Return the speech part of RAVDESS, 1,440 clips as 16 kHz FLAC with `manifest.csv` beside the actors' folders."""
    return _outside_the_repository("MEDUSA_RAVDESS", REPO.parent / "shared" / "data" / "ravdess", "RAVDESS")


@pytest.fixture(scope="session")
def models_dir() -> Path:
    """Return the directory of small real encoders in the transformers layout (`tiny-hubert`, `tiny-wavlm`)."""
    return _outside_the_repository("MEDUSA_MODELS", REPO.parent / "shared" / "models", "the small encoders")


@pytest.fixture(scope="session")
def demo_corpus() -> Path:
    """Return the RAVDESS subset that the repository carries."""
    return REPO / "featurestore" / "demo_corpus"


@pytest.fixture(scope="session")
def crema_d_votes() -> Path:
    """Return the directory of CREMA-D's votes for the voice alone: `votes.csv`, 7,442 clips, and `speakers.csv`."""
    default = REPO.parent / "shared" / "data" / "crema-d-votes"
    return _outside_the_repository("MEDUSA_CREMA_D_VOTES", default, "CREMA-D's votes")


@pytest.fixture(scope="session")
def containers_dir() -> Path:
    """Return a directory with one clip of 3.5035 s, and 40 s of MP3, in common containers by several programs."""
    default = REPO.parent / "shared" / "data" / "containers"
    return _outside_the_repository("MEDUSA_CONTAINERS", default, "the containers")


@pytest.fixture(scope="module")  # not the session's: Playwright's event loop would run on beside later tests
def chromium() -> Iterator[Any]:
    """Yield the system's Chromium, driven by Playwright; skips where either is missing."""
    driver = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (pip install playwright)")
    path = os.environ.get("MEDUSA_CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip("no Chromium is installed (Debian: apt-get install chromium); MEDUSA_CHROMIUM names another")
    with driver.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, chromium_sandbox=False)
        yield browser
        browser.close()
