"""Options that `report` and `explore` share: whose page it is, and what it holds."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument

from ensemble.commands.choices import ColumnOption, columns_of
from ensemble.commands.protocol import StrictOption
from featurestore.runtime.wording import split_names
from featurestore.terminal import CvOption, panel, reads, store_place

if TYPE_CHECKING:
    from ensemble.report.collect import PageOptions
    from ensemble.report.runs import Runs

holds = panel("Page")


@dataclass(frozen=True)
class PageArguments:
    """What a page is of, and what it holds."""

    runs: Annotated[
        list[str],
        Argument(
            metavar="RUNS",
            help="Directories of `medusa run` or `medusa demo`, run directories, systems in the store, or files.",
        ),
    ]
    manifest: Annotated[
        Path | None, reads("Corpus table (.csv, .parquet). Default: the run's own.", "--manifest", "-m")
    ] = None
    store: Annotated[
        Path | None,
        reads("Feature store: directory, or URL to read. Default: the run's own, else ./store.", "--store", "-s",
              parser=store_place, metavar="PATH"),
    ] = None  # fmt: skip
    cv: CvOption = None
    split: Annotated[str | None, reads("Score this split alone.")] = None
    column: ColumnOption = None
    strict: StrictOption = False
    by: Annotated[list[str] | None, holds("Another column of the manifest whose groups are scored. Repeat it.")] = None
    bootstrap: Annotated[int, holds("Resamples of the speakers, for intervals; 0: none.", min=0)] = 1000
    seed: Annotated[int, holds("Seed of the resamples and of the maps.", min=0)] = 0
    map_of: Annotated[
        list[str] | None,
        holds("Feature set (wavlm-large@12) or system to draw as a map. Repeat it. Default: the last system.", "--map"),
    ] = None
    projections: Annotated[
        str | None, holds("pca, tsne, umap, comma-separated. Default: pca, and tsne up to 1,000 utterances.")
    ] = None
    probe: Annotated[
        list[Path] | None,
        holds("JSON file of `medusa probe --json`: its heat map, besides those of RUNS. Repeat it.", "--probe"),
    ] = None
    title: Annotated[str, holds("Title of the page. Default: the manifest's name.")] = ""

    def find(self) -> "Runs":
        """Return the systems that are named, with their manifest and store."""
        from ensemble.report.runs import find_runs

        return find_runs(self.runs, self.manifest, self.store)

    def wanted(self) -> "PageOptions":
        """Return the options of the page's content."""
        from ensemble.commands.corpora import divided_as_made
        from ensemble.report.collect import PageOptions
        from ensemble.report.scores import Scoring

        return PageOptions(
            scoring=Scoring(self.bootstrap, self.seed, self.cv, self.split, tuple(self.by or ())),
            columns=columns_of(self.column),
            maps=tuple(self.map_of or ()),
            projections=None if self.projections is None else tuple(split_names(self.projections)),
            probes=tuple(self.probe or ()),
            title=self.title,
            strict=self.strict,
            divide=lambda manifest, runs: divided_as_made(
                manifest, runs.store, runs.systems, None, None, cv=self.cv, split=self.split
            ),
        )
