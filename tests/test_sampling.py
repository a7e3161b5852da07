import itertools
import math
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from equimark.config import ConfigError, RunConfig, make_config
from equimark.packs import PackedImages
from equimark.pairs import PairBatch
from equimark.sampling import LabelledBatch, Sampler, Stream, choose_auxiliaries, find_sources, generator

SIDE = 32
STILL = {"bend": 0, "extra_bend": 0, "rotation": 0, "translation": 0, "scale": 0}
PLAIN: dict[str, Any] = {
    "frame.size": SIDE,
    "pairs.margin": 4,
    "pairs.first": STILL,
    "pairs.second": STILL,
    "pairs.photometric": {"brightness": 0, "contrast": 0, "saturation": 0, "lighting": 0, "jpeg_probability": 0},
    "batch_size": 4,
}


def grey(names: list[str]) -> PackedImages:
    """Images that are all of one brightness: the number of the image."""
    levels = np.arange(len(names), dtype=np.uint8)[:, None, None, None]
    return PackedImages.from_array(np.ascontiguousarray(np.broadcast_to(levels, (len(names), SIDE, SIDE, 3))), names)


def shown(views: torch.Tensor) -> list[int]:
    """Which image of :func:`grey` each view shows."""
    return (views.mean((1, 2, 3)) * 255).round().long().tolist()


def sampler(names: list[str], **changes: Any) -> Sampler:
    return Sampler(grey(names), make_config(PLAIN, changes))


def numbered(count: int, folder: str = "") -> list[str]:
    return [f"{folder}{i:03d}" for i in range(count)]


# ---- generators ---------------------------------------------------------------------------------------------


def test_generators_differ_by_seed_stream_step_and_process() -> None:
    keys = itertools.product((0, 1), get_args(Stream), (0, 1), (0, 1))
    seeds = [generator(seed, stream, step, process=process).initial_seed() for seed, stream, step, process in keys]
    assert len(set(seeds)) == len(seeds)
    assert generator(3, "warps", 7).initial_seed() == generator(3, "warps", 7).initial_seed()


# ---- order --------------------------------------------------------------------------------------------------


@given(st.integers(2, 30), st.integers(2, 12), st.integers(0, 3))
def test_every_image_once_per_epoch(images: int, batch: int, seed: int) -> None:
    drawn = Sampler(grey(numbered(images)), RunConfig(batch_size=batch, seed=seed))
    steps = math.ceil(3 * images / batch)
    order = np.concatenate([drawn.rows(step) for step in range(1, steps + 1)])
    for epoch in range(3):
        assert sorted(order[epoch * images : (epoch + 1) * images].tolist()) == list(range(images))


def test_order_differs_by_epoch_and_seed_but_not_by_what_came_before() -> None:
    one, other = (sampler(numbered(50), batch_size=50, seed=seed) for seed in (0, 1))
    first, second, third = (one.rows(step) for step in (1, 2, 3))
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, other.rows(1))
    assert np.array_equal(sampler(numbered(50), batch_size=50).rows(3), third)
    assert np.array_equal(one.rows(1), first)


SPECIES = numbered(60, "cat/") + numbered(24, "dog/") + numbered(12, "fox/")


def test_proportional_batches_have_the_share_of_each_class() -> None:
    drawn = sampler(SPECIES, batch_size=16, sampling="proportional")
    batches = [drawn.rows(step) for step in range(1, 7)]
    assert sorted(np.concatenate(batches).tolist()) == list(range(96))
    for rows in batches:
        for members, share in ((range(60), 10), (range(60, 84), 4), (range(84, 96), 2)):
            assert abs(np.isin(rows, members).sum() - share) <= 1
    assert not np.array_equal(np.sort(batches[0]), np.sort(drawn.rows(7)))


def test_balanced_batches_have_equal_shares_and_waste_no_image() -> None:
    drawn = sampler(SPECIES, batch_size=12, sampling="balanced")
    batches = [drawn.rows(step) for step in range(1, 16)]
    for rows in batches:
        assert [int(np.isin(rows, m).sum()) for m in (range(60), range(60, 84), range(84, 96))] == [4, 4, 4]
    assert set(np.concatenate(batches).tolist()) == set(range(96))  # 60 turns of each class
    assert np.bincount(np.concatenate(batches), minlength=96)[84:].tolist() == [5] * 12


def test_sampling_by_class_needs_folders() -> None:
    with pytest.raises(ConfigError, match="in folders, one for each class"):
        sampler(numbered(8), sampling="balanced")


# ---- partners -----------------------------------------------------------------------------------------------


def pairs_of(drawn: Sampler, step: int = 1) -> PairBatch:
    pairs = drawn.batch(step)
    assert isinstance(pairs, PairBatch)
    return pairs


def test_both_views_show_the_image_itself() -> None:
    pairs = pairs_of(sampler(numbered(12)))
    assert shown(pairs.source) == shown(pairs.target)
    assert pairs.valid.all()


