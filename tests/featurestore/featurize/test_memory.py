"""`--max-memory` holds for the process as the kernel counts it, and a real shortage of memory only halves batches."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import soundfile
import transformers

from featurestore.corpus.manifest import Manifest
from featurestore.encoders import load_encoder
from featurestore.errors import ConfigError
from featurestore.featurize.memory import GIB, RssMeter, plan_memory
from featurestore.store.feature_store import FeatureStore
from tests.helpers.small_text_encoder import save_tokenizer
from tests.helpers.warm_python import run_warm

pytestmark = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs the kernel's peak of memory")
N, SECONDS = 32, 10


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """32 noises of 10 s."""
    root = tmp_path_factory.mktemp("corpus")
    rng = np.random.default_rng(0)
    for i in range(N):
        soundfile.write(root / f"{i}.wav", 0.1 * rng.standard_normal(16_000 * SECONDS), 16_000)
    table = pa.table({"utterance_id": [f"u{i}" for i in range(N)], "path": [f"{i}.wav" for i in range(N)]})
    Manifest(table, root=root).write(root / "m.csv")
    return root / "m.csv"


def run(
    corpus: Path, store: Path, before: str = "", limited: str = "", *, encoder: str = "tiny-hubert", **options: object
) -> dict[str, float]:
    """Featurize in a process of its own; return utterances done, failures, and resident bytes before it and at most."""
    code = f"""
