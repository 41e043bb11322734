"""Measurements on a GPU, step by step: rows, kernels, encoders, training, transcription, and the aims that they miss.

python -m benchmarks.gpu --list, or one of featurize-gpu.sh, train-gpu.sh and transcribe-gpu.sh beside it.
"""
