"""`sparseflow search`: its options are fields of the specification; a winner is carried to another depth."""

from __future__ import annotations

import pytest
import yaml

from sparseflow.cli.searching import preset_of, settings
from sparseflow.core import BadSpec, BadStore
from sparseflow.search import Found, SearchSpec, stored, to_depth
from sparseflow.study import Store, assign, read_preset, validate
from test_search_study import BASE, carry_out


@pytest.fixture
def study_file(small_npz, tmp_path):
    """A specification of a search over three layers."""
    path = tmp_path / "mine.yaml"
    base = {**BASE, "data": {"name": str(small_npz), "val_fraction": 0.25}}
    path.write_text(yaml.safe_dump({"kind": "search", "base": base, "samples": 2, "seeds": 1, "sampler": "random"}))
    return str(path)


def read(file: str, sets: list[str]) -> SearchSpec:
    return validate(SearchSpec, assign(read_preset(file), sets))


def test_options_are_fields_and_sets_lie_over_them(study_file):
    given = {"sampler.name": "bayes", "max_density": 0.3, "halving.form": "promoting", "seed": None}
    spec = read(
        study_file, settings(study_file, given, ["max_density=0.2", "sampler={name: bayes, kappa: 1}"], None, None)
    )
    assert (spec.sampler.name, spec.sampler.options) == ("bayes", {"kappa": 1})
    assert (spec.max_density, spec.seed) == (0.2, 0)
    assert spec.halving.form == "promoting"


def test_a_winner_is_carried_to_another_depth_and_tried_first(study_file, tmp_path):
    out = tmp_path / "first"
    carry_out(read(study_file, []), out)
    store = Store(out)
    found = Found.of(stored(store.studies()[0][2])[0], store, store.results())
    store.close()
    sets = settings(study_file, {}, ["base.model.depth=4"], out, None)
    spec = read(study_file, sets)
    assert spec.transfer.vector == to_depth(found.winner.vector, 5)
    assert spec.transfer.source == str(out)
    carry_out(spec, tmp_path / "second")
    store = Store(tmp_path / "second")
    trials = store.trials(spec.study_name)
    store.close()
    assert (trials[0].point, trials[0].origin) == (spec.transfer.vector, "transferred")
    assert trials[1].origin == "random"


def test_mistakes_are_one_message(study_file, tmp_path):
    with pytest.raises(BadSpec, match="arms-digits is a study of kind 'arms'; use `sparseflow compare arms-digits`"):
        settings("arms-digits", {}, [], None, None)
    with pytest.raises(BadStore, match=r"no results\.db here"):
        settings(study_file, {}, [], tmp_path, None)
    with pytest.raises(BadSpec, match="different numbers of layers"):
        settings(study_file, {}, ["cross={base.model.depth: [1, 2]}"], tmp_path, None)
    assert preset_of("digits") == "search-digits"
    assert preset_of("mine.yaml") == "mine.yaml"
