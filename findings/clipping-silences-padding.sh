#!/usr/bin/env bash
# audiomentations' ClippingDistortion makes a whole clip silent where much of it is padding: it clips at quantiles of all samples, and
# once the zeros reach both quantiles everything becomes zero, without a warning. Of 3 s of sound padded to 10 s, as clips of one length
# are made, about a third of the augmented copies hold nothing at all; padded to 8 s a tenth. Their labels stay.
#
# Seen with: audiomentations 0.43.1, numpy 2.4.6, Python 3.11, Linux x86_64; the transform's own settings (percentiles of 0 to 40).
# Output seen:
#   3 s of sound in 3 s: 0 of 200 copies are silent
#   3 s of sound in 6 s: 0 of 200 copies are silent
#   3 s of sound in 8 s: 19 of 200 copies are silent
#   3 s of sound in 10 s: 64 of 200 copies are silent
set -euo pipefail
here=$(mktemp -d); trap 'rm -rf "$here"' EXIT; cd "$here"
python3 -m venv venv && venv/bin/pip install --quiet audiomentations==0.43.1 numpy==2.4.6
venv/bin/python - <<'PY'
import random

import numpy as np
from audiomentations import ClippingDistortion

RATE_HZ, N_COPIES = 16_000, 200
t = np.arange(3 * RATE_HZ) / RATE_HZ
sound = (0.15 * np.sin(2 * np.pi * 220 * t) * (1 + np.sin(2 * np.pi * 3 * t))).astype(np.float32)
clipping, n_silent = ClippingDistortion(p=1.0), {}
for length_s in (3, 6, 8, 10):
    padded = np.pad(sound, (0, (length_s - 3) * RATE_HZ))
    n_silent[length_s] = 0
    for seed in range(N_COPIES):
        random.seed(seed)
        np.random.seed(seed)
        n_silent[length_s] += not clipping(samples=padded, sample_rate=RATE_HZ).any()
    print(f"3 s of sound in {length_s} s: {n_silent[length_s]} of {N_COPIES} copies are silent")
assert n_silent[3] == n_silent[6] == 0, "the finding has changed"
assert n_silent[8] > 0 and n_silent[10] > N_COPIES / 5, "the finding has changed"
PY
