"""`medusa predict`: emotions of new audio."""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

from typer import Argument

from featurestore.errors import ConfigError
from featurestore.terminal import (
    DeviceOption,
    Show,
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
    speaker_of: Annotated[
        str | None,
        reads("Who speaks, for speaker-adapted models: COLUMN (default: speaker), folder, file.", "--speaker-of"),
    ] = None,
    chunk: Annotated[int, system("Utterances whose features are on disk at once.", min=1)] = 1000,
    workers: Annotated[int, system("Decoding threads.", min=1)] = 2,
    device: DeviceOption = "auto",
) -> None:
    """Predict emotions of new audio: encoders, members, meta-classifier; how far the members disagree.

    Words are heard only where a member reads them. A file that fails is reported and the rest done (exit code 1).
    Stopped with --output, it goes on where it was when it is run again.

    Example: `medusa predict clip.wav calls/ --model runs/meta -o predictions.csv`
    """
    import numpy as np

    from ensemble.prediction.inputs import files_manifest, speakers_note, with_speakers
    from ensemble.prediction.model import Model
    from ensemble.prediction.predict import predict_parts
    from ensemble.prediction.predictions import Predictions, check_output, columns_of, predictions_table
    from ensemble.prediction.speech_to_text import OFF
    from ensemble.prediction.writer import PredictionWriter
    from featurestore.corpus.manifest import Manifest
    from featurestore.recordings.places import find_files

    if bool(files) == (manifest is not None):
        raise ConfigError("Give either audio files or --manifest.")
    if text is not None and (manifest is not None or asr not in (None, OFF)):
        raise ConfigError("--text goes with files; a manifest has a text column, and --asr hears one.")
    if output is not None:
        check_output(output)  # before the model is loaded
    notes: list[str] = []
    table = Manifest.read(manifest) if manifest else files_manifest(find_files(files or [], sys.stdin, notes), text)
    for note in notes:
        say(note)
    unnamed = [(note.partition(": ")[0], note) for note in table.notes]  # files whose names can't be keys
    if speaker_of is not None:
        table = with_speakers(table, speaker_of)
    places = {name: Path(place) for name, place in (split_pair("--weights", pair) for pair in weights or [])}
    with working("loading the model"):
        loaded = Model.load(model)
    if loaded.speaker_adapted and (note := speakers_note(table)):
        say(f"note: {note}", stderr=True)
    run = partial(
        predict_parts, loaded, weights=places, asr=asr if text is None else OFF, device=device, workers=workers,
        chunk=chunk,
    )  # fmt: skip
    if output is None:
        with bar("predict", len(table)) as show:
            result = Predictions.join(list(run(table, progress=_into(show))))
        if result.keys:
            console().print(predictions_table(result))
        end_with_failures([*result.failed, *unnamed])
        return
    failed: list[tuple[str, str]] = []
    identity = {"model": loaded.identity, "asr": asr, "text": text}
    if loaded.speaker_adapted:
        identity["speaker_of"] = speaker_of
    with PredictionWriter(output, identity, table.keys) as writer:
        rest = table.rows(np.array([key not in writer.done for key in table.keys], bool))
        if writer.done:
            say(f"{len(writer.done):,} were predicted before that run was stopped; going on with {len(rest):,}")
        with bar("predict", len(rest)) as show:
            for part in run(rest, progress=_into(show)):
                writer.append(part)
                failed += part.failed
        writer.finish(columns_of(loaded.classes, loaded.attributes, len(loaded.members)))
        say(f"wrote {len(writer.done):,} predictions to {output}")
    end_with_failures([*failed, *unnamed])


def _into(show: Show) -> Callable[[str, float, int], None]:
    return lambda what, done, total: show(done, total, what)
