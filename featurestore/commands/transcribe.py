"""`medusa transcribe`: the words of every utterance, by openai-whisper."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from featurestore.commands.recordings import FilesArgument, KeptOption, OptionalManifest, beside, manifest_of
from featurestore.commands.shards import ShardOption, part_to_do
from featurestore.terminal import (
    DeviceOption,
    bar,
    encodes,
    end_with_failures,
    say,
    system,
    working,
    writes,
)

if TYPE_CHECKING:
    from featurestore.asr.transcribe import TranscribeReport


def transcribe(
    files: FilesArgument = None,
    manifest: OptionalManifest = None,
    output: Annotated[Path, writes("Table of transcripts (.csv, .parquet).", "--output", "-o")] = Path(
        "transcripts.csv"
    ),
    write_manifest: KeptOption = None,
    model: Annotated[str, encodes("openai-whisper's name (tiny.en, base, turbo, ...) or its checkpoint, FILE.pt.")] = (
        "large-v3"
    ),
    language: Annotated[str, encodes("Language as code or English name; auto: detected in each utterance.")] = "auto",
    beam: Annotated[int, encodes("Beams of the search; 1 is greedy.", min=1)] = 1,
    words: Annotated[
        bool, encodes("Store the start and the end of each word too, by whisper's own method.", "--words")
    ] = False,
    compute: Annotated[str, encodes("Arithmetic: auto, float32, float16.")] = "auto",
    batch: Annotated[
        int | None,
        system("Utterances per batch; default: on a GPU as many as its memory holds (128 at most), else 1.", min=1),
    ] = None,
    workers: Annotated[int, system("Decoding threads.", min=1)] = 2,
    device: DeviceOption = "auto",
    shard: ShardOption = None,
) -> None:
    """Transcribe every utterance once, for text encoders: `medusa featurize --transcripts FILE`.

    Utterances already in the table are skipped, a file that fails is reported and the rest done (exit code 1). Ctrl-C
    keeps what is finished. Another model or option needs another file. Files and folders need no manifest, see
    featurize. With --shard each part has a table of its own, transcripts.2-of-8.csv; featurize reads all of them as
    transcripts.csv.

    Example: `medusa transcribe --model large-v3 --language en -m corpus.csv -o transcripts.csv`
    """
    from featurestore.asr.transcribe import transcribe as run
    from featurestore.asr.transcriber import load_transcriber
    from featurestore.asr.transcripts import part_path
    from featurestore.runtime.device import describe_device, unused_cards
    from featurestore.runtime.stopping import Interrupted

    part = part_to_do(shard, "transcribe")
    table, failed = manifest_of(files, manifest, write_manifest or beside(output))
    with working(f"loading {model}"):
        loaded = load_transcriber(
            model, language=language, beam=beam, device=device, compute=compute, batch=batch, words=words
        )  # fmt: skip
    say(f"{loaded.source.model}: on {describe_device(loaded.model.device)}, {loaded.source.compute}")
    if device == "auto" and (why := unused_cards(loaded.model.device)):
        say(f"warning: {why}", "yellow", stderr=True)
    written = output if part is None else part_path(output, part.number, part.count)
    with bar(f"{loaded.source.model} -> {written.name}", len(table), "{task.fields[rate]}") as show:

        def on_utterance(done: int, total: int, audio_s: float) -> None:
            elapsed = max(show.task.elapsed or 0.0, 1e-3)
            show(done, total, rate=f"{audio_s / elapsed:.1f} x real time")

        try:
            report = run(table, loaded, output, shard=part, workers=workers, progress=on_utterance)
        except Interrupted as stop:
            show.close()
            _say_report(written, stop.report)
            raise
    _say_report(written, report)
    end_with_failures([*failed, *report.failed], written)


def _say_report(output: Path, report: "TranscribeReport") -> None:
    empty = f" ({report.empty:,} of them without a word)" if report.empty else ""
    speed = f", {report.audio_s / report.wall_s:.1f} x real time" if report.audio_s and report.wall_s else ""
    say(
        f"{output}: {report.done:,} done{empty}, {report.skipped:,} there already, {len(report.failed):,} failed; "
        f"{report.wall_s:.1f} s{speed}"
    )
    if report.languages:
        say(f"languages: {', '.join(f'{code} {n:,}' for code, n in report.languages.most_common(10))}")
