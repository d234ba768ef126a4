"""The pages as a reader meets them: opened from a file in a browser that has no network to reach."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
from tests.lab import fake_records
from tests.lab.fake_records import fake_outcomes, fake_record, study_a, write_folder

from headwise.cli import main
from headwise_lab.report import build

CHROMIUM, DRIVER = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver")

FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--window-size=1300,1000",
)  # fmt: skip


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    opened = webdriver.Chrome(options=options, service=Service(DRIVER))
    opened.set_script_timeout(120)
    yield opened
    opened.quit()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Two benchmarks, two budgets, two head counts, a failed trial and a refused one."""
    path = tmp_path_factory.mktemp("study")
    write_folder(path, study_a(("first", "second"), n=20))
    broken = {key: value for key, value in fake_record("broken", 2, benchmark="first").items() if key != "metric"}
    refused = {**fake_record("vast", 4, benchmark="second"), "refused": "keep=500 cannot be met"}
    with (path / "results.jsonl").open("a") as stream:
        stream.write(json.dumps({**broken, "error": "Traceback\nContractError: broken"}) + "\n")
        stream.write(json.dumps(refused) + "\n")
    build(path)
    return path


@pytest.fixture(scope="module")
def compared(folder, tmp_path_factory) -> Path:
    """A comparison page: the second folder does better at 16 tokens, with another version."""
    other = tmp_path_factory.mktemp("other")
    trials = study_a(("first", "second"), n=20)
    changed = [
        ({**record, "versions": {"headwise": "0.2.0"}}, ability + 0.3 * (record["budget"]["kept"] == 16))
        for record, ability in trials
    ]
    write_folder(other, changed)
    out = tmp_path_factory.mktemp("compared") / "both"
    assert main(["report", str(folder), str(other), "--out", str(out)]) == 0
    return out


class Reader:
    """What a reader does with a page, and sees of it."""

    def __init__(self, browser, page: Path, state: str = "", *, folded: bool = False) -> None:
        self.browser, self.page = browser, page
        self.logs: dict[str, list] = {"browser": [], "performance": []}
        self.listen()  # what an earlier page said is not this one's
        self.logs = {"browser": [], "performance": []}
        browser.get("about:blank")
        browser.get(page.as_uri() + state)
        if not folded:
            self.run("document.querySelector('.filters [name=folds]').click()")

    def listen(self) -> None:
        for kind, told in self.logs.items():
            told.extend(self.browser.get_log(kind))

    def run(self, script: str, *given):
        return self.browser.execute_script(script, *given)

    def texts(self, selector: str) -> list[str]:
        """Texts of the elements that are to be seen, or would be if scrolled to."""
        return self.run(
            "return [...document.querySelectorAll(arguments[0])].filter((one) => one.checkVisibility())"
            ".map((one) => one.textContent.trim())",
            selector,
        )

    def set(self, field: str, value: str) -> None:
        self.run(
            "const field = document.querySelector('.filters').elements[arguments[0]]; field.value = arguments[1];"
            "field.dispatchEvent(new Event('input', { bubbles: true }))",
            field,
            value,
        )

    def click(self, selector: str) -> None:
        from selenium.webdriver.common.by import By

        found = self.browser.find_element(By.CSS_SELECTOR, selector)
        self.run("arguments[0].scrollIntoView({ block: 'center', behavior: 'instant' })", found)
        found.click()

    def count(self) -> tuple[int, int]:
        """Rows shown and rows there are, as the page tells."""
        (told,) = self.texts(".filters output")
        words = told.split()
        return int(words[0]), int(words[2])

    def state(self) -> str:
        return self.run("return location.hash")

    def settings(self, section: str) -> list[str]:
        """Budget and heads of the columns of a section's first table."""
        return self.texts(f"#{section} > .fold > .block th")[1:]


@pytest.fixture
def reader(browser, folder) -> Reader:
    return Reader(browser, folder / "report.html")


