"""Features as other tools keep them, into a store and out of it: one module per format, two inverse functions each."""

from featurestore.interchange import emotion2vec, hdf5, npy, pt, safetensors
from featurestore.interchange.base import Format

FORMATS: dict[str, Format] = {
    "npy": npy,
    "hdf5": hdf5,
    "emotion2vec": emotion2vec,
    "safetensors": safetensors,
    "pt": pt,
}
EXPORTED = ("npy", "hdf5", "emotion2vec", "safetensors")  # what is written, too; .pt files are read alone
