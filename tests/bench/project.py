"""A C project to build: always the same text, some dozens of files of the size that people write, made when it is wanted.

Each file includes what C programs include and holds SECTIONS times the functions of section.c.in (a hash table, a tokenizer, a
sort, a state machine, a checksum), whose constants and branches differ, so that the compiler finds little twice.
"""

import os
import subprocess
import time
from pathlib import Path
from string import Template

UNITS = 56
SECTIONS = 6
BUILD_S = 120.0  # at most, under the slowest tracer
SECTION = Template((Path(__file__).parent / "section.c.in").read_text())
HEADERS = ("ctype", "errno", "limits", "math", "stdint", "stdio", "stdlib", "string", "sys/socket", "sys/stat", "time", "unistd")
MAIN = Template("""\
#include <stdio.h>
#include "units.h"

int main(void)
{
    unsigned long sum = 1;
$calls
    printf("%lu\\n", sum);
    return 0;
}
""")
MAKEFILE = """\
OBJECTS := $(patsubst %.c,%.o,$(wildcard *.c))
program: $(OBJECTS)
\tgcc -o $@ $^ -lm
%.o: %.c units.h
\tgcc -std=gnu11 -O1 -Wall -c -o $@ $<
"""


def entry(unit: int) -> str:
    """The one function of a unit that others see."""
    return f"unsigned long unit{unit:02}(unsigned long seed)"


def section(unit: int, number: int) -> str:
    """The functions of one section, named and varied by where they stand."""
    at = unit * SECTIONS + number
    cases = "\n".join(
        f"    case {state}: return c == {32 + (at * 7 + state * 11) % 90} ? {(state * 5 + at) % 12} : c > {40 + (at + state) % 60} ? "
        f"{(state + 1) % 12} : step_{unit}_{number}_odd(c, {state * 3 + at % 17});"
        for state in range(12)
    )
    sizes = {"buckets": 16 << at % 5, "seed": 2166136261 + 2 * at, "shift": 3 + at % 11, "limit": 100 + at}
    return SECTION.substitute(sizes, id=f"{unit}_{number}", cases=cases)


def source(unit: int) -> str:
    """The text of one file."""
    includes = "".join(f"#include <{header}.h>\n" for header in HEADERS)
    calls = " ^ ".join(f"run_{unit}_{number}(seed + {number})" for number in range(SECTIONS))
    sections = "".join(section(unit, number) for number in range(SECTIONS))
    return f'{includes}#include "units.h"\n\n{sections}\n{entry(unit)}\n{{\n    return {calls};\n}}\n'


def write(folder: Path) -> None:
    """The whole project, ready for make."""
    (folder / "units.h").write_text("".join(f"{entry(unit)};\n" for unit in range(UNITS)))
    for unit in range(UNITS):
        (folder / f"unit{unit:02}.c").write_text(source(unit))
    calls = "\n".join(f"    sum ^= unit{unit:02}(sum + {unit});" for unit in range(UNITS))
    (folder / "main.c").write_text(MAIN.substitute(calls=calls))
    (folder / "Makefile").write_text(MAKEFILE)


def build(folder: Path) -> float:
    """Seconds that it takes to compile and link all of it, on as many cores as we may use."""
    for made in [*folder.glob("*.o"), folder / "program"]:
        made.unlink(missing_ok=True)
    # We may run under a make ourselves, whose options are not meant for this one.
    environment = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
    began = time.perf_counter()
    subprocess.run(["make", "-s", f"-j{len(os.sched_getaffinity(0))}"], cwd=folder, env=environment, check=True, timeout=BUILD_S)
    return time.perf_counter() - began
