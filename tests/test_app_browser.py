"""A person's whole way through the page, in a real browser."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from equimark.run import Run

pytest.importorskip("uvicorn", reason="the page is an extra: pip install 'equimark[app]'")
playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install playwright")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")

START = "import sys; from equimark.cli import main; sys.exit(main())"
PATIENCE = 120_000  # milliseconds


class Server:
    """The command in a process of its own, which can be killed and started again at the same address."""

    def __init__(self, *arguments: object) -> None:
        self.arguments = arguments
        self.port = 0
        self.start()

    def start(self) -> None:
        words = [sys.executable, "-c", START, "app", *self.arguments, "--port", self.port, "--no-browser"]
        self.process = subprocess.Popen([str(word) for word in words], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        address = re.search(r"http://127\.0\.0\.1:(\d+)/", self.process.stdout.readline())
        assert address is not None, "the server does not start"
        self.address, self.port = address[0], int(address[1])

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture(scope="module")
def album(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten images."""
    folder = tmp_path_factory.mktemp("page") / "album"
    folder.mkdir()
    for i in range(10):
        shutil.copy(photos / f"{i:06d}.png", folder)
    return folder


@pytest.fixture
def server(dve_run: Run, album: Path, tmp_path: Path) -> Iterator[Server]:
    made = Server(dve_run.folder, album, "--work", tmp_path / "work", "--device", "cpu")
    yield made
    made.process.send_signal(signal.SIGINT)
    assert made.process.wait(30) == 0
    made.kill()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sandbox = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=sandbox)
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Any, server: Server) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    context.set_default_timeout(PATIENCE)
    opened = context.new_page()
    faults: list[str] = []
    opened.on("pageerror", lambda error: faults.append(str(error)))
    opened.goto(server.address)
    yield opened
    opened.unroute_all(behavior="ignoreErrors")  # of what the page asks while it is closed
    context.close()
    assert faults == []


def until(done: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE / 1000
    while not done():
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.05)


def wait(page: Any, expression: str, *values: object) -> None:
    """Until a JavaScript expression holds. (Playwright's own way is what the page's content policy forbids.)"""
    until(lambda: bool(page.evaluate(expression, *values)))


def on_screen(page: Any, canvas: str, x: float, y: float) -> tuple[float, float]:
    """Where a pixel of the image is on the screen."""
    scale, left, top = map(float, page.get_attribute(canvas, "data-view").split())
    box = page.locator(canvas).bounding_box()
    return box["x"] + left + scale * (x + 0.5), box["y"] + top + scale * (y + 0.5)


def click(page: Any, x: float, y: float, canvas: str = "#label-canvas") -> None:
    page.mouse.click(*on_screen(page, canvas, x, y))


def kept(server: Server) -> dict[str, Any]:
    path = Path(server.arguments[3]) / "labels.json"
    return json.loads(path.read_text()) if path.exists() else {"labels": {}, "landmarks": [], "revision": 0}


def name_points(page: Any, names: str) -> None:
    page.click("#tab-label")
    wait_for_picture(page)
    page.fill("#add-landmark input", names)
    page.keyboard.press("Enter")
    page.wait_for_selector("#landmarks li")
    page.keyboard.press("Enter")  # nothing more to add: on to the picture


def wait_for_picture(page: Any) -> None:
    """Until there is something to label, and something to label next."""
    page.wait_for_selector("#label-canvas[data-view]")
    page.wait_for_selector("#suggestions .tile")


def image_name(page: Any) -> str:
    return page.inner_text("#image-name")


def go_on(page: Any) -> str:
    """Accept, and wait for the next image; its name."""
    before = image_name(page)
    page.keyboard.press("Enter")
    wait(page, "name => document.querySelector('#image-name').textContent !== name", before)
    return image_name(page)


