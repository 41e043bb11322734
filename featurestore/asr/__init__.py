"""Transcripts of speech by openai-whisper, for the text encoders."""
