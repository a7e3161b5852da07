import base64
import io
import json
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

import equimark
from coordinates import BySurface, Fixed, config, moving
from equimark import report
from equimark.checkpoint import LOG_FILE, read_config, read_log
from equimark.config import make_config
from equimark.embedding import ModelError
from equimark.model import LandmarkModel
from equimark.packs import PackedImages
from equimark.page import Page
from equimark.pairs import WarpPair
from equimark.plots import canvas
from equimark.report import confident_cells, findings, write_run_report
from equimark.synthetic import portraits
from equimark.training import train
from equimark.warps import turned

SMALL = {"frame.size": 40, "pairs.margin": 6, "batch_size": 2, "steps": 3, "log_every": 1}
PLACES = np.array([[0.4, 0.42], [0.6, 0.4], [0.5, 0.6]])
VOID = {"meta", "img", "br", "link"}


class Parsed(HTMLParser):
    """The pictures, headings and words of a page; fails on tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.words: dict[str, list[str]] = {}
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        if tag == "img":
            self.images.append(dict(attrs))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open:
            self.words.setdefault(self.open[-1], []).append(data)


def parse(path: Path) -> Parsed:
    return Parsed(path.read_text(encoding="utf-8"))


@pytest.fixture(autouse=True)
def coarse_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canvas, "_DPI", 40)


@pytest.fixture(scope="module")
def images() -> PackedImages:
    return PackedImages.from_array(portraits(9, size=40).images)


@pytest.fixture(scope="module", params=["sparse", "dve"])
def run(request, images, tmp_path_factory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp(request.param) / "faces"
    config = make_config(SMALL | {"method": request.param, "network.channels": 6})
    train(images, config, folder, source="<drawn> portraits", device="cpu", progress=False)
    yield folder


def test_a_report_shows_everything_in_one_file(run, images):
    path = write_run_report(run, images)
    page = parse(path)
    sparse = read_config(run).method == "sparse"
    names = {"rotations", "landmarks"} if sparse else {"descriptors", "matches", "heat"}
    files = {p.name: p for p in (run / "figures").iterdir()}
    assert path == run / "report.html"
    assert set(files) == {f"{name}.png" for name in names | {"curves", "pairs", "worst"}}
    assert len(page.images) == len(files)
    for image in page.images:
        kind, data = image["src"].split(",", 1)
        assert image["alt"] and kind == "data:image/png;base64"
        assert Image.open(io.BytesIO(base64.b64decode(data))).width > 300
    assert page.words["h1"] == ["What faces learned"]
    assert "9 from <drawn> portraits" in page.words["td"]
    assert not list(run.rglob("*.tmp"))


def test_a_report_of_landmarks_beside_descriptors(joint_run, packed):
    page = parse(write_run_report(joint_run.folder, packed))
    headings = page.words["h2"]
    for wanted in ("The landmarks", "The descriptors"):
        assert sum(wanted in heading for heading in headings) == 1
    named = {p.stem for p in (joint_run.folder / "figures").iterdir()}
    assert {"rotations", "landmarks", "descriptors", "matches", "heat", "worst"} <= named
    assert any("8 channels, 3 landmarks beside" in text for text in page.words["td"])


@pytest.mark.parametrize(
    ("network", "share", "least", "most"), [(BySurface(PLACES), 1, 0, 0.5), (Fixed([(3, 4), (12, 9)]), 0, 6, 12)]
)
def test_how_much_landmarks_turn_with_the_image(network, share, least, most):
    """Those of who knows the place, and those that stand still in the frame."""
    model = LandmarkModel(network, config(method="sparse", **{"frame.size": 48, "pairs.margin": 6}))
    _, away, followed = findings._turned_landmarks(model, moving(4, 48, PLACES).frames)
    assert followed == pytest.approx(share, abs=0.02)
    assert least <= away <= most  # pixels


def test_a_report_without_images_says_how_to_give_them(run):
    page = parse(write_run_report(run, None))
    assert len(page.images) == 1
    assert any("equimark report RUN --images IMAGES" in text for text in page.words["p"])


def test_one_image_is_enough_for_a_report(run, images):
    page = parse(write_run_report(run, PackedImages.from_array(images.images[:1])))
    if read_config(run).method == "dve":
        assert page.words["p"].count("This needs at least two images.") == 2


def test_images_of_another_frame_are_refused(run):
    with pytest.raises(ModelError, match="--size 40"):
        write_run_report(run, PackedImages.from_array(portraits(2, size=48).images))


def test_a_run_without_a_log_has_a_report(run):
    log = run / LOG_FILE
    kept = log.read_text()
    log.unlink()
    try:
        page = parse(write_run_report(run, None))
    finally:
        log.write_text(kept)
    assert any("no log" in text for text in page.words["aside"])


def test_warnings_stand_on_the_page(run):
    if read_config(run).method != "sparse":
        return
    entries = read_log(run)
    last = entries[-1] | {"distinct_landmarks": 1.0}
    with (run / LOG_FILE).open("a", encoding="utf-8") as file:
        file.write(5 * (json.dumps(last) + "\n"))
    page = parse(write_run_report(run, None))
    assert any("Only 1 of 6 landmarks are distinct" in text for text in page.words["aside"])


def test_a_page_escapes_what_it_is_given(tmp_path):
    page = Page("<b>&title", "lead <script>")
    page.section("<i>section", "text & <more>")
    page.warning("<u>")
    page.numbers([("<what>", "<value>", "<meaning>")])
    page.table([["<cell>", 0.12345]], ["<column>"], "<caption>")
    page.figure("a-1", Figure((1, 1)), 'caption "quoted" <x>', alt='alt "quoted" <x>')
    parsed = parse(page.write(tmp_path))
    assert parsed.words["h1"] == ["<b>&title"] and parsed.words["h2"] == ["<i>section"]
    assert parsed.words["td"] == ["<cell>", "0.123"] and parsed.words["caption"] == ["<caption>"]
    assert parsed.images[0]["alt"] == 'alt "quoted" <x>'
    assert (tmp_path / "figures" / "a-1.png").is_file()


@pytest.mark.parametrize("name", ["", "a/b", "../a", "a b"])
def test_a_figure_needs_a_plain_file_name(name):
    page = Page("title", "lead")
    page.section("section")
    with pytest.raises(ValueError, match="letters"):
        page.figure(name, Figure((1, 1)), "caption")


def test_two_figures_cannot_share_a_name():
    page = Page("title", "lead")
    page.section("section")
    page.figure("a", Figure((1, 1)), "caption")
    with pytest.raises(ValueError, match="taken"):
        page.figure("a", Figure((1, 1)), "caption")


def test_a_page_begins_with_a_section():
    with pytest.raises(ValueError, match="section"):
        Page("title", "lead").text("text")


def test_sections_of_several_runs_fit_on_one_page(run, images, tmp_path):
    page = Page("title", "lead")
    config, entries = read_config(run), read_log(run)
    for label in ("first run", "second run"):
        report.curves_section(page, config, entries, label=label)
    parsed = parse(page.write(tmp_path))
    assert parsed.words["h2"] == ["How training went: first run", "How training went: second run"]
    assert sorted(p.name for p in (tmp_path / "figures").iterdir()) == ["first-run-curves.png", "second-run-curves.png"]


def test_a_section_is_drawn_the_same_for_the_same_seed(run, images):
    def drawn(seed: int) -> str:
        page = Page("title", "lead")
        report.pairs_section(page, LandmarkModel.load(run, device="cpu"), images, seed=seed)
        return page.render()

    assert drawn(1) == drawn(1) != drawn(2)


def test_turned_images_turn_counter_clockwise_and_take_the_landmarks_along():
    frame = torch.zeros(1, 3, 41, 41)
    frame[:, :, 20, 35] = 1  # right of the middle
    pair = WarpPair(turned([90.0]), turned([0.0]), 41, 0)
    place = pair.move_to_target(torch.tensor([[[35.0, 20.0]]]))
    assert torch.allclose(place, torch.tensor([[[20.0, 5.0]]]), atol=0.01)  # above the middle
    assert pair.views(frame).target[0, 0, 5, 20] > 0.95


def test_source_points_are_spread_and_sure():
    generator = torch.Generator().manual_seed(0)
    features = 3 * torch.randn(16, 12, 12, generator=generator)
    features[:, :, 6:] = 0  # what lies on the right could be anywhere
    cells = confident_cells(features, features[None].repeat(2, 1, 1, 1), 6)
    assert cells.shape == (6, 2) and (cells[:, 0] < 6).all()
    assert torch.cdist(cells, cells).fill_diagonal_(99).min() >= 2
    assert np.isfinite(cells.numpy()).all()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"pairs.partner": "next", "pairs.motion": "flow", "method": "dense"}, "The optical flow says"),
        ({"pairs.partner": "next", "pairs.motion": "unknown", "method": "sparse"}, "it is fitted"),
        ({"pairs.partner": "folder", "method": "dense"}, "two registered images"),
    ],
)
def test_pairs_of_other_kinds_are_shown_as_they_are(tmp_path, settings, says):
    still = {"bend": 0, "extra_bend": 0, "rotation": 0, "translation": 0, "scale": 0}
    rng = np.random.default_rng(0)
    images = PackedImages.from_array(rng.integers(0, 256, (4, 40, 40, 3), np.uint8)).with_labels(
        flow=np.ones((4, 40, 40, 2), np.float16)
    )
    given = SMALL | {"network.channels": 4, "steps": 1, "pairs.first": still, "pairs.second": still} | settings
    train(images, make_config(given), tmp_path / "run", progress=False)
    page = parse(write_run_report(tmp_path / "run", images))
    assert any(says in text for text in page.words["p"])
    assert (tmp_path / "run" / "figures" / "pairs.png").is_file()
    page = parse(write_run_report(tmp_path / "run", PackedImages.from_array(images.images[:1])))
    assert any("do not come in such pairs" in text for text in page.words["p"])


@pytest.mark.parametrize("motion", ["none", "flow"])
def test_pairs_of_one_image_are_not_said_to_be_warped(motion: str, tmp_path: Path) -> None:
    still = {"bend": 0, "extra_bend": 0, "rotation": 0, "translation": 0, "scale": 0}
    packed = PackedImages.from_array(portraits(4, seed=0, size=40).images)
    images = packed.with_labels(flow=np.ones((4, 40, 40, 2), np.float16))
    given = SMALL | {"steps": 1, "pairs.first": still, "pairs.second": still, "method": "dve", "pairs.motion": motion}
    train(images, make_config(given), tmp_path / "run", progress=False)
    page = parse(write_run_report(tmp_path / "run", images))
    assert any("Both views show the same image" in text for text in page.words["p"])
    assert not any("warped at random" in text for text in page.words["p"])


@pytest.mark.parametrize("landmarks", [1, 4])
def test_pairs_that_do_not_move(landmarks: int, tmp_path: Path) -> None:
    """Registered images of one subject: landmarks that stand still are right, and nobody says otherwise."""
    images = portraits(6, seed=0, size=48).images
    packed = PackedImages.from_array(images, [f"{i // 2}/{'ab'[i % 2]}" for i in range(6)])
    small = SMALL | {"frame.size": 48, "pairs.margin": 4}
    trained = equimark.train(
        packed, tmp_path / "run", recipe="sparse-pairs", **small, **{"network.channels": landmarks}, progress=False
    )
    assert all("alignment_share" not in entry and "alignment" in entry for entry in read_log(tmp_path / "run"))
    assert not any("follow" in warning for warning in trained.warnings)
    words = parse(write_run_report(tmp_path / "run", packed)).words
    assert "Share of standing still" not in {word for each in words.values() for word in each}