def record_of(folder: Path, **wanted: object) -> dict:
    lines = map(json.loads, (folder / "results.jsonl").read_text().splitlines())
    return next(
        record for record in lines
        if record["benchmark"] == wanted["benchmark"] and record["budget"]["given"] == wanted["budget"]
        and record["strategies"]["head_scoring"] == wanted["scoring"]
        and record["strategies"]["head_count"] == wanted["heads"]
    )  # fmt: skip


def test_tables_figures_and_failures_are_there_and_nothing_is_asked_for(reader, folder):
    assert reader.settings("first") == [
        "keep 48 (64.0), 4 heads", "keep 48 (64.0), 2 heads", "keep 16 (37.3), 4 heads", "keep 16 (37.3), 2 heads",
    ]  # fmt: skip
    rows = reader.texts("#first > .fold > .block tbody td:first-child")
    assert rows == ["sum (all heads)", "random (control)", "dull", "even", "sharp"]
    shown, of = reader.count()
    assert shown == of == len(reader.run("return [...document.querySelectorAll('table.filtered tbody tr')]"))
    decoded = "return Promise.all([...document.images].map((one) => one.decode().then(() => one.naturalWidth)))"
    assert min(reader.run(decoded), default=101) > 100
    drawn = reader.run("return [...document.querySelectorAll('figure .chart')].map((one) => one.getBBox().width)")
    assert len(drawn) == 4
    assert min(drawn) > 100
    failures = reader.texts("#failures td")
    assert "ContractError: broken" in failures
    assert "keep=500 cannot be met" in failures
    reader.click("#first a.figure")
    reader.listen()
    assert reader.logs["browser"] == []
    asked = [json.loads(line["message"])["message"] for line in reader.logs["performance"]]
    addresses = {told["params"]["request"]["url"] for told in asked if told["method"] == "Network.requestWillBeSent"}
    assert reader.page.as_uri() in addresses
    outside = {address for address in addresses if not address.startswith(("file:", "data:", "about:"))}
    assert outside == set()


SCREENS = {"desktop": (1280, 800, False), "phone": (390, 844, True)}


@pytest.fixture(params=SCREENS)
def screen(browser, request) -> Iterator[tuple[int, int]]:
    """Width and height of a window, which the browser has while the test runs."""
    width, height, mobile = SCREENS[request.param]
    given = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", given)
    yield width, height
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_first_screen_says_what_was_measured_what_it_shows_and_has_one_figure(browser, folder, screen):
    reader = Reader(browser, folder / "report.html", folded=True)
    told = dict(zip(reader.texts(".measured dt"), reader.texts(".measured dd"), strict=True))
    assert told == {
        "Model": "demo-llava", "Benchmark": "first, second", "n": "20 questions per trial",
        "Budget": "keep 48, keep 16", "Hardware": "a made-up CPU, 2 cores", "Date": "2026-01-01", "Trials": "42",
    }  # fmt: skip
    (conclusion,) = reader.texts(".conclusion")
    assert conclusion.startswith("No choice of heads beats both all heads and as many random heads, at any of the 4")
    assert re.search(r"of about [\d.]+ points to [\d.]+ points, depending on the table, not much less\)\.$", conclusion)
    width, height = screen
    boxes = reader.run(
        "return [...document.querySelectorAll('h1, .measured, .conclusion, .lead img, .lead svg')]"
        ".map((one) => one.getBoundingClientRect()).map((box) => [box.left, box.top, box.right, box.bottom])"
    )
    assert len(boxes) == 4
    for left, top, right, bottom in boxes:
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
    assert reader.texts("main details[open]") == []
    for anchor in ("", "#records", "#first-differences"):
        page = Reader(browser, folder / "report.html", anchor, folded=not anchor)
        assert page.run("return document.documentElement.scrollWidth") <= width  # the page never scrolls sideways


def test_an_address_opens_the_fold_it_leads_to(browser, folder):
    reader = Reader(browser, folder / "report.html", "#first-differences", folded=True)
    opened = "return [...document.querySelectorAll('main details[open]')].map((one) => one.id || one.parentElement.id)"
    assert reader.run(opened) == ["first", "first-differences"]
    reader.click(".contents a[href='#records']")
    assert reader.state() == "#records"
    assert reader.run(opened) == ["first", "first-differences", "records"]
    reader.set("benchmark", "second")  # from now on the address carries the filters
    reader.click(".contents a[href='#second']")
    assert "second" in reader.run(opened)
    assert reader.state() == "#benchmark=second"
    assert len(set(reader.run("return [...document.querySelectorAll('[id]')].map((one) => one.id)"))) == reader.run(
        "return document.querySelectorAll('[id]').length"
    )


