"""How frames come to the device: whichever way, they are those of the pack."""

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch

from equimark import sampling
from equimark.config import make_config
from equimark.feed import Ahead, Direct, Feed, Held, fits, open_feed
from equimark.packs import PackedImages
from equimark.pairs import PairBatch
from equimark.sampling import LabelledBatch, Sampler

CPU = torch.device("cpu")
NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
DEVICES = [CPU, pytest.param(torch.device("cuda"), marks=NEEDS_GPU)]
FEEDS: list[Callable[[PackedImages, torch.device], Feed]] = [Direct, Held, Ahead]
ROWS = [np.array(rows, np.int64) for rows in ([3, 0, 3], [5, 4, 1, 2], [0], [3, 0, 3])]


@pytest.fixture(scope="module")
def images() -> PackedImages:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 32, 3), np.uint8)
    return PackedImages.from_array(pixels, [f"{'ab'[i % 2]}/{i}" for i in range(24)])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("make", FEEDS)
def test_frames_are_those_of_the_pack(
    make: Callable[[PackedImages, torch.device], Feed], device: torch.device, images: PackedImages
) -> None:
    feed = make(images, device)
    for rows, later in zip(ROWS, [*ROWS[1:], np.arange(2)], strict=True):
        feed.expect(iter([later]))
        frames = feed(rows)
        assert frames.device.type == device.type and frames.dtype == torch.uint8 and frames.is_contiguous()
        assert torch.equal(frames.cpu(), images.batch(rows))


def test_held_frames_come_in_parts(images: PackedImages, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("equimark.feed._LOADED", 7 * 32 * 32 * 3)  # the last part is of three images
    assert torch.equal(Held(images, CPU)(np.arange(24)), images.batch(np.arange(24)))


def test_what_is_expected_is_gathered_once(images: PackedImages, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[list[int]] = []
    batch = PackedImages.batch

    def spy(self: PackedImages, rows: Any) -> torch.Tensor:
        read.append(rows.tolist())
        return batch(self, rows)

    monkeypatch.setattr(PackedImages, "batch", spy)
    feed = Ahead(images, CPU)
    feed.expect(ROWS[:2])
    feed.expect(ROWS[:2])
    for rows in ROWS:
        feed(rows)
    assert read == [rows.tolist() for rows in ROWS]  # the last was taken before, so it is gathered again
    feed.expect(np.array([i], np.int64) for i in range(24))
    assert len(feed._waiting) == 8  # what is never asked for takes no more than that


def test_a_fault_of_the_thread_is_told(images: PackedImages, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: PackedImages, rows: Any) -> torch.Tensor:
        raise OSError("the disk is gone")

    monkeypatch.setattr(PackedImages, "batch", fail)
    feed = Ahead(images, CPU)
    feed.expect(ROWS[:1])
    with pytest.raises(OSError, match="the disk is gone"):
        feed(ROWS[0])


PLAIN: dict[str, Any] = {"frame.size": 32, "pairs.margin": 4, "batch_size": 8}
KINDS: list[dict[str, Any]] = [
    {"method": "dense"},
    {"method": "dve", "objective.pool": 4, "objective.auxiliaries": 2},
    {"method": "dve", "objective.pool": 4, "objective.auxiliaries": 2, "accumulation": 2},
    {"method": "dense", "pairs.partner": "folder", "pairs.photometric.jpeg_probability": 0},
    {"method": "supervised", "network.channels": 5},
]


@pytest.mark.parametrize("settings", KINDS)
def test_batches_are_the_same_by_every_feed(
    settings: dict[str, Any], images: PackedImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(PLAIN, settings)
    labelled = images.with_labels(points=np.random.default_rng(1).uniform(8, 24, (24, 5, 2)))

    def batches(make: Callable[[PackedImages, torch.device], Feed]) -> list[PairBatch | LabelledBatch]:
        monkeypatch.setattr(sampling, "open_feed", make)
        sampler = Sampler(labelled, config, micro_batches=config.accumulation)
        return [sampler.batch(step, micro) for step in range(1, 9) for micro in range(config.accumulation)]

    wanted = batches(Direct)
    for make in (Held, Ahead):
        for one, other in zip(batches(make), wanted, strict=True):
            for field in fields(one):
                a, b = getattr(one, field.name), getattr(other, field.name)
                assert (a is None and b is None) or torch.equal(a.nan_to_num(), b.nan_to_num())


@pytest.mark.parametrize("settings", KINDS)
def test_all_but_the_first_batch_is_expected(
    settings: dict[str, Any], images: PackedImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    missed: list[list[int]] = []

    class Spy(Ahead):
        def __call__(self, rows: Any) -> torch.Tensor:
            if rows.tobytes() not in self._waiting:
                missed.append(rows.tolist())
            return super().__call__(rows)

    monkeypatch.setattr(sampling, "open_feed", Spy)
    config = make_config(PLAIN, settings)
    labelled = images.with_labels(points=np.random.default_rng(1).uniform(8, 24, (24, 5, 2)))
    sampler = Sampler(labelled, config, micro_batches=config.accumulation)
    sampler.batch(1)
    missed.clear()
    for step in range(1, 9):
        for micro in range(config.accumulation):
            if (step, micro) != (1, 0):
                sampler.batch(step, micro)
    assert missed == []


def test_what_is_kept_on_a_device(images: PackedImages) -> None:
    size = images.images.nbytes
    assert fits(images, 4 * size) and not fits(images, 4 * size - 4)
    large = PackedImages.from_array(np.broadcast_to(np.uint8(0), (3_000_000, 32, 32, 3)))  # 9.2 GB that are not there
    assert not fits(large, 2**50)
    assert isinstance(open_feed(images, CPU), Direct)
