"""`index.html` of `cascade report`, from made-up accounts."""

import dataclasses
import re

from evaluate.account import StageReport
from evaluate.advice import advice
from evaluate.stage_page import stage_page


def headings(markup):
    return re.findall(r"<h2>(.*?)</h2>", markup)


def test_the_page_has_the_sentence_the_kinds_and_the_cases_worst_first(accounts):
    report = StageReport((accounts.liver_only, accounts.seen, accounts.usual))
    markup = stage_page(report)
    assert f'<p class="lead">{advice(report)}</p>' in markup
    assert headings(markup) == [
        *("Held out (n = 2)", "Seen in training (n = 1)", "Cases, worst first"),
        *("=volume-3, held out", "volume-2, seen in training", "volume-4, held out"),
    ]
    # Two charts a kind and a case, but one for the case whose tumours nobody drew.
    assert len(re.findall("<svg ", markup)) == 9
    assert re.findall(r"<figcaption>(.*?)</figcaption>", markup)[:2] == [
        "Tumour Dice, mean of 1 case: 0.625",
        "Liver Dice, mean of 2 cases: 0.975",
    ]
    assert "what is left 0.625" in markup
    assert "Tumour Dice, mean of 1 case, 1 without tumour: 1.000" in markup  # seen in training


def test_every_case_in_the_table_leads_to_its_section(accounts):
    markup = stage_page(StageReport((accounts.liver_only, accounts.usual)))
    links = re.findall(r'<a href="#(.*?)">(.*?)</a>', markup)
    assert links == [("case-1", "=volume-3"), ("case-0", "volume-4")]
    for anchor, case in links:
        assert re.search(f'<div id="{anchor}"><section><h2>{case}, ', markup)


def test_the_fate_of_every_tumour_is_listed(accounts):
    markup = stage_page(StageReport((accounts.usual,)))
    rows = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in re.findall(r"<tr>(.*?)</tr>", markup)]
    assert ["found", "1", "0.50", "2.50"] in rows
    assert ["missed in a perfect ROI", "1", "0.50", "0.50"] in rows
    assert ["1", "2.50", "0.75", "found"] in rows
    assert ["2", "0.50", "0.00", "missed in a perfect ROI"] in rows
    assert "What became of" not in stage_page(StageReport((accounts.liver_only,)))


def test_the_name_of_a_case_is_text(accounts):
    hostile = dataclasses.replace(accounts.usual, case="<script>alert(1)</script>")
    markup = stage_page(StageReport((hostile,)))
    assert markup.count("<script>") == 1
    assert "&lt;script&gt;alert(1)&lt;/script&gt;, held out" in markup


def test_a_case_with_a_picture_is_linked_to_it(accounts):
    named = dataclasses.replace(accounts.usual, case="a b/1")
    markup = stage_page(StageReport((named, accounts.liver_only)), {"a b/1"})
    assert re.findall(r'href="(pictures/.*?)"', markup) == ["pictures/a%20b%2F1.png"]
