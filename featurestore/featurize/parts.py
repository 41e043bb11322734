"""One part of a run in a process of its own: what comes of it, and what the parts come to together."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from featurestore.encoders.catalog import ENCODERS
from featurestore.encoders.options import EncoderOptions
from featurestore.errors import MedusaError
from featurestore.featurize.job import FeaturizeJob
from featurestore.featurize.run import FeaturizeReport, Progress
from featurestore.featurize.sharding import Shard
from featurestore.runtime.stage_clock import Padding
from featurestore.runtime.stopping import Interrupted

MAX_STARTS = 3  # of a process for one part
Announce = Callable[[str], None]  # takes a line for people, such as where a process computes

# A card or a file system that is gone for this process alone: another one may do the same part.
LOST_ERRNOS = {errno.EIO, errno.ESTALE, errno.ENODEV, errno.ENXIO, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN}


def outcome(
    job: FeaturizeJob, shard: Shard, device: str, progress: Progress | None = None, announce: Announce | None = None
) -> tuple[str, Any]:
    """Run a part; returns what became of it and a value.

    "report" and the part's report; "interrupted" with signal and report; "lost" with an exception after which another
    process may do it; "error" with any other exception.
    """
    try:
        return "report", job.run(shard, device, progress, announce)
    except Interrupted as stop:
        return "interrupted", (stop.signum, stop.report)
    except Exception as error:
        return "lost" if is_lost(error) else "error", error


def is_lost(error: BaseException) -> bool:
    """Return whether an exception says that this process's GPU or file system is gone, not that the job is wrong.

    After a CUDA error every further call of the process fails with it.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in LOST_ERRNOS:
            return True
        if isinstance(cause, RuntimeError) and not isinstance(cause, MedusaError) and "CUDA error" in str(cause):
            return True
        cause = cause.__cause__
    return False


@dataclass
class Ended:
    """How the parts ended: their reports, the errors of those that failed, and the signal that stopped them, or 0."""

    reports: list[FeaturizeReport] = field(default_factory=list)
    errors: list[BaseException] = field(default_factory=list)
    signum: int = 0

    def take(self, kind: str, value: Any) -> None:
        """Add what `outcome` returned for one part."""
        if kind in ("error", "lost"):
            self.errors.append(value)
        elif kind == "interrupted":
            self.signum = self.signum or value[0]
            self.reports.append(value[1])
        else:
            self.reports.append(value)

    def report(self) -> FeaturizeReport:
        """Return the report of all parts; raises the first part's error, or Interrupted with that report."""
        if self.errors:
            raise self.errors[0]
        if self.signum:
            raise Interrupted(self.signum, merged(self.reports))
        return merged(self.reports)


def merged(reports: Sequence[FeaturizeReport]) -> FeaturizeReport:
    """Return the parts' reports as one; its time is the longest one's."""
    return FeaturizeReport(
        done=sum(report.done for report in reports),
        skipped=sum(report.skipped for report in reports),
        failed=[failure for report in reports for failure in report.failed],
        audio_s=sum(report.audio_s for report in reports),
        wall_s=max((report.wall_s for report in reports), default=0.0),
        empty_texts=sum(report.empty_texts for report in reports),
        n_in_windows=sum(report.n_in_windows for report in reports),
        constant=[key for report in reports for key in report.constant],
        without_noise=[key for report in reports for key in report.without_noise],
        special=[each for report in reports for each in report.special],
        n_again=sum(report.n_again for report in reports),
        n_unrecorded=sum(report.n_unrecorded for report in reports),
        n_unreachable=sum(report.n_unreachable for report in reports),
        padding=Padding(
            sum(report.padding.n_valid for report in reports), sum(report.padding.n_padded for report in reports)
        ),
        decoders=sum((report.decoders for report in reports), Counter()),
        notes=list(dict.fromkeys(note for report in reports for note in report.notes)),
    )


def with_absolute_paths(job: FeaturizeJob) -> FeaturizeJob:
    """Return the job as a worker in another directory can run it."""
    manifest = job.manifest.resolve() if isinstance(job.manifest, Path) else job.manifest
    store = job.store.resolve() if isinstance(job.store, Path) else job.store
    encoder = job.encoder
    if isinstance(encoder, EncoderOptions):
        is_directory = encoder.name not in ENCODERS and Path(encoder.name).is_dir()
        name = str(Path(encoder.name).resolve()) if is_directory else encoder.name
        encoder = replace(encoder, name=name, weights=encoder.weights and encoder.weights.resolve())
    weights = job.weights and job.weights.resolve()
    return replace(job, manifest=manifest, store=store, encoder=encoder, weights=weights)


def with_compute(job: FeaturizeJob, compute: str) -> FeaturizeJob:
    """Return the job with this arithmetic in place of `auto`."""
    if not isinstance(job.encoder, EncoderOptions) or job.encoder.compute != "auto":
        return job
    return replace(job, encoder=replace(job.encoder, compute=compute))
