"""Networks: images (B, 3, H, W) in [0, 1] -> features (B, C, h, w)."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .geometry import Cells

_MEAN = (0.5084, 0.4224, 0.3769)
_STD = (0.2599, 0.2371, 0.2323)


class Network(nn.Module):
    """A fully convolutional network that normalises its input and says which pixel a cell describes.

    Args:
        body: images to features.
        channels: of the features.
        vector_length: to which every feature vector is scaled; raw if absent.
    """

    cells: ClassVar[Cells]
    mean: Tensor
    std: Tensor

    def __init__(self, body: nn.Module, channels: int, vector_length: float | None = None) -> None:
        super().__init__()
        self.channels = channels
        self.vector_length = vector_length
        self.body = body
        self.register_buffer("mean", torch.tensor(_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(_STD)[:, None, None], persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Features (B, C, h, w) of ``images`` (B, 3, H, W) in [0, 1]."""
        features: Tensor = self.body((images - self.mean) / self.std)
        if self.vector_length is None:
            return features
        return F.normalize(features, dim=1) * self.vector_length


def _check_channels(channels: int) -> None:
    if channels < 1:
        raise ValueError(f"a network needs at least one output channel, got {channels}")


class SmallNet(Network):
    """Six convolutions, one 2 x 2 max pooling after the first (2017, section 4.1; Dense3D and DVE).

    H x W -> H/2 x W/2. Pooling takes pixels 2i and 2i + 1 together: cell i describes pixel 2i + 0.5.

    Args:
        channels: of the last convolution.
        leak: slope of the ReLUs for negative values; 0.2 in Dense3D and DVE, 0 in the 2017 paper.
        activate_last: batch norm and ReLU after the last convolution too, as the 2017 paper has it.
        vector_length: see :class:`Network`.
    """

    cells = Cells(stride=2, offset=0.5)

    def __init__(
        self, channels: int, *, leak: float = 0.2, activate_last: bool = False, vector_length: float | None = None
    ) -> None:
        _check_channels(channels)
        widths = (3, 20, 48, 64, 80, 256, channels)
        kernels = (5, 5, 5, 3, 3, 1)
        dilations = (1, 1, 2, 4, 2, 1)
        layers: list[nn.Module] = []
        for i, (kernel, dilation) in enumerate(zip(kernels, dilations, strict=True)):
            padding = dilation * (kernel - 1) // 2
            layers.append(nn.Conv2d(widths[i], widths[i + 1], kernel, padding=padding, dilation=dilation))
            if i < 5 or activate_last:
                layers += [nn.BatchNorm2d(widths[i + 1]), nn.LeakyReLU(leak, inplace=True)]
            if i == 0:
                layers.append(nn.MaxPool2d(2))
        super().__init__(nn.Sequential(*layers), channels, vector_length)


class Hourglass(Network):
    """One stack of the stacked-hourglass design (DVE, section 4). H x W -> H/2 x W/2.

    The 7 x 7 stem of stride 2 is centred on pixel 2i.
    """

    cells = Cells(stride=2, offset=0.0)

    def __init__(self, channels: int, *, vector_length: float | None = None) -> None:
        _check_channels(channels)
        body = nn.Sequential(
            nn.Conv2d(3, 64, 7, stride=2, padding=3),
            nn.BatchNorm2d(64),
            nn.ReLU(inplace=True),
            _Bottleneck(64, 128),
            _Bottleneck(128, 256),
            _Bottleneck(256, 256),
            _Pyramid(256, depth=4),
            *_bottlenecks(256),
            nn.Conv2d(256, 256, 1),
            nn.BatchNorm2d(256),
            nn.ReLU(inplace=True),
            nn.Conv2d(256, channels, 1),
        )
        super().__init__(body, channels, vector_length)


class _Bottleneck(nn.Module):
    """Pre-activation residual bottleneck."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        middle = outputs // 2
        layers: list[nn.Module] = []
        for kernel, a, b in ((1, inputs, middle), (3, middle, middle), (1, middle, outputs)):
            layers += [nn.BatchNorm2d(a), nn.ReLU(inplace=True), nn.Conv2d(a, b, kernel, padding=kernel // 2)]
        layers[1] = nn.ReLU()  # the first must not overwrite what the skip connection adds
        self.residual = nn.Sequential(*layers)
        self.skip = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.skip(x) + self.residual(x)
        return out


class _Pyramid(nn.Module):
    """The hourglass: a detour at half the resolution, itself with such a detour, ``depth`` times."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.level = _bottlenecks(width)
        self.down = nn.Sequential(nn.MaxPool2d(2, ceil_mode=True), *_bottlenecks(width))
        self.inner = _Pyramid(width, depth - 1) if depth > 1 else _bottlenecks(width)
        self.up = _bottlenecks(width)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        below = F.interpolate(self.up(self.inner(self.down(x))), scale_factor=2, mode="nearest")
        out: Tensor = self.level(x) + below[..., :height, :width]  # an odd map was rounded up on the way down
        return out


def _bottlenecks(width: int, count: int = 4) -> nn.Sequential:
    return nn.Sequential(*(_Bottleneck(width, width) for _ in range(count)))


def build_network(name: str, channels: int, *, vector_length: float | None = None, sparse: bool = False) -> Network:
    """A network by name: ``smallnet`` or ``hourglass``.

    Args:
        name: of the network.
        channels: of its features, or the number of landmarks.
        vector_length: to which every feature vector is scaled; raw if absent.
        sparse: SmallNet as in the 2017 paper, plain ReLUs and batch norm + ReLU after every convolution.

    Raises:
        ValueError: if there is no network of that name.
    """
    if name == "smallnet":
        leak, activate_last = (0.0, True) if sparse else (0.2, False)
        return SmallNet(channels, leak=leak, activate_last=activate_last, vector_length=vector_length)
    if name == "hourglass":
        return Hourglass(channels, vector_length=vector_length)
    raise ValueError(f"unknown network {name!r}: choose smallnet or hourglass")
