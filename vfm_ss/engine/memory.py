"""How a process on a CPU gets its memory."""

import ctypes
import sys

# Of glibc's <malloc.h>.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_THRESHOLD = 2**30
_OLDER_GLIBC_THRESHOLD = 2**25  # the most that it accepts


def keep_freed_memory() -> bool:
    """Make glibc keep the memory that tensors free, for the next step's tensors.

    It gives every block above 32 MiB, and much of the rest, back to the kernel at once; each
    training step then has its activations mapped and zeroed page by page, hundreds of thousands of
    page faults. This is what PyTorch's tuning guide installs another allocator for.

    Returns:
        Whether it was done: on Linux with glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # another C library
        return False
    accepted = mallopt(_M_MMAP_THRESHOLD, _THRESHOLD)
    accepted = accepted or mallopt(_M_MMAP_THRESHOLD, _OLDER_GLIBC_THRESHOLD)
    return bool(accepted and mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))