def test_a_point_is_found_on_the_others(page: Any) -> None:
    page.wait_for_selector("#others .tile img")
    page.wait_for_selector("#explore-canvas[data-view]")
    assert page.is_hidden("#own-points")
    click(page, 20, 22, "#explore-canvas")
    page.wait_for_selector("#others .dot.chosen")
    assert page.locator("#points li").count() == 1
    wait(page, "[...document.querySelectorAll('#others .sure')].every(each => each.textContent.endsWith('%'))")
    page.click("[data-mode=heat]")
    page.wait_for_selector("#others .map canvas")
    click(page, 32, 20, "#explore-canvas")
    wait(page, "document.querySelectorAll('#points li').length === 2")
    page.click("[data-mode=colours]")
    wait(page, "document.querySelector('#others .map canvas')?.style.opacity === '0.55'")
    tile = page.locator("#others .tile").first
    wanted = tile.locator(".caption").inner_text()
    tile.hover()
    tile.locator(".corner button").click()
    wait(page, "name => document.querySelector('#source-name').textContent === name", wanted)
    assert page.locator("#points li").count() == 2


def test_points_of_its_own(browser: Any, joint_run: Run, album: Path, tmp_path: Path) -> None:
    server = Server(joint_run.folder, album, "--work", tmp_path / "work", "--device", "cpu")
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    context.set_default_timeout(PATIENCE)
    opened = context.new_page()
    try:
        opened.goto(server.address)
        opened.wait_for_selector("#explore-canvas[data-view]")
        opened.click("#own-points")
        wait(opened, "document.querySelectorAll('#points li').length === 3")
        wait(opened, "document.querySelectorAll('#others .dot').length === 27")  # on nine others
    finally:
        context.close()
        server.kill()


def test_from_the_first_point_to_the_file(page: Any, server: Server) -> None:
    name_points(page, "left eye, right eye")
    assert page.locator("#landmarks li").count() == 2
    first = image_name(page)
    click(page, 20, 22)
    click(page, 31, 18)
    until(lambda: kept(server)["labels"].get(first, {}).keys() == {each["id"] for each in kept(server)["landmarks"]})
    left, right = (each["id"] for each in kept(server)["landmarks"])
    assert [each["name"] for each in kept(server)["landmarks"]] == ["left eye", "right eye"]
    for id, wanted in ((left, (20, 22)), (right, (31, 18))):
        assert kept(server)["labels"][first][id] == pytest.approx(wanted, abs=0.2)

    second = go_on(page)  # predictions come by themselves, after one image
    wait(page, "document.querySelectorAll('#landmarks .predicted').length === 2")
    item = page.request.get(f"{server.address}api/images/{page.url.split('/')[-1]}").json()
    x, y, _ = item["predicted"][left]
    page.mouse.move(*on_screen(page, "#label-canvas", x, y))
    page.mouse.down()
    page.mouse.move(*on_screen(page, "#label-canvas", x + 2, y + 1), steps=4)
    page.mouse.up()
    page.wait_for_selector(f"#landmarks [data-id={left}].set")
    until(lambda: second in kept(server)["labels"])
    assert kept(server)["labels"][second] == {left: pytest.approx([x + 2, y + 1], abs=0.3)}

    third = go_on(page)  # accepts the other prediction
    until(lambda: len(kept(server)["labels"][second]) == 2)
    assert kept(server)["labels"][second][right][2:] == ["accepted"]
    wait(page, "document.querySelectorAll('#landmarks .predicted').length === 2")
    page.keyboard.press("1")
    page.keyboard.press("h")
    page.keyboard.press("a")  # the next one was chosen
    until(lambda: len(kept(server)["labels"].get(third, {})) == 2)
    assert kept(server)["labels"][third][left] is None and kept(server)["labels"][third][right][2] == "accepted"
    page.keyboard.press("Control+z")
    until(lambda: set(kept(server)["labels"][third]) == {left})
    page.keyboard.press("Control+Shift+z")
    until(lambda: len(kept(server)["labels"][third]) == 2)

    page.click("#tab-review")
    page.click("[data-filter=predicted]")
    wait(page, "document.querySelectorAll('#gallery .tile').length === 7")
    wait(page, "document.querySelectorAll('#gallery .dot.hollow').length === 14")
    page.locator("#gallery .tile").first.focus()
    fourth = page.locator("#gallery .tile .file").first.inner_text()
    page.keyboard.press("a")
    page.wait_for_selector("#gallery .tile[data-status=accepted]")
    until(lambda: fourth in kept(server)["labels"])

    page.click("#tab-export")
    page.click("#export-form [type=submit]")
    with page.expect_download() as coming:
        page.click("#export-result a")
    rows = list(csv.reader(Path(coming.value.path()).read_text().splitlines()))
    assert rows[0] == ["image", "left eye_x", "left eye_y", "right eye_x", "right eye_y"]
    assert [row[0] for row in rows[1:]] == sorted([first, second, third, fourth])
    (hidden,) = (row for row in rows if row[0] == third)
    assert hidden[1:3] == ["", ""] and float(hidden[3]) > 0
    page.click("#head-form [type=submit]")
    page.wait_for_selector("#head-result .command")
    assert (Path(server.arguments[3]) / "exports" / "head" / "head.yaml").exists()


