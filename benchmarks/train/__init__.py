"""`medusa bench train`: our trainer beside the loop that the field writes, with one network and one corpus."""

from .run import TrainSettings, memory_table, run_memory, run_train, train_table

__all__ = ["TrainSettings", "memory_table", "run_memory", "run_train", "train_table"]
