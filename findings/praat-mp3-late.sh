#!/usr/bin/env bash
# Praat, in its Python package parselmouth, keeps the samples that an MP3 decoder puts before the recording (the delays of encoder and
# decoder, which the file's LAME tag states) and those behind it: everything is heard 34 ms late at 48 kHz, 37 at 44.1, 48 at 22.05 and
# 66 at 16, without a warning. libsndfile and FFmpeg leave them out and agree to the sample. So times that were marked in
# Praat on an MP3 lie that much behind the same sound in other programs.
#
# Seen with: praat-parselmouth 0.4.7 (Praat 6.1.38), soundfile 0.14.0 (libsndfile 1.2.2), PyAV 18.1.0 (FFmpeg 8.1.2), numpy 2.4.6,
# Python 3.11, Linux x86_64.
# Output seen:
#   16000 Hz, 48000 samples: Praat 48911, 66.0 ms late; libsndfile 48000, 0.0 ms; FFmpeg 48000, 0.0 ms
#   22050 Hz, 66150 samples: Praat 66767, 47.9 ms late; libsndfile 66150, 0.0 ms; FFmpeg 66150, 0.0 ms
#   44100 Hz, 132300 samples: Praat 133007, 37.0 ms late; libsndfile 132300, 0.0 ms; FFmpeg 132300, 0.0 ms
#   48000 Hz, 144000 samples: Praat 144527, 34.0 ms late; libsndfile 144000, 0.0 ms; FFmpeg 144000, 0.0 ms
set -euo pipefail
here=$(mktemp -d); trap 'rm -rf "$here"' EXIT; cd "$here"
python3 -m venv venv
venv/bin/pip install --quiet praat-parselmouth==0.4.7 soundfile==0.14.0 av==18.1.0 numpy==2.4.6
venv/bin/python - <<'PY'
import av
import numpy as np
import parselmouth
import soundfile


def beeps(rate):
    signal, t = np.zeros(3 * rate), np.arange(rate // 50) / rate
    for start in (rate // 2, 3 * rate // 2, 5 * rate // 2):
        signal[start : start + len(t)] = 0.5 * np.sin(2 * np.pi * 1000 * t) * np.hanning(len(t))
    return signal


def late_ms(heard, signal, rate):
    n = len(heard) + len(signal)
    match = np.fft.irfft(np.fft.rfft(heard, n) * np.conj(np.fft.rfft(signal, n)), n)
    return ((int(match.argmax()) + n // 2) % n - n // 2) * 1000 / rate


def by_ffmpeg(path):
    with av.open(path) as file:
        return np.concatenate([frame.to_ndarray().reshape(-1) for frame in file.decode(audio=0)])


seen = {}
for rate in (16_000, 22_050, 44_100, 48_000):
    signal = beeps(rate)
    soundfile.write("beeps.mp3", signal, rate, format="MP3")
    heard = {
        "Praat": parselmouth.Sound("beeps.mp3").values[0],
        "libsndfile": soundfile.read("beeps.mp3")[0],
        "FFmpeg": by_ffmpeg("beeps.mp3"),
    }
    lags = {name: late_ms(samples, signal, rate) for name, samples in heard.items()}
    seen[rate] = [round(lag, 1) for lag in lags.values()]
    words = "; ".join(
        f"{name} {len(samples)}, {lags[name]:.1f} ms{' late' if lags[name] else ''}" for name, samples in heard.items()
    )
    print(f"{rate} Hz, {len(signal)} samples: {words}")
assert seen == {16_000: [66.0, 0, 0], 22_050: [47.9, 0, 0], 44_100: [37.0, 0, 0], 48_000: [34.0, 0, 0]}, "the finding has changed"
PY
