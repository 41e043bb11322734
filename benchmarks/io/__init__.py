"""`medusa bench io`: how fast random batches of rows are read and written, ours and others', beside what is possible.

Every way of keeping rows gets the same rows and the same batches; what it returns is compared bit for bit with what was
written. The floors are memcpy into a reused buffer (warm), and reading or writing the same bytes from front to back
(cold, and writing).

What is believed of cold figures, and why. Before each cold timing the files are read once and dropped from the page
cache, `mincore` must find their pages gone, and the bytes that the kernel then counts as read from the device
(`/proc/self/io`) stand in the table: a figure that did not come from the device is seen. On virtual machines one effect
had made such figures worthless, up to a factor of four between repeats of the same read: a host with free page
reporting (virtio balloon) takes memory back that the guest left free for some seconds, and giving it anew costs more
than the disk (0.4 GB/s there; reads with O_DIRECT, which need no fresh memory, stayed at 1.3 to 1.8 GB/s). Reading the
files right before they are dropped leaves memory that the guest still owns, for the floor and for every reader alike.
Repeats are interleaved and printed with their least and greatest rate: where the floors themselves spread widely, the
disk is shared with others, and only ratios within one run mean anything. A cache of the host beneath a virtual disk
can't be excluded from within; there the "disk" is what the machine has for one, for all readers alike.
"""

from .report import io_report, plot_io
from .rows import IoSettings
from .run import run_io

__all__ = ["IoSettings", "io_report", "plot_io", "run_io"]
