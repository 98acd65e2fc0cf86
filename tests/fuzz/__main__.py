"""python -m tests.fuzz [--minutes N] [--target NAME]... [--findings DIRECTORY]: all targets, one after the other, for so long together."""

from __future__ import annotations

import argparse
import importlib.util
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.fuzz.targets import SEEDS, TARGETS

MEMORY_MB = 3072
ONE_INPUT_S = 20
"""How long one input may take before it counts as a finding."""
MAX_BYTES = {"arrow": 1 << 15, "http2": 1 << 14}


def main() -> int:
    """0 when nothing was found, 1 when something was, 2 when it cannot run."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Fuzz what reads bytes of strangers, guided by coverage.")
    parser.add_argument("--minutes", type=float, default=10.0, help="for all targets together (default 10)")
    parser.add_argument("--target", action="append", choices=list(TARGETS), help="this one alone; may be given several times")
    parser.add_argument("--findings", type=Path, default=Path("build/fuzz"), help="where corpus and findings are kept (default build/fuzz)")
    given = parser.parse_args()
    if importlib.util.find_spec("atheris") is None:
        print("fuzzing needs atheris: .venv/bin/pip install -e '.[fuzz]'", file=sys.stderr)
        return 2
    names = given.target or list(TARGETS)
    found = [name for name in names if not fuzz(name, given.minutes * 60 / len(names), given.findings / name)]
    print(f"found something: {', '.join(found)} (see {given.findings})" if found else "nothing found")
    return 1 if found else 0


def fuzz(name: str, seconds: float, directory: Path) -> bool:
    """Whether the target stood it."""
    corpus = directory / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(SEEDS[name]()):
        (corpus / f"seed-{number}").write_bytes(seed)
    options = [f"-max_total_time={max(1, int(seconds))}", f"-rss_limit_mb={MEMORY_MB}", f"-timeout={ONE_INPUT_S}", "-print_final_stats=1"]
    options += [f"-max_len={MAX_BYTES.get(name, 4096)}", f"-artifact_prefix={directory}/"]
    with tempfile.TemporaryFile() as log:
        command = [sys.executable, "-m", "tests.fuzz.run", name, str(corpus), *options]
        ended = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False)
        log.seek(0)
        said = log.read().decode(errors="replace")
    runs, covered = re.findall(r"number_of_executed_units: (\d+)", said), re.findall(r"cov: (\d+)", said)
    print(f"{name}: {runs[-1] if runs else '?'} inputs in {seconds:.0f} s, {covered[-1] if covered else '?'} edges", flush=True)
    if ended.returncode:
        print(said[-4000:], flush=True)
    return ended.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