@pytest.mark.parametrize("gap", [1, 3])
def test_next_frames_of_the_same_video(gap: int) -> None:
    names = numbered(6, "a/") + numbered(5, "b/") + numbered(2, "c/")
    drawn = sampler(names, **{"pairs.partner": "next", "pairs.gap": gap})
    wanted = [i for i in range(len(names) - gap) if names[i][0] == names[i + gap][0]]
    assert drawn.sources.tolist() == wanted
    for step in range(1, 5):
        pairs = pairs_of(drawn, step)
        assert shown(pairs.target) == [i + gap for i in shown(pairs.source)]


def test_other_images_of_the_same_folder() -> None:
    names = [*numbered(3, "a/"), *numbered(1, "b/"), *numbered(4, "c/")]
    drawn = sampler(names, **{"pairs.partner": "folder", "batch_size": 7})
    seen = set()
    for step in range(1, 40):
        pairs = pairs_of(drawn, step)
        seen |= set(zip(shown(pairs.source), shown(pairs.target), strict=True))
    assert seen == {(i, j) for i in range(8) for j in range(8) if i != j and names[i][0] == names[j][0]}


def test_too_few_partners() -> None:
    images = grey(numbered(1, "a/") + numbered(1, "b/"))
    with pytest.raises(ConfigError, match=r"dve needs at least 2 images with another one in their folder.*got 0"):
        find_sources(images, make_config(PLAIN, {"pairs.partner": "folder"}))
    with pytest.raises(ConfigError, match=r"with a next one in their folder .the frames of a video.*got 0"):
        find_sources(images, make_config(PLAIN, {"pairs.partner": "next", "pairs.gap": 7}))


# ---- flow ---------------------------------------------------------------------------------------------------

FLOW: dict[str, Any] = {"pairs.partner": "next", "pairs.motion": "flow", "method": "dense"}


def test_given_flow_is_the_correspondence() -> None:
    flow = np.zeros((6, SIDE, SIDE, 2), np.float16)
    flow[..., 0] = np.arange(6)[:, None, None]  # frame i moves i pixels to the right
    flow[:, 10, 12] = np.nan
    flow[4] = np.nan
    images = grey(numbered(6)).with_labels(flow=flow)
    pairs = pairs_of(Sampler(images, make_config(PLAIN, FLOW, {"batch_size": 4})))
    grid = torch.stack(torch.meshgrid(torch.arange(24.0), torch.arange(24.0), indexing="xy"), -1)
    for i, number in enumerate(shown(pairs.source)):
        assert number in (0, 1, 2, 3)
        known = torch.ones(24, 24, dtype=torch.bool)
        known[6, 8] = False  # the margin is 4
        expected = grid + torch.tensor([number, 0.0])
        torch.testing.assert_close(pairs.target_from_source[i][known], expected[known])
        assert torch.equal(pairs.valid[i], known & (expected[..., 0] <= 23))


def test_of_an_image_to_itself_the_flow_says_what_is_known() -> None:
    flow = np.full((6, SIDE, SIDE, 2), 3.0, np.float16)
    flow[:, 10, 12] = np.nan
    images = grey(numbered(6)).with_labels(flow=flow)
    config = make_config(PLAIN, FLOW, {"pairs.partner": "itself"})
    pairs = pairs_of(Sampler(images, config))
    assert config.pairs.is_still
    assert shown(pairs.source) == shown(pairs.target)
    known = torch.ones(24, 24, dtype=torch.bool)
    known[6, 8] = False
    grid = torch.stack(torch.meshgrid(torch.arange(24.0), torch.arange(24.0), indexing="xy"), -1)
    assert all(torch.equal(valid, known) for valid in pairs.valid)
    torch.testing.assert_close(pairs.target_from_source[0][known], grid[known])
    assert pairs.target_from_source[:, 6, 8].isnan().all()


def test_flow_under_a_warped_source() -> None:
    """A source bent by g2 still knows where each of its pixels goes: g2 first, then the flow."""
    flow = np.full((3, SIDE, SIDE, 2), 2.0, np.float32)
    images = grey(numbered(3)).with_labels(flow=flow)
    config = make_config(PLAIN, FLOW, {"pairs.second": {"translation": 0.2}})
    moved = pairs_of(Sampler(images, config))
    still = pairs_of(Sampler(images.with_labels(flow=0 * flow), config))
    torch.testing.assert_close(moved.target_from_source, still.target_from_source + 2)


def test_flow_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match=r"put frame\.flo"):
        Sampler(grey(numbered(4)), make_config(PLAIN, FLOW))


# ---- auxiliaries --------------------------------------------------------------------------------------------


def test_one_auxiliary_is_the_next_image_of_the_batch() -> None:
    assert choose_auxiliaries(4, 1, generator=torch.Generator()).tolist() == [[1], [2], [3], [0]]


@given(st.integers(3, 12), st.data())
def test_auxiliaries_from_the_batch(count: int, data: st.DataObject) -> None:
    wanted = data.draw(st.integers(2, count - 1))
    chosen = choose_auxiliaries(count, wanted, generator=torch.Generator().manual_seed(data.draw(st.integers(0, 99))))
    assert chosen.shape == (count, wanted)
    for own, row in enumerate(chosen.tolist()):
        assert len(set(row)) == wanted
        assert own not in row
        assert all(0 <= i < count for i in row)


