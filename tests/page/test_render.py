"""The page in HTML: valid, whole in one file, and without a word of the data taken for markup; and its charts."""

import json
import re

import html5lib
import pytest
from hostile import HOSTILE, hostile

from igd_jax.evaluation.figures import Figure
from igd_jax.page.charts import figure_chart, loss_chart, loss_figures
from igd_jax.page.render import render
from igd_jax.page.texts import HOW_TO_READ

XHTML = "{http://www.w3.org/1999/xhtml}"


def parsed(html: str):
    """The tree of a page; raises `ParseError` at the first fault."""
    return html5lib.HTMLParser(strict=True).parse(html)


def text_of(element) -> str:
    return " ".join("".join(element.itertext()).split())


def test_metrics_in_the_page_are_those_of_the_file(page, written):
    tree = parsed(render(page, ""))
    found = [each for each in tree.iter() if each.get("data-of")]
    checked = 0
    for each in found:
        name, of = each.get("data-metric"), each.get("data-of")
        metrics = written["test" if of == "popularity" else of][1]
        section = metrics["popularity_baseline"] if of == "popularity" else metrics
        value = (section["slices"][each.get("data-slice")] if each.get("data-slice") else section)[name]
        expected = "–" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.4f}"
        assert text_of(each) == expected
        checked += 1
    assert checked == 3 * 6 + 5 * (1 + 2)  # metrics of both and of popularity; size of each slice, and NDCG of both


def test_every_figure_says_how_it_is_read(page):
    (view,) = page.runs
    names = {panel.name for panel in (*view.training, *view.analyses, *view.lists)}
    assert names <= HOW_TO_READ.keys()
    html = render(page, "")
    for name in names | {"metrics", "slices", "heat", "beam", "lists_of_users", "search"}:
        assert HOW_TO_READ[name] in html
    assert all(sentence.endswith(".") and "\n" not in sentence for sentence in HOW_TO_READ.values())
    assert f"evaluate --workdir={view.command.split('--workdir=')[1].split()[0]} --name=test --beam_misses=200" in html


def test_a_title_that_is_a_script_is_text(page):
    html = render(hostile(page), "")
    tree = parsed(html)
    assert HOSTILE not in html
    scripts = list(tree.iter(f"{XHTML}script"))
    assert not any("alert(1)" in (each.text or "") and each.get("type") != "application/json" for each in scripts)
    assert sum(text_of(each) == HOSTILE for each in tree.iter()) > 40
    for each in scripts:
        if each.get("type") == "application/json":
            json.loads(each.text)


def test_nothing_is_taken_from_elsewhere(page):
    html = render(page, "")
    assert not re.search(r"""(src|href|action|srcset)\s*=\s*["'](?!#)|@import|url\(""", html)
    assert "default-src 'none'" in html
    assert "https://" not in html


def test_the_script_cannot_end_its_element(page):
    assert '"<\\/script><\\!--"' in render(page, '"</script><!--"')


# -------------------------------------------------------------------------------------------------------------- charts
def test_losses_of_forced_and_deciding_tokens_are_apart():
    columns = {"step": [1, 2], "loss": [2.0, 1.0], "valid_loss": [None, 1.5], "loss_forced": [1.0, 0.5]}
    figures = loss_figures(Figure("training", "", {**columns, "loss_deciding": [3.0, 2.0]}, (), "nats"))
    assert [list(figure.columns) for figure in figures] == [
        ["step", "loss", "valid_loss"],
        ["step", "loss_forced", "loss_deciding"],
    ]
    told = {figure.name: loss_chart(figure)["data"]["values"] for figure in figures}
    assert told["losses"] == [
        {"x": 1, "y": 2.0, "of": "all tokens", "split": "train"},
        {"x": 2, "y": 1.0, "of": "all tokens", "split": "train"},
        {"x": 2, "y": 1.5, "of": "all tokens", "split": "valid"},
    ]
    assert {(each["of"], each["y"]) for each in told["by_gain"]} == {
        ("forced", 1.0),
        ("forced", 0.5),
        ("deciding", 3.0),
        ("deciding", 2.0),
    }


@pytest.mark.parametrize(("at", "mark"), [(["0", "1"], "bar"), ([1, 2], "line")])
def test_a_figure_is_lines_over_numbers_and_bars_over_names(at, mark):
    columns = {"at": at, "some_share": [0.5, None], "other": [1, 2]}
    spec = figure_chart(Figure("x", "", columns, ("some_share",), "share"))
    told = spec["mark"]["type"] if isinstance(spec["mark"], dict) else spec["mark"]
    assert told == mark
    assert spec["data"]["values"] == [{"x": at[0], "y": 0.5, "of": "some share"}]
