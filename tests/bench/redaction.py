"""What looking for secrets costs the node for each different command line: nothing is traced, one core is enough."""

import time

import numpy as np

from infrasight.node.columns import words
from infrasight.node.redaction.redactor import Redactor
from tests.bench.figures import Figures
from tests.bench.plan import Plan

NAME = "redaction"
ORDINARY = (
    "gcc -O2 -Wall -I/usr/include/foo -c src/main/driver.c -o build/obj/driver.o",
    "/usr/lib/gcc/x86_64-linux-gnu/12/cc1 -quiet -imultiarch x86_64-linux-gnu foo.c -dumpdir build/ -dumpbase foo.c -mtune=generic -O2",
    "ls -la /home/user",
    "git log --oneline -n 20 --format=%H",
    "/bin/sh -c make",
)
HINTED = ("gpg --keyring /usr/share/keyrings/debian.gpg --verify Release.gpg Release", "grep -r password /etc", "ssh bob@host -p 22 uptime")
SECRET = (
    "curl -u alice:hunter2 -H Authorization:x https://example.com/x?token=abc",
    "mysqldump -uroot -phunter2 db",
    "env PGPASSWORD=hunter2 psql -h db",
    "kubectl --token hunter2 get pods",
)
LINES = {"ordinary": ORDINARY, "with a hint, but no secret": HINTED, "with a secret": SECRET}
BATCHES = (1, 1000)


def spent_us(lines: tuple[str, ...], rows: int) -> float:
    """Microseconds for each of `rows` command lines that come together, all different."""
    argv = words([[*lines[row % len(lines)].encode().split(), b"%d" % row] for row in range(rows)])
    cut, redactor, least = np.zeros(rows, bool), Redactor(), float("inf")
    for _ in range(20):
        start = time.perf_counter()
        redactor.command_lines(argv, cut)
        least = min(least, time.perf_counter() - start)
    return least * 1e6 / rows


def measure(plan: Plan, figures: Figures) -> None:
    for _ in plan.rounds():
        for rows in BATCHES:
            for subject, lines in LINES.items():
                how = "alone" if rows == 1 else f"{rows} together"
                figures.add(f"redacting a command line, {how}", subject, spent_us(lines, rows), "us")
