#!/usr/bin/env bash
# Two readers of Praat's TextGrid files lose the minus of times before zero, as recordings have that are cut around an event: an interval
# from -0.2 to 0.25 s becomes one from 0.2 to 0.25, a point at -0.1 s one at 0.1, without an error or a warning. pympi does so with
# both text forms (in the binary form the times are right), praatio with the long one. pympi also loses what stands before
# an exponent: a point at 0.00005 s, which Praat writes as 5e-05, is at 5.0 s. tgt reads all of them right.
#
# Seen with: pympi-ling 1.71, praatio 6.2.2, tgt 1.5, praat-parselmouth 0.4.7 (which is Praat, and writes the files), Python 3.11, Linux x86_64.
# Output seen: tgt: rest [-0.2, 0.25], cue at -0.1 (long, short); pympi: rest [0.2, 0.25], cue at 0.1 (long, short), [-0.2, 0.25], -0.1 (binary);
# praatio: [0.2, 0.25], 0.1 (long), [-0.2, 0.25], -0.1 (short); a point at 5e-05: tgt 5e-05, pympi 5.0
set -euo pipefail
here=$(mktemp -d); trap 'rm -rf "$here"' EXIT; cd "$here"
python3 -m venv venv && venv/bin/pip install --quiet pympi-ling==1.71 praatio==6.2.2 tgt==1.5 praat-parselmouth==0.4.7
venv/bin/python - <<'PY'
import pympi
import tgt
from parselmouth.praat import call
from praatio import textgrid as praatio


def by_tgt(path):
    intervals, points = tgt.read_textgrid(path).tiers
    return [(float(each.start_time), float(each.end_time)) for each in intervals][0], float(points[0].time)


def by_pympi(path):
    intervals, points = (list(tier.get_intervals()) for tier in pympi.TextGrid(path).get_tiers())
    return tuple(intervals[0][:2]), points[0][0]


def by_praatio(path):
    grid = praatio.openTextgrid(path, includeEmptyIntervals=False)
    intervals, points = (grid.getTier(name).entries for name in ("emotion", "onset"))
    return (intervals[0].start, intervals[0].end), points[0].time


grid = call("Create TextGrid", -0.2, 2, "emotion onset", "onset")
call(grid, "Insert boundary", 1, 0.25)
call(grid, "Set interval text", 1, 1, "rest")
call(grid, "Set interval text", 1, 2, "happy")
call(grid, "Insert point", 2, -0.1, "cue")
for form, command in (("long", "text"), ("short", "short text"), ("binary", "binary")):
    call(grid, f"Save as {command} file", f"{form}.TextGrid")
TRUE, LOST = ((-0.2, 0.25), -0.1), ((0.2, 0.25), 0.1)
expected = {
    by_tgt: {"long": TRUE, "short": TRUE},
    by_pympi: {"long": LOST, "short": LOST, "binary": TRUE},
    by_praatio: {"long": LOST, "short": TRUE},
}
for reader, forms in expected.items():
    found = {form: reader(f"{form}.TextGrid") for form in forms}
    print(reader.__name__, found)
    assert found == forms, "the finding has changed"

grid = call("Create TextGrid", 0, 10, "emotion onset", "onset")
call(grid, "Set interval text", 1, 1, "happy")
call(grid, "Insert point", 2, 0.00005, "cue")
call(grid, "Save as text file", "early.TextGrid")
print("a point at 5e-05:", by_tgt("early.TextGrid")[1], by_pympi("early.TextGrid")[1])
assert (by_tgt("early.TextGrid")[1], by_pympi("early.TextGrid")[1]) == (5e-05, 5.0), "the finding has changed"
PY