def test_printing_opens_every_fold_and_closes_it_again(browser, folder):
    reader = Reader(browser, folder / "report.html", folded=True)
    closed = "return [...document.querySelectorAll('main details:not([open], .columns)')].length"
    before = reader.run(closed)
    reader.run("dispatchEvent(new Event('beforeprint'))")
    assert reader.run(closed) == 0
    reader.run("dispatchEvent(new Event('afterprint'))")
    assert reader.run(closed) == before > 4


def test_filters_hide_what_does_not_match_and_clearing_shows_it_again(reader):
    everything = reader.count()
    reader.set("benchmark", "second")
    assert reader.texts("main h2")[:2] == ["Findings", "second"]
    assert "first" not in reader.texts(".contents a")
    assert all(text.startswith("second") for text in reader.texts("#findings .findings li"))
    reader.set("budget", "keep 16")
    reader.set("heads", "4")
    assert reader.settings("second") == ["keep 16 (37.3), 4 heads"]
    assert len(reader.texts("#second > .fold > .block tbody tr")) == 5
    (told,) = reader.texts("#second > .fold > summary .rows")
    shown, of = re.fullmatch(r"(\d+) of (\d+) rows", told).groups()
    assert 0 < int(shown) < int(of)
    assert all("keep 16" in text for text in reader.texts("#findings .findings li"))
    offered = "return [...document.querySelectorAll('#second .setting option')].filter((one) => !one.disabled)"
    assert reader.run(f"{offered}.map((one) => one.textContent)") == ["keep 16 (37.3) with 4 heads"]
    assert set(reader.texts("#records tbody td:nth-child(2)")) == {"second"}
    shown, of = reader.count()
    assert 0 < shown < of == everything[1]
    reader.click(".filters [name=clear]")
    assert reader.count() == everything
    assert reader.state() == ""


def test_a_search_leaves_the_strategies_that_match(reader):
    reader.set("strategy", "SHARP")
    assert reader.texts("#first > .fold > .block tbody td:first-child") == ["sharp"]
    commands = reader.texts("#records tbody td:nth-child(3)")
    assert len(commands) == 8
    assert all("head_scoring=sharp" in text for text in commands)
    reader.set("strategy", "no such thing")
    assert reader.count()[0] == 0
    assert reader.texts(".none") == ["No row matches these filters."]


def test_a_filtered_view_is_restored_from_its_address(browser, folder, reader):
    reader.set("benchmark", "first")
    reader.set("budget", "keep 48")
    reader.set("strategy", "dull")
    state, count = reader.state(), reader.count()
    again = Reader(browser, folder / "report.html", state)
    assert (again.count(), again.state()) == (count, state)
    assert again.run("return document.querySelector('.filters').elements.benchmark.value") == "first"
    assert again.settings("first") == ["keep 48 (64.0), 4 heads", "keep 48 (64.0), 2 heads"]
    unknown = Reader(browser, folder / "report.html", "#benchmark=gone&heads=77")
    assert unknown.count()[0] == unknown.count()[1]


def test_a_number_opens_its_n_error_difference_strategies_and_command(reader, folder):
    record = record_of(folder, benchmark="first", budget="keep=16", scoring="sharp", heads="fixed:heads=4")
    reader.click(f"#first > .fold > .block a[href='#r-{record['id']}']")
    facts = dict(zip(reader.texts("#facts dt"), reader.texts("#facts dd"), strict=True))
    value, se = record["metric"]["value"], record["metric"]["se"]
    assert reader.texts("#facts .value")[0].startswith(f"{value:.2f}")
    assert facts["Figure"] == f"{value:.2f} ± {se:.4g} (SE)"
    assert facts["n"] == "20 questions of first"
    assert "head_scoring=sharp" in facts["Strategies"].splitlines()
    assert facts["Command"].startswith("headwise run --strategy sharp")
    assert facts["Where"] == "headwise 0.1.0, torch 2.13.0, cpu, a made-up CPU"
    assert (facts["Record"], facts["Seed"]) == (record["id"], "0")
    assert " to " in facts["95% interval"]
    assert reader.texts("#facts .copy") == ["Copy"]


