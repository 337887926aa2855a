"""Equal capacity as 001 sec. 3.2.1 states it: widths, and active weights per layer, in every shipped comparison."""

from __future__ import annotations

import json
from functools import cache
from itertools import pairwise
from math import prod

import pytest
import torch

from sparseflow.core import weight_shapes
from sparseflow.data import Dataset, Split
from sparseflow.models import maximum_width
from sparseflow.study.build import active_per_layer, build
from sparseflow.study.compare import CompareSpec, cells, widths_of
from sparseflow.study.read import assign, presets, read_preset, validate
from sparseflow.study.spec import RunSpec

SHAPES = {
    "cifar-10": ((3, 32, 32), 10),
    "cifar-100": ((3, 32, 32), 100),
    "fashion-mnist": ((1, 28, 28), 10),
    "digits": ((1, 8, 8), 10),
}
MAXIMUM = {"cifar-10": 3076, "cifar-100": 3076, "fashion-mnist": 788, "digits": 68}
# 10, 30, 50, 70, 90 % of the maximum width, rounded.
WIDTHS = {
    "cifar-10": [308, 923, 1538, 2153, 2768],
    "cifar-100": [308, 923, 1538, 2153, 2768],
    "fashion-mnist": [79, 236, 394, 552, 709],
    "digits": [7, 20, 34, 48, 61],
}
DEPTHS = (1, 2, 4)

EVERY = [name for name in presets() if "kind" not in read_preset(name)]
PAIRS = [name for name in EVERY if "name" not in read_preset(name).get("model", {})]
CONV = [name for name in EVERY if name not in PAIRS]


def blank(name: str) -> Dataset:
    """A data set of the right shapes with nothing in it."""
    shape, classes = SHAPES[name]
    split = Split(torch.zeros((2, *shape), dtype=torch.uint8), torch.tensor([0, classes - 1]))
    return Dataset(name, split, split, classes)


def preset_at(name: str, depth: int) -> CompareSpec:
    """A shipped comparison at another depth; variants with skips need three hidden layers."""
    content = assign(read_preset(name), [f"model.depth={depth}"])
    if depth < 3:
        content["compare"]["variants"] = [v for v in content["compare"]["variants"] if "SC" not in v.split("_")]
    return validate(CompareSpec, content)


def counts(run: RunSpec, data: str) -> tuple[int, ...]:
    """Active weights per layer; runs that differ in nothing that shapes the network share one answer."""
    shape, classes = SHAPES[data]
    key = json.dumps({"model": run.model.model_dump(), "mask": run.mask.model_dump()})
    return _counts(key, shape, classes)


@cache
def _counts(key: str, shape: tuple[int, ...], classes: int) -> tuple[int, ...]:
    return tuple(active_per_layer(RunSpec.model_validate_json(key), shape, classes).values())


def by_hand(inputs: int, classes: int, depth: int, width: int) -> tuple[int, ...]:
    """I N_W, then N_W^2 for each middle layer, then N_W O (001 eq. 3.2)."""
    return (inputs * width, *[width**2] * (depth - 1), width * classes)


def test_every_preset_of_pairs_is_tested_here():
    assert {read_preset(name)["data"]["name"] for name in EVERY} <= SHAPES.keys()


@pytest.mark.parametrize("name", SHAPES)
def test_maximum_width_and_dense_widths(name):
    shape, _ = SHAPES[name]
    assert maximum_width(prod(shape)) == MAXIMUM[name]
    spec = validate(CompareSpec, {"data": {"name": name}})
    assert widths_of(spec, prod(shape)) == WIDTHS[name]


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("preset", PAIRS)
def test_every_pair_has_equal_active_weights_in_every_layer(preset, depth):
    spec = preset_at(preset, depth)
    data = spec.data.name
    shape, classes = SHAPES[data]
    table = cells(spec, blank(data))
    assert len(table) == len(spec.compare.optimizers) * len(spec.compare.variants)
    for cell in table:
        assert [(p.dense_width, p.seed) for p in cell.pairs] == [(w, s) for s in (0, 1, 2) for w in WIDTHS[data]]
        for pair in cell.pairs:
            sparse, dense = counts(pair.sparse, data), counts(pair.dense, data)
            assert sparse == dense == by_hand(prod(shape), classes, depth, pair.dense_width)
            assert not pair.dense.mask.sparse
            assert pair.dense.model.width == pair.dense_width
            assert pair.sparse.model.width is None


