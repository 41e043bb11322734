#!/usr/bin/env bash
# PyAV loses the end of a lossless recording: of a CAF file of ALAC that FFmpeg or soundfile wrote it decodes 15734 of 16059 samples,
# without an error. The last packet says that it is shorter than the others, the header says it, too, and FFmpeg takes the
# difference off twice. The header's length is right, ALAC in M4A comes back whole, and so does CAF with the flag skip_manual.
#
# Seen with: PyAV 18.1.0 (FFmpeg 8.1.2), soundfile 0.14.0 (libsndfile 1.2.2), numpy 2.4.6, Python 3.11, Linux x86_64.
# Output seen: 16059 samples written; CAF by soundfile: 16059 in the header, 15734 decoded, 16059 with skip_manual; CAF by PyAV: 16059,
# 15734, 16059; M4A by PyAV: 16059 decoded
set -euo pipefail
here=$(mktemp -d); trap 'rm -rf "$here"' EXIT; cd "$here"
python3 -m venv venv && venv/bin/pip install --quiet av==18.1.0 soundfile==0.14.0 numpy==2.4.6
venv/bin/python - <<'PY'
import av
import numpy as np
import soundfile
from av.codec.context import Flags2

RATE, N = 16_000, 16_059
signal = np.round(9000 * np.sin(np.arange(N) / 20)).astype("i2")
soundfile.write("soundfile.caf", signal, RATE, format="CAF", subtype="ALAC_16")


def write(path):
    with av.open(path, "w") as file:
        stream = file.add_stream("alac", rate=RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(signal[None], "s16", "mono")
        frame.sample_rate = RATE
        fifo = av.AudioFifo()
        for piece in av.AudioResampler("s16p", "mono", RATE).resample(frame):
            fifo.write(piece)
        while (piece := fifo.read(4096, partial=True)) is not None:
            file.mux(stream.encode(piece))
        file.mux(stream.encode(None))


def read(path, manual):
    with av.open(path) as file:
        stream = file.streams.audio[0]
        if manual:
            stream.codec_context.flags2 |= Flags2.skip_manual
        return round(stream.duration * stream.time_base * RATE), sum(frame.samples for frame in file.decode(stream))


write("pyav.caf")
write("pyav.m4a")
found = {path: (*read(path, False), read(path, True)[1]) for path in ("soundfile.caf", "pyav.caf", "pyav.m4a")}
print(f"{N} samples written; " + "; ".join(f"{path}: {a} in the header, {b} decoded, {c} with skip_manual" for path, (a, b, c) in found.items()))
assert found["pyav.m4a"][1] == N
assert found["soundfile.caf"] == found["pyav.caf"] == (N, 15_734, N), "the finding has changed"
PY
