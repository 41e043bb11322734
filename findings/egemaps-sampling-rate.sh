#!/usr/bin/env bash
# eGeMAPS of the same sound at 16 and at 48 kHz are other numbers: openSMILE computes its spectra at the rate of the file
# and its Python package resamples nothing unless told to, so that a corpus of mixed rates has features of two kinds.
#
# Seen with: opensmile 2.6.0, numpy 2.4.6, Python 3.11, Linux x86_64.
# Input: 2 s of a harmonic tone (150 Hz, 19 partials, all below 3 kHz) computed at either rate.
# Output seen: 63 of the 88 functionals differ by more than 5 %.
set -euo pipefail
here=$(mktemp -d); trap 'rm -rf "$here"' EXIT; cd "$here"
python3 -m venv venv && venv/bin/pip install --quiet opensmile==2.6.0 numpy==2.4.6
venv/bin/python - <<'PY'
import numpy as np
import opensmile

smile = opensmile.Smile(opensmile.FeatureSet.eGeMAPSv02, opensmile.FeatureLevel.Functionals)


def tone(rate):
    time = np.arange(2 * rate) / rate
    return (0.1 * sum(np.sin(2 * np.pi * 150 * k * time) / k for k in range(1, 20))).astype("f4")


at16, at48 = (smile.process_signal(tone(rate), rate).iloc[0] for rate in (16_000, 48_000))
differ = int((np.abs(at16 - at48) > 0.05 * np.abs(at16) + 1e-9).sum())
print(f"{differ} of {len(at16)} functionals differ by more than 5 %")
assert differ >= 40, "the rate hardly matters now: the finding has changed"
PY
