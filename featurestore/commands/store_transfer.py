"""`medusa store push` and `medusa store pull`: feature sets to and from a store at a URL."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from typer import Argument

from featurestore.runtime.wording import counted, format_bytes
from featurestore.terminal import StoreOption, console, reads, say, writes

if TYPE_CHECKING:
    from featurestore.transfer.copy import Copied
    from featurestore.transfer.targets import Progress as Told

UrlArgument = Annotated[str, Argument(metavar="URL", help="s3://, gcs://, https://, ...; or a directory.")]
NamesArgument = Annotated[list[str] | None, Argument(metavar="[NAME]...", help="Feature sets; default: all.")]
NoVerify = Annotated[bool, reads("Don't compare checksums.", "--no-verify")]


def store_push(
    url: UrlArgument,
    names: NamesArgument = None,
    store: StoreOption = Path("store"),
    prune: Annotated[
        bool, writes("Then remove the target's segments whose utterances the source has in other ones.", "--prune")
    ] = False,
    no_verify: NoVerify = False,
) -> None:
    """Copy feature sets to a store at a URL: segments that it lacks. An interrupted push goes on where it was.

    Example: `medusa store push s3://bucket/features wavlm-large`
    """
    from featurestore.transfer.copy import push

    with _bytes_bar() as show:
        copied = push(store, url, names or None, verify=not no_verify, prune=prune, progress=show)
    _print_copied(copied, url)


def store_pull(
    url: UrlArgument,
    names: NamesArgument = None,
    store: StoreOption = Path("store"),
    no_verify: NoVerify = False,
) -> None:
    """Copy feature sets from a store at a URL: segments that the local store lacks.

    Example: `medusa store pull s3://bucket/features wavlm-large -s store`
    """
    from featurestore.transfer.copy import pull

    with _bytes_bar() as show:
        copied = pull(url, store, names or None, verify=not no_verify, progress=show)
    _print_copied(copied, str(store))


def _print_copied(copied: "Sequence[Copied]", target: str) -> None:
    for each in copied:
        removed = f", {len(each.removed)} removed" if each.removed else ""
        skipped = f", {len(each.skipped)} there already" if each.skipped else ""
        say(f"{each.name}: {len(each.copied)} segments copied ({format_bytes(each.n_bytes)}){skipped}{removed}")
        if each.kept:
            say(
                f"{each.name}: {counted(len(each.kept), 'segment')} not pruned, with "
                f"{counted(sum(each.kept.values()), 'utterance')} that this store lacks; "
                f"medusa store pull {target} {each.name} brings them"
            )
    if not copied:
        say(f"no feature sets; {target} is an empty store")


@contextmanager
def _bytes_bar() -> "Iterator[Told]":
    terminal = console(stderr=True)
    columns = TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    with Progress(
        *columns, TimeRemainingColumn(), console=terminal, transient=True, disable=not terminal.is_terminal
    ) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total, what: bar.update(task, completed=done, total=total, description=what)
