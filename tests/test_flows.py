from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from equimark import flows
from equimark.flows import FlowError
from equimark.geometry import Frame
from equimark.images import ImageError
from equimark.packs import PackedImages, pack
from equimark.synthetic import arm


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 99))
def test_what_is_written_is_read(width: int, height: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    flow = rng.normal(size=(height, width, 2)).astype(np.float32)
    flow[rng.random((height, width)) < 0.2] = np.nan
    path = Path("unused")

    class Memory:
        data = b""

    def keep(_: Path, data: bytes) -> None:
        Memory.data = data

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flows, "_write_bytes", keep)
        patch.setattr(flows, "replace_file", lambda where, write: write(where))
        flows.write(path, flow)
    np.testing.assert_array_equal(flows.read(Memory.data), flow)


def test_the_layout_of_the_benchmark() -> None:
    """Tag, width, height, then row by row x and y."""
    numbers = np.arange(12, dtype="<f4")
    data = np.array([202021.25], "<f4").tobytes() + np.array([3, 2], "<i4").tobytes() + numbers.tobytes()
    flow = flows.read(data)
    assert flow.shape == (2, 3, 2)
    assert flow[1, 2].tolist() == [10, 11]


@pytest.mark.parametrize("data", [b"", b"PIEH", b"\0" * 40])
def test_other_files(data: bytes) -> None:
    with pytest.raises(FlowError, match=r"not a \.flo file"):
        flows.read(data)


def test_a_file_cut_short(tmp_path: Path) -> None:
    flows.write(tmp_path / "a.flo", np.zeros((4, 5, 2)))
    with pytest.raises(FlowError, match="5 x 4 pixels take 172 bytes, but the file has 171"):
        flows.read((tmp_path / "a.flo").read_bytes()[:-1])


def test_in_a_frame_of_half_the_size() -> None:
    flow = np.zeros((40, 60, 2), np.float32)
    flow[..., 0], flow[..., 1] = 8, np.arange(40)[:, None]
    found = flows.to_frame(flow, (40, 60), Frame(20, "centre").place((40, 60)))
    assert found.shape == (20, 20, 2)
    assert (found[..., 0] == 4).all()
    np.testing.assert_allclose(found[:, 0, 1], np.arange(20) + 0.25, atol=0.26)  # the row nearest to 2 i + 0.5


def test_beyond_the_image_nothing_is_known() -> None:
    found = flows.to_frame(np.ones((40, 60, 2), np.float32), (40, 60), Frame(30, "letterbox").place((40, 60)))
    known = np.isfinite(found).all(-1)
    assert known.sum() == 30 * 20
    assert known[5:25].all()


def test_flow_of_another_size() -> None:
    with pytest.raises(FlowError, match="4 x 3 pixels, its image"):
        flows.to_frame(np.ones((3, 4, 2), np.float32), (40, 60), Frame(30).place((40, 60)))


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six frames of the arm; the flow of each but the last beside it."""
    folder = tmp_path_factory.mktemp("video")
    drawn = arm(6, seed=1, size=48, speed=4)
    for i, image in enumerate(drawn.images):
        Image.fromarray(image).save(folder / f"{i}.png")
        if i < 5:
            flows.write(folder / f"{i}.flo", drawn.displacement(i, i + 1))
    return folder


def test_a_pack_keeps_the_flow(video: Path, tmp_path: Path) -> None:
    packed = pack(video, tmp_path / "pack", Frame(48), progress=False)
    assert packed.flow is not None and packed.flow.shape == (6, 48, 48, 2)
    drawn = arm(6, seed=1, size=48, speed=4)
    np.testing.assert_allclose(packed.flow[2], drawn.displacement(2, 3), atol=0.02)
    assert np.nanmax(np.abs(packed.flow[2].astype(np.float32))) > 1  # it does move
    assert np.isnan(packed.flow[5]).all()
    again = PackedImages.open(tmp_path / "pack")
    assert again.flow is not None
    np.testing.assert_array_equal(again.flow, packed.flow)


def test_a_pack_of_photographs_has_none(photos: Path, tmp_path: Path) -> None:
    assert pack(photos, tmp_path / "pack", Frame(24), progress=False).flow is None
    assert not (tmp_path / "pack" / "flow.f16").exists()


def test_a_damaged_flow_file_stops_the_pack(video: Path, tmp_path: Path) -> None:
    folder = tmp_path / "damaged"
    folder.mkdir()
    for file in video.iterdir():
        (folder / file.name).write_bytes(file.read_bytes()[: None if file.suffix == ".png" else -8])
    with pytest.raises(ImageError, match=r"0\.flo: 48 x 48 pixels take"):
        pack(folder, tmp_path / "pack", Frame(48), progress=False)
    assert not (tmp_path / "pack").exists()
