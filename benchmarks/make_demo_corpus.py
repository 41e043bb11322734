"""Make featurestore/demo_corpus from RAVDESS.

    python -m benchmarks.make_demo_corpus --root RAVDESS [--out DIRECTORY]

The rule: of every actor and emotion the clip of statement 1, repetition 1 and the clip of statement 2, repetition 2,
both in normal intensity; 24 x 8 x 2 = 384 clips, none of them twice in the corpus.
"""

import argparse
from pathlib import Path

import soundfile

from featurestore.audio import SAMPLE_RATE_HZ, decode
from featurestore.corpora.ravdess import STATEMENTS, read_ravdess

CHOSEN = {(STATEMENTS["01"], "1"), (STATEMENTS["02"], "2")}
# libsndfile's scale for Vorbis, 1 - quality: about 38 kbit/s here, 6.5 MB in all. Files differ in their random stream
# number from run to run, the samples do not.
COMPRESSION_LEVEL = 0.5


def make_demo_corpus(root: Path, out: Path) -> tuple[int, int]:
    """Write the chosen clips as 16 kHz mono Ogg Vorbis under `out` in the corpus's layout: (n clips, bytes)."""
    corpus = read_ravdess(root)
    columns = (corpus.column(name) for name in ("intensity", "text", "repetition"))
    n, n_bytes = 0, 0
    for i, (intensity, text, repetition) in enumerate(zip(*columns, strict=True)):
        if intensity != "normal" or (text, repetition) not in CHOSEN:
            continue
        source = corpus.audio_path(i)
        target = out / source.parent.name / f"{source.stem}.ogg"
        target.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(
            target,
            decode(source),
            SAMPLE_RATE_HZ,
            format="OGG",
            subtype="VORBIS",
            compression_level=COMPRESSION_LEVEL,
        )
        n, n_bytes = n + 1, n_bytes + target.stat().st_size
    return n, n_bytes


def main() -> None:
    """Parse the two options, write the clips, print their number and size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="RAVDESS as published, or as 16 kHz FLAC")
    default = Path(__file__).resolve().parents[1] / "featurestore" / "demo_corpus"
    parser.add_argument("--out", type=Path, default=default, help=f"default: {default}")
    arguments = parser.parse_args()
    n, n_bytes = make_demo_corpus(arguments.root, arguments.out)
    print(f"{n} clips, {n_bytes / 1e6:.2f} MB under {arguments.out}")


if __name__ == "__main__":
    main()
