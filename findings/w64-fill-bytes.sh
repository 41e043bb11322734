#!/usr/bin/env bash
# FFmpeg writes Wave64 files that are up to three samples too long: a chunk of W64 ends on a multiple of eight bytes, and the size that
# FFmpeg's muxer writes for the chunk of samples counts the bytes that fill it up. So every reader takes them for sound: of 32005
# samples 32008 come back, zeros at the end, without an error. libsndfile writes the size without them, and both read
# such a file exactly. Lengths of segments, and of files compared with their WAV, differ by these samples.
#
# Seen with: PyAV 18.1.0 (FFmpeg 8.1.2), soundfile 0.14.0 (libsndfile 1.2.2), numpy 2.4.6, Python 3.11, Linux x86_64.
# Output seen: 32005 samples of 16 bits: by FFmpeg, soundfile reads 32008 and PyAV 32008, the last three [0, 0, 0]; by libsndfile 32005
# and 32005
set -euo pipefail
here=$(mktemp -d); trap 'rm -rf "$here"' EXIT; cd "$here"
python3 -m venv venv && venv/bin/pip install --quiet av==18.1.0 soundfile==0.14.0 numpy==2.4.6
venv/bin/python - <<'PY'
import av
import numpy as np
import soundfile

RATE, N = 16_000, 32_005
signal = np.round(9000 * np.cos(np.arange(N) / 20)).astype("i2")
soundfile.write("libsndfile.w64", signal, RATE, format="W64", subtype="PCM_16")
with av.open("ffmpeg.w64", "w") as file:
    stream = file.add_stream("pcm_s16le", rate=RATE, layout="mono")
    frame = av.AudioFrame.from_ndarray(signal[None], "s16", "mono")
    frame.sample_rate = RATE
    file.mux(stream.encode(frame))
    file.mux(stream.encode(None))


def read(path):
    with av.open(path) as file:
        return soundfile.read(path, dtype="int16")[0], np.concatenate([f.to_ndarray()[0] for f in file.decode(audio=0)])


by_ffmpeg, by_libsndfile = read("ffmpeg.w64"), read("libsndfile.w64")
print(
    f"{N} samples of 16 bits: by FFmpeg, soundfile reads {len(by_ffmpeg[0])} and PyAV {len(by_ffmpeg[1])}, the last three "
    f"{by_ffmpeg[0][N:].tolist()}; by libsndfile {len(by_libsndfile[0])} and {len(by_libsndfile[1])}"
)
assert all(np.array_equal(rows, signal) for rows in by_libsndfile)
assert all(np.array_equal(rows[:N], signal) for rows in by_ffmpeg)
assert [len(rows) for rows in by_ffmpeg] == [32_008, 32_008] and not by_ffmpeg[0][N:].any(), "the finding has changed"
PY
