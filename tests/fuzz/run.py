"""python -m tests.fuzz.run TARGET CORPUS [libFuzzer options]: one target, until it fails or time is up."""

from __future__ import annotations

import os
import sys

import atheris

with atheris.instrument_imports(include=["infrasight", "betterproto2", "grpclib", "h2", "hpack", "hyperframe"]):
    from tests.fuzz.targets import TARGETS


def main() -> None:
    """Does not return: libFuzzer ends the process."""
    target = TARGETS[sys.argv[1]]()
    atheris.Setup([sys.argv[0], *sys.argv[2:]], target)
    os.nice(10)  # not before: on a busy machine the imports would take minutes, which no time limit counts
    atheris.Fuzz()


if __name__ == "__main__":
    main()
