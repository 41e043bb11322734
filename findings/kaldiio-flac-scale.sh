#!/usr/bin/env bash
# kaldiio gives the samples of one recording on two scales: as int16 up to 32,767 from WAV, as float64 between -1 and 1 from FLAC, without
# a warning, whether the wav.scp names a file or a segments file a piece of it. So log energies of a corpus that has both differ by a
# constant, ln(32768^2) = 20.8. Kaldi's own filter banks expect the scale of int16.
#
# Seen with: kaldiio 2.18.1, soundfile 0.14.0 (libsndfile 1.2.2), numpy 2.4.6, Python 3.11, Linux x86_64.
# Output seen: a.wav: int16 -6000 to 6000, a piece int16, log energy 16.71; a.flac: float64 -0.18311 to 0.18311, a piece float64, -4.09
set -euo pipefail
here=$(mktemp -d); trap 'rm -rf "$here"' EXIT; cd "$here"
python3 -m venv venv && venv/bin/pip install --quiet kaldiio==2.18.1 soundfile==0.14.0 numpy==2.4.6
venv/bin/python - <<'PY'
import warnings

import kaldiio
import numpy as np
import soundfile

warnings.simplefilter("error")
RATE = 16_000
sound = np.round(6000 * np.sin(np.arange(RATE) * np.pi / 16)).astype("i2")
names = ("a.wav", "a.flac")
for name in names:
    soundfile.write(name, sound, RATE)
with open("wav.scp", "w") as scp:
    scp.writelines(f"{name} {name}\n" for name in names)
with open("segments", "w") as segments:
    segments.writelines(f"piece-{name} {name} 0.25 0.75\n" for name in names)

found, energies = {}, {}
whole, pieces = kaldiio.load_scp("wav.scp"), kaldiio.load_scp("wav.scp", segments="segments")
for name in names:
    (rate, samples), (_, piece) = whole[name], pieces[f"piece-{name}"]
    assert rate == RATE and abs(len(samples) - RATE) < 2 and abs(len(piece) - RATE / 2) < 2
    found[name] = str(samples.dtype), str(piece.dtype)
    energies[name] = float(np.log(np.mean(samples.astype("f4") ** 2)))
    print(f"{name}: {samples.dtype} {samples.min():.5g} to {samples.max():.5g}, a piece {piece.dtype}, log energy {energies[name]:.2f}")
assert np.array_equal(whole["a.flac"][1] * 32768, sound), "FLAC is lossless"
assert found == {"a.wav": ("int16",) * 2, "a.flac": ("float64",) * 2}, "the finding has changed"
assert abs(energies["a.wav"] - energies["a.flac"] - np.log(32768**2)) < 0.01, "the finding has changed"
PY
