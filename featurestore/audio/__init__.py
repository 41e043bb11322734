"""Audio in whatever file people have it, as mono 16 kHz float32 samples."""

from featurestore.audio.decoding import SAMPLE_RATE_HZ as SAMPLE_RATE_HZ
from featurestore.audio.decoding import Recording as Recording
from featurestore.audio.decoding import decode as decode
from featurestore.audio.decoding import decoder_of as decoder_of
from featurestore.audio.decoding import duration_s as duration_s
from featurestore.audio.decoding import stated_duration_s as stated_duration_s
from featurestore.audio.folders import Folder as Folder
from featurestore.audio.folders import is_utf8 as is_utf8
from featurestore.audio.folders import search as search
from featurestore.audio.pieces import Clip as Clip
from featurestore.audio.pieces import OnePass as OnePass
from featurestore.audio.pieces import decode_pass as decode_pass
from featurestore.audio.pieces import in_passes as in_passes
from featurestore.audio.suffixes import AUDIO_SUFFIXES as AUDIO_SUFFIXES
from featurestore.audio.suffixes import SOUND_SUFFIXES as SOUND_SUFFIXES
from featurestore.audio.suffixes import has_audio_suffix as has_audio_suffix
from featurestore.audio.suffixes import without_audio_suffix as without_audio_suffix
from featurestore.audio.tracks import several_tracks as several_tracks
from featurestore.audio.tracks import tracks_of as tracks_of
