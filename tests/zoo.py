"""Weight shapes of real networks: those of the model catalog, and tables written out by hand from the papers."""

from __future__ import annotations

from functools import cache

import torch

from sparseflow.core import weight_shapes
from sparseflow.models import models, sketch

Table = dict[str, torch.Size]


def _table(*layers: tuple[str, tuple[int, ...]]) -> Table:
    return {f"{name}.weight": torch.Size(shape) for name, shape in layers}


def vgg16() -> Table:
    """VGG-16 for CIFAR-10: configuration D of Simonyan & Zisserman 2014, one linear layer."""
    widths = [64] * 2 + [128] * 2 + [256] * 3 + [512] * 6
    convs = [
        (f"conv{k}", (out, into, 3, 3)) for k, (into, out) in enumerate(zip([3, *widths], widths, strict=False), 1)
    ]
    return _table(*convs, ("fc", (10, 512)))


def resnet50() -> Table:
    """ResNet-50 for ImageNet: He et al. 2015, Table 1, projection shortcuts."""
    layers: list[tuple[str, tuple[int, ...]]] = [("conv1", (64, 3, 7, 7))]
    channels = 64
    for stage, (middle, blocks) in enumerate([(64, 3), (128, 4), (256, 6), (512, 3)], 1):
        for block in range(blocks):
            at = f"stage{stage}.{block}"
            layers += [
                (f"{at}.conv1", (middle, channels, 1, 1)),
                (f"{at}.conv2", (middle, middle, 3, 3)),
                (f"{at}.conv3", (4 * middle, middle, 1, 1)),
            ]
            if block == 0:
                layers.append((f"{at}.shortcut", (4 * middle, channels, 1, 1)))
            channels = 4 * middle
    return _table(*layers, ("fc", (1000, 2048)))


def wide_resnet_28_10() -> Table:
    """WRN-28-10 for CIFAR-10: Zagoruyko & Komodakis 2016, Table 1."""
    layers: list[tuple[str, tuple[int, ...]]] = [("conv1", (16, 3, 3, 3))]
    channels = 16
    for group, width in enumerate([160, 320, 640], 1):
        for block in range(4):
            at = f"group{group}.{block}"
            layers += [(f"{at}.conv1", (width, channels, 3, 3)), (f"{at}.conv2", (width, width, 3, 3))]
            if block == 0:
                layers.append((f"{at}.shortcut", (width, channels, 1, 1)))
            channels = width
    return _table(*layers, ("fc", (10, 640)))


def mobilenet() -> Table:
    """MobileNet for ImageNet: Howard et al. 2017, Table 1; a depthwise layer has shape (channels, 1, 3, 3)."""
    layers: list[tuple[str, tuple[int, ...]]] = [("conv1", (32, 3, 3, 3))]
    channels = 32
    for block, out in enumerate([64, 128, 128, 256, 256, *[512] * 6, 1024, 1024]):
        layers += [(f"{block}.depthwise", (channels, 1, 3, 3)), (f"{block}.pointwise", (out, channels, 1, 1))]
        channels = out
    return _table(*layers, ("fc", (1000, 1024)))


BY_HAND = {"VGG-16": vgg16, "ResNet-50": resnet50, "WRN-28-10": wide_resnet_28_10, "MobileNet": mobilenet}

OTHER_DEPTHS = [("resnet", {"depth": depth}) for depth in (20, 56, 110)]

ZOO = [
    *BY_HAND,
    *models.names,
    *(f"{name} {options['depth']}" for name, options in OTHER_DEPTHS),
]
"""Names of all tables: a model that joins the catalog joins the tests."""


@cache
def shapes_of(name: str) -> Table:
    """Weight name -> shape for a name of `ZOO`."""
    if name in BY_HAND:
        return BY_HAND[name]()
    for model, options in OTHER_DEPTHS:
        if name == f"{model} {options['depth']}":
            return weight_shapes(sketch(model, (3, 32, 32), 10, **options))
    return weight_shapes(sketch(name, models.entry(name).facts.get("example", (3, 32, 32)), 10))


def total_of(shapes: Table) -> int:
    return sum(shape.numel() for shape in shapes.values())
