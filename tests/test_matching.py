import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from equimark import detection, geometry, matching
from equimark.matching import cosine_similarity, describe_points, locate, nearest_cell, similarity


def bump(centres: Tensor, size: tuple[int, int], width: float = 0.7, height: float = 0.0) -> Tensor:
    """Logits (B, K, h, w) of Gaussians at ``centres`` (B, K, 2)."""
    squares = (geometry.pixel_grid(size) - centres[:, :, None, None]).square().sum(-1)
    return height - squares / (2 * width**2)


coordinate = st.floats(3, 12, allow_subnormal=False)


@given(coordinate, coordinate, st.floats(-50, 50, allow_subnormal=False))
def test_locate_is_finer_than_a_cell(x: float, y: float, height: float) -> None:
    centre = torch.tensor([[[x, y]]])
    found = locate(bump(centre, (14, 17), height=height))
    assert found.positions.shape == (1, 1, 2)
    assert (found.positions - centre).abs().max() < 0.03
    assert found.confidence.item() > 0.98


def test_locate_each_map_by_itself() -> None:
    centres = torch.tensor([[[3.25, 4.0], [9.5, 6.75]], [[5.0, 5.0], [11.1, 3.3]]])
    found = locate(bump(centres, (12, 15)))
    torch.testing.assert_close(found.positions, centres, atol=0.03, rtol=0)


def test_mass_far_away_moves_no_position_but_costs_confidence() -> None:
    centres = torch.tensor([[[3.0, 3.0]]])
    second = torch.tensor([[[15.0, 15.0]]])
    two = torch.logaddexp(bump(centres, (20, 20), height=0.1), bump(second, (20, 20)))
    found = locate(two)
    torch.testing.assert_close(found.positions, centres, atol=0.03, rtol=0)
    share = torch.tensor(0.1).exp()
    assert found.confidence.item() == pytest.approx(float(share / (1 + share)), abs=0.01)


def test_confidence_is_the_mass_around_the_maximum() -> None:
    flat = torch.zeros(1, 1, 20, 20)
    flat[0, 0, 10, 10] = 1e-4
    assert locate(flat).confidence.item() == pytest.approx(21 / 400, rel=1e-3)  # 21 cells lie within 2.5 of a cell
    everything = locate(flat, radius=100)
    assert everything.confidence.item() == pytest.approx(1)


def test_longer_descriptors_are_surer_of_the_same_place() -> None:
    """2019, section 3.1: the direction says what, the length how surely; eq. 2 in three dimensions."""
    generator = torch.Generator().manual_seed(0)
    features = torch.nn.functional.normalize(torch.randn(1, 3, 9, 9, generator=generator), dim=1)
    place = torch.tensor([[[4.0, 5.0]]])
    direction = describe_points(features, place)
    sure, where = [], []
    for length in (1.0, 3.0, 10.0, 1000.0):
        scores = similarity(length * direction, features)
        found = locate(scores, radius=0)
        assert found.confidence.item() == pytest.approx(float(scores.flatten(2).softmax(-1).max()), rel=1e-5)
        sure.append(found.confidence.item())
        where.append(found.positions)
    assert all(torch.equal(each, place) for each in where)
    assert sure == sorted(sure) and sure[0] < 0.05 and sure[-1] > 0.9


def test_peak_at_the_border() -> None:
    found = locate(bump(torch.tensor([[[0.0, 11.0]]]), (12, 15), width=0.3))
    torch.testing.assert_close(found.positions, torch.tensor([[[0.0, 11.0]]]), atol=0.01, rtol=0)


def test_nearest_cell() -> None:
    scores = torch.zeros(2, 1, 4, 6)
    scores[0, 0, 3, 5] = 1
    scores[1, 0, 2, 0] = 1
    assert nearest_cell(scores).tolist() == [[[5, 3]], [[0, 2]]]


def test_describe_points_between_cells() -> None:
    features = torch.arange(12.0).reshape(1, 1, 3, 4)
    points = torch.tensor([[[0.0, 0.0], [1.5, 0.0], [1.0, 0.5], [3.0, 2.0]]])
    assert describe_points(features, points).squeeze().tolist() == pytest.approx([0, 1.5, 3, 11])


def test_similarity_against_a_loop() -> None:
    torch.manual_seed(0)
    descriptors, features = torch.randn(2, 3, 5), torch.randn(2, 5, 4, 6)
    scores, cosines = similarity(descriptors, features), cosine_similarity(descriptors, features)
    assert scores.shape == (2, 3, 4, 6)
    for b in range(2):
        for k in range(3):
            for y in range(4):
                for x in range(6):
                    d, f = descriptors[b, k], features[b, :, y, x]
                    torch.testing.assert_close(scores[b, k, y, x], d @ f)
                    torch.testing.assert_close(cosines[b, k, y, x], d @ f / (d.norm() * f.norm()))


def test_detect_on_sharp_maps() -> None:
    centres = torch.tensor([[[3.5, 4.25], [9.0, 2.75]]])
    found = detection.detect(bump(centres, (12, 15)))
    torch.testing.assert_close(found.positions, centres, atol=0.01, rtol=0)
    assert (found.confidence > 0.98).all()


def test_detect_on_maps_that_are_spread_or_torn() -> None:
    spread = detection.detect(torch.zeros(1, 1, 21, 21))
    torch.testing.assert_close(spread.positions, torch.tensor([[[10.0, 10.0]]]))
    # 29 cells lie within 3 of the middle, 4 of them at that very distance
    assert 25 / 441 - 1e-6 < spread.confidence.item() < 29 / 441 + 1e-6
    places = torch.tensor([[[2.0, 10.0], [18.0, 10.0]]])
    torn = torch.logsumexp(bump(places, (21, 21)), 1, keepdim=True)
    assert detection.detect(torn).confidence.item() < 0.01


def test_the_radius_is_the_default_of_locate() -> None:
    scores = torch.randn(1, 2, 9, 9, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(locate(scores).positions, locate(scores, radius=matching.PEAK_RADIUS).positions)


def test_descriptors_of_all_images_and_of_each() -> None:
    generator = torch.Generator().manual_seed(0)
    features, descriptors = torch.randn(3, 4, 5, 6, generator=generator), torch.randn(7, 4, generator=generator)
    expected = torch.einsum("kc,bchw->bkhw", descriptors, features)
    torch.testing.assert_close(similarity(descriptors, features), expected)
    torch.testing.assert_close(similarity(descriptors.expand(3, -1, -1), features), expected)
    torch.testing.assert_close(
        cosine_similarity(descriptors, features), cosine_similarity(descriptors.expand(3, -1, -1), features)
    )


def test_locate_against_means_over_masked_maps() -> None:
    scores = 5 * torch.randn(2, 3, 9, 11, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    scores[0, 0, 0, 10] = 30  # in a corner
    found = locate(scores)
    for maps, positions, confidence in zip(scores, found.positions, found.confidence, strict=True):
        for heat, position, sure in zip(maps.flatten(1).softmax(-1).view_as(maps), positions, confidence, strict=True):
            y, x = divmod(int(heat.argmax()), 11)
            near = [(i, j) for j in range(9) for i in range(11) if (i - x) ** 2 + (j - y) ** 2 <= 2.5**2]
            mass = sum(float(heat[j, i]) for i, j in near)
            mean = [sum(float(heat[j, i]) * (i, j)[axis] for i, j in near) / mass for axis in (0, 1)]
            assert position.tolist() == pytest.approx(mean)
            assert sure.item() == pytest.approx(mass)
