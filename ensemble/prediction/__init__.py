"""From new audio to predictions, and models that can be handed on."""
