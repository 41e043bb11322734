"""`medusa report`: one HTML page of a corpus, its systems and their mistakes."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from ensemble.commands.choices import one_of
from ensemble.commands.page_options import PageArguments
from ensemble.commands.protocol import tell_lines
from featurestore.runtime.wording import format_bytes
from featurestore.terminal import bar, option_groups, say, working, writes

if TYPE_CHECKING:
    from ensemble.report.collect import PageOptions
    from ensemble.report.runs import Runs

AUDIO = ("embed", "link", "none")


@option_groups
def report(
    page: PageArguments,
    output: Annotated[Path, writes("HTML page to write.", "--output", "-o")] = Path("report.html"),
    audio: Annotated[
        str, writes("Audio: embed (short clips inside the page), link (to the files), none.", callback=one_of(AUDIO))
    ] = "link",
    audio_mb: Annotated[
        float, writes("Largest size of all clips inside the page in MB; the hardest utterances come first.", min=0)
    ] = 5.0,
) -> None:
    """Write one HTML page of runs: scores with intervals, confusion, groups, curves, a table and a map of utterances.

    It opens from disk in any current browser and needs no network. Systems are compared with the last one, which is an
    ensemble where a run has one.

    Example: `medusa report demo-run -o report.html --audio embed`
    """
    write_report(page.find(), page.wanted(), output, audio, audio_mb)


def write_report(
    runs: "Runs", options: "PageOptions", output: Path, audio: str = "link", audio_mb: float = 5.0
) -> None:
    """Collect a page, print what is wrong with the division, and write the page."""
    from ensemble.report.collect import collect
    from ensemble.report.page import write_page
    from ensemble.report.sound import audio_of

    with working("collecting") as show:
        collected = collect(runs, options, show)
    tell_lines(collected.warnings)
    with bar("clips", len(collected.rows)) as progress:
        sound = audio_of(
            collected.rows, audio, output, first=collected.hardest, most_bytes=int(audio_mb * 1e6), progress=progress
        )
    n_bytes = write_page(output, collected.payload, sound)
    say(f"wrote {output} ({format_bytes(n_bytes)})")
