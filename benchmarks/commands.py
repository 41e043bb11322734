"""`medusa bench`: what this machine does."""

from pathlib import Path
from typing import Annotated, Any

from typer import BadParameter

from featurestore.runtime.wording import split_names
from featurestore.terminal import console, panel, split_pair, typer_app, working

bench_app = typer_app(help="Measure this machine.")
data, how, files = panel("Data"), panel("Measuring"), panel("Files")


@bench_app.command("io")
def bench_io(
    utterances: Annotated[int, data("Utterances of the widest, longest shape; the others get as many bytes.")] = 600,
    dims: Annotated[str, data("Columns of a row; comma-separated.")] = "1024",
    mean_s: Annotated[str, data("Mean durations of an utterance in seconds; comma-separated.")] = "5.5",
    seed: Annotated[int, data("Seed of rows and batches.")] = 0,
    batch: Annotated[int, how("Utterances per batch.")] = 32,
    threads: Annotated[str, how("Threads that share the batches; comma-separated.")] = "1",
    repeats: Annotated[int, how("Number of runs; their median is reported.")] = 5,
    cold: Annotated[bool, how("Also read from disk, with the files dropped from the page cache.", "--cold")] = False,
    write: Annotated[bool, how("Also time writing, beside the disk's own rate with fsync.", "--write")] = False,
    readers: Annotated[
        str, how("Readers to measure beside the floors and ours; comma-separated ids, as --json has them.")
    ] = "",
    against: Annotated[Path | None, how("A checkout of another version, to read the same store with.")] = None,
    directory: Annotated[Path | None, files("Where to write; default: the system's temporary one.")] = None,
    json_file: Annotated[Path | None, files("Write every figure.", "--json")] = None,
    plot_file: Annotated[Path | None, files("Draw the first shape's rates (.png, .pdf, .svg).", "--plot")] = None,
) -> None:
    """Read random batches through our store and through what others use, beside memcpy and the disk.

    Peers that are not installed are listed: `pip install 'medusa-ser[bench]'` brings them.

    Example: `medusa bench io --cold --threads 1,2 --write --json io.json --plot io.png`
    """
    from .io import IoSettings, io_report, plot_io, run_io

    settings = IoSettings(
        utterances, _numbers("dims", dims, int), _numbers("mean-s", mean_s, float), _numbers("threads", threads, int),
        batch, repeats, seed, cold, write, tuple(filter(None, readers.split(","))),
    )  # fmt: skip
    with working("bench io") as show:
        result = run_io(settings, directory, against=against, json_path=json_file, progress=show)
    console().print(*io_report(result), sep="\n")
    if plot_file is not None:
        plot_io(result, plot_file)


@bench_app.command("featurize")
def bench_featurize(
    encoder: Annotated[str, data("Names of encoders; comma-separated.")] = "tiny-hubert,tiny-wavlm",
    weights: Annotated[
        list[str] | None, data("Directory of an encoder's weights, NAME=DIR; repeat it for each that is not cached.")
    ] = None,
    random: Annotated[bool, data("Use random weights of the true size, without a download.", "--random")] = False,
    tiny: Annotated[bool, data("Shrink the random ones, to try the command.", "--tiny")] = False,
    utterances: Annotated[int, data("Files, log-normal lengths, 5.6 s on average.")] = 48,
    speech: Annotated[Path | None, data("Audio to cut them from; default: what comes with the program.")] = None,
    seed: Annotated[int, data("Seed of lengths and weights.")] = 0,
    device: Annotated[str, how("auto, cpu, cuda, ...")] = "auto",
    compute: Annotated[
        str, how("Arithmetic of our encoder: auto, float32, bfloat16, float16. The peers use float32.")
    ] = "auto",
    whisper_window: Annotated[str, how("pad30, short or both; comma-separated.")] = "pad30,short",
    batch_s: Annotated[float | None, how("Seconds of audio per pass of our encoder; default: as featurize.")] = None,
    workers: Annotated[int, how("Number of our decoding threads.")] = 2,
    peers: Annotated[str, how("per-file, arrival, workers; comma-separated, or none.")] = "per-file,arrival,workers",
    repeats: Annotated[int, how("Number of runs; their median is reported.")] = 3,
    directory: Annotated[Path | None, files("Where to write; default: the system's temporary one.")] = None,
    json_file: Annotated[Path | None, files("Write every figure.", "--json")] = None,
) -> None:
    """Files to features, ours beside the ways of the field: speed, FLOP/s and share of the device's, stages, rows.

    Example: `medusa bench featurize --encoder wavlm-large --random --device cuda --compute bfloat16`
    """
    from .featurize import FeaturizeSettings, featurize_report, run_featurize

    settings = FeaturizeSettings(
        tuple(split_names(encoder)), tuple(split_pair("--weights", pair) for pair in weights or []), random, tiny,
        utterances, device, compute, tuple(split_names(whisper_window)), batch_s, workers,
        () if peers == "none" else tuple(split_names(peers)), repeats, seed,
    )  # fmt: skip
    with working("bench featurize") as show:
        result = run_featurize(settings, speech=speech, directory=directory, json_path=json_file, progress=show)
    console().print(*featurize_report(result), sep="\n")