def test_points_are_left_blank_below_what_the_labels_suggest(page: Any) -> None:
    """Until the person chooses otherwise."""

    def suggest(route: Any) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, json=answer.json() | {"visible_from": 0.42})

    page.route("**/api/progress", suggest)
    page.click("#tab-export")
    page.check("[name=content][value=everything]")
    wait(page, "document.querySelector('#least-value').textContent === '42 %'")
    assert page.input_value("#least") == "0.42"
    page.fill("#least", "0.1")
    page.click("#tab-review")
    page.click("#tab-export")
    page.wait_for_selector("#checked-count:has-text('complete')")
    assert (page.input_value("#least"), page.inner_text("#least-value")) == ("0.1", "10 %")


def test_an_answer_that_is_cut_short_is_none(page: Any, server: Server) -> None:
    """The program was killed after it had saved a change and before it had said so."""
    name_points(page, "nose, tail")
    name, cut = image_name(page), []

    def cut_short(route: Any) -> None:
        route.fetch()
        cut.append(route.request.url)
        route.fulfill(status=200, body="", content_type="application/json")

    page.route("**/api/marks", cut_short, times=1)
    click(page, 24, 26)
    page.wait_for_selector("#notice:has-text('does not answer')")
    until(lambda: len(kept(server)["labels"].get(name, {})) == 1)
    click(page, 10, 12)
    until(lambda: len(kept(server)["labels"][name]) == 2)
    page.wait_for_selector("#notice", state="hidden")
    assert len(cut) == 1


def test_nothing_is_lost_when_the_server_is_killed(page: Any, server: Server) -> None:
    name_points(page, "nose, tail")
    name, key = image_name(page), page.url.split("/")[-1]
    click(page, 24, 26)
    until(lambda: name in kept(server)["labels"])
    server.kill()
    click(page, 10, 12)  # while nobody answers
    page.wait_for_selector("#notice:has-text('does not answer')")
    assert len(kept(server)["labels"][name]) == 1
    server.start()
    until(lambda: len(kept(server)["labels"][name]) == 2)
    page.wait_for_selector("#notice", state="hidden")
    server.kill()
    server.start()
    page.reload()
    wait(page, "document.querySelectorAll('#landmarks .set').length === 2")
    assert image_name(page) == name and page.url.endswith(key)
    places = list(kept(server)["labels"][name].values())
    assert places[0] == pytest.approx([24, 26], abs=0.2) and places[1] == pytest.approx([10, 12], abs=0.2)


