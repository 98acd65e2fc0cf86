"""What a supervised process is started through: `python -m infrasight.cli.child PARENT MODULE ARGUMENT...`.

Runs the module in this very process, after asking the kernel for a SIGTERM when the parent dies, however it dies. Doing this here spares
the parent a fork hook, and a second interpreter start.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import sys

_PR_SET_PDEATHSIG = 1  # include/uapi/linux/prctl.h


def end_with(parent: int) -> None:
    """Have this process sent SIGTERM when `parent` ends; OSError when the kernel refuses. Ends now when it is gone already."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        sys.exit(1)


if __name__ == "__main__":
    end_with(int(sys.argv[1]))
    del sys.argv[:2]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
