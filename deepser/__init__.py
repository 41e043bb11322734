"""Trainers over cached features: targets, samplers, losses, networks, members and metrics."""
