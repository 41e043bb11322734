"""`medusa explore`: the page of `medusa report`, served here with its audio."""

from typing import Annotated

from ensemble.commands.page_options import PageArguments
from ensemble.commands.protocol import tell_lines
from featurestore.terminal import option_groups, say, system, working


@option_groups
def explore(
    page: PageArguments,
    port: Annotated[int, system("Port of 127.0.0.1; 0: a free one.", min=0, max=65535)] = 0,
) -> None:
    """Serve the page of `medusa report` on this machine alone, with every clip to listen to, until Ctrl-C.

    Loading the page again collects anew where the manifest or the store changed.

    Example: `medusa explore demo-run`
    """
    from ensemble.report.collect import Collected, collect
    from ensemble.report.runs import state_of
    from ensemble.report.serve import Explorer

    def make() -> Collected:
        with working("collecting") as show:
            return collect(page.find(), page.wanted(), show)

    def warn(text: str) -> None:
        say(f"warning: {' '.join(text.split())}", "yellow", stderr=True)

    with Explorer(make, lambda: state_of(page.find()), port, warn) as server:
        try:
            tell_lines(server.collected.warnings)
            say(f"serving {len(server.collected.rows):,} utterances; Ctrl-C ends it. Open\n{server.url}")
            server.serve_forever()
        except KeyboardInterrupt:
            say("stopped serving.", stderr=True)
