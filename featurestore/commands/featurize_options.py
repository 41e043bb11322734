"""The options of `medusa featurize`, a dataclass for each panel of its help, and what they ask of the library."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from featurestore.commands.recordings import (
    Failures,
    FilesArgument,
    KeptOption,
    OptionalManifest,
    beside,
    manifest_of,
)
from featurestore.commands.shards import ShardOption
from featurestore.errors import ConfigError
from featurestore.terminal import DeviceOption, StoreOption, encodes, panel, reads, system, writes

if TYPE_CHECKING:
    from featurestore.asr.transcripts import Transcripts
    from featurestore.augment.views import View
    from featurestore.corpus.manifest import Manifest

views_of = panel("Augmented views")


@dataclass(frozen=True)
class EncoderArguments:
    """Which encoder, and which of its layers."""

    encoder: Annotated[str, encodes("A name (see medusa encoders), a hub name (org/name) or a directory.")]
    weights: Annotated[
        Path | None, encodes("Directory of the encoder's weights; default: what is cached, else the hub's.")
    ] = None
    layers: Annotated[str, encodes("Layers to store: last, all, 6,12,24, last4, last4-sum.")] = "last"
    window: Annotated[
        str | None,
        encodes(
            "Whisper: pad30 (its own way) or short (faster). Others: window and context, such as 30s+1s, 512tok+32.",
            "--window",
            "--whisper-window",
        ),
    ] = None
    keep_special: Annotated[bool, encodes("Text: store the rows of special tokens too.", "--keep-special")] = False
    prompt: Annotated[str, encodes("Text: prompt before each text, or around its {text}; part of the fingerprint.")] = (
        ""
    )
    keep_prompt: Annotated[bool, encodes("Text: store the rows of the prompt too.", "--keep-prompt")] = False
    short: Annotated[
        str, encodes("Paralinguistic sets: error, or pad clips that are too short (docs/encoders.md has the rule).")
    ] = "error"
    compute: Annotated[str, encodes("Arithmetic: auto, float32, bfloat16, float16.")] = "auto"


@dataclass(frozen=True)
class InputArguments:
    """What is read."""

    files: FilesArgument = None
    manifest: OptionalManifest = None
    store: StoreOption = Path("store")
    transcripts: Annotated[Path | None, reads("Text encoders: what `medusa transcribe` wrote.")] = None
    write_manifest: KeptOption = None

    def table(self, *, keep: bool) -> "tuple[Manifest, Failures]":
        """Return the manifest, and (name, reason) of recordings left out; keep: one of recordings is written."""
        return manifest_of(self.files, self.manifest, (self.write_manifest or beside(self.store)) if keep else None)

    def texts(self) -> "Transcripts | None":
        """Read the transcripts; None where none are given."""
        from featurestore.asr.transcripts import Transcripts

        return None if self.transcripts is None else Transcripts.read(self.transcripts)


@dataclass(frozen=True)
class OutputArguments:
    """Which feature set is written, and how its rows are stored."""

    name: Annotated[str | None, writes("Feature set; default: the encoder's name.")] = None
    pool: Annotated[str, writes("Pooling over time: none, mean, mean+std; model: its own, one row.")] = "none"
    dtype: Annotated[
        str,
        writes(
            "Stored rows: float16, float32, bfloat16, int8; default: float16, of paralinguistic sets float32.",
            show_default=False,
        ),
    ] = ""
    times: Annotated[
        bool, writes("Text: store each token's start and end too, as NAME-times (`transcribe --words`).", "--times")
    ] = False
    format: Annotated[
        str | None, writes("Format of new segments: zarr or hdf5; default: that of the set, else zarr.")
    ] = None
    compress: Annotated[
        str | None, writes("Compression of new segments: zstd or blosc (zarr), gzip (hdf5); default: none.")
    ] = None


@dataclass(frozen=True)
class ViewArguments:
    """Which augmented views of the audio are encoded in place of the clean audio."""

    augment: Annotated[
        list[str] | None,
        views_of("noise, reverb, gain or mix, or several: reverb+noise:snr=0..10. docs/augmented-views.md has more."),
    ] = None
    views: Annotated[int, views_of("Views of each kind, NAME+noise1, ...", min=1)] = 1
    noise: Annotated[Path | None, views_of("Directory of noises; default: synthetic.")] = None
    rooms: Annotated[Path | None, views_of("Directory of impulse responses; default: synthetic.")] = None
    seed: Annotated[int, views_of("Seed of every random draw.", min=0)] = 0

    def check(self) -> None:
        """Raise ConfigError for an option of views where there are none."""
        if self.augment is None and (self.views != 1 or self.noise or self.rooms):
            raise ConfigError("--views, --noise and --rooms go with --augment.")

    def parse(self) -> "list[View]":
        """Return the views; ConfigError names what is wrong."""
        from featurestore.augment.views import parse_views

        return parse_views(self.augment or [], n_views=self.views, seed=self.seed, noises=self.noise, rooms=self.rooms)


@dataclass(frozen=True)
class SystemArguments:
    """Where the work is done: threads, memory, devices and processes."""

    batch_s: Annotated[float | None, system("Seconds of audio per pass.", min=0.1)] = None
    workers: Annotated[
        int | None, system("Decoding threads; default: 2, for a GPU one per core, at most 16.", min=1)
    ] = None
    max_memory: Annotated[
        float | None, system("Most GiB of memory for this process, or allocated on its GPU.", min=0.05)
    ] = None
    device: DeviceOption = "auto"
    devices: Annotated[
        str | None, system("all, or cuda:0,cuda:1, or UUIDs (GPU-..., MIG-...): a process for each, at once.")
    ] = None
    engine: Annotated[str | None, system("ray: on a Ray cluster ('medusa-ser[ray]').")] = None
    parts: Annotated[
        int | None, system("Ray: parts that its workers take one by one; default: 4 for each GPU.", min=1)
    ] = None
    shard: ShardOption = None

    @property
    def in_processes(self) -> bool:
        """Do several processes share the work?"""
        return self.devices is not None or self.engine is not None
