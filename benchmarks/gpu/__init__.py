"""What a GPU does with the product, step by step: rows, kernels, encoders, training, transcription; aims missed.

python -m benchmarks.gpu --list, or one of featurize-gpu.sh, train-gpu.sh and transcribe-gpu.sh beside it.
"""
