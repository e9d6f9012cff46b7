"""`index.html` of `cascade report`: the sentence, where the Dice went, the cases worst first, and each case."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean

from evaluate.account import StageAccount, StageReport
from evaluate.advice import KIND, NAME, advice
from evaluate.charts import waterfall_chart
from evaluate.fates import FATES, fate_counts
from evaluate.page import Column, charts, figure, page, paragraph, section, table
from evaluate.svg import element
from evaluate.text import number
from evaluate.waterfall import Waterfall

_HELD_OUT = {True: "yes", False: "no", None: "unknown"}

_CASES = (
    ("final tumour Dice", "merged_tumor_dice", False),
    ("final liver Dice", "merged_liver_dice", False),
    ("stage 1 liver, coarse", "stage1_liver_dice_coarse", False),
    ("stage 1 liver", "stage1_liver_dice", False),
    ("liver in ROI", "roi_liver_share", False),
    ("tumour in ROI", "roi_tumor_share", False),
    ("stage 2 tumour, true ROI", "stage2_tumor_dice_true_roi", False),
    ("stage 2 tumour, own ROI", "stage2_tumor_dice_predicted_roi", False),
    ("clean-up, liver", "cleanup_liver_gain", True),
    ("clean-up, tumour", "cleanup_tumor_gain", True),
)

_HOW_TO_READ = (
    "A perfect mask has a Dice of 1. Each bar is what one kind of error takes away (or a later step gives back); "
    "together they lead to the Dice of the final mask. Convention lits: an empty prediction of an empty truth scores 1, "
    "so in a case without tumour the first false voxel takes the whole Dice."
)


def stage_page(report: StageReport) -> str:
    """The whole page as HTML; it names no file and loads nothing."""
    ranked = sorted(enumerate(report.accounts), key=lambda item: _badness(item[1]))
    return page(
        "Where the Dice went",
        [
            paragraph(advice(report), class_="lead"),
            paragraph(_HOW_TO_READ),
            *(_kind_section(kind, group) for kind, group in report.by_kind().items()),
            section("Cases, worst first", _case_table(report)),
            *(_case_section(i, case) for i, case in ranked),
        ],
    )


def _badness(case: StageAccount) -> tuple[bool, float, float]:
    """As the table sorts: smallest tumour Dice first, cases without one last."""
    return case.merged_tumor_dice is None, case.merged_tumor_dice or 0.0, case.merged_liver_dice


def _kind_section(kind: str, group: StageReport) -> str:
    n = len(group.accounts)
    waterfalls = {name: group.waterfall(structure) for structure, name in NAME.items()}
    pictures = _figures(f"mean of {n} {'case' if n == 1 else 'cases'}", waterfalls)
    return section(f"{KIND[kind].capitalize()} (n = {n})", pictures, *_fates(group))


def _figures(where: str, waterfalls: Mapping[str, Waterfall | None]) -> str:
    """The waterfalls by structure, the tumours' first: they lose more."""
    pictures = []
    for name, waterfall in reversed(list(waterfalls.items())):
        if waterfall is not None:
            losses = [(s.label, float(loss)) for s, loss in zip(waterfall.steps, waterfall.losses, strict=True)]
            title = f"{name.capitalize()} Dice, {where}: {number(float(waterfall.dice[-1]))}"
            pictures.append(figure(title, waterfall_chart(title, losses)))
    return charts(*pictures)


def _fates(group: StageReport) -> list[str]:
    """What became of the true tumours of a kind of cases; nothing when there are none."""
    lesions = group.lesions
    rows = []
    for fate, count in fate_counts(lesions).items():
        ml = [lesion.volume_ml for lesion in lesions if lesion.fate == fate]
        rows.append((FATES[fate], count, count / max(1, len(lesions)), fmean(ml) if ml else None))
    columns = (Column("fate", numeric=False), Column("tumours", 0), Column("share", 2), Column("mean mL", 2))
    caption = f"What became of {len(lesions)} true tumours"
    return [table(caption, columns, rows)] if lesions else []


def _case_table(report: StageReport) -> str:
    columns = [Column("case", numeric=False), *(Column(name, signed=signed) for name, _, signed in _CASES)]
    columns += [Column("tumours found", 0), Column("true tumours", 0), Column("held out", numeric=False)]
    rows = []
    for case in report.accounts:
        values = [getattr(case, field) for _, field, _ in _CASES]
        lesions = (fate_counts(case.lesions)["found"], len(case.lesions)) if case.tumor else (None, None)
        rows.append((case.case, *values, *lesions, _HELD_OUT[case.held_out]))
    links = {case.case: f"#case-{i}" for i, case in enumerate(report.accounts)}
    return table("A click on a header sorts", columns, rows, sort_by=1, links=links)


def _case_section(index: int, case: StageAccount) -> str:
    waterfalls = {name: getattr(case, structure) for structure, name in NAME.items()}
    parts = [_figures("this case", waterfalls)]
    if case.lesions:
        columns = (Column("tumour", numeric=False), Column("mL", 2), Column("share found", 2), Column("fate", numeric=False))
        rows = [(str(x.lesion), x.volume_ml, x.found_share, FATES[x.fate]) for x in case.lesions]
        parts.append(table("True tumours, largest first", columns, rows))
    held_out = {True: ", held out", False: ", seen in training", None: ""}[case.held_out]
    return element("div", section(f"{case.case}{held_out}", *parts), id=f"case-{index}")
