"""`cascade check`: everything that may be wrong with a dataset, found without training and without changing a file."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from preprocess.case_checks import name_findings, repeated_scans, scan_findings
from preprocess.cases import Case
from preprocess.errors import CascadeError, UsageError
from preprocess.examine import Examination, examine
from preprocess.findings import Finding, error, listed, warning
from preprocess.layouts import list_cases
from preprocess.text import csv_text, printable
from preprocess.workers import outcomes


@dataclass(frozen=True)
class Checkup:
    """A checked dataset: its cases, what each is like (None: it cannot be read), and all that was found."""

    cases: tuple[Case, ...]
    seen: tuple[Examination | None, ...]
    findings: tuple[Finding, ...]

    @property
    def failed(self) -> list[str]:
        """The names of the cases with errors; `dataset` for one that concerns no case that could be read."""
        errors = [finding for finding in self.findings if finding.severity == "error"]
        return list(dict.fromkeys(name for finding in errors for name in finding.cases or ("dataset",)))


def check_dataset(source: Path, jobs: int, report: Callable[[int, int], None]) -> Checkup:
    """Reads every case of `source` (see `preprocess.layouts`), one at a time in each of `jobs` processes.

    `report` gets the number of cases done and of all. Raises InputError where the list of cases itself cannot be read,
    and UsageError where it is empty.
    """
    listing = list_cases(source)
    if listing.is_empty:
        raise UsageError(f"{source} holds no case; add cases or give another dataset")
    cases = listing.cases
    found = [*listing.findings(), *name_findings(cases, source), *scan_findings(cases)]
    results: dict[int, Examination | CascadeError] = {}
    for number, result in outcomes(examine, [(case,) for case in cases], jobs):
        results[number] = result
        report(len(results), len(cases))
    readable: dict[str, Examination] = {}
    for number, case in enumerate(cases):
        outcome = results[number]
        if isinstance(outcome, CascadeError):
            found.append(error(str(outcome).removeprefix(f"case {case.name}: "), case.name))
        else:
            readable[case.name] = outcome
            found += outcome.findings
    found += _twins(readable, {finding.cases for finding in found})
    found += _whole(cases, readable)
    seen = (results[number] for number in range(len(cases)))
    return Checkup(tuple(cases), tuple(s if isinstance(s, Examination) else None for s in seen), tuple(found))


def _twins(seen: Mapping[str, Examination], known: set[tuple[str, ...]]) -> Iterator[Finding]:
    """One scan, or one label, under several names; pairs in `known` were found by their bytes already."""
    same = list(repeated_scans({name: row.content for name, row in seen.items()}))
    yield from (finding for finding in same if finding.cases not in known)
    known = known | {pair for finding in same for pair in itertools.combinations(finding.cases, 2)}
    for a, b in itertools.combinations(seen, 2):
        if (a, b) in known or (b, a) in known:
            continue
        if seen[a].values == seen[b].values:
            yield error(
                f"cases {a} and {b} hold the same HU turned or mirrored: one scan under two headers, as LiTS and "
                "MSD Task03 have them; keep one",
                *(a, b),
            )
        if seen[a].mask and seen[a].mask == seen[b].mask:
            yield warning(f"cases {a} and {b} have one label and two images; which image is it of?", a, b)


def _whole(cases: Sequence[Case], seen: Mapping[str, Examination]) -> Iterator[Finding]:
    """What shows only in all cases together."""
    if all(case.label is None for case in cases):
        yield error("no case has a label: nothing to train on; add labels")
    elif len({case.patient for case in cases}) == 1:
        yield warning("all cases are of one patient, so none can be held out; add patients, or train with --fold all")
    clipped = [name for name, row in seen.items() if row.clipped]
    if 0 < len(clipped) < len(seen):
        low, high = max(seen[name].hu[0] for name in clipped), min(seen[name].hu[1] for name in clipped)
        yield warning(
            f"{len(clipped)} of {len(seen)} scans come clipped, the narrowest to {low:g}..{high:g} HU "
            f"({listed(clipped)}); keep preparation.window_hu within, or a network can tell them apart by their range"
        )


HEADER = (
    *("case", "status", "shape_zyx", "spacing_z_mm", "spacing_y_mm", "spacing_x_mm", "hu_low", "hu_high", "clipped"),
    *("liver_ml", "liver_hu", "liver_odd_share", "tumor_ml", "tumors", "content", "findings"),
)


def check_csv(checkup: Checkup) -> str:
    """The text of `check.csv`: one row a case, then one for each finding that concerns no case alone.

    Spacings in mm, volumes in mL; `liver_hu` is the median, `liver_odd_share` the share of liver voxels whose HU no
    liver has, `content` the id of the voxels. What is unknown is empty.
    """
    of_case: dict[str, list[Finding]] = defaultdict(list)
    for finding in checkup.findings:
        for name in finding.cases:
            of_case[name].append(finding)
    rows = [_row(c, seen, of_case[c.name]) for c, seen in zip(checkup.cases, checkup.seen, strict=True)]
    empty = [""] * (len(HEADER) - 3)
    rows += [["", f.severity, *empty, f.text] for f in checkup.findings if not f.cases]
    return csv_text(HEADER, rows)


def _row(case: Case, seen: Examination | None, findings: Sequence[Finding]) -> list[str | float | None]:
    severities = {finding.severity for finding in findings}
    status = next((level for level in ("error", "warning") if level in severities), "ok")
    texts = "; ".join(f"{finding.severity}: {finding.text}" for finding in findings)
    if seen is None:
        return [case.name, status, *[""] * (len(HEADER) - 3), texts]
    shape, clipped = "x".join(map(str, seen.shape)), "yes" if seen.clipped else "no"
    liver = seen.liver_ml if case.label else None
    tumor = (seen.tumor_ml, str(seen.lesions)) if case.scores_tumor else (None, None)
    return [
        *(case.name, status, shape, *seen.spacing_mm, *seen.hu, clipped),
        *(liver, seen.liver_hu, seen.odd_share, *tumor, seen.content, texts),
    ]


def check_text(checkup: Checkup) -> str:
    """What was found, for the screen: errors first, one line each; cases with one and the same finding share a line."""
    lines: dict[tuple[str, str], list[str]] = defaultdict(list)
    for finding in checkup.findings:
        together = len(finding.cases) > 1  # the text names them
        lines[finding.severity, finding.text] += [] if together else finding.cases
    told = [
        f"{severity:<8} {printable(f'{listed(names)}: {text}' if names else text)}"
        for severity, text in sorted(lines, key=lambda key: key[0])
        for names in (lines[severity, text],)
    ]
    return "\n".join([*told, _summary(checkup)])


def _summary(checkup: Checkup) -> str:
    cases, known = checkup.cases, [(c, s) for c, s in zip(checkup.cases, checkup.seen, strict=True) if s]
    counts = {
        "with tumours": sum(c.scores_tumor and s.tumor_ml > 0 for c, s in known),
        "without tumour": sum(c.scores_tumor and s.liver_ml > 0 and not s.tumor_ml for c, s in known),
        "whose tumours are not labelled": sum(c.label is not None and not c.scores_tumor for c, _ in known),
        "without liver": sum(c.label is not None and not s.liver_ml for c, s in known),
        "without label": sum(c.label is None for c in cases),
        "not usable": sum(s is None for s in checkup.seen),
    }
    parts = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    levels = [finding.severity for finding in checkup.findings]
    patients = {case.patient for case in cases}
    return (
        f"{_counted(len(cases), 'case')} of {_counted(len(patients), 'patient')}{f' ({parts})' if parts else ''}: "
        f"{_counted(levels.count('error'), 'error')}, {_counted(levels.count('warning'), 'warning')}"
    )


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
