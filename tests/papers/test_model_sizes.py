"""The networks have as many weights as the papers state, and as their well-known implementations have."""

from __future__ import annotations

import pytest

from sparseflow.core import weight_shapes
from sparseflow.models import sketch

MNIST, CIFAR, TINY, IMAGENET = (1, 28, 28), (3, 32, 32), (3, 64, 64), (3, 224, 224)


def size(name: str, shape: tuple[int, ...], classes: int, **options: object) -> tuple[int, int]:
    """(weights, all parameters)."""
    model = sketch(name, shape, classes, **options)
    return sum(s.numel() for s in weight_shapes(model).values()), sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("name", "shape", "classes", "options", "weights", "parameters"),
    [
        # Frankle & Carbin 2019, Fig. 2: 266K weights.
        ("lenet-300-100", MNIST, 10, {}, 266_200, 266_610),
        # Without padding, as in the code of 004: 6 and 16 channels, 4 x 4 positions left, 120 and 84 units.
        ("lenet-5", MNIST, 10, {}, 150 + 2_400 + 30_720 + 10_080 + 840, 44_426),
        # In the field of 32 x 32: 5 x 5 positions left. Weights and biases of every layer.
        ("lenet-5", MNIST, 10, {"padding": 2}, 150 + 2_400 + 120 * 16 * 5 * 5 + 10_080 + 840, 61_706),
        # He et al. 2015, Table 6: 0.27, 0.46, 0.85 and 1.7 million; tests/oracles/test_resnet.py has them all.
        ("resnet", CIFAR, 10, {"depth": 20}, 268_336, 269_722),
        ("resnet", CIFAR, 10, {"depth": 32}, 461_872, 464_154),
        # 003 calls it ResNet-104: 17 blocks a stage.
        ("resnet", CIFAR, 10, {"depth": 104}, 1_623_088, 1_630_746),
        # torchvision 0.25: resnet18, resnet50, mobilenet_v2.
        ("resnet-18", IMAGENET, 1000, {"stem": "imagenet"}, 11_678_912, 11_689_512),
        ("resnet-50", IMAGENET, 1000, {"stem": "imagenet"}, 25_502_912, 25_557_032),
        ("mobilenet-v2", IMAGENET, 1000, {"stem": "imagenet"}, 3_469_760, 3_504_872),
        # Keras: MobileNet, trainable.
        ("mobilenet-v1", IMAGENET, 1000, {"stem": "imagenet"}, 4_209_088, 4_231_976),
        # The same with another stem and head: 3x3 instead of 7x7, 10 classes.
        ("resnet-18", CIFAR, 10, {}, 11_678_912 - 9_408 + 1_728 - 990 * 512, 11_173_962),
        ("resnet-50", CIFAR, 10, {}, 25_502_912 - 9_408 + 1_728 - 990 * 2048, 23_520_842),
        # Zagoruyko & Komodakis 2016, Table 4: 36.5 million; WRN-40-4 8.9, WRN-16-8 11.0.
        ("wide-resnet", CIFAR, 10, {}, 36_461_232, 36_479_194),
        ("wide-resnet", CIFAR, 100, {}, 36_518_832, 36_536_884),
        ("wide-resnet", CIFAR, 10, {"depth": 40, "width": 64}, 8_938_416, 8_949_210),
        ("wide-resnet", CIFAR, 10, {"depth": 16, "width": 128}, 10_954_160, 10_961_370),
        # The convolutions of torchvision's vgg16 (14,710,464 weights and 4,224 biases), and one linear layer.
        ("vgg16", CIFAR, 10, {"norm": "none"}, 14_710_464 + 5_120, 14_714_688 + 5_130),
        ("vgg16", CIFAR, 10, {}, 14_710_464 + 5_120, 14_710_464 + 2 * 4_224 + 5_130),
    ],
)
def test_counts(name, shape, classes, options, weights, parameters):
    assert size(name, shape, classes, **options) == (weights, parameters)


def test_the_resnet_32_of_001_is_twice_as_wide():
    """Its Table B.2 says 1.9 M weights, He et al.'s own has 0.46: 32, 64 and 128 channels."""
    weights, _ = size("resnet", CIFAR, 100, width=32)
    assert weights == 1_856_864
    assert round(weights / 1e6, 1) == 1.9
    # Active weights of what its search found, from the densities in the same rows.
    assert [round(weights * percent / 1e8, 1) for percent in (59.976, 86.654)] == [1.1, 1.6]


# 001 Table B.2, "Wideresnet50 Adamw Random": 17.0 M weights, 46.557 % dense.
DENSITIES = (
    *(0.389, 0.271, 0.829, 0.357, 0.281, 0.543, 0.141, 0.802, 0.075, 0.987, 0.772, 0.199, 0.006, 0.815, 0.707),
    *(0.729, 0.771, 0.074, 0.358, 0.116, 0.863, 0.623, 0.331, 0.064, 0.311, 0.325, 0.73, 0.638, 0.887),
)


def test_the_wide_resnet_50_of_000_and_001_is_wrn_28_10():
    """Both call it Wide ResNet-50, but its 36.5 M weights and 29 layers are those of WRN-28-10.

    The densities are one for each layer in the order of the network, shortcuts' convolutions last in their blocks:
    only so do they give the stated share, up to the rounding of the printed densities to three decimals.
    """
    shapes = weight_shapes(sketch("wide-resnet", CIFAR, 100))
    sizes = [shape.numel() for shape in shapes.values()]
    assert round(sum(sizes) / 1e6, 1) == 36.5
    assert len(DENSITIES) == len(sizes) == 29
    active = sum(d * n for d, n in zip(DENSITIES, sizes, strict=True))
    assert round(active / 1e6, 1) == 17.0
    assert abs(active / sum(sizes) - 0.46557) < 0.0005
    first = sorted(shapes, key=lambda name: (name.split(".")[:2], "projection" not in name))
    other_order = [shapes[name].numel() for name in first]
    assert sizes != other_order
    assert abs(sum(d * n for d, n in zip(DENSITIES, other_order, strict=True)) / sum(sizes) - 0.46557) > 0.002
    # Also the other rows of the table.
    assert [round(sum(sizes) * percent / 1e8, 1) for percent in (95.074, 83.253, 86.624)] == [34.7, 30.4, 31.6]


def test_tiny_imagenet_and_cifar_share_all_weights_but_the_last_layers():
    """A mean over positions ends every network of 003, so its weights do not depend on the image's size."""
    for name in ("resnet-18", "resnet-50", "vgg16", "mobilenet-v1", "mobilenet-v2", "resnet", "wide-resnet"):
        assert size(name, TINY, 200) == size(name, CIFAR, 200)
