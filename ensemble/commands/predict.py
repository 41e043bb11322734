"""`medusa predict`: emotions of new audio."""

import sys
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
    working,
    writes,
)


def predict(
    files: Annotated[list[str] | None, Argument(help="Files, folders, 'patterns/**/*.wav', or - for a list.")] = None,
    model: Annotated[Path, reads("What fit-meta, fit-deepser or export wrote.")] = Path("runs/meta"),
    output: Annotated[Path | None, writes(".csv or .jsonl.", "--output", "-o")] = None,
    weights: Annotated[list[str] | None, reads("NAME=DIR: weights of an encoder that moved.")] = None,
    text: Annotated[str | None, reads("What is said in the files.")] = None,
    asr: Annotated[str | None, reads("Whisper model that hears what is said; off. Default: the members'.")] = None,
    manifest: Annotated[Path | None, reads("Predict its utterances instead.", "--manifest", "-m")] = None,
    chunk: Annotated[int, system("Utterances whose features are on disk at once.", min=1)] = 1000,
    workers: Annotated[int, system("Decoding threads.", min=1)] = 2,
    device: DeviceOption = "auto",
) -> None:
    """Predict emotions of new audio: encoders, members, meta-classifier; how far the members disagree.

    Words are heard only where a member reads them. A file that fails is reported and the rest done (exit code 1).

    Example: `medusa predict clip.wav calls/ --model runs/meta -o predictions.csv`
    """
    from ensemble.hearing import OFF
    from ensemble.inputs import files_manifest, find_files
    from ensemble.model import Model
    from ensemble.predict import predict as run
    from ensemble.predictions import check_output, predictions_table
    from featurestore.manifest import Manifest

    if bool(files) == (manifest is not None):
        raise ConfigError("Give either audio files or --manifest.")
    if text is not None and (manifest is not None or asr not in (None, OFF)):
        raise ConfigError("--text goes with files; a manifest has a text column, and --asr hears one.")
    if output is not None:
        check_output(output)
    table = Manifest.read(manifest) if manifest else files_manifest(find_files(files or [], sys.stdin), text)
    places = {name: Path(place) for name, place in (split_pair("--weights", pair) for pair in weights or [])}
    with working("loading the model"):
        loaded = Model.load(model)
    with bar("predict", len(table)) as show:
        result = run(
            loaded, table, weights=places, asr=asr if text is None else OFF, device=device, workers=workers,
            chunk=chunk, progress=lambda what, done, total: show(done, total, what),
        )  # fmt: skip
    if output is None:
        console().print(predictions_table(result))
    else:
        result.write(output)
        say(f"wrote {len(result.keys):,} predictions to {output}")
    end_with_failures(result.failed)
