"""What the C library does with freed memory."""

from __future__ import annotations

import ctypes
import os
import sys

# Parameters of mallopt(3)
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
# Bytes, the most that the C library takes in all its versions. Larger blocks, such as those of an image of 512 pixels,
# still go back to the system at once: kept, they would be fragments that no other tensor fits.
_LARGE = 2**25


def keep_freed_memory() -> bool:
    """Lets this process keep freed blocks for the next ones of their size; the peak of its memory stays the same.

    A network on a CPU takes and frees tensors of many megabytes all the time. The C library gives such blocks back to
    the system, which has to map and clear their pages anew for the next operation: 15 to 20 % of the time that the
    built-in model takes (`benchmarks/main_job.py`).

    Returns:
        Whether it does: the C library takes these settings, as GNU's does on Linux, and no variable of the environment
        has set them already (`MALLOC_MMAP_THRESHOLD_` and others, see mallopt(3)).
    """
    if sys.platform != "linux" or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _LARGE)) and bool(mallopt(_TRIM_THRESHOLD, 2**31 - 1))
