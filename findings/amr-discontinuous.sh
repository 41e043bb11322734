#!/usr/bin/env bash
# FFmpeg's own AMR-NB decoder refuses the pauses of discontinuous transmission, which phones use: comfort noise (frame
# type 8) raises PatchWelcomeError, no data (frame type 15) InvalidDataError, so that everything behind the first pause is
# lost. The wheel of PyAV also carries libopencore_amrnb, which decodes the same packets whole, but is never chosen unless
# it is asked for by name.
#
# Seen with: PyAV 18.1.0 (FFmpeg 8.1.2), Python 3.11, Linux x86_64.
# Input: an AMR file (RFC 4867) of 39 frames of 20 ms (6240 samples): 10 of speech, 9 of a pause, 20 of speech.
# Output seen: amrnb 1600 samples, then PatchWelcomeError; libopencore_amrnb 6240.
set -euo pipefail
here=$(mktemp -d); trap 'rm -rf "$here"' EXIT; cd "$here"
python3 -m venv venv && venv/bin/pip install --quiet av==18.1.0
venv/bin/python - <<'PY'
import io

import av


def frame(kind, n_bytes):
    return bytes([kind << 3 | 4]) + bytes(n_bytes)


speech, comfort_noise, no_data = frame(7, 31), frame(8, 5), frame(15, 0)
frames = [speech] * 10 + [comfort_noise] + [no_data] * 7 + [comfort_noise] + [speech] * 20
stream = b"#!AMR\n" + b"".join(frames)

n_default, error = 0, None
try:
    with av.open(io.BytesIO(stream)) as container:
        for decoded in container.decode(audio=0):
            n_default += decoded.samples
except av.FFmpegError as raised:
    error = type(raised).__name__

with av.open(io.BytesIO(stream)) as container:
    decoder = av.CodecContext.create("libopencore_amrnb", "r")
    decoder.sample_rate, decoder.layout = 8000, "mono"
    packets = [packet for packet in container.demux(audio=0) if packet.size]
    n_opencore = sum(decoded.samples for packet in packets for decoded in decoder.decode(packet))

print(f"{len(frames) * 160} samples coded; amrnb {n_default}, then {error}; libopencore_amrnb {n_opencore}")
assert n_opencore == len(frames) * 160
assert error and n_default == 1600, "FFmpeg's own decoder now bears the pause: the finding has changed"
PY
