#!/usr/bin/env bash
# opensmile turns a float sample of full scale into its negative: process_signal multiplies by 32768 and casts to 16 bits, so
# that 1.0 becomes -32768 instead of 32767, and 1.01 becomes -32440. A recording whose peaks touch full scale (clipped speech,
# or one normalised to a peak of 1) gets a jump over the whole range at each of them; energies and spectra of those frames
# follow. Neither an error nor a warning.
#
# Seen with: opensmile 2.6.0, audinterface 1.3.1, numpy 2.4.6, Python 3.11, Linux x86_64.
# Output seen: mean loudness 4.22 of a tone with peaks of 1.0, and of one with those peaks at -1.0; 0.74 with peaks of
# 32767/32768; 25 of 88 functionals differ by over 5 %
set -euo pipefail
here=$(mktemp -d); trap 'rm -rf "$here"' EXIT; cd "$here"
python3 -m venv venv && venv/bin/pip install --quiet opensmile==2.6.0 numpy==2.4.6
venv/bin/python - <<'PY'
import numpy as np
import opensmile

RATE = 16_000
seconds = np.arange(RATE) / RATE
tone = np.sin(2 * np.pi * 200 * seconds).astype("f4")  # a normalised tone: one sample of each period is 1.0
peaks = np.isclose(tone, 1)
tone[peaks] = 1
smile = opensmile.Smile(opensmile.FeatureSet.eGeMAPSv02, opensmile.FeatureLevel.Functionals)


def functionals(peak):
    return smile.process_signal(np.where(peaks, np.float32(peak), tone), RATE).iloc[0]


full, below, negative = functionals(1), functionals(32767 / 32768), functionals(-1)
moved = int(((full - below).abs() > 0.05 * below.abs()).sum())
for name, row in (("1.0", full), ("32767/32768", below), ("-1.0", negative)):
    print(f"peaks of {name}: mean loudness {row['loudness_sma3_amean']:.2f}")
print(f"{peaks.sum()} peaks; {moved} of {len(full)} functionals differ by over 5 % from those of peaks one step lower")
assert full.equals(negative), "full scale is no longer taken for its negative"
assert moved > 10
PY
