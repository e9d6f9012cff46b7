"""The skeleton of a page: nothing from outside, nothing that came from a file as markup, tables that sort."""

import base64
import hashlib
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from evaluate.page import Column, charts, figure, page, paragraph, section, table

HOSTILE = "<script>alert(1)</script>"


class Elements(HTMLParser):
    """Every start tag with its attributes, and the text of the page."""

    def __init__(self, markup):
        super().__init__()
        self.tags, self.texts, self.open = [], [], []
        self.feed(markup)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta",):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    def of(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def content_of(markup, tag):
    return re.search(f"<{tag}>(.*?)</{tag}>", markup, re.DOTALL)[1]


def test_the_policy_allows_the_one_style_and_the_one_script_and_nothing_else():
    markup = page("a title", [])
    (policy,) = [m["content"] for m in Elements(markup).of("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules.keys() == {"default-src", "style-src", "script-src", "base-uri", "form-action"}
    assert {rules["default-src"], rules["base-uri"], rules["form-action"]} == {"'none'"}
    for rule, tag in (("style-src", "style"), ("script-src", "script")):
        digest = base64.b64encode(hashlib.sha256(content_of(markup, tag).encode()).digest()).decode()
        assert rules[rule] == f"'sha256-{digest}'"


def test_a_page_is_whole_and_loads_nothing():
    markup = page("A & B", [paragraph("one"), section("two", charts(figure("three", "<svg></svg>")))])
    elements = Elements(markup)
    assert elements.open == []
    assert markup.startswith("<!DOCTYPE html>\n")
    assert elements.of("html") == [{"lang": "en"}]
    assert [elements.texts[elements.texts.index(t)] for t in ("A & B", "one", "two", "three")]
    assert not {"link", "img", "iframe", "object", "form"} & {tag for tag, _ in elements.tags}
    for _, attributes in elements.tags:
        # An inline style or handler would be refused by the policy anyway.
        assert not {"src", "style"} & attributes.keys()
        assert not [name for name in attributes if name.startswith("on")]
    assert not re.search(r"url\(|@import|https?:", content_of(markup, "style") + content_of(markup, "script"))


def test_everything_that_is_text_is_shown_as_text():
    columns = [Column(HOSTILE, numeric=False), Column(HOSTILE), Column(HOSTILE, numeric=False)]
    cells = table(HOSTILE, columns, [(HOSTILE, 1.0, HOSTILE)], links={HOSTILE: '"onclick="x'})
    elements = Elements(page(HOSTILE, [paragraph(HOSTILE, HOSTILE), section(HOSTILE, cells, figure(HOSTILE, ""))]))
    assert len(elements.of("script")) == 1
    assert elements.of("a") == [{"href": '"onclick="x'}]
    assert elements.texts.count(HOSTILE) == 11


def test_rows_are_sorted_smallest_first_and_missing_last():
    columns = [Column("case", numeric=False), Column("Dice"), Column("change", 1, signed=True)]
    rows = [("a", None, 1.25), ("b", 0.5, -2.0), ("c", float("nan"), np.float64(1 / 3)), ("d", 0.25, None)]
    elements = Elements(table("scores", columns, rows, sort_by=1))
    heads = [h for h in elements.of("th") if h["scope"] == "col"]
    assert heads == [
        {"scope": "col"},
        {"scope": "col", "class": "number", "aria-sort": "ascending"},
        {"scope": "col", "class": "number"},
    ]
    texts = [text for text in elements.texts if text.strip()]
    assert texts == [
        *("scores", "case", "Dice", "change"),
        *("d", "0.250", "-"),
        *("b", "0.500", "-2.0"),
        *("a", "-", "+1.2"),
        *("c", "-", "+0.3"),
    ]
    assert [cell.get("data-value") for cell in elements.of("td")] == [
        "0.25",
        None,
        "0.5",
        "-2.0",
        None,
        "1.25",
        None,
        repr(1 / 3),
    ]
    assert {cell["class"] for cell in elements.of("td")} == {"number"}


def test_unsorted_rows_stay_and_an_empty_table_is_one():
    rows = [("b", 2.0), ("a", 1.0)]
    elements = Elements(table("t", [Column("x", numeric=False), Column("y", 0)], rows))
    assert [t for t in elements.texts if t in "ab12"] == ["b", "2", "a", "1"]
    assert Elements(table("t", [Column("x", numeric=False)], [], sort_by=0)).of("td") == []


def test_rows_of_another_length_are_refused():
    with pytest.raises(ValueError, match="zip"):
        table("t", [Column("x", numeric=False), Column("y")], [("a",)])
