"""What `prune` cannot do is said in one sentence that names the thing and what would have worked."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from small_nets import case
from sparseflow.core import BadValue, SparseflowError, UnknownName, weight_shapes
from sparseflow.masks import balanced, budgets, count, criteria, prune, random_masks, select
from sparseflow.sparse import compact

LAYERS = "0.weight, 2.weight, 4.weight"


def refused(words: str, criterion="magnitude", density=0.5, kind=BadValue, net="perceptron", **settings) -> str:
    """The message of the refusal, one sentence in which the words occur; the model is as before."""
    of = case(net)
    before = copy.deepcopy(of.model.state_dict())
    known = {"batches": of.batches, "loss": of.loss} | settings
    with pytest.raises(kind) as caught:
        prune(of.model, criterion, density, **{k: v for k, v in known.items() if v is not None})
    message = str(caught.value)
    assert words in message
    assert "\n" not in message
    assert len(message) < 300
    assert all(torch.equal(value, before[name]) for name, value in of.model.state_dict().items())
    return message


# Densities ---------------------------------------------------------------------------------------------------------

NUMBERS = [name for name in budgets.names if name != "vector"]


@pytest.mark.parametrize("budget", NUMBERS)
@pytest.mark.parametrize(("density", "said"), [(0, "0"), (0.0, "0"), (-0.1, "-0.1"), (1.5, "1.5"), (torch.nan, "nan")])
def test_a_density_outside_of_0_and_1(budget, density, said):
    refused(f"density must be in (0, 1], got {said}", density=density, budget=budget)


@pytest.mark.parametrize("budget", NUMBERS)
@pytest.mark.parametrize("density", [[0.5, 0.5, 0.5], {"0.weight": 0.5}])
def test_several_densities_for_a_budget_that_takes_one(budget, density):
    message = refused("takes one density", density=density, budget=budget)
    assert "'vector'" in message


def test_a_vector_of_densities_that_does_not_fit():
    refused(f"got 2 densities for 3 layers ({LAYERS})", density=[0.5, 0.5])
    refused(f"got 4 densities for 3 layers ({LAYERS})", density=[0.5] * 4)
    refused("density of 2.weight must be in (0, 1], got 1.5", density=[0.5, 1.5, 0.5])
    refused("density of 4.weight must be in (0, 1], got nan", density=[0.5, 0.5, torch.nan])
    refused("no density for 2.weight", density={"0.weight": 0.5, "4.weight": 0.5})
    message = refused("unknown weight '3.weight'", density={"3.weight": 0.5}, kind=UnknownName)
    assert f"(known: {LAYERS})" in message
    refused("needs one density for each of 3 layers, got the number 0.5", budget="vector")


def test_a_density_that_leaves_a_layer_empty():
    """Of 42, 35 and 15 weights."""
    refused(
        "budget 'uniform' at density 0.03 leaves no weight in 4.weight", density=0.03, budget="uniform", empty="error"
    )
    refused("leaves no weight in 2.weight, 4.weight", density=[0.5, 0.01, 0.01], empty="error")
    message = refused("leaves no weight in", density=0.02, budget="erk", empty="error")
    assert "give a larger density" in message
    refused("1 active weights leave none for", density=0.01, budget="global", empty="error")
    refused("1 active weights are too few for 3 layers", density=0.01, budget="global")
    refused("1 active weights cannot be shared among 3 layers: at least 3 and at most 92", density=0.01, budget="erk")
    refused("4.weight: smart ratios keep 5 of its weights (last = 0.3)", density=0.05, budget="smart-ratios")


def test_dense_layers_that_take_more_than_all():
    refused("dense layers 0.weight have more weights than the 9 to keep", density=0.1, budget="global", dense="0")
    refused("cannot be shared among 2 layers beside 42 in dense ones", density=0.1, budget="erk", dense="0")


# Names and options -------------------------------------------------------------------------------------------------


def test_names_that_no_catalog_has():
    message = refused("unknown criterion 'snipp'", criterion="snipp", kind=UnknownName)
    assert "did you mean 'snip'?" in message
    assert all(name in message for name in criteria.names)
    message = refused("unknown budget 'erq'", budget="erq", kind=UnknownName)
    assert all(name in message for name in budgets.names)


@pytest.mark.parametrize("criterion", criteria.names)
def test_options_that_neither_criterion_nor_budget_has(criterion):
    message = refused("has no option 'temprature'", criterion=criterion, budget="erk", temprature=3.0)
    assert "with budget 'erk'" in message
    assert criterion in message
    if criterion == "grasp":
        assert "(they have: halves, temperature)" in message


def test_settings_with_no_such_value():
    refused("mode must be train or eval, got 'trian'", mode="trian")
    for budget in ("global", "uniform"):
        refused("empty must be one, error or allow, got 'none'", budget=budget, empty="none")
    refused("rounds must be at least 1, got 0", rounds=0)
    refused("samples per class must be at least 1, got 0", criterion="snip", samples_per_class=0)
    refused("temperature must be positive, got 0", criterion="grasp", temperature=0.0)
    refused("temperature must be positive, got nan", criterion="grasp", temperature=torch.nan)
    refused("dtype must be float64 or float32, got 'float16'", criterion="synflow", dtype="float16", rounds=1)
    refused("last must be in (0, 1], got 0", budget="smart-ratios", last=0.0)
    with pytest.raises(BadValue, match="empty must be one, error or allow, got 'none'"):
        count("uniform", {"w": torch.Size((3, 3))}, 0.5, empty="none")
    with pytest.raises(BadValue, match="empty must be one, error or allow, got 'none'"):
        select({"w": torch.rand(3, 3)}, 3, 0, empty="none")


# Examples and losses -----------------------------------------------------------------------------------------------

SCORED_ON_EXAMPLES = [entry.name for entry in criteria if entry.facts["needs_batches"]]


@pytest.mark.parametrize("criterion", SCORED_ON_EXAMPLES)
def test_examples_or_a_loss_that_are_missing(criterion):
    refused("give batches=[(inputs, targets), ...]", criterion=criterion, batches=None)
    refused("give loss=", criterion=criterion, loss=None)


@pytest.mark.parametrize("criterion", SCORED_ON_EXAMPLES)
@pytest.mark.parametrize("empty", [[], iter([])])
def test_no_examples_at_all(criterion, empty):
    refused("no batches were given", criterion=criterion, batches=empty, kind=SparseflowError)


def test_synflow_without_a_shape():
    refused("synflow needs the shape of an input; give input_shape=", criterion="synflow", batches=None)
    refused("synflow needs the shape of an input; give input_shape=", criterion="synflow", batches=[])
    refused("synflow needs the shape of an input; give input_shape=", criterion="synflow", batches=iter([]))


def test_too_few_examples_of_a_class():
    """5, 3 and 3 of the three classes."""
    refused("fewer than 4 examples of some classes (class 1: 3, class 2: 3)", criterion="snip", samples_per_class=4)
    refused("(class 0: 5, class 1: 3, class 2: 3)", criterion="snip", samples_per_class=9)
    refused("no batches were given to take examples of every class from", "snip", samples_per_class=1, batches=[])
    refused("samples_per_class takes them from batches; give batches=", samples_per_class=1, batches=None)
    with pytest.raises(BadValue, match=r"needs class numbers as targets, got torch.float32 of shape \(3,\)"):
        balanced([(torch.rand(3, 2), torch.rand(3))], 1)
    with pytest.raises(BadValue, match=r"got torch.int64 of shape \(3, 2\)"):
        balanced([(torch.rand(3, 2), torch.zeros(3, 2, dtype=torch.int64))], 1)


@pytest.mark.parametrize("criterion", SCORED_ON_EXAMPLES)
def test_a_loss_that_is_no_scalar(criterion):
    refused("the loss must return a scalar tensor", criterion, loss=lambda out, y: out, kind=SparseflowError)


# Scores ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("criterion", SCORED_ON_EXAMPLES)
def test_scores_that_are_nan_name_the_layer(criterion):
    message = refused("the scores of 0.weight are NaN", criterion, loss=lambda out, y: out.sum() * torch.nan)
    assert "look at the weights, the loss and the scoring batches" in message


def test_a_weight_that_is_nan():
    of = case("perceptron")
    with torch.no_grad():
        of.model[2].weight[1, 1] = torch.nan
    with pytest.raises(BadValue, match=r"^the scores of 2\.weight are NaN"):
        prune(of.model, "magnitude", 0.5)
    with pytest.raises(BadValue, match=r"^the weights of 2\.weight are NaN$"):
        prune(of.model, "synflow", 0.5, input_shape=(6,))


def test_criteria_of_ones_own_that_are_wrong():
    def short(at):
        return {name: w[:1] for name, w in at.weights.items()}

    def one_missing(at):
        return {name: w for name, w in at.weights.items() if name != "2.weight"}

    def nan(at):
        return {name: w * torch.nan if name == "4.weight" else w for name, w in at.weights.items()}

    refused("scores of 0.weight have shape (1, 6), its weight (7, 6)", criterion=short)
    refused("the criterion returned no score for 2.weight", criterion=one_missing)
    refused("the scores of 4.weight are NaN", criterion=nan)
    message = refused("has no option 'power'", criterion=nan, power=2)
    assert message.startswith("nan with budget 'global'")


# Weights -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["only", "exclude", "dense"])
def test_a_selector_that_matches_nothing(which):
    refused(f"{which}: 'conv*' matches no weight (there are: {LAYERS})", **{which: "conv*"})
    refused(f"{which}: 'conv*' matches no weight", **{which: ["0", "conv*"]})
    refused(f"{which}: Conv2d matches no weight", **{which: nn.Conv2d})
    refused(f"{which}: never matches no weight", **{which: never})
    refused(f"{which}: '0.bias' matches no weight", **{which: "0.bias"})


def never(name: str, parameter: nn.Parameter) -> bool:
    """A predicate that holds for nothing."""
    return False


def test_no_weight_left():
    refused("the model has no weight to prune", exclude="*")
    with pytest.raises(BadValue, match="the model has no weight to prune"):
        prune(nn.BatchNorm1d(3), "magnitude", 0.5)


def test_compact_layers():
    of = case("perceptron")
    shapes = weight_shapes(of.model)
    compact(of.model, random_masks({"2.weight": shapes["2.weight"]}, {"2.weight": 9}, 0))
    with pytest.raises(BadValue, match=r"^2\.weight is compact: its mask is fixed; prune before compact\(\)"):
        prune(of.model, "magnitude", 0.5)
