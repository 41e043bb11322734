"""The tools that tests read a store with, and the versions that they were tested in."""

from generate.links import REPO
from generate.text import table

TEST = "tests/featurestore/store/test_other_readers.py"
READERS = [
    ("zarr", "zarr-python", "Zarr segments, plain, zstd and blosc"),
    ("zarrs", "zarrs, the Rust codecs for zarr-python", "Zarr segments, plain, zstd and blosc"),
    ("tensorstore", "tensorstore", "Zarr segments, plain, zstd and blosc"),
    ("h5py", "h5py", "HDF5 segments, plain and gzip"),
]


def versions() -> dict[str, str]:
    """Return the tested version of each package, from constraints.txt."""
    lines = (REPO / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if "==" in line)


def readers_page() -> str:
    """Return the page of other programs that read our stores."""
    tested = versions()
    rows = [[name, tested[package], what] for package, name, what in READERS]
    return (
        "\n\n".join(
            [
                "# Readers of the store",
                "A store needs no program of ours: any reader of Zarr v3 opens its segments, any reader of HDF5 those of "
                f"`featurize --format hdf5`. These were tested, in the versions of `constraints.txt` (`{TEST}`):",
                table(["reader", "version", "reads"], rows),
                "[The format](format.md) has every byte; [the store](../store.md) shows how to read it in Python. pyfive 1.3.0 "
                "reads zeros from our HDF5 segments without an error, since they begin with a user block "
                "([findings](../project/findings.md)).",
            ]
        )
        + "\n"
    )