def test_undoing_goes_on_after_a_restart(page: Any, server: Server) -> None:
    name_points(page, "nose, tail")
    name = image_name(page)
    nose, tail = (each["id"] for each in kept(server)["landmarks"])
    click(page, 24, 26)
    click(page, 10, 12)
    until(lambda: len(kept(server)["labels"].get(name, {})) == 2)
    whole = kept(server)["labels"][name]
    page.click(f"[data-id={tail}] [aria-label^=Delete]", force=True)
    until(lambda: [each["id"] for each in kept(server)["landmarks"]] == [nose])
    page.keyboard.press("1")
    page.keyboard.press("Delete")
    until(lambda: set(kept(server)["labels"][name]) == {tail})
    server.kill()
    with (Path(server.arguments[3]) / "history.jsonl").open("a") as file:
        file.write('{"revision": 99, "wh')  # torn
    server.start()
    page.reload()
    wait_for_picture(page)
    assert image_name(page) == name
    page.keyboard.press("Control+z")
    until(lambda: kept(server)["labels"][name] == whole)
    assert len(kept(server)["landmarks"]) == 1
    page.reload()
    wait_for_picture(page)
    page.keyboard.press("Control+z")
    wait(page, "document.querySelectorAll('#landmarks .set').length === 2")
    until(lambda: len(kept(server)["landmarks"]) == 2)
    page.keyboard.press("1")
    page.keyboard.press("ArrowRight")  # the marks that came back stay
    until(lambda: kept(server)["labels"][name][nose] != whole[nose])
    assert kept(server)["labels"][name][tail] == whole[tail]
    page.keyboard.press("Control+z")
    page.keyboard.press("Control+z")
    until(lambda: kept(server)["labels"][name] == {nose: whole[nose]})
    page.reload()
    wait_for_picture(page)
    page.keyboard.press("Control+Shift+z")
    until(lambda: kept(server)["labels"][name] == whole)


def test_a_tab_chosen_before_the_program_has_answered(page: Any, server: Server) -> None:
    held: list[Any] = []
    page.route("**/api/state", lambda route: held.append(route))
    page.goto("about:blank")
    page.goto(server.address)
    wait(page, "document.body !== null")  # lets the browser's messages in, too
    assert len(held) == 1
    page.click("#tab-label")
    held[0].continue_()
    wait_for_picture(page)
    assert page.get_attribute("#tab-label", "aria-selected") == "true"


def test_two_windows_do_not_overwrite_each_other(page: Any, server: Server) -> None:
    name_points(page, "nose")
    until(lambda: kept(server)["revision"] == 1)
    mine = kept(server)["landmarks"]
    other = [*mine, {"id": "other", "name": "tail", "colour": "#00ff00"}]
    answer = page.request.put(f"{server.address}api/landmarks", data={"revision": 1, "landmarks": other})
    assert answer.ok
    click(page, 24, 26)  # made before this window has heard of it, or after
    wait(page, "document.querySelectorAll('#landmarks li').length === 2")
    assert [each["name"] for each in kept(server)["landmarks"]] == ["nose", "tail"]
    name = image_name(page)
    if name not in kept(server)["labels"]:
        assert "not saved" in page.inner_text("#notice")
        page.keyboard.press("1")
        click(page, 24, 26)
        until(lambda: name in kept(server)["labels"])


def test_a_late_answer_does_not_bring_back_older_labels(page: Any, server: Server) -> None:
    """Asked for when a report seemed to tell of another window; changed in this one before it came."""
    name_points(page, "left eye, right eye")
    page.wait_for_selector("#offer button:has-text('No')")
    late: list[Any] = []

    def outdated(route: Any) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, json=answer.json() | {"revision": 0})

    page.route("**/api/state", lambda route: late.append((route, route.fetch())), times=1)
    page.route("**/api/progress", outdated, times=1)
    until(lambda: page.evaluate("true") and len(late) == 1)  # asking lets the browser's messages in
    with page.expect_response("**/api/landmarks"):
        page.click("#offer button:has-text('No')")
    [(route, answer)] = late
    with page.expect_response("**/api/state"):
        route.fulfill(response=answer)
    page.keyboard.press("Control+z")
    page.click("#offer button:has-text('Yes')")
    left, right = (each["id"] for each in kept(server)["landmarks"])
    until(lambda: mirrors(server) == [right, left])
    assert not page.inner_text("#notice") and "another window" not in page.inner_text("#toast")


