"""The tables of the papers: ablations, presets and ways of fusing, side by side."""
