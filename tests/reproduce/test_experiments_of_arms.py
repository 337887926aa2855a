"""The experiments of 003 and 004: they are valid at every scale, and every printed cell has runs that it is about."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from sparseflow.models import sketch
from sparseflow.reproduce.analyses import analyses
from sparseflow.reproduce.experiment import experiment, experiments
from sparseflow.reproduce.items import items
from sparseflow.reproduce.makers import makers
from sparseflow.reproduce.readers import readers
from sparseflow.reproduce.scale import LADDER
from sparseflow.reproduce.shrink import papers_sizes, shrunk
from sparseflow.reproduce.source import Observed, Source
from sparseflow.study import ArmsSpec, arms_of, validate

ITEMS = [item for name, item in items().items() if item.paper in ("003", "004")]
STUDIED = [item.id for item in ITEMS if experiment(item.id).parts]
MEASURED = [name for name in STUDIED if items()[name].printed and experiment(name).reads != "settings"]
OF_TICKETS = [item.id for item in ITEMS if item.id.startswith(("004.fig5", "004.table2", "004.table6"))]
DATA = {"cifar-10": "CIFAR-10", "cifar-100": "CIFAR-100"}


def arms_at(part, scale):
    return arms_of(validate(ArmsSpec, shrunk(part.content, scale, papers_sizes)))


def labelled(name):
    """Labels of all arms, as runs would have them."""
    wanted = experiment(name)
    found = []
    for part in wanted.parts:
        source = Source(wanted, part, SimpleNamespace(content={"facts": {}}), "arms")
        for arm in arms_at(part, LADDER[0]):
            own = source.arm_labels(SimpleNamespace(arm=arm))
            if own is not None:
                data = {
                    "Dataset": {"cifar-10": "CIFAR-10", "cifar-100": "CIFAR-100"}.get(arm.points[0].spec.data.name, "")
                }
                found.append(Observed(source.called(data | own), 0, {}))
    return found


def test_every_item_has_an_experiment():
    assert [item.id for item in ITEMS if item.id not in experiments()] == []
    for item in ITEMS:
        one = experiment(item.id)
        assert one.makes or one.parts
        assert item.kind == "figure" or one.reads
        assert item.kind == "table" or one.shows or one.makes or one.analyses
        assert one.makes is None or one.makes in makers
        assert one.reads is None or one.reads in readers
        assert one.analyses is None or one.analyses in analyses


@pytest.mark.parametrize("name", STUDIED)
def test_studies_are_valid_at_every_scale_and_have_the_same_arms(name):
    for part in experiment(name).parts:
        full = [arm.name for arm in arms_at(part, LADDER[0])]
        for scale in LADDER[1:]:
            assert [arm.name for arm in arms_at(part, scale)] == full


@pytest.mark.parametrize("name", MEASURED)
def test_every_printed_number_has_an_arm(name):
    one, printed, runs = experiment(name), items()[name].printed, labelled(name)
    reference = one.options.get("reference", {})
    inner = {"zeros": "Layer", "likeness": "Measure"}.get(one.reads)
    for places, cells in zip(printed.places(one.columns), printed.cells, strict=True):
        for place, cell in zip(places, cells, strict=True):
            rest = {axis: label for axis, label in place.items() if axis != inner}
            matched = [run for run in runs if run.has(rest)]
            if cell.is_number and rest != reference:
                assert len(matched) == 1, (place, cell.text)
            assert set(rest) <= set().union(*(run.labels for run in runs))


@pytest.mark.parametrize("name", [name for name in STUDIED if not name.startswith("004.fig10")])
def test_claims_are_about_arms_that_there_are(name):
    """Those of 004 Fig. 10 are about two items together."""
    runs = labelled(name)
    axes = set().union(*(run.labels for run in runs))
    for claim in items()[name].claims:
        for side in claim.more or ():
            wanted = {axis: label for axis, label in side.items() if axis in axes}
            assert any(run.has(wanted) for run in runs), (claim.says, side)
            assert set(side) - axes <= {"quantity", "Measure", "Point", "Side"}, claim.says


@pytest.mark.parametrize("name", OF_TICKETS)
def test_studies_of_tickets_compare_what_the_item_shows(name):
    (part,) = experiment(name).parts
    spec = validate(ArmsSpec, part.content)
    assert spec.run_seeds == (1, 2, 3, 4, 5)
    assert set(spec.likeness.arms) <= {arm.name for arm in arms_of(spec)}
    for scale in LADDER:
        assert shrunk(part.content, scale, papers_sizes)["seeds"] == [1, 2, 3, 4, 5][: max(2, scale.seeds or 5)]
    assert spec.likeness.over == ("sum" if name == "004.table6.resnet50" else "mean")
    if "lenet5" in name or name in ("004.fig5a", "004.fig5b", "004.fig5c"):
        assert spec.base["train"]["epochs"] == 30
        assert spec.arms["pruned"].changes["mask"]["gradual"] == {"start": 3000, "end": 7000, "every": 100}


def test_004_trains_with_its_own_settings():
    part = experiment("004.table1.lenet5").parts[0]
    arms = {arm.name: arm.points[0].spec for arm in arms_of(validate(ArmsSpec, part.content))}
    assert len(arms) == 4 + 9
    assert {spec.train.epochs for spec in arms.values()} == {30}
    assert arms["pruned"].mask.gradual.model_dump() == {"start": 3000, "end": 7000, "every": 100}
    for name in ("Glorot SET ours", "Glorot RigL Liu"):
        assert arms[name].rewire.every == 500
    vgg, resnet = (
        {arm.name: arm.points[0].spec for arm in arms_at(experiment(name).parts[0], LADDER[0])}
        for name in ("004.table1.vgg16", "004.table1.resnet50")
    )
    assert (vgg["sparse SET ours"].rewire.every, vgg["sparse SET ours"].rewire.fraction) == (500, 0.1)
    assert (resnet["sparse SET ours"].rewire.every, resnet["lottery"].mask.inherited.rewind_step) == (100, 5000)


def test_small_dense_networks_stay_below_their_base_at_every_scale():
    for net in ("vgg16", "resnet50"):
        for scale in LADDER:
            arms = {arm.name: arm.points[0].spec for arm in arms_at(experiment(f"004.table1.{net}").parts[0], scale)}
            small, base = arms["small dense"].model.width, arms["baseline"].model.width
            assert 0.25 < small / base < 0.65, scale.name
    for scale in LADDER:
        arms = {arm.name: arm.points[0].spec for arm in arms_at(experiment("004.table1.lenet5").parts[0], scale)}
        assert arms["small dense"].model.widths == (3, 3, 27, 20)
        assert arms["baseline"].model.width == 6


def test_the_stages_of_table_1_are_all_blocks_of_resnet_18():
    stages = experiment("003.table1").options["stages"]
    model = sketch("resnet-18", (3, 32, 32), 100)
    modules = [module for named in stages.values() for module in named]
    assert modules == [f"blocks.{k}" for k in range(len(model.blocks))]
    sizes = []

    def note(module, inputs, output):
        sizes.append(output[0].numel())

    for module in model.modules():
        if isinstance(module, torch.nn.ReLU):
            module.register_forward_hook(note)
    model.eval()
    model(torch.zeros(2, 3, 32, 32, device="meta"))
    assert len(sizes) == 1 + 16
    for k in range(4):  # all activations of a stage weigh the same
        assert len(set(sizes[1 + 4 * k : 5 + 4 * k])) == 1
