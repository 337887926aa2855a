"""The experiments of convolutional networks and of searches: the papers' at full scale, whole at every smaller one."""

from __future__ import annotations

import pytest

from sparseflow.reproduce.experiment import experiment
from sparseflow.reproduce.items import item_named
from sparseflow.reproduce.readers import readers
from sparseflow.reproduce.scale import LADDER
from sparseflow.reproduce.shrink import papers_sizes, shrunk
from sparseflow.search import SearchSpec, searches
from sparseflow.study import ArmsSpec, CompareSpec, DataFacts, arms_of, cells, validate

WRN = ["000.fig3", "000.fig14", "001.fig3.5", "001.figA.19"]
PRUNED = ["001.fig3.6a", "001.fig3.6b"]
MLP = ["001.table4.2", "001.tableB.1a", "001.tableB.1b", "001.fig4.4a", "001.fig4.4b", "001.fig4.5"]
CNN = ["001.table4.3", "001.table4.4", "001.tableB.2"]
ITEMS = [*WRN, *PRUNED, "001.figA.18", *MLP, *CNN]
STEPS = 391  # of 50,000 images in batches of 128


def made(content):
    """What a specification of any kind asks for, validated to the last run."""
    kind = content.get("kind", "pairs")
    if kind == "pairs":
        facts = DataFacts(content["data"]["name"], (3, 32, 32), 100, 50_000, 10_000, "")
        return cells(validate(CompareSpec, content), facts)
    if kind == "arms":
        return arms_of(validate(ArmsSpec, content))
    found = searches(validate(SearchSpec, content))
    for _, one in found:
        one.trial((0.5,), 1) if one.uniform else one.plain()
    return found


@pytest.mark.parametrize("scale", LADDER, ids=lambda scale: scale.name)
@pytest.mark.parametrize("item", ITEMS)
def test_every_scale_of_it_is_a_study(item, scale):
    for part in experiment(item).parts:
        small, whole = made(shrunk(part.content, scale, papers_sizes)), made(part.content)
        assert len(small) == len(whole)
        assert (small == whole) == scale.full


@pytest.mark.parametrize("item", ITEMS)
def test_what_it_reads_and_shows_exists(item):
    found, printed = experiment(item), item_named(item).printed
    assert bool(found.shows) == (printed is None)
    if printed is not None:
        assert found.reads in readers.names
        assert all(len(heading) == len(found.columns) for heading in printed.columns)


def arms(item):
    (part,) = experiment(item).parts
    return {arm.name: arm.points[0].spec for arm in arms_of(validate(ArmsSpec, part.content))}


@pytest.mark.parametrize("item", [*WRN, *PRUNED])
def test_wide_networks_are_trained_as_in_their_paper(item):
    """001 sec. 3.3.4: 200 epochs, 0.1 times 0.2 at 60, 120 and 160, weight decay 0.0005, momentum 0.9."""
    for name, run in arms(item).items():
        assert (run.model.name, run.model.depth, run.model.width) == ("wide-resnet", 28, 160)
        assert (run.data.name, run.train.epochs, run.train.batch_size) == ("cifar-100", 200, 128)
        schedule = run.optimizer.schedule
        assert (schedule.name, schedule.milestones, schedule.gamma) == ("step", (60.0, 120.0, 160.0), 0.2)
        assert run.optimizer.lr == 0.1
        assert run.optimizer.weight_decay == (0.0005 if "L2" in name else 0.0)
        assert run.model.skip == ("SC" in name)
        assert run.data.augment == ("DA" in name)
        assert run.model.norm == "batch"
        assert run.model.activation == name.split()[0].lower().replace("pruned", "relu")
        assert name.endswith(str(run.mask.density))


def test_the_report_has_the_swish_networks_of_adamw_and_the_conference_has_not():
    own = [name for name, run in arms("001.fig3.5").items() if run.optimizer.name == "adamw"]
    assert own == [f"Swish AdamW DA_L2_SC_BN {density}" for density in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)]
    assert set(arms("001.fig3.5")) - set(arms("000.fig3")) == set(own)


@pytest.mark.parametrize("item", [*WRN, *PRUNED])
def test_every_arm_has_a_name_in_the_paper(item):
    found = experiment(item)
    for arm in arms_of(validate(ArmsSpec, found.parts[0].content)):
        calls = found.calls.get(arm.name, found.calls.get(arm.entry))
        assert {*calls, *calls["axes"].values()} - {"axes"} == {"Activation", "Optimizer", "Variant", "Density"}
        assert set(calls["axes"]) == set(arm.levels)


@pytest.mark.parametrize("scale", LADDER, ids=lambda scale: scale.name)
def test_pruning_is_one_moment_at_half_time_at_every_scale(scale):
    content = shrunk(experiment("001.fig3.6a").parts[0].content, scale, papers_sizes)
    for arm in arms_of(validate(ArmsSpec, content)):
        run = arm.points[0].spec
        examples = min(run.data.train_limit or 50_000, 50_000)
        total = run.train.epochs * -(-examples // run.train.batch_size)
        pruning = run.mask.gradual.schedule()
        assert pruning.start == pruning.end
        assert abs(pruning.end - total / 2) <= 1 + 0.01 * total
        if scale.full:
            assert pruning.end == 100 * STEPS == total // 2


@pytest.mark.parametrize(("item", "count"), [("001.tableB.1a", 20), ("001.tableB.2", 16), ("001.table4.4", 4)])
def test_searches_score_as_the_paper_did(item, count):
    for part in experiment(item).parts:
        found = searches(validate(SearchSpec, part.content))
        assert len(found) == count
        for _, one in found:
            run = one.plain()
            assert (one.score, run.data.val_fraction) == ("test", 0.0)
            assert part.labels["Dataset"].lower() == run.data.name
            assert one.samples == (50 if item.startswith("001.tableB.1") else 25)
            assert not one.rivals


def test_adam_and_adamw_have_one_strength_of_decay():
    (part,) = experiment("001.figA.18").parts
    table = made(part.content)
    assert {(cell.optimizer, cell.variant) for cell in table} == {
        (name, variant) for name in ("Adam", "AdamW") for variant in ("L2_BN", "DA_L2_SC_BN")
    }
    for cell in table:
        for pair in cell.pairs:
            for _, run in pair.members():
                assert (run.optimizer.lr, run.optimizer.weight_decay, run.model.depth) == (0.1, 1e-4, 4)