@bench_app.command("prepare")
def bench_prepare(
    utterances: Annotated[int, data("Number of utterances.")] = 120_000,
    ratings: Annotated[int, data("Number of ratings of all utterances.")] = 650_000,
    form: Annotated[str, data("Release whose form the votes have: 1.6, 1.11 or 2.0.")] = "1.11",
    transcripts: Annotated[bool, data("With a text file for each utterance.", "--transcripts")] = False,
    seed: Annotated[int, data("Seed of the made-up labels.")] = 0,
    directory: Annotated[Path | None, files("Where to write; default: the system's temporary one.")] = None,
    json_file: Annotated[Path | None, files("Write every figure.", "--json")] = None,
) -> None:
    """Prepare a made-up corpus of MSP-Podcast's size: seconds by step, and the most memory.

    Example: `medusa bench prepare --transcripts`
    """
    from .prepare import PrepareSettings, prepare_table, run_prepare

    settings = PrepareSettings(utterances, ratings, form, transcripts, seed)
    with working("bench prepare") as show:
        result = run_prepare(settings, directory=directory, json_path=json_file, progress=show)
    console().print(prepare_table(result))


@bench_app.command("index")
def bench_index(
    utterances: Annotated[int, data("Number of utterances, of one tiny row each.")] = 1_000_000,
    segment: Annotated[int, data("Utterances per segment.")] = 100_000,
    repeats: Annotated[int, how("Number of openings; their median is reported.")] = 3,
    directory: Annotated[Path | None, files("Where to write; default: the system's temporary one.")] = None,
    json_file: Annotated[Path | None, files("Write every figure.", "--json")] = None,
) -> None:
    """Open a store of a million utterances in new processes: seconds, memory, and what looking up keys costs.

    Example: `medusa bench index --utterances 1000000`
    """
    from .index import index_table, run_index

    with working("bench index") as show:
        result = run_index(
            directory, n_utterances=utterances, segment_utterances=segment, repeats=repeats, json_path=json_file,
            progress=show,
        )  # fmt: skip
    console().print(index_table(result))


@bench_app.command("transcribe")
def bench_transcribe(
    models: Annotated[str, data("openai-whisper's names or FILE.pt; comma-separated.")] = "large-v3",
    clips: Annotated[int, data("Number of clips, drawn at random from the manifest.")] = 48,
    manifest: Annotated[
        Path | None, data("Default: the corpus that comes with the program.", "--manifest", "-m")
    ] = None,
    language: Annotated[str, data("Language as code or English name; auto: detected in each clip.")] = "auto",
    seed: Annotated[int, data("Seed of the choice of clips.")] = 0,
    batches: Annotated[str, how("Clips per batch; comma-separated.")] = "1,8",
    repeats: Annotated[int, how("Number of runs; their median is reported.")] = 1,
    device: Annotated[str, how("auto, cpu, cuda, ...")] = "auto",
    json_file: Annotated[Path | None, files("Write every figure.", "--json")] = None,
) -> None:
    """Transcribe clips file by file and in batches: utterances per second, and how many texts differ.

    Example: `medusa bench transcribe --models base,large-v3 --batches 1,8,16 --language en`
    """
    from .transcribe import TranscribeSettings, run_transcribe, transcribe_table

    settings = TranscribeSettings(
        tuple(filter(None, models.split(","))),
        _numbers("batches", batches, int),
        clips,
        language,
        device,
        repeats,
        seed,
    )
    with working("bench transcribe") as show:
        result = run_transcribe(settings, manifest=manifest, json_path=json_file, progress=show)
    console().print(transcribe_table(result))


