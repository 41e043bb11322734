#!/usr/bin/env bash
# libsndfile reads the first link of a chained Ogg file (RFC 3533: logical streams one after the other, as internet radio
# and `cat a.ogg b.ogg` make them) and says nothing about the rest.
#
# Seen with: soundfile 0.14.0 (libsndfile 1.2.2), PyAV 18.1.0 (FFmpeg 8.1.2), Python 3.11, Linux x86_64.
# Input: 4 s and 2 s of noise at 48 kHz, each a whole Ogg file, concatenated; once Vorbis, once Opus.
# Output seen: soundfile 192000 frames (the first 4 s) for both; PyAV 288000 of Opus and 288128 of Vorbis.
set -euo pipefail
here=$(mktemp -d); trap 'rm -rf "$here"' EXIT; cd "$here"
python3 -m venv venv && venv/bin/pip install --quiet soundfile==0.14.0 av==18.1.0 numpy==2.4.6
venv/bin/python - <<'PY'
import io

import av
import numpy as np
import soundfile

rng = np.random.default_rng(0)
for codec in ("VORBIS", "OPUS"):
    chained = b""
    for seconds in (4, 2):
        link = io.BytesIO()
        noise = 0.1 * rng.standard_normal(seconds * 48_000)
        soundfile.write(link, noise, 48_000, format="OGG", subtype=codec)
        chained += link.getvalue()
    name = f"{codec}.ogg"
    open(name, "wb").write(chained)
    read = len(soundfile.read(name)[0])
    with av.open(name) as container:
        decoded = sum(frame.samples for frame in container.decode(audio=0))
    print(f"{codec}: soundfile.info {soundfile.info(name).frames}, soundfile.read {read}, PyAV {decoded}")
    assert abs(decoded - 6 * 48_000) <= 1024, "PyAV no longer decodes both links"
    assert read == 4 * 48_000, "soundfile no longer stops after the first link: the finding has changed"
PY
