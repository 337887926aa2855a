"""Studies of named arms: what a specification makes, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from sparseflow.core import BadSpec
from sparseflow.study import (
    ArmsSpec,
    RunSpec,
    arms_of,
    assign,
    first_runs,
    predecessor,
    read_preset,
    references,
    validate,
    winners,
)

BASE = {"data": {"val_fraction": 0.1}, "model": {"depth": 2}}


def study(arms: dict, **fields) -> ArmsSpec:
    return validate(ArmsSpec, {"base": BASE, "arms": arms, **fields})


def problems(arms: dict, **fields) -> list[str]:
    with pytest.raises(BadSpec) as caught:
        arms_of(study(arms, **fields))
    return caught.value.problems


def test_an_arm_is_the_base_with_its_changes():
    dense, sparse = arms_of(study({"dense": None, "sparse": {"mask": {"density": 0.2}, "model": {"width": 40}}}))
    assert dense.points[0].spec == validate(RunSpec, BASE)
    wanted = {**BASE, "model": {"depth": 2, "width": 40}, "mask": {"density": 0.2}, "seed": 3}
    assert sparse.points[0].at(3) == validate(RunSpec, wanted)
    assert sparse.points[0].at(3).name == validate(RunSpec, wanted).name


def test_a_null_takes_back_what_the_base_says():
    (arm,) = arms_of(
        validate(
            ArmsSpec,
            {
                "base": {"optimizer": {"name": "momentum", "momentum": 0.5}},
                "arms": {"adam": {"optimizer": {"name": "adam", "momentum": None}}},
            },
        )
    )
    assert arm.points[0].spec.changes() == {"optimizer": {"name": "adam"}}


def test_a_cross_makes_every_combination_the_last_axis_fastest():
    arms = arms_of(
        study(
            {
                "r": {
                    "mask": {"density": 0.5},
                    "cross": {
                        "how": {"plain": {}, "BN": {"model": {"norm": "batch"}}},
                        "train.batch_size": [32, 64],
                    },
                }
            }
        )
    )
    assert [arm.name for arm in arms] == ["r plain 32", "r plain 64", "r BN 32", "r BN 64"]
    last = arms[-1].points[0].spec
    assert (last.model.norm, last.train.batch_size, last.mask.density, last.model.depth) == ("batch", 64, 0.5, 2)
    assert [arm.place for arm in arms[:2]] == [("r", "plain", "32"), ("r", "plain", "64")]


def test_a_grid_makes_points_that_share_an_arm():
    (arm,) = arms_of(study({"a": {"grid": {"optimizer.lr": [0.1, 1e-3], "model.norm": ["none", "batch"]}}}))
    assert [point.label for point in arm.points] == [
        "lr 0.1, norm none", "lr 0.1, norm batch", "lr 0.001, norm none", "lr 0.001, norm batch",
    ]  # fmt: skip
    assert [point.spec.optimizer.lr for point in arm.points] == [0.1, 0.1, 1e-3, 1e-3]


def test_runs_of_grids_come_first_and_no_run_twice():
    spec = study({"a": {}, "b": {"grid": {"optimizer.lr": [0.1, 0.001]}}}, seeds=[7, 5], grid_seeds=2)
    arms = arms_of(spec)
    runs = first_runs(spec, arms)
    assert [(run.optimizer.lr, run.seed) for run in runs] == [
        (0.1, 1000), (0.001, 1000), (0.1, 1001), (0.001, 1001), (0.001, 7), (0.001, 5),
    ]  # fmt: skip
    assert len({run.name for run in runs}) == len(runs)
    assert winners(spec, arms, lambda run: None).count == 2
    plain = study({"a": {}})
    assert winners(plain, arms_of(plain), lambda run: None) is None


def test_more_seeds_leave_the_choice_alone():
    few, many = (study({"b": {"grid": {"optimizer.lr": [0.1, 0.001]}}}, seeds=n) for n in (3, 30))
    assert few.choice_seeds == many.choice_seeds
    assert not set(many.run_seeds) & set(many.choice_seeds)


def test_every_mistake_at_once_with_the_place_that_made_it():
    found = problems(
        {
            "a": {"optimzer": {"lr": 1}, "model": {"widht": 3}},
            "b": {"gird": {}, "mask": {"density": 2}},
            "c": {"cross": {"mask.density": [0.1, 1.5], "train.epochs": [1]}},
            "d": {"grid": {"optimizer.lrr": [1, 2]}},
            "e": {"seed": 4},
            "f": {"mask": {"matching": "active-neurons"}},
        }
    )
    text = "\n".join(found)
    for expected in (
        "arms.a.optimzer: no such field (known: cross, data, grid,", "did you mean 'optimizer'?",
        "arms.a.model.widht: no such field", "did you mean 'width'?",
        "arms.b.gird: no such field", "did you mean 'grid'?",
        "arms.b.mask.density: density must be in (0, 1], got 2",
        "arms.c.cross.mask.density: density must be in (0, 1], got 1.5",
        "arms.d.grid.optimizer.lrr: no such field",
        "arms.e.seed: leave it out; `seeds` names the seeds of all arms",
        "arms.f: mask.matching needs mask.twin_width",
    ):  # fmt: skip
        assert expected in text, text
    assert len(set(found)) == len(found)


def test_a_mistake_of_the_base_is_said_once():
    with pytest.raises(BadSpec) as caught:
        arms_of(validate(ArmsSpec, {"base": {"train": {"epoch": 3}}, "arms": {"a": {}, "b": {"model": {"depth": 2}}}}))
    (problem,) = caught.value.problems
    assert problem.startswith("base.train.epoch: no such field")


def test_a_mistake_belongs_to_the_last_that_sets_its_field():
    with pytest.raises(BadSpec) as caught:
        arms_of(validate(ArmsSpec, {"base": {"mask": {"density": 0.5}}, "arms": {"a": {"mask": {"density": 2}}}}))
    assert caught.value.problems == ["arms.a.mask.density: density must be in (0, 1], got 2"]


def test_a_grid_without_a_validation_split_is_refused():
    arms = {"a": {"data": {"val_fraction": 0}, "grid": {"optimizer.lr": [0.1, 0.2]}}}
    (problem,) = problems(arms)
    assert problem.startswith("arms.a.grid: a choice needs a validation split: set data.val_fraction")
    assert arms_of(study(arms, score="test"))


def test_names_and_runs_that_are_there_twice_are_refused():
    (same,) = problems({"a": {}, "b": {"model": {"width": None}}})
    assert same == "arms: a and b are the same runs; leave one out"
    (name,) = problems({"a": {"cross": {"train.epochs": [1, 2]}}, "a 1": {"train": {"epochs": 3}}})
    assert name == "arms: a 1 and a both make an arm called 'a 1'"
    (twice,) = problems({"a": {"grid": {"x": {"one": {}, "other": {"train": {}}}}}})
    assert "two of its points are the same run" in twice
    (both,) = problems({"a": {"cross": {"train.epochs": [1, 2]}, "grid": {"x": {"e": {"train": {"epochs": 3}}}}}})
    assert both == "arms.a: two axes set train.epochs"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"seeds": 0}, "seeds: write how many (3), or a list of whole numbers"),
        ({"seeds": True}, "seeds: write how many"),
        ({"seeds": [1, 1]}, "seeds: names a seed twice"),
        ({"seeds": 501}, "seeds: at most 500"),
        ({"arms": {}}, "arms: needs at least one arm"),
        ({"arms": [1]}, "arms: write a mapping from names to changes"),
        (
            {"arms": {"a": {"cross": {"mask.density": 0.1}}}},
            "write a list of values, or a mapping from labels",
        ),
        ({"arms": {"a": {"cross": {"mask.density": []}}}}, "needs at least one entry"),
        ({"arms": {"a": {"cross": {"mask.density": [0.1, 0.1]}}}}, "names an entry twice"),
        ({"arms": {"a": {"cross": {"x": {"label": 3}}}}}, "'label' is not"),
        ({"arms": {"a": {"cross": {"optimizer": [{"name": "sgd"}]}}}}, "need labels"),
        ({"score": "train"}, "score: Input should be 'val' or 'test'"),
        ({"train": {"epochs": 3}}, "train: no such field (known: arms, base,"),
        (
            {"seeds": [1000], "arms": {"a": {"grid": {"optimizer.lr": [0.1, 1]}}}},
            "seeds and grid_seeds share 1000: a winner is run on other seeds than it was chosen on",
        ),
    ],
)
def test_what_no_study_is(fields, expected):
    with pytest.raises(BadSpec) as caught:
        validate(ArmsSpec, {"base": BASE, "arms": {"a": {}}, **fields})
    assert expected in str(caught.value)


CROSS = {
    "dense": {},
    "random": {"cross": {"mask.density": [0.2, 0.1]}},
    "BN": {"model": {"norm": "batch"}, "cross": {"init.scheme": ["he", "glorot"], "mask.density": [0.2, 0.1]}},
}


CROSS_ARMS = ("random 0.2", "random 0.1")
BN_ARMS = ("BN he 0.2", "BN he 0.1", "BN glorot 0.2", "BN glorot 0.1")


@pytest.mark.parametrize(
    ("versus", "expected"),
    [
        ("dense", dict.fromkeys([*CROSS_ARMS, *BN_ARMS], "dense")),
        ("he", {"BN glorot 0.2": "BN he 0.2", "BN glorot 0.1": "BN he 0.1"}),
        (0.2, {"random 0.1": "random 0.2", "BN he 0.1": "BN he 0.2", "BN glorot 0.1": "BN glorot 0.2"}),
    ],
)  # fmt: skip
def test_versus_names_an_arm_or_a_level(versus, expected):
    spec = study(CROSS, versus=versus)
    assert {name: arm.name for name, arm in references(spec, arms_of(spec)).items()} == expected


def test_versus_names_an_entry():
    spec = study({"r": {"cross": {"mask.density": [0.2, 0.1]}}, "b": {**CROSS["BN"], "cross": {"mask.density": [0.1]}}})
    spec = spec.model_copy(update={"versus": "r"})
    assert {name: arm.name for name, arm in references(spec, arms_of(spec)).items()} == {"b 0.1": "r 0.1"}


def test_an_unknown_reference_lists_what_would_have_worked():
    (problem,) = problems(CROSS, versus="densee")
    assert problem.startswith("versus: unknown arm, entry or level 'densee' (known: 0.1, 0.2, BN, BN glorot 0.1,")
    assert "did you mean 'dense'?" in problem


def test_set_reaches_base_and_arms_with_dots_in_their_names():
    content = {"base": {"train": {"epochs": 3}}, "arms": {"r-0.05": {"mask": {"density": 0.05}}, "adam": None}}
    changed = assign(
        content,
        ["base.train.epochs=5", "arms.r-0.05.mask.density=0.1", "arms.adam.optimizer.name=adam", "seeds=[4, 5]"],
    )
    assert changed == {
        "base": {"train": {"epochs": 5}},
        "arms": {"r-0.05": {"mask": {"density": 0.1}}, "adam": {"optimizer": {"name": "adam"}}},
        "seeds": [4, 5],
    }
    grid = {"arms": {"a": {"grid": {"optimizer.lr": [1, 2]}}}}
    assert assign(grid, ["arms.a.grid.optimizer.lr=[3]"]) == {"arms": {"a": {"grid": {"optimizer.lr": [3]}}}}


def test_the_documentation_shows_what_works():
    text = (Path(__file__).parent.parent / "docs" / "arms.md").read_text(encoding="utf-8")
    whole, axes, linked, compared = (
        yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    )
    content = assign(whole, ["base.train.epochs=5", "arms.adam.optimizer.beta1=0.8"])
    arms = arms_of(validate(ArmsSpec, content))
    assert [arm.name for arm in arms] == ["dense", "random 0.2", "random 0.05", "adam"]
    assert arms[-1].points[0].spec.optimizer.beta1 == 0.8
    spec = study({"random": axes}, versus="none")
    found = {name: arm.name for name, arm in references(spec, arms_of(spec)).items()}
    assert found["random BN 0.05"] == "random none 0.05"
    pruned, *heirs = arms_of(study(linked["arms"]))
    assert len(heirs) == 3
    assert all(predecessor(arm.points[0].spec) == pruned.points[0].spec for arm in heirs)
    assert len(arms_of(study(**compared))) == 5


def test_what_the_store_keeps_makes_the_same_study():
    for content in ({"base": BASE, "arms": CROSS, "versus": "he"}, read_preset("arms-digits")):
        spec = validate(ArmsSpec, content)
        again = validate(ArmsSpec, spec.changes())
        assert again.study_name == spec.study_name
        assert arms_of(again) == arms_of(spec)