import json, os, resource
from featurestore.encoders import load_encoder
from featurestore.featurize.run import featurize
from featurestore.corpus.manifest import Manifest
from featurestore.featurize.memory import RssMeter
from featurestore.store.feature_store import FeatureStore
encoder = load_encoder({encoder!r}, device="cpu")
manifest = Manifest.read({str(corpus)!r})
encoder.encode([__import__("numpy").zeros(16_000, "f4") if encoder.kind == "audio" else "a b"])
{before}
meter = RssMeter()
base = meter.now()
{limited}
meter.reset()
store = FeatureStore.open_or_create({str(store)!r})
report = featurize(manifest, encoder, store, "a", **{options})
print(json.dumps({{"done": report.done, "failed": report.failed, "peak": meter.peak(), "base": base}}))
"""
    # So that what is freed is free again: address space is what the second test limits, and malloc reserves some for
    # each thread, and keeps blocks in between others.
    malloc = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": str(1 << 20)}
    environment = {**os.environ, **malloc, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    process = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    figures: dict[str, float] = json.loads(process.stdout.splitlines()[-1])
    return figures


def rows(store: Path) -> dict[str, np.ndarray]:
    features = FeatureStore.open(store)["a"]
    return {key: np.asarray(features[key], np.float32) for key in features}


@pytest.fixture(scope="module")
def free(corpus: Path) -> dict[str, float]:
    """Return a run in one batch without any limit."""
    return run(corpus, corpus.parent / "free", batch_s=600.0)


@pytest.mark.slow
def test_the_peak_stays_within_the_limit_where_it_would_not_without(
    corpus: Path, free: dict[str, float], tmp_path: Path
) -> None:
    limit = free["base"] + 0.75 * (free["peak"] - free["base"])
    limited = run(corpus, tmp_path / "kept", batch_s=600.0, max_memory_gib=limit / GIB)
    assert (free["done"], limited["done"], limited["failed"]) == (N, N, [])
    assert free["peak"] > limit
    assert limited["peak"] <= limit
    for key, values in rows(corpus.parent / "free").items():
        np.testing.assert_allclose(rows(tmp_path / "kept")[key], values, atol=2e-3)


@pytest.mark.slow
def test_memory_that_is_really_short_halves_the_batches(corpus: Path, tmp_path: Path) -> None:
    # What is imported, compiled and cached for all utterances is there before memory is measured and limited.
    first = f'featurize(manifest.rows([0]), encoder, FeatureStore.open_or_create("{tmp_path}/first"), "a")'
    free = run(corpus, tmp_path / "free", first, batch_s=600.0)
    room = int(0.85 * (free["peak"] - free["base"]))
    tight = (
        "size = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        f"resource.setrlimit(resource.RLIMIT_AS, (size + {room}, size + {room}))"
    )
    short = run(corpus, tmp_path / "short", first, tight, batch_s=600.0)
    assert (short["done"], short["failed"]) == (N, []), short["failed"][:2]
    assert short["peak"] < free["peak"]
    for key, values in rows(tmp_path / "free").items():
        np.testing.assert_allclose(rows(tmp_path / "short")[key], values, atol=2e-3)


@pytest.mark.slow
def test_the_limit_holds_for_a_language_model(tmp_path: Path) -> None:
    """A random Llama of 4 layers, texts of 500 tokens, all in one pass where nothing bounds it."""
    transformers.LlamaModel(
        transformers.LlamaConfig(
            hidden_size=256, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2, intermediate_size=1024,
            vocab_size=99, max_position_embeddings=1024,
        )
    ).save_pretrained(tmp_path / "llama")  # fmt: skip
    save_tokenizer(tmp_path / "llama", [f"w{i}" for i in range(90)])
    lines = [f"u{i}," + " ".join(f"w{(i * k) % 90}" for k in range(500)) for i in range(N)]
    (tmp_path / "m.csv").write_text("\n".join(["utterance_id,text", *lines]) + "\n")
    llama = str(tmp_path / "llama")
    free = run(tmp_path / "m.csv", tmp_path / "free", encoder=llama, batch_s=600.0)
    limit = free["base"] + 0.75 * (free["peak"] - free["base"])
    limited = run(tmp_path / "m.csv", tmp_path / "kept", encoder=llama, batch_s=600.0, max_memory_gib=limit / GIB)
    assert (free["done"], limited["done"], limited["failed"]) == (N, N, [])
    assert limited["peak"] <= limit < free["peak"]


def test_a_file_too_long_for_the_limit_fails_alone_with_the_remedy() -> None:
    encoder = load_encoder("tiny-hubert", layers="all", device="cpu")
    plan = plan_memory(encoder, RssMeter().now() / GIB + 1.0, [16_000 * 60, 16_000 * 3600 * 5])
    assert plan.refusal(encoder, 16_000 * 60) == ""
    assert "split the file" in plan.refusal(encoder, 16_000 * 3600 * 5)
    pooled = load_encoder("tiny-hubert", layers="all", pool="mean", device="cpu")
    assert plan.refusal(pooled, 16_000 * 60) == ""


def test_a_limit_below_the_program_itself_is_refused_with_the_least() -> None:
    with pytest.raises(ConfigError, match=r"--max-memory 0\.05: tiny-hubert .* at least"):
        plan_memory(load_encoder("tiny-hubert", device="cpu"), 0.05, [16_000])


def test_texts_are_planned_too(tmp_path: Path) -> None:
    from tests.helpers.small_text_encoder import save_text_encoder

    encoder = load_encoder(str(save_text_encoder(tmp_path / "bert")), device="cpu")
    plan = plan_memory(encoder, RssMeter().now() / GIB + 1.0, [500])
    assert plan.pass_frames >= 128
    assert plan.refusal(encoder, 500) == ""


@pytest.mark.parametrize("suffix", [".wav", ".flac", pytest.param(".mp3", marks=pytest.mark.slow)])
def test_a_clip_that_found_no_memory_is_decoded_once_more(tmp_path: Path, suffix: str) -> None:
    """And is reported by its name if there is none then."""
    for name, n_samples in (("short", 16_000), ("long", 16_000_000)):
        soundfile.write(tmp_path / f"{name}{suffix}", np.sin(np.arange(n_samples) / 20) / 2, 16_000)
    code = """
        import resource, sys
        from pathlib import Path
        import numpy as np
        from featurestore.audio import decode
        from featurestore.errors import AudioError
        from featurestore.featurize.clips import Decoder
        from featurestore.featurize.decode_ahead import Pool, outcome
        from featurestore.featurize.items import Item

        decode(sys.argv[1])  # what it imports is there
        item = Item("u0", Path(sys.argv[2]))
        with Pool(1) as pool:
            decoder = Decoder(pool, [])
            pool.submit(int).result()  # its thread is there
            unlimited = resource.getrlimit(resource.RLIMIT_AS)
            size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (size + (1 << 20), unlimited[1]))
            without = decoder.submit(item)
            again = outcome(item, decoder.submit(item), decoder)
            failed = isinstance(without.exception(), (AudioError, MemoryError))
            resource.setrlimit(resource.RLIMIT_AS, unlimited)
            assert failed and isinstance(again, AudioError), again
            assert "long." in str(again) or "u0" in str(again), again
            assert np.array_equal(outcome(item, without, decoder), decode(sys.argv[2]))
    """
    process = run_warm(textwrap.dedent(code), *(tmp_path / f"{name}{suffix}" for name in ("short", "long")))
    assert process.returncode == 0, process.stderr
