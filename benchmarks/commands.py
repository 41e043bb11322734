"""`medusa bench`: what this machine does."""

from pathlib import Path
from typing import Annotated

from typer import Option

from featurestore.terminal import console, typer_app, working

bench_app = typer_app(help="Measure this machine.")


@bench_app.command("io")
def bench_io(
    directory: Annotated[Path | None, Option(help="Where to write; default: the system's temporary one.")] = None,
    utterances: Annotated[int, Option(help="How many.")] = 600,
    dim: Annotated[int, Option(help="Columns of a row.")] = 1024,
    mean_s: Annotated[float, Option(help="Mean duration of an utterance.")] = 5.5,
    batch: Annotated[int, Option(help="Utterances per batch.")] = 32,
    repeats: Annotated[int, Option(help="Runs of which the median is told.")] = 5,
    seed: Annotated[int, Option(help="Of rows and batches.")] = 0,
    cold: Annotated[bool, Option("--cold", help="Also with the files dropped from the page cache.")] = False,
    json_file: Annotated[Path | None, Option("--json", help="Write the figures.")] = None,
) -> None:
    """Read random batches through our store and through what others use, memcpy being the floor.

    Example: `medusa bench io --utterances 3000`
    """
    from benchmarks.io import io_table, run_io

    with working("bench io") as show:
        result = run_io(
            directory, n_utterances=utterances, dim=dim, mean_s=mean_s, batch=batch, repeats=repeats, seed=seed,
            cold=cold, json_path=json_file, progress=show,
        )  # fmt: skip
    console().print(io_table(result))
