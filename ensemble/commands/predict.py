"""`medusa predict`: emotions of new audio."""

import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument

from featurestore.commands.recordings import EveryOption, Failures, SegmentsOption, SpanOption
from featurestore.errors import ConfigError
from featurestore.runtime.wording import silent_clips
from featurestore.terminal import (
    DeviceOption,
    Show,
    bar,
    console,
    end_with_failures,
    option_groups,
    reads,
    say,
    split_pair,
    system,
    working,
    writes,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ensemble.prediction.formats import Record
    from ensemble.prediction.model import Model
    from ensemble.prediction.pieces import Piece
    from ensemble.prediction.predictions import Predictions
    from featurestore.corpus.manifest import Manifest

Run = Callable[..., "Iterable[Predictions]"]  # of a manifest


@dataclass(frozen=True)
class InputArguments:
    """What is predicted, and what is known about it."""

    weights: Annotated[list[str] | None, reads("NAME=DIR: weights of an encoder that moved.")] = None
    text: Annotated[str | None, reads("Text that is spoken in the files.")] = None
    asr: Annotated[str | None, reads("Whisper model that transcribes the files, or off. Default: the members'.")] = None
    manifest: Annotated[
        Path | None, reads("Corpus table whose utterances are predicted, in place of files.", "--manifest", "-m")
    ] = None
    speaker_of: Annotated[
        str | None,
        reads("Who speaks, for speaker-adapted models: COLUMN (default: speaker), folder, file.", "--speaker-of"),
    ] = None
    running: Annotated[
        bool, reads("Speaker-adapted models: normalise each piece by its speaker's pieces so far.", "--running")
    ] = False
    every: EveryOption = None
    span: SpanOption = None
    segments: SegmentsOption = None

    def table(self, files: list[str] | None, *, stderr: bool) -> "tuple[Manifest, Failures]":
        """Return the utterances to predict, cut if so requested, and (name, reason) of those that can't be read.

        stderr: notes go there, since the output is the predictions.
        """
        from ensemble.prediction.inputs import TEXT_OF_ALL, cut_files, files_manifest, track_notes, with_speakers
        from ensemble.prediction.speech_to_text import OFF
        from featurestore.corpus.manifest import Manifest
        from featurestore.recordings.cut import cutter_of
        from featurestore.recordings.places import find_files

        if bool(files) == (self.manifest is not None):
            raise ConfigError("Give either audio files or --manifest.")
        if self.text is not None and (self.manifest is not None or self.asr not in (None, OFF)):
            raise ConfigError("--text goes with files; a manifest has a text column, and --asr transcribes the audio.")
        cutter = cutter_of(self.every, self.span, self.segments)
        if self.text is not None and cutter is not None:
            raise ConfigError(TEXT_OF_ALL)
        notes: list[str] = []
        if self.manifest is not None:
            table = Manifest.read(self.manifest)
        else:
            table = files_manifest(find_files(files or [], sys.stdin, notes), self.text)
        notes += track_notes(table)
        unnamed = [(note.partition(": ")[0], note) for note in table.notes]  # files whose names can't be keys
        if cutter is not None:
            with bar("looking for pieces", len(table)) as show:
                table, failed = cut_files(table, cutter, notes, lambda done, total: show(done, total))
            unnamed += failed
        for note in notes:
            say(note, stderr=stderr)
        return table if self.speaker_of is None else with_speakers(table, self.speaker_of), unnamed

    def identity(self, model: "Model") -> dict[str, object]:
        """Return the identity of the predictions, by which a run can go on with those of another."""
        of: dict[str, object] = {"model": model.identity, "asr": self.asr, "text": self.text}
        if model.speaker_adapted:
            of["speaker_of"] = self.speaker_of
            of |= {"running": True} if self.running else {}
        return of


@dataclass(frozen=True)
class OutputArguments:
    """Where predictions go, and how they are written."""

    output: Annotated[Path | None, writes(".csv, .jsonl, .rttm, or any with --format.", "--output", "-o")] = None
    format: Annotated[
        str | None, writes("csv, jsonl, rttm or audacity; default: by the suffix; without --output on the terminal.")
    ] = None
    plot: Annotated[Path | None, writes("Draw the classes over time (.png, .svg).")] = None

    def check(self, pieces: "Sequence[Piece]") -> str:
        """Return the format; ConfigError for what it, or a plot, can't show."""
        from ensemble.prediction.formats import check_recordings, format_of
        from ensemble.prediction.plot import check_plot

        chosen = format_of(self.output, self.format)
        check_recordings(chosen, [piece.path for piece in pieces])
        if self.plot is not None:
            check_plot(self.plot, pieces)
        return chosen

    def draw(self, model: "Model", records: "Iterable[Record]") -> None:
        """Draw the plot, where there is one."""
        from ensemble.prediction.plot import plot_timeline

        if self.plot is not None:
            plot_timeline(self.plot, records, model.classes, model.attribute_ranges)
            say(f"wrote {self.plot}", stderr=self.output is None)


@option_groups
def predict(
    inputs: InputArguments,
    to: OutputArguments,
    files: Annotated[list[str] | None, Argument(help="Files, folders, 'patterns/**/*.wav', or - for a list.")] = None,
    model: Annotated[Path, reads("What probe, fit-deepser, fit-meta or export wrote.")] = Path("runs/meta"),
    chunk: Annotated[int, system("Utterances whose features are on disk at once; a stop loses no more.", min=1)] = 1000,
    workers: Annotated[int, system("Decoding threads.", min=1)] = 2,
    device: DeviceOption = "auto",
) -> None:
    """Predict emotions of new audio: encoders, members, meta-classifier; how far the members disagree.

    Speech is transcribed only where a member reads text. A file that fails is reported and the rest done (exit code 1).
    Stopped with --output, it goes on where it was when it is run again. Of a long recording --every and --span predict
    windows, --segments vad speech, --segments FILE a table's segments: csv and jsonl have a row for each, rttm and
    audacity a timeline.

    Example: `medusa predict clip.wav calls/ --model runs/meta -o predictions.csv`
    """
    from ensemble.prediction.directory import require_directory
    from ensemble.prediction.formats import format_of

    format_of(to.output, to.format)  # before anything is read, torch included
    require_directory(model)
    from ensemble.prediction.inputs import learned_note, scales_note, speakers_note
    from ensemble.prediction.model import Model
    from ensemble.prediction.pieces import pieces_of
    from ensemble.prediction.predict import predict_parts
    from ensemble.prediction.speech_to_text import OFF

    table, failed = inputs.table(files, stderr=to.output is None)
    pieces = pieces_of(table)
    format = to.check(list(pieces.values()))
    places = {name: Path(place) for name, place in (split_pair("--weights", pair) for pair in inputs.weights or [])}
    with working("loading the model"):
        loaded = Model.load(model)
    if inputs.running and not (loaded.speaker_adapted and table.has("speaker")):
        raise ConfigError(
            "--running goes with a speaker-adapted model and with speakers: name them with --speaker-of, or leave it "
            "out."
        )
    if loaded.speaker_adapted and (note := speakers_note(table)):
        say(f"note: {note}", stderr=True)
    for note in (scales_note(table, loaded.attribute_ranges), learned_note(table, loaded.rules)):
        if note:
            say(f"note: {note}", stderr=True)
    run = partial(
        predict_parts, loaded, weights=places, asr=inputs.asr if inputs.text is None else OFF, device=device,
        workers=workers, chunk=chunk, running=inputs.running,
    )  # fmt: skip
    if to.output is None:
        failed = _shown(loaded, table, run, to) + failed
    else:
        failed = _written(loaded, table, run, to, format, inputs.identity(loaded), pieces, chunk) + failed
    end_with_failures(failed, to.output)


def _shown(model: "Model", table: "Manifest", run: Run, to: OutputArguments) -> Failures:
    """Predict, and print a table or, where a format is asked for, what would be in a file of it; what failed."""
    from ensemble.prediction.formats import write_text
    from ensemble.prediction.predictions import Predictions, predictions_table

    with bar("predict", len(table)) as show:
        result = Predictions.join(list(run(table, progress=_into(show))))
    if result.keys and to.format is not None:
        write_text(sys.stdout, to.format, result.columns, result.records())
    elif result.keys:
        console().print(predictions_table(result))
    if result.keys:
        to.draw(model, result.records())
    _warn_of_silence(result.silent)
    return list(result.failed)


def _written(
    model: "Model",
    table: "Manifest",
    run: Run,
    to: OutputArguments,
    format: str,
    identity: dict[str, object],
    pieces: "Mapping[str, Piece]",
    chunk: int,
) -> Failures:
    """Predict what a run that was stopped has not predicted, and write all; what failed."""
    from ensemble.prediction.predictions import columns_of
    from ensemble.prediction.writer import PredictionWriter

    assert to.output is not None
    failed: Failures = []
    silent: list[str] = []
    with PredictionWriter(to.output, identity, table.keys) as writer:
        remaining = table.rows(_undone(table, writer.done, chunk if model.speaker_adapted else 0))
        if writer.done:
            say(f"{len(writer.done):,} were predicted before that run was stopped; going on with {len(remaining):,}")
        with bar("predict", len(remaining)) as show:
            try:
                for part in run(remaining, progress=_into(show)):
                    writer.append(part)
                    failed += part.failed
                    silent += part.silent
            except KeyboardInterrupt:
                show.close()
                say(f"{len(writer.done):,} of {len(table):,} are predicted and kept", stderr=True)
                raise
        if writer.done:
            to.draw(model, writer.records(pieces))
        columns = columns_of(
            model.classes, model.attributes, len(model.members), table.has_pieces, adapted=model.speaker_adapted
        )  # fmt: skip
        writer.finish(columns, format, pieces)
        say(f"wrote {len(writer.done):,} predictions to {to.output}")
    _warn_of_silence(silent)
    return failed


def _warn_of_silence(keys: Sequence[str]) -> None:
    if keys:
        say(f"warning: {silent_clips(keys)}; their predictions mean nothing", "yellow", stderr=True)


def _undone(table: "Manifest", done: Collection[str], together: int) -> "NDArray[np.bool_]":
    """Return which utterances are left, (N,) bool.

    together: a speaker of so many clips at most is predicted anew with a clip that is left, such as one that failed
    before the run was stopped: alone it would be normalised by nothing of its speaker's.
    """
    import numpy as np

    from featurestore.corpus.splits import speaker_groups

    left = np.array([key not in done for key in table.keys], bool)
    if not together or not table.has("speaker") or not left.any():
        return left
    _, speakers, n_clips = np.unique(speaker_groups(table), return_inverse=True, return_counts=True)
    has_left = np.bincount(speakers, left) > 0
    undone: NDArray[np.bool_] = left | (has_left & (n_clips <= together))[speakers]
    return undone


def _into(show: Show) -> Callable[[str, float, int], None]:
    return lambda what, done, total: show(done, total, what)
