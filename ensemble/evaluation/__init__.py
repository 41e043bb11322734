"""The predictions of any system compared with a corpus: alignment, scores, intervals, groups, files and submissions."""
