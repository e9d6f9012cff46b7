"""`cascade` and `python -m cascade`."""

from __future__ import annotations

import sys

from cascade.cli import run_command
from cascade.console import make_streams_safe
from cascade.interrupts import terminable


def main() -> None:
    """Run the command line and exit with its code."""
    make_streams_safe()
    with terminable():
        code = run_command(sys.argv[1:])
    sys.exit(code)


if __name__ == "__main__":
    main()
