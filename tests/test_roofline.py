"""What ``benchmarks/roofline.py`` counts, by hand."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from equimark import matching_loss

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "roofline.py"


@pytest.fixture(scope="module")
def roofline() -> Any:
    spec = importlib.util.spec_from_file_location("roofline", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = sys.modules["roofline"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_products_and_bytes(roofline: Any) -> None:
    a, b, out = torch.randn(2, 3, 5), torch.randn(2, 5, 7), torch.zeros(2, 3, 7)
    needs = roofline.count(lambda: torch.bmm(a, b.mT.mT)).needs  # views cost nothing
    assert dict(needs) == {"bmm": [(2 * 2 * 3 * 5 * 7, 4 * (a.numel() + b.numel() + out.numel()))]}
    needs = roofline.count(lambda: out.baddbmm_(a, b)).needs
    assert [flops for flops, _ in needs["baddbmm_"]] == [2 * 2 * 3 * 5 * 7]
    needs = roofline.count(lambda: a + 1).needs
    assert needs["add"] == [(0, 4 * 2 * a.numel())]


def test_attention_on_processors(roofline: Any) -> None:
    """Two products forward, five backward: the logits again, and the gradients of their four factors."""
    queries, keys = (torch.randn(1, 2, n, 8, requires_grad=True) for n in (3, 5))
    needs = roofline.count(lambda: F.scaled_dot_product_attention(queries, keys, keys).sum().backward()).needs
    product = 2 * 2 * 3 * 5 * 8
    assert sum(flops for each in needs.values() for flops, _ in each) in (7 * product, 6 * product)


def test_the_matching_loss_is_counted_in_chunks(roofline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three products, as the gradient is made beside the loss; and the choice of form is as it was afterwards."""
    monkeypatch.setattr(matching_loss, "_may_stream", chosen := lambda *_: True)
    source, target = (torch.randn(2, 12, 4, requires_grad=True) for _ in range(2))
    truth = torch.rand(2, 12, 2)

    def run() -> None:
        matching_loss.expected_distance(source, target, truth, (3, 4)).backward()

    counted = roofline.count(run)
    assert sum(flops for each in counted.needs.values() for flops, _ in each) == 3 * 2 * 2 * 12 * 12 * 4
    assert matching_loss._may_stream is chosen


def test_shares(roofline: Any) -> None:
    a = torch.randn(64, 64)
    ceilings = roofline.Ceilings(flops=1e6, bytes=1e15)
    made = roofline.roof(lambda: a @ a, ceilings, torch.device("cpu"), seconds=0.01)
    assert made["flops"] == 2 * 64**3 and made["bytes"] == 3 * 4 * 64**2
    assert made["arithmetic_seconds"] == pytest.approx(made["flops"] / 1e6)
    assert made["share_apart"] == pytest.approx(made["apart_seconds"] / made["seconds"]) and list(made["kinds"]) == [
        "mm"
    ]
    measured = roofline.measure_ceilings(torch.device("cpu"), torch.float32, seconds=0.01)
    assert measured.flops > 1e8 and measured.bytes > 1e7
