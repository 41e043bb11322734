"""One run: write the rows in every layout, measure every way, clean up."""

import json
import os
import platform
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from featurestore.errors import ConfigError
from featurestore.runtime.durable import replace_text

from . import peer_files, peer_tables
from .disk import direct_is_possible, memory_touch
from .elsewhere import ways_against
from .measure import measure
from .npy_time import npy_stages
from .ours import DISK_WAYS, MEDUSA_WAYS, NAME, write_store
from .rows import IoSettings, Rows, Shape
from .ways import FLOOR, MEMCPY, PACKED_WAYS, Way, write_packed
from .writing import measure_writing

LAYOUTS: dict[str, Callable[[Path, Rows], None]] = {
    "store": write_store,
    "store-hdf5": partial(write_store, format="hdf5"),
    "store-int8": partial(write_store, dtype="int8"),
    "packed": write_packed,
    "npy": peer_files.write_npy,
    "hdf5": peer_files.write_hdf5,
    "safetensors": peer_files.write_safetensors,
    "zarr": peer_files.write_zarr,
    "tar": peer_files.write_tar,
    "lmdb": peer_tables.write_lmdb,
    "arrow": peer_tables.write_arrow,
    "datasets": peer_tables.write_datasets,
    "lance": peer_tables.write_lance,
    "litdata": peer_tables.write_litdata,
    "mosaic": peer_tables.write_mosaic,
}
WAYS = [MEMCPY, *DISK_WAYS, *MEDUSA_WAYS, *PACKED_WAYS, *peer_files.FILE_WAYS, *peer_tables.TABLE_WAYS]
PACKAGES = {
    "numpy": "numpy", "h5py": "h5py", "zarr": "zarr", "safetensors": "safetensors", "pyarrow": "pyarrow",
    "zarrs": "zarrs", "tensorstore": "tensorstore", "lmdb": "lmdb", "datasets": "datasets", "lance": "pylance",
    "litdata": "litdata", "streaming": "mosaicml-streaming", "webdataset": "webdataset", "annbatch": "annbatch",
}  # fmt: skip
COMPARED = ("medusa", "medusa-hdf5", "medusa-int8")  # with another version
# Rows, and what a layout needs beyond them.
ROOM_PER_LAYOUT = 1.15


