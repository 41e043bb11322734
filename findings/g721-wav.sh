#!/usr/bin/env bash
# A WAV file of G.721 (format 0x0040, 4 bits a sample) that soundfile writes comes out of PyAV as other sound: FFmpeg takes it for
# G.726 with the halves of each byte in the other order. The length is right, the level is not, and there is no error.
#
# Seen with: PyAV 18.1.0 (FFmpeg 8.1.2), soundfile 0.14.0 (libsndfile 1.2.2), numpy 2.4.6, Python 3.11, Linux x86_64.
# Output seen: 24000 samples written, 24000 and 24000 read; correlation with what was written: soundfile 1.000, PyAV 0.530;
# level 1.00 and 1.57
set -euo pipefail
here=$(mktemp -d); trap 'rm -rf "$here"' EXIT; cd "$here"
python3 -m venv venv && venv/bin/pip install --quiet av==18.1.0 soundfile==0.14.0 numpy==2.4.6
venv/bin/python - <<'PY'
import av
import numpy as np
import soundfile

RATE = 8_000
seconds = np.arange(3 * RATE) / RATE
tones = sum(np.sin(2 * np.pi * f * seconds) / f for f in (180, 620, 1_400, 2_300))
signal = (60 * tones * (1 + np.sin(2 * np.pi * 3 * seconds)) / 2).astype("f4")
signal *= 0.6 / np.abs(signal).max()
soundfile.write("a.wav", signal, RATE, subtype="G721_32")
by_soundfile = soundfile.read("a.wav", dtype="float32")[0]
with av.open("a.wav") as file:
    codec = file.streams.audio[0].codec_context.name
    by_ffmpeg = np.concatenate([frame.to_ndarray()[0] for frame in file.decode(audio=0)]) / 32768
print(f"{len(signal)} samples written, {len(by_soundfile)} and {len(by_ffmpeg)} read; FFmpeg's codec is {codec}")
n = len(signal)
good, other = (np.corrcoef(signal, samples[:n])[0, 1] for samples in (by_soundfile, by_ffmpeg))
levels = [np.std(samples[:n]) / np.std(signal) for samples in (by_soundfile, by_ffmpeg)]
print(f"correlation with what was written: soundfile {good:.3f}, PyAV {other:.3f}; level {levels[0]:.2f} and {levels[1]:.2f}")
assert good > 0.99
assert other < 0.95, "the finding has changed"
PY
