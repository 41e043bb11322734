#!/usr/bin/env bash
# An AIFC file of Apple's IMA4 (4 bits a sample) that soundfile wrote comes back from soundfile noisier than from PyAV: each packet of
# 64 samples states where it begins in 9 of 16 bits, and soundfile begins there, up to 127 steps off, where FFmpeg goes on from the
# packet before. Of quiet speech that is most of the error. The length is right and there is no error; WAV is not concerned.
#
# Seen with: soundfile 0.14.0 (libsndfile 1.2.2), PyAV 18.1.0 (FFmpeg 8.1.2), numpy 2.4.6, Python 3.11, Linux x86_64.
# Output seen: AIFC: signal to noise 21.9 dB by soundfile, 33.7 dB by PyAV, 32000 and 32000 samples; WAV: 33.7 dB by soundfile
set -euo pipefail
here=$(mktemp -d); trap 'rm -rf "$here"' EXIT; cd "$here"
python3 -m venv venv && venv/bin/pip install --quiet av==18.1.0 soundfile==0.14.0 numpy==2.4.6
venv/bin/python - <<'PY'
import av
import numpy as np
import soundfile

RATE = 16_000
seconds = np.arange(2 * RATE) / RATE
voice = sum(np.sin(2 * np.pi * 120 * k * seconds + k * k) / k for k in range(1, 30))
signal = (voice * (1.2 + np.sin(2 * np.pi * 4 * seconds))).astype("f4")
signal *= 0.1 / np.abs(signal).max()
soundfile.write("a.aifc", signal, RATE, format="AIFF", subtype="IMA_ADPCM")
soundfile.write("a.wav", signal, RATE, subtype="IMA_ADPCM")
by_soundfile = soundfile.read("a.aifc", dtype="float32")[0]
with av.open("a.aifc") as file:
    by_ffmpeg = np.concatenate([frame.to_ndarray()[0] for frame in file.decode(audio=0)]) / 32768


def db(samples):
    return 10 * np.log10(np.mean(signal**2) / np.mean((samples[: len(signal)] - signal) ** 2))


print(
    f"AIFC: signal to noise {db(by_soundfile):.1f} dB by soundfile, {db(by_ffmpeg):.1f} dB by PyAV, "
    f"{len(by_soundfile)} and {len(by_ffmpeg)} samples; WAV: {db(soundfile.read('a.wav', dtype='float32')[0]):.1f} dB by soundfile"
)
assert db(by_ffmpeg) - db(by_soundfile) > 6, "the finding has changed"
PY
