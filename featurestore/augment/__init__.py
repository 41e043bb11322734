"""Views of audio: what is done to a clip before it is encoded, and which clips are mixed."""
