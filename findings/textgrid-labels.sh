#!/usr/bin/env bash
# Two readers of Praat's TextGrid files change labels, without an error or a warning. tgt cuts the labels of long files at " = " and
# drops one character more, so that "anger = high" is "ange", and an interval labelled "V = 3" has nothing left and is left out. praatio
# leaves the doubled quotation marks of long files as they are in point tiers (in interval tiers it does not), and doubles them again
# when it saves: say "no" is say ""no"" when read, and say """"no"""" after it was saved once.
#
# Seen with: tgt 1.5, praatio 6.2.2, praat-parselmouth 0.4.7 (which is Praat, and writes the files), Python 3.11, Linux x86_64.
# Output seen, intervals and points: tgt short: all three labels of each; tgt long: ['ange', 'say "no"'] ['ange', '', 'say "no"'];
# praatio short: all; praatio long: all intervals, points [..., 'say ""no""']; saved and read again: points [..., 'say """"no""""']
set -euo pipefail
here=$(mktemp -d); trap 'rm -rf "$here"' EXIT; cd "$here"
python3 -m venv venv && venv/bin/pip install --quiet tgt==1.5 praatio==6.2.2 praat-parselmouth==0.4.7
venv/bin/python - <<'PY'
import tgt
from parselmouth.praat import call
from praatio import textgrid as praatio


def by_tgt(path):
    intervals, points = tgt.read_textgrid(path).tiers
    return [each.text for each in intervals], [each.text for each in points]


def by_praatio(path):
    grid = praatio.openTextgrid(path, includeEmptyIntervals=False)
    return tuple([each.label for each in grid.getTier(name).entries] for name in ("emotion", "onset"))


TRUE = ["anger = high", "V = 3", 'say "no"']
grid = call("Create TextGrid", 0, 3, "emotion onset", "onset")
for i, label in enumerate(TRUE):
    if i:
        call(grid, "Insert boundary", 1, i)
    call(grid, "Set interval text", 1, i + 1, label)
    call(grid, "Insert point", 2, 0.5 + i, label)
call(grid, "Save as text file", "long.TextGrid")
call(grid, "Save as short text file", "short.TextGrid")
praatio.openTextgrid("long.TextGrid", includeEmptyIntervals=True).save("again.TextGrid", "long_textgrid", True)

expected = {
    (by_tgt, "short"): (TRUE, TRUE),
    (by_tgt, "long"): (["ange", 'say "no"'], ["ange", "", 'say "no"']),
    (by_praatio, "short"): (TRUE, TRUE),
    (by_praatio, "long"): (TRUE, [*TRUE[:2], 'say ""no""']),
    (by_praatio, "again"): (TRUE, [*TRUE[:2], 'say """"no""""']),
}
for (reader, form), labels in expected.items():
    found = reader(f"{form}.TextGrid")
    print(reader.__name__, form, *found)
    assert found == labels, "the finding has changed"
PY
