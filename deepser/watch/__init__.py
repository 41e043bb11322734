"""What a person sees of a training run: terminal, curves, TensorBoard."""
