#!/usr/bin/env bash
# pydub takes the bits of floating-point samples for integers where a WAV has the extensible header, as FFmpeg writes it for more than two
# channels and for rates above 48 kHz, and soundfile for RF64 and WAVEX: a tone comes back distorted and 7.4 dB louder, with
# the right length and without a warning. pydub looks at the first format field alone, which says "extensible", and not at the one
# that says what the samples are. The same tone as integers under the same header is right.
#
# Seen with: pydub 0.25.1, PyAV 18.1.0 (FFmpeg 8.1.2), soundfile 0.14.0 (libsndfile 1.2.2), numpy 2.4.6, Python 3.11, Linux x86_64.
# Output seen (largest sample and level, pydub and soundfile): FFmpeg, 4 channels: 0.57 -6.0 dB, 0.30 -13.5 dB; FFmpeg, 96 kHz: the same;
# soundfile, WAVEX: the same; soundfile, WAVEX of integers: 0.30 -13.5 dB, 0.30 -13.5 dB
set -euo pipefail
here=$(mktemp -d); trap 'rm -rf "$here"' EXIT; cd "$here"
python3 -m venv venv && venv/bin/pip install --quiet pydub==0.25.1 'audioop-lts; python_version >= "3.13"' av==18.1.0 soundfile==0.14.0 numpy==2.4.6
venv/bin/python -W ignore - <<'PY'
import av
import numpy as np
import soundfile
from pydub import AudioSegment

RATE = 16_000
tone = (0.3 * np.sin(np.arange(RATE) / 20)).astype("f4")


def by_ffmpeg(path, rate, layout, n_channels):
    with av.open(path, "w") as file:
        stream = file.add_stream("pcm_f32le", rate=rate, layout=layout)
        frame = av.AudioFrame.from_ndarray(np.repeat(tone, n_channels)[None], "flt", layout)
        frame.sample_rate = rate
        file.mux(stream.encode(frame))
        file.mux(stream.encode(None))


by_ffmpeg("FFmpeg, 4 channels.wav", RATE, "4.0", 4)
by_ffmpeg("FFmpeg, 96 kHz.wav", 96_000, "mono", 1)
soundfile.write("soundfile, WAVEX.wav", tone, RATE, format="WAVEX", subtype="FLOAT")
soundfile.write("soundfile, WAVEX of integers.wav", tone, RATE, format="WAVEX", subtype="PCM_32")


def measured(samples):
    return round(float(np.abs(samples).max()), 2), round(float(10 * np.log10(np.mean(np.square(samples)))), 1)


found = {}
for name in ("FFmpeg, 4 channels", "FFmpeg, 96 kHz", "soundfile, WAVEX", "soundfile, WAVEX of integers"):
    segment = AudioSegment.from_wav(f"{name}.wav")
    samples = np.array(segment.get_array_of_samples()) / 2 ** (8 * segment.sample_width - 1)
    right = soundfile.read(f"{name}.wav")[0]
    assert len(samples) == right.size
    found[name] = measured(samples), measured(right)
    print(name, *found[name])
assert all(right == (0.3, -13.5) for _, right in found.values())
assert found.pop("soundfile, WAVEX of integers")[0] == (0.3, -13.5)
assert all(wrong == (0.57, -6.0) for wrong, _ in found.values()), "the finding has changed"
PY
