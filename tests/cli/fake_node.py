"""Stands in for `infrasight.node`: says what it was told, and waits."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

if os.environ.get("FAKE_NODE") == "refuses":
    sys.exit("infrasight node: only root can trace")
log = Path(os.environ["FAKE_LOG"])
with log.open("a") as file:
    file.write(f"node {' '.join(sys.argv[1:])} family {os.environ['INFRASIGHT_FAMILY']}\n")
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
sys.stderr.write("infrasight node ready\n")
signal.sigwait([signal.SIGTERM])
with log.open("a") as file:
    file.write("node stopped\n")