def resnet_by_hand(inputs: int, classes: int, depth: int, width: int) -> tuple[int, ...]:
    """A first convolution, three stages of blocks of two, each twice as wide; no weights in shortcuts."""
    found, before = [9 * inputs * width], width
    for stage in range(3):
        channels = width * 2**stage
        for _ in range((depth - 2) // 3):
            found.append(9 * before * channels)
            before = channels
    return (*found, before * classes)


@pytest.mark.parametrize("depth", [8, 32])
@pytest.mark.parametrize("preset", CONV)
def test_every_convolutional_pair_has_equal_active_weights_in_every_layer(preset, depth):
    spec = validate(CompareSpec, assign(read_preset(preset), [f"model.depth={depth}"]))
    shape, classes = SHAPES[spec.data.name]
    for cell in cells(spec, blank(spec.data.name)):
        assert [p.dense_width for p in cell.pairs[:5]] == [3, 10, 16, 22, 29]  # of 32 channels
        for pair in cell.pairs:
            sparse, dense = counts(pair.sparse, spec.data.name), counts(pair.dense, spec.data.name)
            assert sparse == dense == resnet_by_hand(shape[0], classes, depth, pair.dense_width)
            assert (pair.sparse.model.width, pair.dense.model.width) == (32, pair.dense_width)


def test_built_convolutional_networks_have_these_counts():
    """From the masks themselves, and with nothing in their place."""
    spec = validate(CompareSpec, assign(read_preset("conv-pairs"), ["model.depth=8", "model.width=16"]))
    shape, classes = SHAPES["cifar-100"]
    for pair in cells(spec, blank("cifar-100"))[0].pairs[:5]:
        wide, narrow = (build(run, shape, classes) for run in (pair.sparse, pair.dense))
        assert not narrow.masks
        active = {name: int(mask.sum()) for name, mask in wide.masks.items()}
        weights = {name: shape.numel() for name, shape in weight_shapes(narrow.model).items()}
        assert active == weights
        assert tuple(active.values()) == resnet_by_hand(3, classes, 8, pair.dense_width)


@pytest.mark.parametrize("preset", PAIRS)
def test_members_of_a_pair_differ_in_connectivity_alone(preset):
    spec = preset_at(preset, 4)
    for cell in cells(spec, blank(spec.data.name)):
        for pair in cell.pairs:
            sparse, dense = pair.sparse.model_dump(), pair.dense.model_dump()
            assert sparse.pop("mask")["twin_width"] == dense["model"].pop("width") == pair.dense_width
            dense.pop("mask")
            sparse["model"].pop("width")
            assert sparse == dense


def test_the_cells_are_the_papers():
    """15 pairs per cell; variants do what their names say, and no two runs share a name."""
    spec = preset_at("fashion-mnist", 4)
    table = cells(spec, blank("fashion-mnist"))
    names = [run.name for cell in table for pair in cell.pairs for _, run in pair.members()]
    assert len(set(names)) == len(names) == len(table) * 15 * 2
    for cell in table:
        parts = cell.variant.split("_")
        for pair in cell.pairs:
            for _, run in pair.members():
                assert run.data.augment == ("DA" in parts)
                assert run.optimizer.weight_decay == (1e-4 if "L2" in parts else 0)
                assert run.model.skip == ("SC" in parts)
                assert run.model.norm == ("batch" if "BN" in parts else "none")
                assert (run.train.epochs, run.train.batch_size, run.optimizer.lr) == (500, 128, 0.001)


@pytest.mark.parametrize("name", ["cifar-10", "cifar-100"])
def test_the_papers_train_on_cifar_for_1000_epochs(name):
    spec = preset_at(name, 4)
    assert (spec.train.epochs, spec.train.batch_size, spec.optimizer.lr) == (1000, 128, 0.001)


@pytest.mark.parametrize(
    ("data", "depth", "width", "total"),
    [
        # "949,256 to 31,765,568 weights": the smallest CIFAR-10 network and the largest CIFAR-100 network.
        ("cifar-10", 1, 308, 949_256),
        ("cifar-100", 4, 2768, 31_765_568),
        ("cifar-10", 4, 2768, 31_516_448),
        ("cifar-100", 1, 308, 976_976),
    ],
)
def test_total_weights_of_the_papers_networks(data, depth, width, total):
    shape, classes = SHAPES[data]
    assert sum(by_hand(prod(shape), classes, depth, width)) == total
    dense = validate(RunSpec, {"model": {"depth": depth, "width": width}})
    sparse = validate(RunSpec, {"model": {"depth": depth}, "mask": {"twin_width": width}})
    assert sum(counts(dense, data)) == sum(counts(sparse, data)) == total


def test_totals_of_the_papers_networks_lie_in_the_stated_range():
    totals = {
        sum(by_hand(3072, classes, depth, width))
        for classes in (10, 100)
        for depth in DEPTHS
        for width in WIDTHS["cifar-10"]
    }
    assert (min(totals), max(totals)) == (949_256, 31_765_568)


@pytest.mark.parametrize("execution", ["masked", "compact", "auto"])
@pytest.mark.parametrize("depth", DEPTHS)
def test_built_networks_have_these_counts(depth, execution):
    """From the masks and the nonzero weights themselves."""
    (first, *_) = cells(preset_at("digits", depth), blank("digits"))
    for pair in first.pairs[:5]:
        wanted = by_hand(64, 10, depth, pair.dense_width)
        run = assign(pair.sparse.model_dump(exclude_defaults=True), [f"mask.execution={execution}"])
        sparse = build(validate(RunSpec, run), *SHAPES["digits"])
        dense = build(pair.dense, *SHAPES["digits"])
        assert tuple(int(mask.sum()) for mask in sparse.masks.values()) == wanted
        assert tuple(s.numel() for s in weight_shapes(dense.model).values()) == wanted
        assert tuple(sparse.active.values()) == tuple(dense.active.values()) == wanted
        assert not dense.masks
        for network in (sparse, dense):
            state = network.model.state_dict()
            assert tuple(int((state[name] != 0).sum()) for name in weight_shapes(network.model)) == wanted
        widths = [shape[0] for shape in weight_shapes(sparse.model).values()]
        assert widths == [68] * depth + [10]
        if execution == "compact":
            parameters = [p.numel() for p in sparse.model.parameters()]
            assert tuple(parameters) == wanted


@pytest.mark.parametrize(
    ("field", "value"), [("execution", "masked"), ("execution", "compact"), ("matching", "active-neurons")]
)
def test_a_comparison_chooses_execution_and_matching_rule(field, value):
    """Both are the sparse members' own business; the widths come from the comparison."""
    spec = validate(CompareSpec, {"mask": {field: value}})
    for pair in cells(spec, blank("digits"))[0].pairs:
        assert getattr(pair.sparse.mask, field) == value
        assert pair.sparse.mask.twin_width == pair.dense_width
        assert not pair.dense.mask.sparse


@pytest.mark.parametrize("activation", ["relu", "prelu", "srelu", "swish", "mish", "pswish", "elu", "sigmoid"])
def test_members_of_a_pair_have_equally_many_other_parameters(activation):
    """One set of activation parameters per layer; batch norm's scale with the width, and are counted."""
    spec = validate(CompareSpec, {"model": {"activation": activation}, "compare": {"variants": ["NR", "BN"]}})
    plain, normed = cells(spec, blank("digits"))
    for pair in plain.pairs[:5]:
        sparse, dense = build(pair.sparse, *SHAPES["digits"]), build(pair.dense, *SHAPES["digits"])
        assert sparse.others == dense.others == {"prelu": 4, "pswish": 4, "srelu": 16}.get(activation, 0)
    for pair in normed.pairs[:5]:
        sparse, dense = build(pair.sparse, *SHAPES["digits"]), build(pair.dense, *SHAPES["digits"])
        assert (sparse.others - dense.others) == 4 * 2 * (68 - pair.dense_width)
    bare = validate(
        CompareSpec,
        {"model": {"norm_affine": False, "activation": activation}, "compare": {"variants": ["BN", "NR"]}},
    )
    (pair, *_) = cells(bare, blank("digits"))[0].pairs
    assert build(pair.sparse, *SHAPES["digits"]).others == build(pair.dense, *SHAPES["digits"]).others


def test_masks_of_the_pairs_are_random_and_their_own():
    """Uniform over positions within a layer, other ones for another seed, the same for every variant of a seed."""
    spec = validate(CompareSpec, {"compare": {"variants": ["NR", "BN"], "dense_widths": [20], "seeds": 2}})
    nr, bn = cells(spec, blank("digits"))
    masks = [[build(p.sparse, *SHAPES["digits"]).masks for p in cell.pairs] for cell in (nr, bn)]
    for name in masks[0][0]:
        assert torch.equal(masks[0][0][name], masks[1][0][name])
        assert not torch.equal(masks[0][0][name], masks[0][1][name])
    middle = [masks[0][0][f"linears.{k}.weight"] for k in (1, 2, 3)]
    assert not any(torch.equal(a, b) for a, b in pairwise(middle))
    for mask in middle:
        # 400 of 4624: each row holds 5.9 on average; a chi-square over 68 rows has 67 degrees of freedom.
        expected = 400 / 68
        for axis in (0, 1):
            chi = float(((mask.sum(axis) - expected) ** 2 / expected).sum())
            assert 67 - 5 * 11.6 < chi < 67 + 5 * 11.6
