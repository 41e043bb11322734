#!/usr/bin/env bash
# The concordance correlation coefficient of the same numbers differs between two libraries of this field: audmetric
# follows Lin (variances and covariance over n), torchmetrics divides them by n - 1 and leaves the squared difference of the
# means as it is. torchmetrics' value is never the smaller one; the gap grows as n falls: it matters for scores by speaker.
#
# Seen with: torchmetrics 1.9.0, audmetric 1.4.2, torch 2.13.0, numpy 2.4.6, Python 3.11, Linux x86_64.
# Output seen: n = 5: audmetric 0.4644, torchmetrics 0.4728; n = 20: 0.6567, 0.6569; n = 5000: 0.5630, 0.5630
set -euo pipefail
here=$(mktemp -d); trap 'rm -rf "$here"' EXIT; cd "$here"
python3 -m venv venv && venv/bin/pip install --quiet torch==2.13.0 numpy==2.4.6 torchmetrics==1.9.0 audmetric==1.4.2
venv/bin/python - <<'PY'
import audmetric
import numpy as np
import torch
from torchmetrics.functional import concordance_corrcoef

rng = np.random.default_rng(0)


def lin(truth, predicted, divisor_less):
    truth, predicted = truth.astype(float), predicted.astype(float)
    covariance = np.cov(truth, predicted, ddof=divisor_less)
    return 2 * covariance[0, 1] / (covariance[0, 0] + covariance[1, 1] + (truth.mean() - predicted.mean()) ** 2)


gaps = []
for n in (5, 20, 200, 5000):
    truth = rng.normal(4, 1, n).astype("f4")
    predicted = (0.6 * truth + rng.normal(1.2, 0.8, n)).astype("f4")
    ours = audmetric.concordance_cc(truth, predicted)
    theirs = float(concordance_corrcoef(torch.tensor(predicted), torch.tensor(truth)))
    print(f"n = {n}: audmetric {ours:.4f}, torchmetrics {theirs:.4f}")
    assert abs(ours - lin(truth, predicted, 0)) < 1e-5, "audmetric no longer divides by n"
    assert abs(theirs - lin(truth, predicted, 1)) < 1e-5, "torchmetrics no longer divides by n - 1"
    gaps.append(theirs - ours)
assert gaps[0] > 0.005 > gaps[-1], gaps
PY