def test_details_open_and_close_from_the_keyboard(reader):
    from selenium.webdriver.common.keys import Keys

    reader.run("document.querySelector('#first a.figure').focus()")
    reader.browser.switch_to.active_element.send_keys(Keys.ENTER)
    assert reader.texts("#facts h4")
    reader.browser.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert reader.texts("#facts h4") == []
    assert reader.run("return document.activeElement === document.querySelector('#first a.figure')")


def test_a_header_sorts_its_table_up_down_and_back(reader):
    column = "#records tbody td:nth-child(5)"
    before = reader.texts(column)
    numbers = [float(text.split()[0]) for text in before]
    header = "#records th:nth-child(5) button"
    for direction, wanted in (("ascending", sorted(numbers)), ("descending", sorted(numbers, reverse=True))):
        reader.click(header)
        assert [float(text.split()[0]) for text in reader.texts(column)] == wanted
        assert reader.run("return document.querySelector('#records th:nth-child(5)').ariaSort") == direction
    reader.click(header)
    assert reader.texts(column) == before


def test_a_wide_table_chooses_its_columns_and_shows_that_it_scrolls(browser, folder, screen):
    reader = Reader(browser, folder / "report.html")
    table = "#first-differences"
    columns = reader.texts(f"{table} th")
    assert len(columns) == 13
    assert reader.texts(f"{table} .hint") == ["More columns: scroll sideways →"]
    assert reader.run(f"return document.querySelector('{table} .frame').classList.contains('more-right')")
    reader.run(f"document.querySelector('{table} .columns').open = true")
    offered = reader.texts(f"{table} .columns label")
    assert offered == columns[1:]
    for name in offered[3:]:
        place = offered.index(name) + 1
        reader.run(f"document.querySelector('{table} .columns label:nth-of-type({place}) input').click()")
    assert reader.texts(f"{table} th") == columns[:4]
    assert len(reader.texts(f"{table} tbody tr:first-child td")) == 4
    reader.set("heads", "2")  # a filter brings none of them back
    assert reader.texts(f"{table} th") == columns[:4]
    assert screen[0] == 390 or reader.texts(f"{table} .hint") == []
    assert "columns" not in reader.state()


def test_the_page_saves_its_tables_and_figures(browser, folder, tmp_path):
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    reader = Reader(browser, folder / "report.html")
    wanted = {name: folder / "tables" / name for name in ("first.csv", "first.tex", "failures.csv", "records.csv")}
    for name, path in wanted.items():
        reader.click(f".download[data-file='{name}']")
        assert downloaded(tmp_path / name) == path.read_bytes(), name
    reader.click(".lead .download")
    drawing = ElementTree.fromstring(downloaded(tmp_path / "first-scores.svg"))
    assert drawing.tag.endswith("svg")
    offered = reader.run("return [...document.querySelectorAll('.download[data-file]')].map((one) => one.dataset.file)")
    assert {path.name for path in (folder / "tables").iterdir()} == set(offered)


def downloaded(path: Path) -> bytes:
    """What the browser has saved to a path; a browser names a file so once it is whole."""
    for _ in range(300):
        if path.exists():
            return path.read_bytes()
        time.sleep(0.1)
    raise AssertionError(f"{path} was not saved")


