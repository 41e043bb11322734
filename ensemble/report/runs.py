"""From the runs that a user names to the systems in them, with their manifest, store and run directories."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deepser.probes.scores_file import SCORES
from ensemble.evaluation.align import PREFIX
from ensemble.evaluation.posteriors import posteriors_name
from ensemble.evaluation.prediction_files import SUFFIXES
from ensemble.report.packing import natural
from featurestore.errors import ConfigError
from featurestore.runtime import json_text
from featurestore.store.feature_store import FeatureStore

CONFIG = "config.json"
MEMBERS = "members.json"  # which the run directory of an ensemble has
SCHEME = ".scheme.json"


@dataclass(frozen=True)
class Runs:
    """What a report is of.

    systems: names of posteriors, or files of predictions, members before ensembles. directories: run directories by
    the name of their system. whole: directories of `medusa run` or `medusa demo`. unfinished: run directories whose
    posteriors are not in the store.
    """

    manifest: Path
    store: Path  # a URL, as commands give it, is a str; see `featurestore.terminal.store_place`
    systems: tuple[str, ...]
    directories: Mapping[str, Path] = field(default_factory=dict)
    whole: tuple[Path, ...] = ()
    unfinished: tuple[str, ...] = ()


def find_runs(places: Sequence[str], manifest: Path | None = None, store: Path | None = None) -> Runs:
    """Return the systems of run directories, of directories of them, and of names in the store or files.

    manifest, store: by default those in the directory of a whole run. ConfigError for a place that is none of these,
    and where no manifest is found.
    """
    whole: list[Path] = []
    directories: list[Path] = []
    names: list[str] = []
    for place in places:
        path = Path(place)
        if not path.is_dir():
            names.append(place)
        elif (path / CONFIG).is_file():
            directories.append(path)
        else:
            inner = path / "runs" if (path / "runs").is_dir() else path
            run_directories = sorted(
                (each.parent for each in inner.glob(f"*/{CONFIG}")), key=lambda each: natural(each.name)
            )
            if not run_directories:
                raise ConfigError(
                    f"{place} holds no run: expected the directory of `medusa run` or `medusa demo`, or run "
                    f"directories with a {CONFIG}."
                )
            directories += sorted(run_directories, key=lambda each: (each / MEMBERS).is_file())
            whole += [path] if inner != path else []
    homes = [*whole, *(up for each in directories for up in (each.parent, each.parent.parent))]
    table = manifest or _manifest_in(homes)
    opened_at = store if store is not None else next((home / "store" for home in homes if (home / "store").is_dir()),
                                                      Path("store"))  # fmt: skip
    in_store = [name for name in names if Path(name).suffix.lower() not in SUFFIXES]
    opened = FeatureStore.open(opened_at) if directories or in_store else None
    directory_of_name = {PREFIX + each.name: each for each in directories}
    finished = {name: path for name, path in directory_of_name.items() if opened is not None and name in opened}
    systems = [*finished]
    for name in names:
        full = posteriors_name(opened, name) if opened is not None and name in in_store else name
        systems += [full] if full not in systems else []
    if not systems:
        raise ConfigError(
            f"No system to report: the store {opened_at} has no posteriors of "
            f"{', '.join(path.name for path in directories)}. Finish the runs, or give their store (--store)."
        )
    unfinished = tuple(path.name for name, path in directory_of_name.items() if name not in finished)
    return Runs(table, opened_at, tuple(systems), finished, tuple(dict.fromkeys(whole)), unfinished)


def _manifest_in(homes: Sequence[Path]) -> Path:
    """Return the manifest of the first directory that has one: manifest.csv, else its only table with a scheme."""
    for home in homes:
        for suffix in (".csv", ".parquet"):
            if (home / f"manifest{suffix}").is_file():
                return home / f"manifest{suffix}"
        tables = [
            table
            for scheme in sorted(home.glob(f"*{SCHEME}"))
            for suffix in (".csv", ".parquet")
            if (table := home / f"{scheme.name.removesuffix(SCHEME)}{suffix}").is_file()
        ]
        if len(tables) == 1:
            return tables[0]
    searched = f" in {homes[0]}" if homes else ""
    raise ConfigError(f"No manifest is found{searched}; give the corpus table with --manifest FILE.")


def state_of(runs: Runs) -> tuple[tuple[str, int, int], ...]:
    """Return names, sizes and dates of what a page is made from: it is another when any of it was written again."""
    places = [runs.manifest, runs.manifest.with_suffix(".ratings.parquet"), *map(Path, runs.systems)]
    if isinstance(runs.store, Path):
        places += [runs.store / name for name in runs.systems]
    for directory in runs.directories.values():
        places += [directory, directory / CONFIG, directory / "report.json", directory / SCORES]
    files = [(place, place.stat()) for place in places if place.exists()]
    return tuple((str(place), about.st_size, about.st_mtime_ns) for place, about in files)


def read_json(path: Path) -> dict[str, object]:
    """Return a JSON object that a run wrote; {} where there is no file, ConfigError where it is damaged."""
    try:
        content = json_text.read_json(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} can't be read ({error}); make it again with the command that wrote it.") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds no JSON object; make it again with the command that wrote it.")
    return content
