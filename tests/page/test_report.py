"""The report from the command line to a file, and as a real browser shows it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import one_line, run_here
from hostile import HOSTILE, hostile

from igd_jax import report as program
from igd_jax.page.render import chart_script, render

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def reported(run: Path, tmp_path_factory) -> Path:
    """The page about two runs, which are the same one twice, without a model for the time that it takes."""
    other = run.parent / "other"
    shutil.copytree(run, other, ignore=shutil.ignore_patterns("checkpoints"), dirs_exist_ok=True)
    output = tmp_path_factory.mktemp("report") / "both.html"
    done = run_here(program, str(run), str(other), f"--output={output}", "--nomodel", "--name=test")
    assert (done.code, done.err) == (0, "")
    assert f"open in a browser: {output} (" in done.out
    return output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "no run is named; give --workdir=RUN"),
        (("{run}", "{run}"), "2 runs are named, so no folder is that of the page; give --output=FILE.html"),
        (("--workdir={run}", "--name=none"), "holds no evaluation 'none'; expected one of sums, test"),
        (("--workdir={run}", "--max_examples=-1"), "--max_examples is -1; expected a number of queries"),
        (("--workdir={run}", "--output={run}/no/page.html"), "expected a file in a folder that exists"),
        (("--workdir={run}/none",), "none is not a folder"),
    ],
)
def test_bad_options_are_one_line(run, options, message):
    assert message in one_line(run_here(program, *(each.format(run=run) for each in options)))
    assert not (run / "report.html").exists()


def test_the_page_about_an_evaluation_lies_in_the_folder_of_its_run(run, tmp_path, monkeypatch):
    shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints"))
    monkeypatch.chdir(folder := tmp_path / "run" / "eval" / "test")
    files = sorted(folder.iterdir())
    done = run_here(program, "--workdir=.", "--nomodel")
    assert (done.code, done.err) == (0, "")
    assert (tmp_path / "run" / "report.html").is_file()
    assert sorted(folder.iterdir()) == files


# ------------------------------------------------------------------------------------------------------------- browser
@pytest.fixture(scope="module")
def browser() -> Iterator:
    """Headless Chromium."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
    if CHROMIUM is None:
        pytest.skip("needs chromium, of which there is none here")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def opened(browser) -> Iterator:
    """Function that opens a file; at the end there was no error, dialog or request but that for the file."""
    seen, pages = [], []

    def open_file(path: Path):
        tab = browser.new_page(viewport={"width": 1200, "height": 900}, reduced_motion="reduce")
        tab.set_default_timeout(300_000)
        tab.on("console", lambda message: seen.append(message.text))
        tab.on("pageerror", lambda error: seen.append(str(error)))
        tab.on("dialog", lambda dialog: (seen.append(dialog.message), dialog.dismiss()))
        tab.on("request", lambda request: seen.append(request.url))
        tab.goto(path.as_uri())
        tab.wait_for_selector("html[data-ready]", state="attached")
        pages.append(path.as_uri())
        return tab

    yield open_file
    assert seen == pages


def serious(tab) -> list[str]:
    """Serious and critical findings of axe."""
    axe = pytest.importorskip("axe_core_python", reason="needs the package axe-core-python")
    tab.evaluate((Path(axe.__file__).parent / "axe.min.js").read_text(encoding="utf-8"))
    found = tab.evaluate("axe.run()")["violations"]
    return [f"{each['id']}: {each['nodes'][0]['html']}" for each in found if each["impact"] in ("serious", "critical")]


@pytest.mark.slow
def test_a_browser_shows_two_runs(opened, reported, written):
    tab = opened(reported)
    metrics = written["test"][1]
    for name in ("hr@3", "ndcg@3", "mrr"):
        for of, section in (("shop/test", metrics), ("popularity", metrics["popularity_baseline"])):
            cell = tab.locator(f'[data-of="{of}"][data-metric="{name}"]:not([data-slice])')
            assert cell.inner_text() == f"{section[name]:.4f}"
    first, second = (tab.locator(f'.run[data-number="{number}"]') for number in "01")
    assert (first.is_visible(), second.is_visible()) == (True, False)
    tab.get_by_label("other/test", exact=True).check()
    assert (first.is_visible(), second.is_visible()) == (False, True)
    tab.wait_for_selector('.run[data-number="1"] .chart svg')
    second.get_by_label("Title or item id").fill("heron red")
    assert second.locator("tbody th", has_text="Red Heron").count() == 1
    assert "the model was not run, as --nomodel says" in second.inner_text()
    assert not serious(tab)


@pytest.mark.slow
def test_beams_open_tokens_switch_and_scripts_stay_text(opened, page, tmp_path):
    script = chart_script()
    (tmp_path / "page.html").write_text(render(page, script), encoding="utf-8")
    tab = opened(tmp_path / "page.html")
    assert tab.locator(".chart svg").count() == tab.locator(".chart").count() > 10
    beam = tab.locator(".beam")
    beam.get_by_role("button", name="Close all").click()
    assert beam.locator(".node").count() == 1
    beam.locator(".node").click()
    before = beam.locator(".node").count()
    beam.locator(".node.closed").last.press("Enter")
    assert beam.locator(".node").count() > before > 1
    beam.get_by_role("button", name="Open all").click()
    assert beam.locator(".node.title").count() == 4
    beam.get_by_label("User").select_option(index=1)
    tab.get_by_label("log-probability after training").check()
    token = page.runs[0].heat.titles[0].tokens[0]
    assert tab.locator(".token .value:visible").first.inner_text() == f"{token.after:.2f}".replace("-", "−")
    tab.emulate_media(color_scheme="dark")
    assert not serious(tab)

    (tmp_path / "hostile.html").write_text(render(hostile(page), script), encoding="utf-8")
    tab = opened(tmp_path / "hostile.html")
    assert tab.locator(".user summary strong").first.inner_text() == HOSTILE
    assert tab.locator(".search tbody th").first.inner_text() == HOSTILE
    assert tab.locator(".beam .node text", has_text=HOSTILE).count() > 2
