"""Dropping root's right to ignore the modes of files, so that tests of permissions hold for root too."""

import ctypes
import os
import struct
import sys

_VERSION = 0x20080522
_OVERRIDES = 1 << 1 | 1 << 2  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH


def drop_override() -> bool:
    """Drop the right for this process, for good; return whether modes hold for it now."""
    if os.geteuid() != 0:
        return True
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    header = ctypes.create_string_buffer(struct.pack("<Ii", _VERSION, 0))
    sets = ctypes.create_string_buffer(24)
    if libc.capget(header, sets) != 0:
        return False
    words = list(struct.unpack("<6I", sets.raw[:24]))
    words[:3] = [word & ~_OVERRIDES for word in words[:3]]  # effective, permitted, inheritable
    return bool(libc.capset(header, ctypes.create_string_buffer(struct.pack("<6I", *words), 24)) == 0)
