#!/usr/bin/env bash
# libsndfile takes the headers of a VOC file's further blocks for sound: Creative's format allows several blocks of audio,
# FFmpeg writes one for each packet, and what follows the second header is shifted by two samples, then by four, and so on.
#
# Seen with: soundfile 0.14.0 (libsndfile 1.2.2), PyAV 18.1.0 (FFmpeg 8.1.2), Python 3.11, Linux x86_64.
# Output seen: PyAV 48000 samples, equal to those written: True; soundfile 48022, the first other one is number 4096
set -euo pipefail
here=$(mktemp -d); trap 'rm -rf "$here"' EXIT; cd "$here"
python3 -m venv venv && venv/bin/pip install --quiet soundfile==0.14.0 av==18.1.0 numpy==2.4.6
venv/bin/python - <<'PY'
import av
import numpy as np
import soundfile

RATE, PACKET = 16_000, 4096
signal = (3000 * np.random.default_rng(0).standard_normal(3 * RATE)).astype("i2")
with av.open("a.voc", "w") as container:
    stream = container.add_stream("pcm_s16le", rate=RATE)
    stream.layout = "mono"
    for start in range(0, len(signal), PACKET):
        frame = av.AudioFrame.from_ndarray(signal[None, start : start + PACKET], "s16", "mono")
        frame.rate, frame.pts = RATE, start
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))

with av.open("a.voc") as container:
    by_ffmpeg = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
by_libsndfile = soundfile.read("a.voc", dtype="int16")[0]
other = int(np.flatnonzero(by_libsndfile[: len(signal)] != signal)[0]) if len(by_libsndfile) != len(signal) else -1
print(f"PyAV {len(by_ffmpeg)} samples, equal to those written: {np.array_equal(by_ffmpeg, signal)}; "
      f"soundfile {len(by_libsndfile)}, the first other one is number {other}")
assert np.array_equal(by_ffmpeg, signal)
assert other == PACKET, "libsndfile now skips the headers: the finding has changed"
PY
