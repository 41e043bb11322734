"""Recordings named on a command line in place of a manifest: options, and the manifest that is made of them."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument

from featurestore.errors import ConfigError
from featurestore.terminal import panel, reads, say, writes

if TYPE_CHECKING:
    from featurestore.corpus.manifest import Manifest

FILES_HELP = "Files, folders, 'patterns/**/*.wav', lists (.txt), or - for a list; else --manifest."
FilesArgument = Annotated[list[str] | None, Argument(help=FILES_HELP, show_default=False)]
OptionalManifest = Annotated[
    Path | None, reads("Corpus table (.csv, .parquet), where no files are named.", "--manifest", "-m")
]
KeptOption = Annotated[
    Path | None,
    writes("Manifest to write of the files named; default: beside the output, NAME.files.csv.", "--write-manifest"),
]
pieces_by = panel("Pieces of recordings")
EveryOption = Annotated[
    float | None, pieces_by("Windows: seconds from one's start to the next one's; default: --span.", show_default=False)
]
SpanOption = Annotated[
    float | None, pieces_by("Windows: seconds of each; vad: the longest segment; default: --every.", show_default=False)
]
SegmentsOption = Annotated[
    str | None,
    pieces_by("vad (speech, by silero-vad), or a table: .csv with start_s and end_s, .rttm, Audacity's .txt."),
]
Failures = list[tuple[str, str]]  # (name, reason)


def beside(output: Path | str) -> Path:
    """Return the path of the manifest of named recordings: `store.files.csv` for a store, `x.files.csv` for x.csv."""
    place = Path(output)
    name = place.stem if place.suffix in (".csv", ".parquet") else place.name
    return place.with_name(f"{name or 'recordings'}.files.csv")


def manifest_of(
    files: Sequence[str] | None, manifest: Path | None, keep: Path | None = None, *, stderr: bool = False
) -> tuple["Manifest", Failures]:
    """Return the manifest given, or one of the recordings named, and (name, reason) of those left out.

    keep: where the manifest of named recordings is written, and goes on from an earlier run's; None: not at all.
    stderr: print there, since the output is JSON.
    ConfigError unless either files or a manifest are given.
    """
    from featurestore.audio import several_tracks
    from featurestore.corpus.manifest import Manifest
    from featurestore.recordings.manifest_of import recordings_of

    if bool(files) == (manifest is not None):
        raise ConfigError("Give either recordings (files, folders, patterns, a list) or --manifest.")
    if manifest is not None:
        return Manifest.read(manifest), []
    recordings = recordings_of(files or [], sys.stdin, written=keep)
    paths = (recordings.manifest.audio_path(i) for i in range(len(recordings.manifest)))
    for note in [*recordings.notes, *several_tracks(paths)]:
        say(f"note: {note}", stderr=stderr)
    n = len(recordings.manifest)
    counted = f"{n:,} recording{'s' * (n != 1)}"
    if keep is None:
        say(counted, stderr=stderr)
    elif recordings.n_new:
        recordings.whole.write(keep)
        more = f", {len(recordings.whole):,} in all" if len(recordings.whole) > recordings.n_new else ""
        say(f"{counted} ({recordings.n_new:,} new{more}), kept without labels in {keep}: --manifest {keep} is the same")
    else:
        say(f"{counted}, all in {keep} already")
    return recordings.manifest, recordings.failed