@bench_app.command("train")
def bench_train(
    utterances: Annotated[int, data("Number of utterances; with --memory-limit as many as it takes.")] = 128,
    features: Annotated[str, data("DIM@RATE of each feature set; comma-separated.")] = "1024@50,1024@4",
    mean_s: Annotated[float, data("Mean duration in seconds; durations are log-normal.")] = 5.6,
    seed: Annotated[int, data("Seed of rows, targets, weights and batches.")] = 0,
    d: Annotated[int, panel("Network")("Width of DeepSER.")] = 256,
    n_layers: Annotated[int, panel("Network")("Transformer layers of each encoder block.")] = 2,
    n_heads: Annotated[int, panel("Network")("Attention heads; they divide d.")] = 4,
    batch: Annotated[int, how("Utterances per step.")] = 16,
    epochs: Annotated[int, how("Number of timed epochs, after one that is not timed.")] = 2,
    precision: Annotated[
        str, how("Our trainer's precisions; comma-separated: auto, float32, bfloat16.")
    ] = "auto,float32",
    workers: Annotated[str, how('Of the field\'s DataLoader; comma-separated; none: "".')] = "0,2",
    compiled: Annotated[bool, how("torch.compile the network.", "--compile")] = False,
    threads: Annotated[int, how("Threads of torch.")] = 1,
    device: Annotated[str, how("auto, cpu, cuda, ...")] = "auto",
    memory_limit: Annotated[
        float | None, how("Train on ten times this many MB, with no more private memory than that.")
    ] = None,
    directory: Annotated[Path | None, files("Where to write; default: the system's temporary one.")] = None,
    json_file: Annotated[Path | None, files("Write every figure.", "--json")] = None,
) -> None:
    """Train DeepSER with our loop, and with DataLoader, a .npy file per utterance, pad_sequence, float32, no masks.

    Clips per second, the share of time spent waiting for data, padding, and the most memory of each way.

    Example: `medusa bench train --d 256 --features 1024@50,1024@4 --json train.json`
    """
    from .train import TrainSettings, memory_table, run_memory, run_train, train_table

    settings = TrainSettings(
        utterances, tuple(features.split(",")), mean_s, d, n_layers, n_heads, batch, epochs,
        tuple(precision.split(",")), _numbers("workers", workers, int) if workers else (), compiled, device, threads,
        seed,
    )  # fmt: skip
    with working("bench train") as show:
        if memory_limit is not None:
            limit = int(memory_limit * 1e6)
            result = run_memory(limit, settings, directory, json_path=json_file, progress=show)
        else:
            result = run_train(settings, directory, json_path=json_file, progress=show)
    console().print(train_table(result) if memory_limit is None else memory_table(result))


@bench_app.command("meta")
def bench_meta(
    utterances: Annotated[int, data("Number of utterances.")] = 120_000,
    members: Annotated[int, data("Members of the ensemble.")] = 14,
    classes: Annotated[int, data("Number of classes, 2 to 8.")] = 8,
    attributes: Annotated[int, data("Number of attributes, 0 or more.")] = 3,
    seeds: Annotated[int, how("Number of seeds, trained one after another and all at once.")] = 6,
    rounds: Annotated[int, how("Rounds of training, at most.")] = 40,
    plain: Annotated[bool, how("Also time plain PyTorch, one seed after another.")] = True,
    seed: Annotated[int, data("Seed of the made-up posteriors.")] = 0,
    json_file: Annotated[Path | None, files("Write every figure.", "--json")] = None,
) -> None:
    """Train the meta-classifier's seeds one after another and at once, on made-up posteriors: seconds of each.

    Example: `medusa bench meta --members 14 --utterances 120000`
    """
    from .meta import MetaSettings, meta_table, run_meta

    settings = MetaSettings(utterances, members, classes, attributes, seeds, rounds, plain, seed)
    with working("bench meta") as show:
        result = run_meta(settings, json_path=json_file, progress=show)
    console().print(meta_table(result))


def _numbers(name: str, text: str, kind: type) -> tuple[Any, ...]:
    try:
        return tuple(kind(part) for part in text.split(","))
    except ValueError:
        raise BadParameter(f"{text!r}: numbers, comma-separated, are expected.", param_hint=f"--{name}") from None