def test_labelling_by_keyboard_alone(page: Any, server: Server) -> None:
    page.wait_for_selector("#others .tile")
    page.focus("#tab-explore")
    page.keyboard.press("ArrowRight")
    wait_for_picture(page)
    page.focus("#add-landmark input")
    page.keyboard.type("nose")
    page.keyboard.press("Enter")
    page.wait_for_selector("#landmarks li")
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowDown")
    name = image_name(page)
    until(lambda: list(kept(server)["labels"].get(name, {}).values()) == [[24.5, 33.5]])
    page.keyboard.press("?")
    page.wait_for_selector("#help[open]")
    page.keyboard.press("Escape")
    page.keyboard.press("Delete")
    until(lambda: name not in kept(server)["labels"])
    page.keyboard.press("Alt+ArrowUp")  # belongs to the list only
    row = page.locator("#landmarks .name")
    row.focus()
    page.keyboard.press("F2")
    page.keyboard.type("beak")
    page.keyboard.press("Enter")
    until(lambda: [each["name"] for each in kept(server)["landmarks"]] == ["beak"])


def test_pairs_and_points_that_were_exchanged(page: Any, server: Server) -> None:
    name_points(page, "left eye, right eye, nose")
    page.click("#offer button:has-text('No')")
    until(lambda: len(kept(server)["dismissed"]) == 1)
    assert page.is_hidden("#offer")
    page.keyboard.press("Control+z")
    page.click("#offer button:has-text('Yes')")
    left, right, nose = (each["id"] for each in kept(server)["landmarks"])
    paired, alone = [right, left, None], [None, None, None]
    until(lambda: mirrors(server) == paired)
    assert page.is_hidden("#offer") and page.locator("#landmarks .paired").count() == 2
    page.select_option(f"[data-id={right}] .mirror select", "")
    until(lambda: mirrors(server) == alone)
    page.select_option(f"[data-id={nose}] .mirror select", left)
    until(lambda: mirrors(server) == [nose, None, left])
    page.click(f"[data-id={left}] [aria-label^=Delete]", force=True)
    until(lambda: mirrors(server) == [None, None])
    assert page.is_hidden("#offer")  # a pair that was given up is not proposed again
    for _ in range(3):
        page.keyboard.press("Control+z")
    until(lambda: mirrors(server) == paired)

    here, key = image_name(page), page.url.split("/")[-1]
    items = page.request.get(f"{server.address}api/images?count=5").json()["items"]
    usual = {left: [18, 20], right: [30, 20], nose: [24, 27]}
    given = {each["key"]: usual for each in items if each["key"] != key}
    revision = kept(server)["revision"]
    assert page.request.put(f"{server.address}api/marks", data={"revision": revision, "marks": given}).ok
    page.wait_for_selector("#toast:has-text('another window')")
    for number, place in enumerate(((31, 21), (19, 21), (25, 28)), start=1):  # left and right confused
        page.keyboard.press(str(number))
        page.keyboard.down("Shift")
        click(page, *place)
        page.keyboard.up("Shift")
    page.wait_for_selector("#remark:has-text('Left eye and right eye seem to be exchanged')")

    def place_of(id: str) -> list[int]:
        return [round(value) for value in kept(server)["labels"][here][id][:2]]

    confused = {left: [31, 21], right: [19, 21], nose: [25, 28]}
    assert {id: place_of(id) for id in confused} == confused
    page.click("#remark .do")
    until(lambda: place_of(left) == [19, 21] and place_of(right) == [31, 21] and place_of(nose) == [25, 28])
    page.wait_for_selector("#remark", state="hidden")
    page.keyboard.press("Control+z")
    page.wait_for_selector("#remark .do")
    until(lambda: place_of(left) == [31, 21])
    page.keyboard.press("x")
    until(lambda: place_of(left) == [19, 21])
    page.keyboard.press("x")
    page.click("#remark [aria-label^=Dismiss]")
    until(lambda: kept(server)["dismissed"] == [f"{here}: {' = '.join(sorted([left, right]))}"])
    assert page.is_hidden("#remark") and page.is_visible("#coach")
    page.keyboard.press("Control+z")
    page.wait_for_selector("#remark .do")
    page.click("#tab-review")
    page.click("[data-filter=exchanged]")
    page.wait_for_selector("#gallery .tile:only-child .remark")
    page.click("#gallery .remark .do")
    until(lambda: place_of(left) == [19, 21])
    page.wait_for_selector("#gallery .remark", state="hidden")


def mirrors(server: Server) -> list[str | None]:
    return [each["mirror"] for each in kept(server)["landmarks"]]