def test_a_command_is_copied_with_one_click(browser, folder):
    reader = Reader(browser, folder / "report.html")
    granted = {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
    browser.execute_cdp_cmd("Browser.grantPermissions", granted)
    cell = "#records tbody tr:first-child td:nth-child(8)"
    command = reader.run(f"return document.querySelector('{cell}').firstChild.textContent")
    reader.click(f"{cell} .copy")
    read = "const done = arguments[0]; navigator.clipboard.readText().then(done, (error) => done(`${error}`))"
    assert browser.execute_async_script(read) == command
    assert reader.texts(f"{cell} .copy") == ["Copied"]
    assert command.startswith("headwise run --strategy")
    assert len(reader.texts("#records tbody .copy")) == 42


def axe() -> str:
    """The source of axe-core, from a package that carries it; a skip where none is installed."""
    found = importlib.util.find_spec("axe_playwright_python")
    if found is None or found.origin is None:
        pytest.skip("needs axe-core: pip install --no-deps axe-playwright-python")
    return (Path(found.origin).parent / "axe.min.js").read_text(encoding="utf-8")


@pytest.mark.parametrize(("scheme", "screen"), [("light", "desktop"), ("dark", "phone")], indirect=["screen"])
@pytest.mark.parametrize("name", ["folder", "compared"])
def test_axe_finds_nothing(browser, name, scheme, screen, request):
    source, page = axe(), request.getfixturevalue(name) / "report.html"
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    try:
        reader = Reader(browser, page)
        reader.run("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        assert (reader.run("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)") == (
            scheme == "light"
        )
        reader.run(source)
        found = browser.execute_async_script(
            "const done = arguments[0]; axe.run().then((told) => done([told.passes.length, told.violations.map("
            "(one) => `${one.id}: ${one.nodes.map((node) => node.html.slice(0, 200)).slice(0, 3)}`)]))"
        )
        assert found[1] == []
        assert found[0] > 20
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def panels(reader: Reader, root: str = "#kept-first") -> list[dict]:
    """What every panel shows: strategy, tokens kept, boxes, the picture and the text below."""
    return reader.run(
        "return [...document.querySelectorAll(arguments[0] + ' .panel[data-strategy]')].map((panel) => ({"
        "name: panel.dataset.strategy, kept: panel.querySelector('.cells').getAttribute('d').split('z').length - 1,"
        "cells: panel.querySelector('.cells').getAttribute('d'), boxes: panel.querySelectorAll('.box').length,"
        "picture: panel.querySelector('image').getAttribute('href'),"
        "told: panel.querySelector('figcaption').textContent }))",
        root,
    )


def test_overlays_lay_what_each_strategy_kept_over_the_picture(reader, folder):
    record = record_of(folder, benchmark="first", budget="keep=16", scoring="sharp", heads="fixed:heads=4")
    reader.set("budget", "keep 16")
    reader.set("heads", "4")
    shown = panels(reader)
    assert [panel["name"] for panel in shown] == ["sum (all heads)", "random (control)", "sharp"]
    assert [panel["kept"] for panel in shown] == [16, 16, 16]
    assert all(panel["boxes"] == 1 and panel["picture"].startswith("data:image/webp") for panel in shown)
    assert len({panel["cells"] for panel in shown}) == 3
    from headwise_lab.store.records import read_outcomes

    data = reader.run("return JSON.parse(document.querySelector('#kept-first script').textContent)")
    asked = data["questions"][0]["id"]
    (outcome,) = [one for one in read_outcomes(folder, record["id"]) if one.id == asked]
    size = 100 / 12
    corners = [tuple(map(float, part.split("h")[0].split())) for part in shown[2]["cells"].split("M")[1:]]
    assert sorted(round(y / size) * 12 + round(x / size) for x, y in corners) == outcome.kept
    sign = "✓" if outcome.score else "✗"
    assert f"{sign} {outcome.prediction}" in shown[2]["told"]
    assert len(data["pictures"]) == len({picture["uri"] for picture in data["pictures"]}) == 5


@pytest.fixture(scope="module")
def staged(tmp_path_factory) -> Path:
    """Strategies of two stages: the first keeps eight tokens that the second drops."""

    def with_stages(record, ability, folder, **given):
        lines = fake_outcomes(record, ability, folder, **given)
        for line in lines:
            others = [token for token in range(144) if token not in line["kept"]][:8]
            line["stages"] = [sorted([*line["kept"], *others]), line["kept"]]
        return lines

    path = tmp_path_factory.mktemp("staged")
    stages = [{"layer": 3, "keep": 24, "merged": 4}, {"layer": 6, "keep": 16, "merged": 0}]
    trials = [({**record, "stages": stages}, ability) for record, ability in study_a(keeps=(16,), n=12)]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(fake_records, "fake_outcomes", with_stages)
        write_folder(path, trials)
    build(path)
    return path


