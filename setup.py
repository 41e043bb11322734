"""What pyproject.toml can't say: an installation keeps `cli` and `benchmarks` in a package of its own, medusa_ser.

Elsewhere those two names are others' too. The tree has them at its top level: `python -m benchmarks.loader` there is
`python -m medusa_ser.benchmarks.loader` of an installation.
"""

from setuptools import find_packages, setup

setup(
    script_name="setup.py",  # which setuptools then leaves out of medusa_ser; under pip it doesn't know
    packages=[
        *find_packages(include=["featurestore*", "deepser*", "ensemble*"]),
        "medusa_ser",  # of this directory, cli.py
        *(f"medusa_ser.{name}" for name in find_packages(include=["benchmarks*"])),
    ],
    package_dir={"medusa_ser": "."},
)
