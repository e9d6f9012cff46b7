import pytest

from evaluate.svg import Scale, element, label, rect, svg, text_of, ticks

HOSTILE = "<script>alert('1')</script>&\"\x1b\u202e"


def test_text_is_never_markup():
    assert text_of(HOSTILE) == "&lt;script&gt;alert(&#x27;1&#x27;)&lt;/script&gt;&amp;&quot;??"


def test_an_element_escapes_its_attributes_and_shortens_its_numbers():
    assert element("td", "<b>", class_="a", text_anchor='"', x=1.5, y=2.0, z=1 / 3) == (
        '<td class="a" text-anchor="&quot;" x="1.5" y="2" z="0.33"><b></td>'
    )


def test_a_label_is_text_at_its_place():
    assert label("a < b", 3, 4.25) == '<text x="3" y="4.25">a &lt; b</text>'


def test_a_rectangle_is_always_visible():
    assert rect(1, 2, 0, 4, "loss") == '<rect x="1" y="2" width="1" height="4" class="loss"></rect>'


def test_a_chart_has_a_name_and_a_description():
    assert svg(20, "A & B", "all <1", ["<g></g>"]) == (
        '<svg role="img" viewBox="0 0 480 20"><title>A &amp; B</title><desc>all &lt;1</desc><g></g></svg>'
    )


def test_a_scale_maps_its_ends_and_turns_where_it_is_asked_to():
    scale = Scale(-1.0, 3.0, 100, 20)
    assert [scale(v) for v in (-1, 0, 3)] == [100, 80, 20]
    assert Scale(5.0, 5.0, 0, 10)(5.0) == 5


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (-12.5, 31, [-10, 0, 10, 20, 30]),
        (0, 0.03, [0, 0.01, 0.02, 0.03]),
        (1400, 2300, [1400, 1600, 1800, 2000, 2200]),
        (4, 4, [4]),
    ],
)
def test_ticks_are_round_and_inside(low, high, expected):
    assert ticks(low, high) == expected
