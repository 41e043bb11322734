"""`medusa featurize`: every utterance encoded once."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Option

from featurestore.terminal import (
    DeviceOption,
    ManifestOption,
    StoreOption,
    bar,
    encodes,
    end_with_failures,
    say,
    system,
    told_bytes,
    working,
    writes,
)

if TYPE_CHECKING:
    from featurestore.featurize import FeaturizeReport


def featurize(
    encoder: Annotated[str, encodes("Name, hub name (org/name) or directory.")],
    manifest: ManifestOption,
    store: StoreOption = Path("store"),
    name: Annotated[str | None, writes("Feature set; default: the encoder's name.")] = None,
    weights: Annotated[Path | None, encodes("Directory of its weights.")] = None,
    layers: Annotated[str, encodes("last, all, 6,12,24, last4, last4-sum.")] = "last",
    pool: Annotated[str, writes("none, mean, mean+std (over time).")] = "none",
    dtype: Annotated[str, writes("Stored rows: float16, float32, bfloat16, int8.")] = "float16",
    format: Annotated[str | None, writes("New segments: zarr or hdf5; default: as the set has them, zarr.")] = None,
    compress: Annotated[str | None, writes("zstd or blosc (zarr), gzip (hdf5); default: none.")] = None,
    whisper_window: Annotated[str | None, encodes("Whisper: pad30 (its own way) or short (faster).")] = None,
    compute: Annotated[str, encodes("Arithmetic: auto, float32, bfloat16, float16.")] = "auto",
    batch_s: Annotated[float | None, system("Seconds of audio per pass.", min=0.1)] = None,
    workers: Annotated[int, system("Decoding threads.", min=1)] = 2,
    device: DeviceOption = "auto",
    dry_run: Annotated[bool, Option("--dry-run", help="Count hours and bytes, encode nothing.")] = False,
) -> None:
    """Encode every utterance once into a feature set of the store.

    What is there already is skipped, a file that fails is reported and the rest done (exit code 1). Ctrl-C keeps what
    is finished.

    Example: `medusa featurize --encoder wavlm-large --layers 6,12,24 -m corpus.csv -s store`
    """
    from featurestore.encoders import ENCODERS, load_encoder
    from featurestore.featurize import Interrupted
    from featurestore.featurize import featurize as run
    from featurestore.featurize import plan as plan_run
    from featurestore.manifest import Manifest
    from featurestore.store import FeatureStore

    table = Manifest.read(manifest)
    with working(f"loading {encoder}"):
        loaded = load_encoder(
            encoder, weights=weights, layers=layers, pool=pool, dtype=dtype, device=device,
            window=whisper_window, compute=compute,
        )  # fmt: skip
    chosen = name or loaded.name
    if dry_run:
        planned = plan_run(table, loaded, FeatureStore.open(store) if store.exists() else None, chosen, workers)
        hours = f", {planned.audio_s / 3600:.2f} h of audio" if planned.audio_s else ""
        say(f"{chosen}: {planned.n_utterances:,} utterances to encode{hours}, {planned.n_skipped:,} there already")
        size = told_bytes(planned.n_bytes)
        say(f"{planned.n_rows:,} rows x {loaded.spec.dim} x {len(loaded.spec.layers)} layers: {size}")
        end_with_failures(planned.failed)
        return
    if weights is None and encoder not in ENCODERS and Path(encoder).is_dir():
        weights = Path(encoder)
    with bar(f"{loaded.name} -> {chosen}", len(table), "{task.fields[rate]}") as show:

        def on_utterance(done: int, total: int, audio_s: float) -> None:
            elapsed = max(show.task.elapsed or 0.0, 1e-3)
            rate = f"{show.task.speed or done / elapsed:.1f}/s"
            show(done, total, rate=f"{audio_s / elapsed:.0f} x real time, {rate}" if audio_s else rate)

        try:
            report = run(
                table, loaded, FeatureStore.open_or_create(store), chosen, batch_s=batch_s, workers=workers,
                weights=weights, format=format, compress=compress, progress=on_utterance,
            )  # fmt: skip
        except Interrupted as stop:
            show.close()
            _say_report(chosen, stop.report)
            raise
    _say_report(chosen, report)
    end_with_failures(report.failed)


def _say_report(name: str, report: "FeaturizeReport") -> None:
    speed = f", {report.audio_s / report.wall_s:.0f} x real time" if report.audio_s and report.wall_s else ""
    empty = f" ({report.empty_texts:,} of them of empty texts)" if report.empty_texts else ""
    say(
        f"{name}: {report.done:,} done{empty}, {report.skipped:,} there already, {len(report.failed):,} failed; "
        f"{report.wall_s:.1f} s{speed}"
    )
