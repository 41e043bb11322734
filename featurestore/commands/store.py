"""`medusa store`: look into a feature store and look after it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from featurestore.commands.store_interchange import store_export, store_import
from featurestore.commands.store_transfer import store_pull, store_push
from featurestore.errors import StoreError
from featurestore.runtime.wording import format_bytes
from featurestore.terminal import (
    FAILED_FILES,
    StoreOption,
    bar,
    console,
    directory_bytes,
    end_with_failures,
    say,
    typer_app,
)

COLUMNS = ("feature set", "kind", "encoder", "layers", "dim", "dtype", "stored as", "utterances", "bytes")
DISPENSABLE = ("stored as", "encoder", "dtype", "layers", "kind", "dim")

store_app = typer_app(help="Look into a feature store: ls, info, verify, compact, rm, import, export, push, pull.")


@store_app.command("ls")
def store_ls(store: StoreOption = Path("store")) -> None:
    """List the feature sets.

    Example: `medusa store ls -s store`
    """
    from featurestore.store.feature_store import FeatureStore, broken_sets

    opened = FeatureStore.open(store)
    rows: list[list[str]] = []
    broken = broken_sets(opened.path, opened.files)
    damaged = list(broken.items())
    for name in broken:
        rows.append([name, *"-" * 6, "damaged", format_bytes(directory_bytes(opened.path / name))])
    for name in opened.names():
        if name in broken:
            continue
        features = opened[name]
        spec = features.spec
        try:
            n = f"{len(features):,}"
        except StoreError as error:
            n = "damaged"
            damaged.append((name, str(error)))
        storage = f"{features.format} {features.compress}".strip()
        cells = [name, spec.kind, spec.encoder, _layers(spec.layers), str(spec.dim), spec.dtype, storage, n]
        rows.append([*cells, format_bytes(directory_bytes(features.path))])
    _print_sets(rows)
    end_with_failures(damaged)


def _print_sets(rows: list[list[str]]) -> None:
    """Print a row for each feature set; where that is too wide, without the columns that `info` shows too."""
    from rich import box
    from rich.measure import Measurement
    from rich.table import Table

    left_out: list[str] = []
    while True:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        columns = [i for i, column in enumerate(COLUMNS) if column not in left_out]
        for column in (COLUMNS[i] for i in columns):
            table.add_column(column, justify="right" if column in ("dim", "utterances", "bytes") else "left",
                             overflow="fold")  # fmt: skip
        for cells in rows:
            table.add_row(*(cells[i] for i in columns))
        terminal = console()
        wide = Measurement.get(terminal, terminal.options.update(max_width=10_000), table).maximum > terminal.width
        if not wide or len(left_out) == len(DISPENSABLE):
            break
        left_out.append(DISPENSABLE[len(left_out)])
    terminal.print(table)
    if left_out:
        say(f"Left out for the width: {', '.join(left_out)}. `medusa store info SET` prints them.", "dim")


def _layers(names: Sequence[str]) -> str:
    """Return "layer_00 to layer_12 (13)" of more than three layers, else their names."""
    return ", ".join(names) if len(names) <= 3 else f"{names[0]} to {names[-1]} ({len(names)})"


@store_app.command("info")
def store_info(name: Annotated[str, Argument(help="A feature set.")], store: StoreOption = Path("store")) -> None:
    """Print what a feature set holds and how it was made.

    Example: `medusa store info wavlm-large -s store`
    """
    from featurestore.corpus.made_on import MADE_ON
    from featurestore.store.feature_store import FeatureStore

    features = FeatureStore.open(store)[name]
    lines = {"fingerprint": features.spec.fingerprint, **features.spec.to_json()}
    for key, value in features.provenance.items():
        if key == MADE_ON:
            value = {name: value.get(name) for name in ("column", "utterances")} if isinstance(value, dict) else value
        fields = {f"{key} {field}": each for field, each in value.items()} if isinstance(value, dict) else {key: value}
        lines |= {f"made with {name}": each for name, each in fields.items()}
    lines |= {
        "stored as": f"{features.format} {features.compress}".strip(),
        "utterances": len(features),
        "rows": int(features.index.n_rows.sum()),
        "segments": len(features.segments),
        "bytes": format_bytes(directory_bytes(features.path)),
    }
    for key, value in lines.items():
        say(f"{key:>24}  {', '.join(map(str, value)) if isinstance(value, list) else value}")


@store_app.command("verify")
def store_verify(
    name: Annotated[str | None, Argument(help="A feature set; default: all.")] = None,
    store: StoreOption = Path("store"),
) -> None:
    """Read every byte and check it against its checksum; exit code 1 when something is damaged.

    Example: `medusa store verify -s store`
    """
    from featurestore.store.verify import verify_store

    problems = verify_store(store, name)
    for each, problems_of_set in problems.items():
        verdict = (
            "whole"
            if not problems_of_set
            else f"{len(problems_of_set)} problem{'s' if len(problems_of_set) > 1 else ''}"
        )
        say(f"{each or store}: {verdict}", "red" if problems_of_set else "")
        for problem in problems_of_set:
            say(f"  {problem}", stderr=True)
    if any(problems.values()):
        raise typer.Exit(FAILED_FILES)


@store_app.command("compact")
def store_compact(
    name: Annotated[str | None, Argument(help="A feature set; default: all.")] = None,
    store: StoreOption = Path("store"),
    segment_mb: Annotated[int, Option(help="Size of a merged segment.", min=1)] = 1024,
    format: Annotated[str | None, Option(help="Also rewrite segments of another format as zarr or hdf5.")] = None,
    compress: Annotated[
        str | None, Option(help="Also rewrite segments with zstd or blosc (zarr), gzip (hdf5), or '' for none.")
    ] = None,
) -> None:
    """Merge small segments, and drop second copies of keys; readers and writers may go on meanwhile.

    Example: `medusa store compact wavlm-large -s store`
    """
    from featurestore.store.feature_store import FeatureStore

    opened = FeatureStore.open(store)
    for each in opened.names() if name is None else [name]:
        with bar(each, 0) as show:
            report = opened.compact(
                each, segment_bytes=segment_mb << 20, format=format, compress=compress, progress=show
            )
        say(
            f"{each}: {report.n_before:,} segments -> {report.n_after:,}; {report.n_copied:,} utterances copied, "
            f"{report.n_dropped:,} second copies dropped"
        )


@store_app.command("rm")
def store_rm(
    name: Annotated[str, Argument(help="A feature set.")],
    store: StoreOption = Path("store"),
    yes: Annotated[bool, Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    damaged: Annotated[bool, Option("--damaged", help="Remove only segments in which verify finds damage.")] = False,
) -> None:
    """Remove a feature set, or what is damaged of it: encode again to fill that in.

    Example: `medusa store rm wavlm-large -s store`
    """
    from featurestore.format.spec import check_set_name
    from featurestore.store.feature_store import FeatureStore

    opened = FeatureStore.open(store)
    if damaged:
        removed = opened.remove_damaged(name)
        say(f"{name}: {len(removed)} damaged segments removed" + "".join(f"\n  {segment}" for segment in removed))
        return
    if name not in opened and not (opened.path / check_set_name(name)).exists():
        opened[name]  # names what there is
    if not yes:
        typer.confirm(f"Remove {name}, {format_bytes(directory_bytes(opened.path / name))}?", abort=True)
    opened.remove(name)
    say(f"removed {name}")


store_app.command("import")(store_import)
store_app.command("export")(store_export)
store_app.command("push")(store_push)
store_app.command("pull")(store_pull)
