#!/usr/bin/env bash
# soundfile reads an MP3 in blocks otherwise than at once: after each read it seeks to where it is, libmpg123 begins there
# anew without the bits that earlier frames hold in reserve, and the samples behind each boundary of two blocks are others.
# Python gets no error; libmpg123 may write lines of its own on stderr, which this script leaves out.
#
# Seen with: soundfile 0.14.0 (libsndfile 1.2.2), Python 3.11, Linux x86_64.
# Output seen: 320000 samples; 859 differ, by 0.12 at most, where the largest value is 0.51; they lie 0 to 383 samples behind
# a boundary of two blocks
set -euo pipefail
here=$(mktemp -d); trap 'rm -rf "$here"' EXIT; cd "$here"
python3 -m venv venv && venv/bin/pip install --quiet soundfile==0.14.0 numpy==2.4.6
venv/bin/python - 2>stderr.txt <<'PY' || { cat stderr.txt >&2; exit 1; }
import numpy as np
import soundfile

RATE, BLOCK = 16_000, 50_000
seconds = np.arange(20 * RATE) / RATE
tone = 0.3 * np.sin(2 * np.pi * 220 * seconds) * (np.sin(2 * np.pi * 3 * seconds) > 0)
signal = tone + 0.05 * np.random.default_rng(0).standard_normal(len(seconds))
quality = {"bitrate_mode": "VARIABLE", "compression_level": 0.9}
soundfile.write("a.mp3", signal.astype("f4"), RATE, format="MP3", **quality)

whole = soundfile.read("a.mp3", dtype="float32")[0]
with soundfile.SoundFile("a.mp3") as file:
    blocks = np.concatenate([file.read(BLOCK, dtype="float32") for _ in range(0, file.frames, BLOCK)])
assert len(whole) == len(blocks)
difference = np.abs(whole - blocks)
different = np.flatnonzero(difference > 1e-4)
print(f"{len(whole)} samples; {len(different)} differ, by {difference.max():.2f} at most, where the largest value is {whole.max():.2f}")
assert len(different), "blocks are now read as the whole: the finding has changed"
print(f"they lie {(different % BLOCK).min()} to {(different % BLOCK).max()} samples behind a boundary of two blocks")
assert different.min() >= BLOCK
assert (different % BLOCK).max() < 3000
PY
