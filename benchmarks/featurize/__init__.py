"""`medusa bench featurize`: audio files to committed features, ours and the ways of the field, on the same files.

The corpus is written by the benchmark: FLAC files of log-normal lengths (mean 5.6 s, as MSP-Podcast's), cut and joined
from given speech. Every way decodes the same files, runs the same weights and leaves its rows on disk; what it leaves
is compared, row by row, with transformers' own call on each single file, and the largest difference stands beside its
speed: padded batches of models with group norm give other rows, and the table says so. On a machine that others use,
CPU seconds (of workers too) tell more than seconds.

Counted are the operations of matrix products, convolutions and attention (torch's FlopCounterMode, at three lengths,
with the polynomial of degree two through them), once for the valid frames and once for the padded ones; MFU is the
valid ones per second over a large matrix product's rate in the same run (of Whisper's own 30 s windows, all). Stages
are timed by the pipeline's own clock (`featurestore.runtime.stage_clock`) in one more run. No way's time includes
loading the encoder.
"""

from .report import featurize_report
from .run import FeaturizeSettings, run_featurize

__all__ = ["FeaturizeSettings", "featurize_report", "run_featurize"]
