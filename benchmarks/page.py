"""Runs benchmarks and puts what they print into BENCHMARKS.md, each in a section of its own.

    python -m benchmarks.page case "rate --rounds 4"

A section is what stands between `<!-- case -->` and `<!-- end of case -->`; what people wrote around it stays. It is
replaced by the command, the day, and all that the script printed: machine, versions, tables. A script that fails, or
has no section, changes nothing. `make bench` does this for the figures that need nothing but cascade itself.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path

PAGE = Path(__file__).parent.parent / "BENCHMARKS.md"


def main(commands: Sequence[str], page: Path = PAGE) -> None:
    """Run one after the other, each written before the next. Raises CalledProcessError when one fails."""
    for command in commands:
        name, *options = shlex.split(command)
        with_section(page.read_text("utf-8"), name, "")  # before the work: is there one?
        python = [sys.executable, "-m", f"benchmarks.{name}", *options]
        printed = subprocess.run(python, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
        print(printed, flush=True)
        body = f"`python -m benchmarks.{command}`, {date.today()}: {printed}"
        page.write_text(with_section(page.read_text("utf-8"), name, body), "utf-8")


def with_section(text: str, name: str, body: str) -> str:
    """`text` with `body` as its section `name`. Raises ValueError when it has none, or more than one."""
    start, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
    if text.count(start) != 1 or text.count(end) != 1:
        raise ValueError(f"{PAGE.name}: needs one line {start.strip()} and one {end.strip()}")
    before, rest = text.split(start)
    return before + start + body + "\n" + end + rest.split(end)[1]


if __name__ == "__main__":
    main(sys.argv[1:])
