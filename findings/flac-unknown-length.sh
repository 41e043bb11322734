#!/usr/bin/env bash
# soundfile cannot read a FLAC file whose STREAMINFO gives 0 samples, which RFC 9639 allows for "unknown" and every
# encoder writes that streams to a pipe: it takes the unknown length for the largest possible one.
#
# Seen with: soundfile 0.14.0 (libsndfile 1.2.2), PyAV 18.1.0 (FFmpeg 8.1.2), numpy 2.4.6, Python 3.11, Linux x86_64.
# Output seen: soundfile.info says 9223372036854775807 frames; soundfile.read raises ValueError (array is too big), and
# reading block by block ends in LibsndfileError (Internal psf_fseek() failed) at the end of the file. PyAV decodes 64000.
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


signal = (3000 * np.random.default_rng(0).standard_normal((1, 64_000))).astype("i2")
frame = av.AudioFrame.from_ndarray(signal, "s16", "mono")
frame.rate = 16_000
pipe = Pipe()
with av.open(pipe, "w", format="flac") as container:
    stream = container.add_stream("flac", rate=16_000)
    stream.layout = "mono"
    container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
open("piped.flac", "wb").write(pipe.data)

frames = soundfile.info("piped.flac").frames
print("soundfile.info", frames)
try:
    soundfile.read("piped.flac")
    outcome = "read"
except (ValueError, MemoryError, soundfile.LibsndfileError) as error:
    outcome = f"{type(error).__name__}: {error}"
print("soundfile.read", outcome)
try:
    n_blocks = sum(len(block) for block in soundfile.blocks("piped.flac", 4096))
    by_blocks = f"read {n_blocks}"
except (ValueError, soundfile.LibsndfileError) as error:
    by_blocks = f"{type(error).__name__}: {error}"
print("soundfile.blocks of 4096:", by_blocks)
with av.open("piped.flac") as container:
    decoded = sum(frame.samples for frame in container.decode(audio=0))
print("PyAV", decoded)
assert decoded == 64_000
assert frames > 2**40 and outcome != "read", "soundfile now reads such files: the finding has changed"
PY
