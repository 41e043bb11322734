#!/usr/bin/env bash
# Unweighted average recall where a class of the task has no utterance in the part that is scored (a fold, a speaker): audmetric
# counts its recall as 0 when the classes are given, torchmetrics and scikit-learn's balanced_accuracy_score leave it out. A
# perfect prediction of two of three classes is 0.667 in one library and 1 in the others; none of them raises.
#
# Seen with: audmetric 1.4.2, torchmetrics 1.9.0, scikit-learn 1.9.1, torch 2.13.0, Python 3.11, Linux x86_64.
# Output seen: perfect, a class absent: audmetric 0.667, torchmetrics 1.000, balanced_accuracy_score 1.000; one utterance
# predicted as the absent class: audmetric 0.500, torchmetrics 0.500, balanced_accuracy_score 0.750
set -euo pipefail
here=$(mktemp -d); trap 'rm -rf "$here"' EXIT; cd "$here"
python3 -m venv venv
venv/bin/pip install --quiet torch==2.13.0 numpy==2.4.6 torchmetrics==1.9.0 audmetric==1.4.2 scikit-learn==1.9.1
venv/bin/python -W ignore - <<'PY'
import audmetric
import torch
from sklearn.metrics import balanced_accuracy_score
from torchmetrics.functional.classification import multiclass_recall

CLASSES = [0, 1, 2]


def recalls(truth, predicted):
    return (
        audmetric.unweighted_average_recall(truth, predicted, labels=CLASSES),
        float(multiclass_recall(torch.tensor(predicted), torch.tensor(truth), num_classes=len(CLASSES), average="macro")),
        balanced_accuracy_score(truth, predicted),
    )


truth = [0, 0, 1, 1]
for name, predicted, expected in (
    ("perfect, a class absent", [0, 0, 1, 1], (2 / 3, 1.0, 1.0)),
    ("one utterance predicted as the absent class", [0, 0, 1, 2], (0.5, 0.5, 0.75)),
):
    found = recalls(truth, predicted)
    print("{}: audmetric {:.3f}, torchmetrics {:.3f}, balanced_accuracy_score {:.3f}".format(name, *found))
    assert all(abs(a - b) < 1e-6 for a, b in zip(found, expected)), "the finding has changed"
PY