def run_io(
    settings: IoSettings,
    directory: Path | None = None,
    *,
    against: Path | None = None,
    json_path: Path | None = None,
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Measure and return {"settings", "machine", "absent", "shapes": [{..., "figures", "npy_stages", "writing"}]}.

    directory: where the files are written and removed again; the default is the system's temporary directory. Where it
    has no room for all layouts at once, they are written, measured beside the floors, and removed one by one. A figure
    is a record of `measure`, one per way, state (warm, cold) and number of threads. against: a checkout of another
    version, which reads the same store in turn with this one. json_path: write the result there.
    Raises ConfigError for settings that can't be, and AssertionError when a reader returns other rows than were
    written.
    """
    report = progress or (lambda _: None)
    chosen = _chosen(settings.readers)
    if against is not None:
        chosen += ways_against(against, [way for way in chosen if way.id in COMPARED], NAME)
    parent = Path(directory or tempfile.gettempdir())
    parent.mkdir(parents=True, exist_ok=True)
    _check_room(settings, parent)
    result: dict[str, Any] = {
        "settings": asdict(settings),
        "machine": machine(parent),
        "memory_touch": memory_touch() if settings.cold else None,
        "absent": [
            {"id": way.id, "name": way.name, "package": PACKAGES[way.needs]} for way in chosen if not way.installed
        ],
        "shapes": [],
    }
    work = Path(tempfile.mkdtemp(prefix="medusa-bench-io-", dir=parent))
    try:
        ways = [way for way in chosen if way.installed and (way.id != "disk-direct" or direct_is_possible(work))]
        with _quiet_peers():
            for shape in settings.shapes:
                result["shapes"].append(_measure_shape(work, shape, ways, settings, report))
    finally:
        shutil.rmtree(work, ignore_errors=True)
    if json_path is not None:
        replace_text(Path(json_path), json.dumps(result, indent=1) + "\n")
    return result


def _measure_shape(
    work: Path, shape: Shape, ways: Sequence[Way], settings: IoSettings, progress: Callable[[str], None]
) -> dict[str, Any]:
    rows = Rows.random(shape, settings.seed)
    n_bytes = rows.values.nbytes
    measured: dict[str, Any] = {**asdict(shape), "n_bytes": n_bytes, "npy_stages": None, "writing": None}
    label = f"{shape.dim} x {shape.mean_s:g} s: "

    def report(text: str) -> None:
        progress(label + text)

    figures: list[dict[str, Any]] = []
    for group in _groups(ways, n_bytes, shutil.disk_usage(work).free):
        layouts = list(dict.fromkeys(way.layout for way in group if way.layout))
        for layout in layouts:
            report(f"writing for {layout}")
            (work / layout).mkdir()
            LAYOUTS[layout](work / layout, rows)
        for cold in (False, True) if settings.cold else (False,):
            for n_threads in settings.threads:
                new = measure(group, work, rows, settings, n_threads, cold, report)
                measured_already = {(figure["id"], figure["state"], figure["threads"]) for figure in figures}
                # Floors are measured beside every group; the first time is kept.
                figures += [f for f in new if (f["id"], f["state"], f["threads"]) not in measured_already]
        if "npy" in layouts:
            report("where the time of .npy goes")
            measured["npy_stages"] = npy_stages(work / "npy", rows, settings.batch, settings.seed, settings.repeats)
        for layout in layouts:
            shutil.rmtree(work / layout)
    if settings.write:
        measured["writing"] = measure_writing(work, rows, settings.repeats, report)
    return {**measured, "figures": figures}


def _groups(ways: Sequence[Way], n_bytes: int, free: int) -> Iterator[list[Way]]:
    """All ways at once where there is room for their layouts, else layout by layout, each beside the floors."""
    layouts = list(dict.fromkeys(way.layout for way in ways if way.layout))
    if free > ROOM_PER_LAYOUT * n_bytes * (len(layouts) + 1):
        yield list(ways)
        return
    for layout in layouts:
        yield [way for way in ways if way.layout == layout or way.group == FLOOR]


def _check_room(settings: IoSettings, parent: Path) -> None:
    largest = max(shape.n_utterances * shape.mean_s * shape.dim for shape in settings.shapes)
    # A layout, the store that the floors read, and a third for the spread of durations.
    needed = 3 * ROOM_PER_LAYOUT * largest * 50 * 2
    if shutil.disk_usage(parent).free < needed:
        raise ConfigError(f"bench io needs {needed / 1e9:.1f} GB in {parent}: give --directory, or fewer --utterances.")


def _chosen(ids: Sequence[str]) -> list[Way]:
    unknown = sorted(set(ids) - {way.id for way in WAYS})
    if unknown:
        known = ", ".join(way.id for way in WAYS)
        raise ConfigError(f"bench io: there is no reader {', '.join(unknown)}; there are {known}.")
    # Floors and ours always: without them nothing could be compared.
    return [way for way in WAYS if not ids or way.id in ids or way.group == FLOOR or way.id == "medusa"]


@contextmanager
def _quiet_peers() -> Iterator[None]:
    """Peers leave files open and use what is deprecated, which isn't ours to mend."""
    with warnings.catch_warnings():
        for category in (ResourceWarning, DeprecationWarning, FutureWarning, UserWarning):
            warnings.simplefilter("ignore", category)
        yield


def machine(directory: Path) -> dict[str, Any]:
    """Return what the figures depend on."""
    versions = {}
    for package in PACKAGES.values():
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "kernel": platform.release(),
        "libc": " ".join(platform.libc_ver()),
        "processor": _processor(),
        "cpus": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "file_system": _file_system(directory),
        "python": platform.python_version(),
        "packages": versions,
    }


def _processor() -> str:
    """Name, family, model and stepping of the processor, where the system tells."""
    with suppress(OSError):
        lines = [line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line]
        fields = {name.strip(): value.strip() for name, value in reversed(lines)}
        if "model name" in fields:
            numbers = [fields[name] for name in ("cpu family", "model", "stepping") if name in fields]
            return f"{fields['model name']} ({'/'.join(numbers)})" if numbers else fields["model name"]
    return platform.processor()


def _file_system(directory: Path) -> str:
    """Type of the file system of a directory, where the system tells."""
    with suppress(OSError):
        mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
        place = str(directory.resolve()) + "/"
        found = [(len(point), kind) for _, point, kind, *_ in mounts if place.startswith(point.rstrip("/") + "/")]
        return max(found)[1] if found else ""
    return ""
