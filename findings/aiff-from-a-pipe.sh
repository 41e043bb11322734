#!/usr/bin/env bash
# FFmpeg cannot read an AIFF file that it wrote itself to a pipe: the sizes it could not go back to fill in are 0, and its
# reader takes them at their word. libsndfile reads the same bytes to the end.
#
# Seen with: PyAV 18.1.0 (FFmpeg 8.1.2), soundfile 0.14.0 (libsndfile 1.2.2), Python 3.11, Linux x86_64.
# Output seen: PyAV raises InvalidDataError on opening; soundfile.read returns all 64000 frames.
set -euo pipefail
here=$(mktemp -d); trap 'rm -rf "$here"' EXIT; cd "$here"
python3 -m venv venv && venv/bin/pip install --quiet soundfile==0.14.0 av==18.1.0 numpy==2.4.6
venv/bin/python - <<'PY'
import io

import av
import numpy as np
import soundfile


class Pipe(io.RawIOBase):
    """An output that cannot seek, so that the muxer can't go back to write the sizes."""

    def __init__(self):
        self.data = bytearray()

    def writable(self):
        return True

    def seekable(self):
        return False

    def write(self, data):
        self.data += bytes(data)
        return len(data)


signal = (3000 * np.random.default_rng(0).standard_normal((1, 64_000))).astype("i2")
frame = av.AudioFrame.from_ndarray(signal, "s16", "mono")
frame.rate = 16_000
pipe = Pipe()
with av.open(pipe, "w", format="aiff") as container:
    stream = container.add_stream("pcm_s16be", rate=16_000)
    stream.layout = "mono"
    container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
open("piped.aiff", "wb").write(pipe.data)

try:
    with av.open("piped.aiff") as container:
        outcome = str(sum(frame.samples for frame in container.decode(audio=0)))
except av.FFmpegError as error:
    outcome = type(error).__name__
read = soundfile.read("piped.aiff", dtype="int16")[0]
print(f"PyAV {outcome}; soundfile {len(read)} frames, equal to what was written: {np.array_equal(read, signal[0])}")
assert np.array_equal(read, signal[0])
assert outcome == "InvalidDataError", "FFmpeg now reads such files: the finding has changed"
PY