def test_a_slider_steps_through_the_stages_by_key(browser, staged):
    from selenium.webdriver.common.keys import Keys

    reader = Reader(browser, staged / "report.html")
    last = panels(reader, "#kept-made-up")
    assert {panel["kept"] for panel in last} == {16}
    assert reader.texts("#kept-made-up .stage + output") == ["2 of 2"]
    slider = reader.run("const one = document.querySelector('#kept-made-up .stage'); one.focus(); return one")
    slider.send_keys(Keys.ARROW_LEFT)
    first = panels(reader, "#kept-made-up")
    assert {panel["kept"] for panel in first} == {24}
    assert all("before layer 3" in panel["told"] and "some of the dropped" in panel["told"] for panel in first)
    untouched = "return document.querySelectorAll('#kept-made-up .panel:first-child :is(image, pattern)').length"
    assert reader.run(untouched) == 1


def test_filters_hide_the_marks_of_figures(reader):
    hidden = "return [...document.querySelectorAll('#first .chart .mark')].filter((one) => one.hasAttribute('hidden')"
    hidden += " && one.dataset.budget === arguments[0]).length"
    assert reader.run(hidden, "keep 48") == 0
    reader.set("budget", "keep 16")
    assert reader.run(hidden, "keep 48") > 10
    assert reader.run(hidden, "keep 16") == 0
    reader.set("strategy", "sharp")
    assert reader.run(hidden, "keep 16") > 10


def test_overlays_follow_the_question_and_the_strategies_chosen(browser, reader, folder):
    first = panels(reader)
    reader.click("#kept-first .after")
    second = panels(reader)
    assert [panel["name"] for panel in second] == [panel["name"] for panel in first]
    assert [panel["cells"] for panel in second] != [panel["cells"] for panel in first]
    assert second[0]["picture"] != first[0]["picture"]
    reader.click("#kept-first .chip:has([value='dull'])")
    assert [panel["name"] for panel in panels(reader)] == ["sum (all heads)", "random (control)", "sharp", "dull"]
    free = "return document.querySelectorAll('#kept-first .chip input:not(:checked):not(:disabled)').length"
    assert reader.run(free) == 0  # four at once
    reader.click("#kept-first .chip:has([value='sharp'])")
    shown = panels(reader)
    assert [panel["name"] for panel in shown] == ["sum (all heads)", "random (control)", "dull"]
    assert panels(Reader(browser, folder / "report.html", reader.state())) == shown


def test_the_page_shows_everything_without_scripts(browser, folder):
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        reader = Reader(browser, folder / "report.html")
        assert len(reader.texts("#first > .fold > .block tbody tr")) == 5
        assert len(reader.texts("#records tbody tr")) == 42
        assert reader.texts(".filters") == []
        assert reader.run("return document.querySelectorAll('noscript img').length") == 2
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_a_comparison_page_filters_opens_and_overlays_likewise(browser, compared):
    reader = Reader(browser, compared / "report.html")
    assert reader.texts("h1") == ["Side by side"]
    everything = reader.count()
    reader.set("benchmark", "second")
    reader.set("budget", "keep 16")
    assert set(reader.texts("#side-by-side tbody td:nth-child(1)")) == {"second"}
    assert 0 < reader.count()[0] < everything[0]
    reader.click("#side-by-side tbody tr:not([hidden]) td:nth-last-child(6) a.figure")
    facts = dict(zip(reader.texts("#facts dt"), reader.texts("#facts dd"), strict=True))
    assert facts["To A"].endswith("(20 pairs)")
    assert "McNemar" in facts["p"]
    assert [text[0] for text in reader.texts("#facts h5")] == ["A", "B"]
    reader.run("document.querySelector('#facts').hidePopover()")
    shown = panels(reader, "#kept-side-by-side-second")
    assert [panel["name"] for panel in shown] == ["A", "B"]
    reader.listen()
    assert reader.logs["browser"] == []
