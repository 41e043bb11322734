"""Any system's predictions compared with a corpus: alignment, scores, intervals, groups, files, submissions."""
