#!/usr/bin/env bash
# pympi loses annotations that divide others when it turns an ELAN file into a TextGrid, without an error or a warning. Of words on a tier
# of "symbolic subdivision" the first of each turn is left and gets the whole turn's time; of a tier of "time subdivision", whose
# inner boundaries have no time of their own, a divided turn leaves nothing. Overlaps and missing times raise errors inside, and the
# conversion passes over every error. The method made for words, get_annotation_data_for_symbsub_tier, gives none of the last turn.
#
# Seen with: pympi-ling 1.71, Python 3.11, Linux x86_64.
# Output seen: in the file: 6 words, 4 emotions; in the TextGrid: words (0.0, 0.9, 'I'), (1.0, 1.5, 'of'), emotions (1.0, 1.5, 'happy');
# by get_annotation_data_for_symbsub_tier: I do not know
set -euo pipefail
here=$(mktemp -d); trap 'rm -rf "$here"' EXIT; cd "$here"
python3 -m venv venv && venv/bin/pip install --quiet pympi-ling==1.71
cat > call.eaf <<'XML'
<?xml version="1.0" encoding="UTF-8"?>
<ANNOTATION_DOCUMENT AUTHOR="" DATE="2026-01-01T00:00:00+00:00" FORMAT="2.8" VERSION="2.8"
  xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:noNamespaceSchemaLocation="http://www.mpi.nl/tools/elan/EAFv2.8.xsd">
<HEADER MEDIA_FILE="" TIME_UNITS="milliseconds"/>
<TIME_ORDER>
<TIME_SLOT TIME_SLOT_ID="ts1" TIME_VALUE="0"/><TIME_SLOT TIME_SLOT_ID="ts2" TIME_VALUE="0"/>
<TIME_SLOT TIME_SLOT_ID="ts3"/><TIME_SLOT TIME_SLOT_ID="ts4"/>
<TIME_SLOT TIME_SLOT_ID="ts5" TIME_VALUE="900"/><TIME_SLOT TIME_SLOT_ID="ts6" TIME_VALUE="900"/>
<TIME_SLOT TIME_SLOT_ID="ts7" TIME_VALUE="1000"/><TIME_SLOT TIME_SLOT_ID="ts8" TIME_VALUE="1000"/>
<TIME_SLOT TIME_SLOT_ID="ts9" TIME_VALUE="1500"/><TIME_SLOT TIME_SLOT_ID="ts10" TIME_VALUE="1500"/>
</TIME_ORDER>
XML
python3 - >> call.eaf <<'PY'
def aligned(number, start, end, text):
    inner = f'ALIGNABLE_ANNOTATION ANNOTATION_ID="a{number}" TIME_SLOT_REF1="ts{start}" TIME_SLOT_REF2="ts{end}"'
    print(f"<ANNOTATION><{inner}><ANNOTATION_VALUE>{text}</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION>")


def word(number, turn, previous, text):
    inner = f'REF_ANNOTATION ANNOTATION_ID="a{number}" ANNOTATION_REF="a{turn}"'
    inner += f' PREVIOUS_ANNOTATION="a{previous}"' if previous else ""
    print(f"<ANNOTATION><{inner}><ANNOTATION_VALUE>{text}</ANNOTATION_VALUE></REF_ANNOTATION></ANNOTATION>")


print('<TIER LINGUISTIC_TYPE_REF="turn" TIER_ID="turns">')
aligned(1, 1, 5, "I do not know")
aligned(2, 7, 9, "of course")
print('</TIER>\n<TIER LINGUISTIC_TYPE_REF="word" PARENT_REF="turns" TIER_ID="words">')
for k, text in enumerate("I do not know".split()):
    word(3 + k, 1, 2 + k if k else None, text)
for k, text in enumerate("of course".split()):
    word(7 + k, 2, 6 + k if k else None, text)
print('</TIER>\n<TIER LINGUISTIC_TYPE_REF="part" PARENT_REF="turns" TIER_ID="emotions">')
for number, start, end, text in ((9, 2, 3, "neutral"), (10, 3, 4, "sad"), (11, 4, 6, "angry"), (12, 8, 10, "happy")):
    aligned(number, start, end, text)
print("</TIER>")
print('<LINGUISTIC_TYPE GRAPHIC_REFERENCES="false" LINGUISTIC_TYPE_ID="turn" TIME_ALIGNABLE="true"/>')
for name, alignable, kind in (("word", "false", "Symbolic_Subdivision"), ("part", "true", "Time_Subdivision")):
    print(f'<LINGUISTIC_TYPE CONSTRAINTS="{kind}" GRAPHIC_REFERENCES="false" LINGUISTIC_TYPE_ID="{name}" TIME_ALIGNABLE="{alignable}"/>')
for kind in ("Symbolic_Subdivision", "Time_Subdivision"):
    print(f'<CONSTRAINT DESCRIPTION="" STEREOTYPE="{kind}"/>')
print("</ANNOTATION_DOCUMENT>")
PY
venv/bin/python - <<'PY'
import pympi

file = pympi.Eaf("call.eaf")
n_words, n_emotions = (len(file.get_annotation_data_for_tier(tier)) for tier in ("words", "emotions"))
grid = file.to_textgrid()
turns, words, emotions = (list(grid.get_tier(tier).get_intervals()) for tier in ("turns", "words", "emotions"))
divided = " ".join(text for *_, text in file.get_annotation_data_for_symbsub_tier("words"))
print(f"in the file: {n_words} words, {n_emotions} emotions; in the TextGrid: words {words}, emotions {emotions}")
print(f"by get_annotation_data_for_symbsub_tier: {divided}")
assert (n_words, n_emotions) == (6, 4) and turns == [(0.0, 0.9, "I do not know"), (1.0, 1.5, "of course")]
assert words == [(0.0, 0.9, "I"), (1.0, 1.5, "of")] and emotions == [(1.0, 1.5, "happy")], "the finding has changed"
assert divided == "I do not know", "the finding has changed"
PY
