"""`index.html` of `cascade report`: the sentence, where the Dice went, the cases worst first, and each case."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from statistics import fmean
from urllib.parse import quote

from evaluate.account import StageAccount, StageReport
from evaluate.advice import HELD_OUT, KIND, NAME, advice
from evaluate.charts import waterfall_chart
from evaluate.fates import FATES, fate_counts
from evaluate.page import Column, charts, figure, page, paragraph, section, table
from evaluate.svg import element, text_of
from evaluate.text import number
from evaluate.waterfall import Waterfall

#: The columns of the table of cases; `stages.csv` has some more.
_CASES = {
    "final tumour Dice": "merged_tumor_dice",
    "final liver Dice": "merged_liver_dice",
    "stage 1 liver Dice": "stage1_liver_dice",
    "liver in ROI": "roi_liver_share",
    "tumour in ROI": "roi_tumor_share",
    "stage 2 tumour Dice, true ROI": "stage2_tumor_dice_true_roi",
    "stage 2 tumour Dice, own ROI": "stage2_tumor_dice_predicted_roi",
}

#: The tumours first: they lose more.
_STRUCTURES = ("tumor", "liver")

_PICTURE = (
    "picture: truth blue, its tumours light blue; prediction orange, its tumours yellow, white where both are alike"
)

_HOW_TO_READ = (
    "A perfect mask has a Dice of 1. Each bar is what one kind of error takes away (or a later step gives back); "
    "together they lead to the Dice of the final mask. Convention lits: an empty prediction of an empty truth scores "
    "1, so in a case without tumour the first false voxel takes the whole Dice."
)


def stage_page(report: StageReport, pictures: Collection[str] = ()) -> str:
    """The whole page as HTML; it loads nothing. Cases in `pictures` are linked to `pictures/<case>.png`."""
    ranked = sorted(enumerate(report.accounts), key=lambda item: _badness(item[1]))
    return page(
        "Where the Dice went",
        [
            paragraph(advice(report), class_="lead"),
            paragraph(_HOW_TO_READ),
            *(_kind_section(kind, group) for kind, group in report.by_kind().items()),
            section("Cases, worst first", _case_table(ranked)),
            *(_case_section(i, case, case.case in pictures) for i, case in ranked),
        ],
    )


def _badness(case: StageAccount) -> tuple[bool, float, float]:
    """As the table sorts: smallest tumour Dice first, cases without one last."""
    return case.merged_tumor_dice is None, case.merged_tumor_dice or 0.0, case.merged_liver_dice


def _kind_section(kind: str, group: StageReport) -> str:
    pictures = [_mean_figure(group, structure) for structure in _STRUCTURES]
    return section(f"{KIND[kind].capitalize()} (n = {len(group.accounts)})", charts(*pictures), *_fates(group))


def _mean_figure(group: StageReport, structure: str) -> str:
    waterfall = group.waterfall(structure)
    if waterfall is None:
        return ""
    counted = [case for case in group.accounts if getattr(case, structure) is not None]
    where = f"mean of {len(counted)} case{'' if len(counted) == 1 else 's'}"
    if structure == "tumor" and group.n_tumor_free:
        where += f", {group.n_tumor_free} without tumour"
    return _figure(structure, where, waterfall)


def _figure(structure: str, where: str, waterfall: Waterfall) -> str:
    losses = [(step.label, float(loss)) for step, loss in zip(waterfall.steps, waterfall.losses, strict=True)]
    title = f"{NAME[structure].capitalize()} Dice, {where}: {number(float(waterfall.dice[-1]))}"
    return figure(title, waterfall_chart(title, losses))


def _fates(group: StageReport) -> list[str]:
    """What became of the true tumours of a kind of cases; nothing when there are none."""
    lesions = group.lesions
    rows = []
    for fate, label in FATES.items():
        ml = [lesion.volume_ml for lesion in lesions if lesion.fate == fate]
        if ml:
            rows.append((label, len(ml), len(ml) / len(lesions), fmean(ml)))
    columns = (Column("fate", numeric=False), Column("tumours", 0), Column("share", 2), Column("mean mL", 2))
    caption = f"What became of {len(lesions)} true tumours"
    return [table(caption, columns, rows)] if lesions else []


def _case_table(ranked: Sequence[tuple[int, StageAccount]]) -> str:
    columns = [Column("case", numeric=False), *(Column(name) for name in _CASES)]
    columns += [Column("tumours found", 0), Column("true tumours", 0), Column("held out", numeric=False)]
    rows = []
    for _, case in ranked:
        values = [getattr(case, field) for field in _CASES.values()]
        lesions = (fate_counts(case.lesions)["found"], len(case.lesions)) if case.tumor else (None, None)
        rows.append((case.case, *values, *lesions, HELD_OUT[case.held_out]))
    links = {case.case: f"#case-{i}" for i, case in ranked}
    return table("A click on a header sorts", columns, rows, sort_by=1, links=links)


def _case_section(index: int, case: StageAccount, has_picture: bool) -> str:
    found = [(structure, w) for structure in _STRUCTURES if (w := getattr(case, structure)) is not None]
    parts = [charts(*(_figure(structure, "this case", waterfall) for structure, waterfall in found))]
    if case.lesions:
        columns = (
            Column("tumour", numeric=False),
            Column("mL", 2),
            Column("share found", 2),
            Column("fate", numeric=False),
        )
        rows = [(str(x.lesion), x.volume_ml, x.found_share, FATES[x.fate]) for x in case.lesions]
        parts.append(table("True tumours, largest first", columns, rows))
    if has_picture:
        where = f"pictures/{quote(case.case, safe='')}.png"
        parts.append(element("p", element("a", text_of(_PICTURE), href=where)))
    held_out = {True: ", held out", False: ", seen in training", None: ""}[case.held_out]
    return element("div", section(f"{case.case}{held_out}", *parts), id=f"case-{index}")
