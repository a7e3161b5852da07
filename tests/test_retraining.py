import numpy as np
import pytest
import torch
from torch import Tensor, nn

from conftest import TINY
from coordinates import config, moving
from equimark import training
from equimark.config import load_recipe, make_config
from equimark.embedding import ModelError
from equimark.geometry import Cells
from equimark.model import LandmarkModel
from equimark.networks import Network
from equimark.protocols import Draw
from equimark.retraining import (
    PartedFrames,
    SegmentationScore,
    predict_supervised,
    score_segmentation,
    summarise_epochs,
    transfer_to_segmentation,
)
from equimark.segmentation import ClassScore
from equimark.synthetic import Portraits

PLACES = np.array([[0.4, 0.4], [0.6, 0.45], [0.5, 0.6]])


class Thirds(Network):
    """Says which third of the image a pixel lies in, by its red."""

    cells = Cells(1, 0.0)

    def __init__(self) -> None:
        super().__init__(nn.Identity(), channels=3)

    def forward(self, images: Tensor) -> Tensor:
        red = images[:, :1]
        return torch.cat([1 / 3 - red, 0 * red, red - 2 / 3], 1)


# ---- supervised landmarks -----------------------------------------------------------------------------------


def test_a_supervised_network_is_trained_on_the_draw() -> None:
    """Shown one image, it says that image's landmarks, whatever it sees; shown all, it does better on others."""
    recipe = load_recipe("supervised-smallnet-plus").settings
    still = {f"pairs.{which}.{what}": 0 for which in ("first", "second") for what in ("rotation", "translation")}
    settings = TINY | still | {"steps": 60, "network.channels": 99, "optimiser.lr": 0.003, "save_every": 60}
    train, test = (moving(16, 40, PLACES, seed) for seed in (0, 1))
    made = make_config(recipe, settings)
    rows = {"one": np.array([4]), "all": np.arange(16)}
    found = {
        name: predict_supervised(made, train, test, Draw(name, 0, own), device="cpu") for name, own in rows.items()
    }
    assert found["one"].shape == (16, 3, 2)
    errors = {name: np.linalg.norm(own - test.points, axis=-1).mean() for name, own in found.items()}
    assert errors["all"] < errors["one"]
    again = predict_supervised(made, train, test, Draw("one", 0, rows["one"]), device="cpu")
    np.testing.assert_array_equal(again, found["one"])


def test_an_interruption_does_not_speak_of_resuming(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise training.Interrupted("go on with --resume")

    monkeypatch.setattr(training, "train", stop)
    data = moving(2, 40, PLACES)
    with pytest.raises(KeyboardInterrupt):
        predict_supervised(config(**{"frame.size": 40, "pairs.margin": 6}), data, data, Draw("", 0, np.arange(2)))


# ---- segmentation -------------------------------------------------------------------------------------------


def thirds(side: int = 30) -> PartedFrames:
    red = np.repeat([40, 130, 220], side // 3).astype(np.uint8)
    frames = torch.zeros(2, 3, side, side, dtype=torch.uint8)
    frames[:, 0] = torch.from_numpy(red)
    parts = np.broadcast_to(np.repeat([0, 1, 2], side // 3).astype(np.uint8), (2, side, side)).copy()
    return PartedFrames(frames, parts)


def segmenter(side: int = 30) -> LandmarkModel:
    settings = {"method": "segmentation", "network.channels": 3, "frame.size": side, "pairs.margin": 6}
    return LandmarkModel(Thirds(), make_config(settings))


def test_who_knows_the_parts_makes_no_error() -> None:
    found = score_segmentation(segmenter(), thirds())
    assert found.metrics() == {"pixel_accuracy_percent": 100, "mean_iou_percent": 100}
    assert [row.label for row in found.table] == [0, 1, 2]


def test_scores_worked_by_hand() -> None:
    data = thirds()
    data.parts[0, :, :10] = 1  # a sixth of all pixels: of part 1, said to be part 0
    data.parts[1, :, :10] = 3  # another sixth is of a part that the run does not know
    found = score_segmentation(segmenter(), data)
    assert found.metrics() == pytest.approx(
        {"pixel_accuracy_percent": 400 / 6, "mean_iou_percent": (0 + 200 / 3 + 100 + 0) / 4}
    )


def score(epoch: int, accuracy: float) -> SegmentationScore:
    return SegmentationScore(accuracy, [ClassScore(0, 1, 1, accuracy, accuracy / 2)], epoch)


def test_the_epochs_of_the_table() -> None:
    curve = [score(epoch, 50 + (epoch if epoch < 20 else 40 - epoch)) for epoch in range(1, 36)]
    assert summarise_epochs(curve) == {
        "pixel_accuracy_percent": 55,
        "mean_iou_percent": 27.5,
        "pixel_accuracy_percent_epoch_5": 55,
        "pixel_accuracy_percent_epoch_30": 60,
        "pixel_accuracy_percent_best": 70,
    }
    assert "pixel_accuracy_percent_epoch_30" not in summarise_epochs(curve[:12])


@pytest.fixture(scope="module")
def parted(faces: Portraits) -> PartedFrames:
    frames = torch.from_numpy(faces.images[:, 4:44, 4:44]).movedim(-1, 1).contiguous()
    return PartedFrames(frames, np.ascontiguousarray(faces.parts[:, 4:44, 4:44]))


@pytest.mark.parametrize("transfer", ["scratch", "pretrained", "finetuned"])
def test_transfer_is_measured_after_every_epoch(
    sparse_model: LandmarkModel, parted: PartedFrames, transfer: str
) -> None:
    before = {name: value.clone() for name, value in sparse_model.network.state_dict().items()}
    draw = Draw("labels_6", 1, np.arange(6))
    curve = transfer_to_segmentation(
        sparse_model,
        parted,
        parted,
        draw,
        transfer=transfer,  # type: ignore[arg-type]
        classes=7,
        epochs=4,
    )
    assert [own.epoch for own in curve] == [1, 2, 3, 4]
    assert all(0 <= own.pixel_accuracy_percent <= 100 for own in curve)
    assert len({own.pixel_accuracy_percent for own in curve}) > 1
    after = sparse_model.network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_transfer_learns(sparse_model: LandmarkModel, parted: PartedFrames) -> None:
    draw = Draw("labels_all", 0, np.arange(16))
    curve = transfer_to_segmentation(sparse_model, parted, parted, draw, transfer="finetuned", classes=7, epochs=25)
    most_common = 100 * np.bincount(parted.parts.ravel()).max() / parted.parts.size
    assert curve[-1].pixel_accuracy_percent > max(most_common, curve[0].pixel_accuracy_percent)


def test_what_cannot_be_transferred(parted: PartedFrames) -> None:
    with pytest.raises(ModelError, match="pretrained segmentation starts from the SmallNet of a run without labels"):
        transfer_to_segmentation(segmenter(40), parted, parted, Draw("", 0, np.arange(2)), classes=7)
