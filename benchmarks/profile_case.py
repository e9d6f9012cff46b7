"""Where the time of a case goes, with the installed models: by step, by function, by operator of the networks.

    python -m benchmarks.profile_case [--slices 600] [FILE]

Without a file: the synthetic abdomen of benchmarks/case.py. It is run four times in this process: to warm up, as it is,
of which the steps are shown, under cProfile, of which the functions of the main thread with most time of their own are,
and under torch's profiler, of which the operators are. Both profilers cost time themselves, so shares are
shown. Nothing is extrapolated.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import tempfile
from collections.abc import Iterable
from pathlib import Path

from benchmarks.case import synthetic
from benchmarks.process import machine
from cascade.batch import REPORT, Outputs
from cascade.machine import tune_allocator

#: Lines of a table.
_SHOWN = 12
Row = tuple[str, float]


def main() -> None:
    """Print three Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, nargs="?")
    parser.add_argument("--slices", type=int, default=600)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        scan = options.file or synthetic(Path(name) / f"{options.slices}.nii.gz", options.slices)
        steps, functions, operators = profiled(scan, Path(name) / "out")
    print(f"{machine()}; {scan.name}")
    for title, rows in (("step", steps), ("function", functions), ("operator of the networks", operators)):
        print(f"\n{table(title, rows)}")


def profiled(scan: Path, out: Path) -> tuple[list[Row], list[Row], list[Row]]:
    """Seconds by step, by function's own and by operator's own."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    from cascade.case import load_runner, run_case

    runner = load_runner(None, None, "cpu", liver_only=False)
    outputs = Outputs(out, overwrite=True, keep_stages=False)
    for _ in range(2):
        run_case(scan, runner, outputs)
    (report,) = out.glob(f"*/{REPORT}")
    steps = json.loads(report.read_text("utf-8"))["seconds"]
    del steps["total"]
    by_function = cProfile.Profile()
    by_function.runcall(run_case, scan, runner, outputs)
    with profile(activities=[ProfilerActivity.CPU]) as by_operator, torch.inference_mode():
        run_case(scan, runner, outputs)
    operators = [(event.key, event.self_cpu_time_total / 1e6) for event in by_operator.key_averages()]
    return [*steps.items()], functions(by_function), operators


def functions(profile: cProfile.Profile) -> list[Row]:
    """Each function with the seconds spent in itself."""
    stats: dict[tuple[str, int, str], tuple[int, int, float, float, object]] = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    rows = []
    for (file, _, name), (_, _, own, _, _) in stats.items():
        where = "" if file == "~" else f"{Path(file).parent.name}/{Path(file).name}: "
        rows.append((where + name.strip("<>"), own))
    return rows


def table(title: str, rows: Iterable[Row]) -> str:
    """The rows with most seconds, each with its share of those of all."""
    ordered = sorted(rows, key=lambda row: -row[1])
    total = sum(seconds for _, seconds in ordered)
    lines = [f"| {title} | s | share |", "| --- | ---: | ---: |"]
    lines += [f"| `{name}` | {seconds:.2f} | {seconds / total:.0%} |" for name, seconds in ordered[:_SHOWN]]
    rest = sum(seconds for _, seconds in ordered[_SHOWN:])
    return "\n".join([*lines, f"| all others | {rest:.2f} | {rest / total:.0%} |"] if rest else lines)


if __name__ == "__main__":
    tune_allocator()
    main()