def test_all_others_of_the_batch() -> None:
    chosen = choose_auxiliaries(5, "all", generator=torch.Generator())
    assert [sorted(row) for row in chosen.tolist()] == [[i for i in range(5) if i != own] for own in range(5)]


def test_auxiliaries_from_a_pool() -> None:
    chosen = choose_auxiliaries(200, 5, pool=16, generator=torch.Generator())
    assert chosen.shape == (200, 5)
    assert all(len(set(row)) == 5 for row in chosen.tolist())
    assert chosen.unique().tolist() == list(range(16))


def test_too_many_auxiliaries() -> None:
    with pytest.raises(ValueError, match="cannot take 4 auxiliary images of each pair from 3"):
        choose_auxiliaries(4, 4, generator=torch.Generator())
    with pytest.raises(ConfigError, match=r"objective\.auxiliaries is 4, but there are 3 images"):
        make_config(PLAIN, {"objective.auxiliaries": 4})
    with pytest.raises(ConfigError, match=r"auxiliaries is 5, but there are 4 images.*objective\.pool"):
        make_config(PLAIN, {"objective.auxiliaries": 5, "objective.pool": 4})


def test_a_pool_is_warped_apart_from_the_pairs() -> None:
    bent = {"pairs.second": {"bend": 0.01, "rotation": 20}, "objective.auxiliaries": 3, "objective.pool": 6}
    with_pool = pairs_of(sampler(numbered(40), **bent))
    alone = pairs_of(sampler(numbered(40), **(bent | {"objective.pool": 0})))
    assert with_pool.pool is not None and with_pool.auxiliaries is not None
    assert with_pool.pool.shape == (6, 3, 24, 24)
    assert with_pool.auxiliaries.max() < 6
    assert alone.pool is None and alone.auxiliaries is not None and alone.auxiliaries.shape == (4, 3)
    assert torch.equal(with_pool.source, alone.source)
    assert torch.equal(with_pool.target_from_source, alone.target_from_source)


def test_a_balanced_pool_has_equal_shares_too() -> None:
    drawn = sampler(SPECIES, sampling="balanced", batch_size=3, **{"objective.auxiliaries": 3, "objective.pool": 6})
    pairs = pairs_of(drawn)
    assert pairs.pool is not None
    kinds = np.searchsorted([60, 84], shown(pairs.pool), side="right")
    assert np.bincount(kinds).tolist() == [2, 2, 2]


def test_no_auxiliaries_without_exchange() -> None:
    assert pairs_of(sampler(numbered(8), method="dense")).auxiliaries is None


# ---- labels -------------------------------------------------------------------------------------------------


def labelled(**changes: Any) -> LabelledBatch:
    rng = np.random.default_rng(0)
    images = grey(numbered(6))
    points = rng.uniform(8, 24, (6, 3, 2))
    points[:, 1] = np.nan
    parts = np.zeros((6, SIDE, SIDE), np.uint8)
    parts[:, :, SIDE // 2 :] = np.arange(1, 7)[:, None, None]
    batch = Sampler(
        images.with_labels(points=points, parts=parts), make_config(PLAIN, {"method": "supervised"}, changes)
    ).batch(1)
    assert isinstance(batch, LabelledBatch)
    still = torch.from_numpy(points)[shown(batch.images)] - 4
    if not changes:
        torch.testing.assert_close(batch.points, still.float(), equal_nan=True)
    return batch


def test_labels_lie_in_the_view() -> None:
    batch = labelled()
    assert len(batch) == 4 and batch.images.shape == (4, 3, 24, 24)
    assert batch.parts is not None
    for number, parts in zip(shown(batch.images), batch.parts, strict=True):
        assert parts[:, :12].eq(0).all() and parts[:, 12:].eq(number + 1).all()


def test_labels_move_with_the_warp() -> None:
    batch = labelled(**{"pairs.second": {"translation": 0.2}})
    assert batch.points is not None and batch.parts is not None
    still = labelled()
    assert still.points is not None
    shift = batch.points[:, 0] - still.points[:, 0]
    torch.testing.assert_close(batch.points[:, 2] - still.points[:, 2], shift)
    borders = (batch.parts == 0).sum(-1)[:, 5]  # columns of label 0
    inside = shift[:, 0].abs() < 10
    assert inside.any()
    torch.testing.assert_close(borders[inside].float(), 12 + shift[inside, 0], atol=0.51, rtol=0)


def test_the_same_step_gives_the_same_batch() -> None:
    drawn = sampler(numbered(9), **{"pairs.second": {"bend": 0.01}})
    first, again = pairs_of(drawn, 3), pairs_of(sampler(numbered(9), **{"pairs.second": {"bend": 0.01}}), 3)
    assert torch.equal(first.source, again.source)
    assert torch.equal(first.target_from_source, again.target_from_source)
    assert not torch.equal(first.target_from_source, pairs_of(drawn, 4).target_from_source)


def test_default_recipes_do_not_ask_for_anything_special() -> None:
    assert find_sources(grey(numbered(5)), replace(RunConfig(), batch_size=2)).tolist() == list(range(5))
