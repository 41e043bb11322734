"""`medusa bench featurize`: audio files to committed features, ours and the ways of the field, on the same files.

The benchmark writes the corpus: FLAC files of log-normal lengths (mean 5.6 s, as MSP-Podcast's), cut and joined from
speech. Every way decodes the same files, runs the same weights and writes its rows to disk. These rows are compared
with transformers' own call on each single file, and the table shows the largest difference beside the speed: padded
batches of models with group norm give other rows. On a machine that others use, CPU seconds (with those of workers) are
more reliable than seconds.

Operations of matrix products, convolutions and attention are counted by torch's FlopCounterMode at three lengths, with
a polynomial of degree two through them, once for the valid frames and once for the padded ones. MFU is the rate of
valid operations over that of a large matrix product in the same run (of Whisper's own 30 s windows, all count as
valid). The pipeline's own clock (`featurestore.runtime.stage_clock`) times the stages in one more run. No way's time
includes loading the encoder.
"""

from .report import featurize_report
from .run import FeaturizeSettings, run_featurize

__all__ = ["FeaturizeSettings", "featurize_report", "run_featurize"]
