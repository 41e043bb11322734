#!/usr/bin/env bash
# libsndfile guesses the length of an MP3 without a Xing/Info frame from its first frames, and stops reading there.
#
# Seen with: soundfile 0.14.0 (libsndfile 1.2.2), PyAV 18.1.0 (FFmpeg 8.1.2), Python 3.11, Linux x86_64.
# Input: 20 s at 44.1 kHz, the first second almost silent, encoded with variable bit rate to a pipe (no length in the
# file, as encoders that write to a pipe leave it).
# Output seen: soundfile.info says 336374 frames and soundfile.read returns 336374 (7.63 s of 20.00 s) without an error;
# PyAV decodes 883584 (the encoder's delay and padding included). A louder or a constant-rate start makes the guess too long instead.
set -euo pipefail
here=$(mktemp -d); trap 'rm -rf "$here"' EXIT; cd "$here"
python3 -m venv venv && venv/bin/pip install --quiet soundfile==0.14.0 av==18.1.0 numpy==2.4.6
venv/bin/python - <<'PY'
import io

import av
import numpy as np
import soundfile


class Pipe(io.RawIOBase):
    """An output that cannot seek, so that the encoder can't go back to write a length."""

    def __init__(self):
        self.data = bytearray()

    def writable(self):
        return True

    def seekable(self):
        return False

    def write(self, data):
        self.data += bytes(data)
        return len(data)


rate = 44_100
time = np.arange(20 * rate) / rate
signal = 0.3 * np.sin(2 * np.pi * 220 * time) + 0.2 * np.random.default_rng(0).standard_normal(len(time))
signal[:rate] *= 0.001
frame = av.AudioFrame.from_ndarray((signal * 32_767).clip(-32_768, 32_767).astype("i2")[None], "s16", "mono")
frame.rate = rate
pipe = Pipe()
with av.open(pipe, "w", format="mp3", container_options={"write_xing": "0", "id3v2_version": "0"}) as container:
    stream = container.add_stream("libmp3lame", rate=rate, options={"flags": "+qscale", "global_quality": "472"})
    stream.layout = "mono"
    container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
open("vbr.mp3", "wb").write(pipe.data)

promised = soundfile.info("vbr.mp3").frames
read = len(soundfile.read("vbr.mp3")[0])
with av.open("vbr.mp3") as container:
    decoded = sum(frame.samples for frame in container.decode(audio=0))
print(f"soundfile.info {promised}, soundfile.read {read}, PyAV {decoded}, encoded {len(signal)}")
assert decoded >= len(signal), "PyAV no longer decodes all of it"
assert read == promised and read < 0.6 * len(signal), "soundfile no longer stops early: the finding has changed"
PY
