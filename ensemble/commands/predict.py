"""`medusa predict`: emotions of new audio."""

from pathlib import Path
from typing import Annotated

from typer import Argument

from featurestore.errors import ConfigError
from featurestore.terminal import (
    DeviceOption,
    bar,
    console,
    end_with_failures,
    reads,
    say,
    split_pair,
    system,
    writes,
)


def predict(
    files: Annotated[list[Path] | None, Argument(help="Audio files.")] = None,
    model: Annotated[Path, reads("Run directory of fit-meta or fit-deepser.")] = Path("runs/meta"),
    output: Annotated[Path | None, writes(".csv or .jsonl.", "--output", "-o")] = None,
    weights: Annotated[list[str] | None, reads("NAME=DIR: weights of an encoder that moved.")] = None,
    text: Annotated[str | None, reads("What is said in the files.")] = None,
    manifest: Annotated[Path | None, reads("Predict its utterances instead.", "--manifest", "-m")] = None,
    workers: Annotated[int, system("Decoding threads.", min=1)] = 2,
    device: DeviceOption = "auto",
) -> None:
    """Predict emotions of new audio files: encoders, members, meta-classifier.

    A file that fails is reported and the rest done (exit code 1).

    Example: `medusa predict clip.wav other.flac --model runs/meta -o predictions.csv`
    """
    from ensemble.predict import Model, files_manifest
    from ensemble.predict import predict as run
    from ensemble.predictions import check_output, predictions_table
    from featurestore.manifest import Manifest

    if bool(files) == (manifest is not None):
        raise ConfigError("Give either audio files or --manifest.")
    if text is not None and manifest is not None:
        raise ConfigError("--text goes with files; a manifest has a text column of its own.")
    if output is not None:
        check_output(output)
    table = files_manifest(files or [], text) if manifest is None else Manifest.read(manifest)
    places = {name: Path(place) for name, place in (split_pair("--weights", pair) for pair in weights or [])}
    with bar("predict", len(table)) as show:
        result = run(
            Model.load(model), table, weights=places, device=device, workers=workers,
            progress=lambda what, done, total: show(done, total, what),
        )  # fmt: skip
    if output is None:
        console().print(predictions_table(result))
    else:
        result.write(output)
        say(f"wrote {len(result.keys):,} predictions to {output}")
    end_with_failures(result.failed)
