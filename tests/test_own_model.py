"""A network in a file outside of the package trains wherever one of the catalog does, and its mistakes are clear."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest
import torch

from sparseflow.cli import main
from sparseflow.cli.networks import rebuilt
from sparseflow.core import BadSpec, BadStore, BadValue, SparseflowError, state_digest
from sparseflow.masks import load, prune
from sparseflow.models import make_imported
from sparseflow.report import write_report
from sparseflow.search import Found, Search, SearchSpec, quests, stored
from sparseflow.study import (
    ArmsSpec,
    CompareSpec,
    DataCache,
    FactsBook,
    Planned,
    Pool,
    RunSpec,
    Store,
    Surroundings,
    arms_of,
    cells,
    drive,
    execute,
    facts_of,
    find_group,
    first_runs,
    reload,
    runs_of,
    validate,
)
from sparseflow.study.build import active_per_layer
from watchers import InProcess, Quiet

NETS = '''
"""Nets of one's own: what they do at import and when they are made is what people do there."""
import torch
from torch import nn
from .parts import Block, SCALE

class Net(nn.Module):
    def __init__(self, input_shape, classes, *, width=9, activation="relu", hidden=(7,), gain=1.0, name="n"):
        super().__init__()
        sizes = [input_shape[0] * input_shape[1] * input_shape[2], width, *hidden]
        self.blocks = nn.Sequential(*(Block(i, o, activation) for i, o in zip(sizes, sizes[1:])))
        self.head = nn.Linear(sizes[-1], classes)
        self.gain = nn.Parameter(torch.full((1,), float(gain)))  # of no torch layer, without reset_parameters
        self.register_buffer("ramp", torch.arange(classes) * SCALE)

    def forward(self, x):
        return self.gain * self.head(self.blocks(x.flatten(1))) + self.ramp

class Fixed(nn.Module):
    """Takes nothing; of the shape that its data have."""
    def __init__(self):
        super().__init__()
        self.c, self.f = nn.Conv2d(3, 5, 3), nn.LazyLinear(4)
    def forward(self, x):
        return self.f(torch.relu(self.c(x)).flatten(1))

class Weightless(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(classes))
    def forward(self, x):
        return x.flatten(1)[:, :len(self.bias)] + self.bias

def seven(input_shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(108, 7))

def number(): return 3
def needs(depth_of_it, classes): return None
def breaks(): raise RuntimeError("no such\\n shape")
def pair(): return Pair()
class Pair(nn.Module):
    def forward(self, x): return x, x
ready = nn.Linear(3, 3)
values = [1, 2]
'''
PARTS = """
from torch import nn
SCALE = 0.5
class Block(nn.Module):
    def __init__(self, i, o, activation):
        super().__init__()
        self.linear, self.act = nn.Linear(i, o), {"relu": nn.ReLU, "sigmoid": nn.Sigmoid}[activation]()
    def forward(self, x): return self.act(self.linear(x))
"""
NET = "my_package.my_nets:Net"


@pytest.fixture
def nets(tmp_path, monkeypatch):
    """A package in the current folder, as nobody has imported it yet."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "my_package"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "my_nets.py").write_text(NETS)
    (folder / "parts.py").write_text(PARTS)
    before = set(sys.modules)
    yield folder
    forget(before)


def forget(before=()):
    """As in a new process."""
    for name in [
        n for n in sys.modules if n.partition(".")[0].partition("_")[0] in ("my", "alone") and n not in before
    ]:
        del sys.modules[name]


@pytest.fixture
def own(nets, small):
    def make(name=NET, model=None, **sections):
        changes = small().changes()
        content = {"data": changes["data"], "optimizer": changes["optimizer"], "train": changes["train"]}
        content |= {"mask": {"density": 0.3}, "measure": {"points": 3}, **sections}
        return validate(RunSpec, {**content, "model": {"name": name, **(model or {})}})

    return make


@pytest.fixture
def sparseflow(monkeypatch, capsys):
    def call(*words, code=0) -> str:
        monkeypatch.setattr(sys, "argv", ["sparseflow", *map(str, words)])
        ended = 0
        try:
            main()
        except SystemExit as end:
            ended = end.code or 0
        said = capsys.readouterr()
        assert ended == code, said
        return said.err if code else said.out

    return call


def test_it_trains_masked_and_compact_alike(own, cache):
    ended = {}
    for execution in ("masked", "compact"):
        spec = own(
            mask={"density": 0.3, "execution": execution},
            optimizer={"name": "adam", "lr": 0.02},
            train={"epochs": 8, "batch_size": 32, "dtype": "float64"},
        )
        rows = []
        result = ended[execution] = execute(spec, Surroundings(), cache, rows.extend)
        assert result.status == "finished"
        assert result.active == active_per_layer(spec, (3, 6, 6), 4)
        assert sum(result.active.values()) == pytest.approx(0.3 * (108 * 9 + 9 * 7 + 7 * 4), abs=2)
        assert not result.stacked
        assert {row[2] for row in rows} >= {"egf_1", "test_accuracy"}
        assert "code of my_package.my_nets:Net" in result.fingerprint
        assert set(result.execution.values()) == {execution}
    assert ended["compact"].final["test_loss"] == pytest.approx(ended["masked"].final["test_loss"], rel=1e-6)
    assert ended["masked"].final["test_accuracy"] > 0.6


def test_values_that_are_no_weights_are_the_codes_own_and_follow_from_the_seed(own, nets):
    one, again, other = (make_imported(NET, {"gain": 2.0}, seed=s, input_shape=(3, 6, 6), classes=4) for s in (0, 0, 1))
    assert one.gain.item() == 2.0
    assert one.ramp.tolist() == [0.0, 0.5, 1.0, 1.5]
    assert state_digest(one.state_dict()) == state_digest(again.state_dict()) != state_digest(other.state_dict())


def test_making_one_draws_nothing_from_the_global_generator(own, cache):
    before = torch.get_rng_state()
    execute(own(), Surroundings(), cache)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "model",
    [{"width": 5}, {"activation": "sigmoid"}, {"options": {"hidden": [4, 3]}}, {"options": {"gain": 0.5}}],
    ids=str,
)
def test_every_option_makes_another_run_and_another_network(own, cache, model):
    one, other = own(), own(model=model)
    assert one.name != other.name
    assert execute(one, Surroundings(), cache).digest != execute(other, Surroundings(), cache).digest
    assert validate(RunSpec, other.changes()) == other == RunSpec.model_validate_json(other.model_dump_json())


def test_names_of_runs(own):
    assert own().changes()["model"] == {"name": NET}
    assert own(model={"options": {}}) == own()
    assert own(model={"options": {"hidden": (4, 3)}}) == own(model={"options": {"hidden": [4, 3]}})
    assert "my_package.my_nets" not in sys.modules, "a specification is read without its code"


def test_a_file_is_loaded_once_and_finds_what_lies_beside_it(own, nets, cache):
    (nets / "alone_nets.py").write_text(NETS.replace("from .parts", "from my_other_parts"))
    (nets / "my_other_parts.py").write_text(PARTS)
    paths = ["./my_package/alone_nets.py", str(nets / "alone_nets.py")]
    one, other = (make_imported(f"{p}:Net", {}, seed=0, input_shape=(3, 6, 6), classes=4) for p in paths)
    assert type(one) is type(other)
    assert sys.modules[type(one).__module__].Net is type(one)
    assert str(nets) not in sys.path
    spec = own(f"{paths[0]}:Net")
    assert execute(spec, Surroundings(), cache).digest == execute(own(), Surroundings(), cache).digest


def test_one_that_takes_nothing_and_has_lazy_layers(own, cache):
    spec = own("my_package.my_nets:Fixed")
    assert list(active_per_layer(spec, (3, 6, 6), 4)) == ["c.weight", "f.weight"]
    assert execute(spec, Surroundings(), cache).status == "finished"


MISTAKES = {
    "no_such.module:Net": "cannot import 'no_such.module': no module 'no_such'",
    "my_package.nets:Net": "cannot import 'my_package.nets': no module 'my_package.nets'",
    "my_package.needing:Net": r"cannot import 'my_package.needing': ModuleNotFoundError: No module named 'not_there'",
    "my_package.broken:Net": r"SyntaxError: .*broken.py, line 1",
    "./my_package/absent.py:Net": "no file .*absent.py; paths are relative to the current folder",
    "my_package.my_nets:Nett": r"no function or class 'Nett' \(it has: .*Net, .*\); did you mean 'Net'",
    "my_package.my_nets:values": "must be a class or a function that makes a network, got list",
    "my_package.my_nets:ready": "is a network, which runs would share",
    "my_package.my_nets:number": "must return a torch.nn.Module, got int",
    "my_package.my_nets:needs": "needs depth_of_it: give a default, or .* model.options.depth_of_it",
    "my_package.my_nets:breaks": r"cannot be made: RuntimeError: no such shape \(my_nets.py, line \d+\)",
    "my_package.my_nets:seven": r"wrong output shape .*: got \(2, 7\), expected \(2, 4\)",
    "my_package.my_nets:pair": "must return a tensor of logits .*, got tuple",
    "my_package.my_nets:Weightless": "has no layer that can be masked",
}


@pytest.mark.parametrize(("name", "words"), MISTAKES.items(), ids=list(MISTAKES))
def test_a_mistake_is_said_before_the_first_run(name, words, own, nets, tmp_path):
    (nets / "needing.py").write_text("import not_there\n")
    (nets / "broken.py").write_text("def (:\n")
    with pytest.raises((BadSpec, BadValue), match=words):
        carry_out(Planned([own(name)]), [own(name)], tmp_path / "out", InProcess(spoil=never))


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (
            {"options": {"widht": 3}},
            r"has no option 'widht' \(it has: width, activation, hidden, gain, name\); did you",
        ),
        ({"depth": 3}, "has no option 'depth'"),
        ({"options": {"gain": "loud"}}, r"cannot be made: ValueError: .*'loud' \(my_nets.py, line"),
        ({"activation": "swish"}, "cannot be made: KeyError: 'swish'"),
    ],
)
def test_options_are_those_of_the_signature(model, words, own, tmp_path):
    with pytest.raises((BadSpec, BadValue), match=words):
        carry_out(Planned([own(model=model)]), [own(model=model)], tmp_path / "out", InProcess(spoil=never))


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({"name": NET, "options": {"width": 3}}, "options.width: is a field of every model; write model.width"),
        ({"name": NET, "options": {"classes": 3}}, "options.classes: follows from the data"),
        ({"name": NET, "options": {"gain": float("nan")}}, "takes numbers, words"),
        ({"name": NET, "options": 3}, "model.options: write .* mapping"),
        ({"name": "mlp", "options": {"width": 3}}, "'mlp' has fields .depth, width"),
        ({"name": "my nets:Net"}, "names no network; write package.module:Net, or a file"),
        ({"name": "nets:"}, "names no network"),
        ({"name": "net"}, "or your own as package.module:Net"),
    ],
)
def test_what_a_specification_says_by_itself(model, words):
    with pytest.raises(BadSpec, match=words):
        validate(RunSpec, {"model": model})


def never(event):
    raise AssertionError("no run may begin")


def carry_out(programme, runs, out, executor, study=("own", "train", {}), facts=None):
    cache = DataCache(Surroundings())
    facts = facts or FactsBook.of(runs, cache)
    where = Surroundings(checkpoints=out / "checkpoints", keep=True)
    return drive(programme, out, where, executor, Quiet(), study=study, facts=facts)


def arms_study(own):
    content = own().changes()
    model = content.pop("model")
    cross = {"cross": {"model.name": ["mlp", model["name"]], "model.width": [6, 8]}}
    spec = validate(ArmsSpec, {"base": content, "seeds": 1, "arms": {"net": cross}})
    runs = first_runs(spec, arms_of(spec))
    book = FactsBook.of(runs, DataCache(Surroundings()))
    return runs, (spec.study_name, "arms", {"spec": spec.changes(), "facts": book.dump()}), book


def test_the_name_of_the_model_is_an_axis_of_arms(own, tmp_path):
    runs, study, book = arms_study(own)
    tally = carry_out(Planned(runs), runs, tmp_path / "out", InProcess(), study, book)
    assert (tally.executed, tally.failed) == (4, {})
    again = carry_out(Planned(runs), runs, tmp_path / "out", InProcess(spoil=never), study, book)
    assert again.executed == 0


@pytest.mark.slow
def test_workers_find_it_too_and_end_with_the_same_bits(own, tmp_path, cache):
    runs, study, book = arms_study(own)
    tally = carry_out(Planned(runs), runs, tmp_path / "out", Pool(2), study, book)
    assert (tally.executed, tally.failed) == (4, {})
    store = Store(tmp_path / "out")
    write_report(store, tmp_path / "out")
    found = {name: r["digest"] for name, r in store.results().items()}
    store.close()
    assert found == {run.name: execute(run, Surroundings(), cache).digest for run in runs}
    assert f"net {NET} 8" in (tmp_path / "out" / "report.html").read_text()


def test_pairs_of_equal_capacity(own):
    content = {**own().changes(), "compare": {"dense_widths": [0.5], "seeds": 1, "variants": ["SGD"]}}
    content.pop("mask")
    content["compare"] = {"dense_widths": [0.5], "seeds": 1}

    class Data:
        input_size = 108

    with pytest.raises(BadSpec, match=r"set model\.width"):
        validate(CompareSpec, content)
    content["model"] = {"name": NET, "width": 8}
    table = cells(validate(CompareSpec, content), Data())
    (pair,) = table[0].pairs
    assert pair.dense.model.width == 4
    assert pair.sparse.model.activation is None
    assert active_per_layer(pair.sparse, (3, 6, 6), 4) == active_per_layer(pair.dense, (3, 6, 6), 4)
    assert len(list(runs_of(table))) == 2 * len(table)


def test_a_search_over_its_layers(own, tmp_path):
    base = own(train={"epochs": 1, "batch_size": 32}).changes()
    base.pop("mask")
    base["data"]["val_fraction"] = 0.25
    hidden = {"base.model.options.hidden": {"one": {"base": {"model": {"options": {"hidden": [5]}}}}}}
    spec = validate(SearchSpec, {"base": base, "samples": 2, "seeds": 1, "cross": hidden})
    cache = DataCache(Surroundings())
    every = quests(spec, lambda run: facts_of(run, cache))
    assert list(every[0].space.sizes.values()) == [108 * 9, 9 * 5, 5 * 4]
    programme = Search(every)
    book = FactsBook.of(programme.expected(), cache)
    content = {"spec": spec.changes(), "facts": book.dump(), "spaces": [quest.dump() for quest in every]}
    study = (spec.study_name, "search", content)
    tally = carry_out(programme, [], tmp_path / "out", InProcess(), study, book)
    assert not tally.failed
    store = Store(tmp_path / "out")
    (found,) = [Found.of(quest, store, store.results()) for quest in stored(content)]
    store.close()
    assert [t.status for t in found.trials] == ["finished"] * 2
    wrong = validate(
        SearchSpec, {**spec.changes(), "base": {**base, "model": {"name": "my_package.my_nets:seven"}}, "cross": {}}
    )
    with pytest.raises(BadValue, match=r"got \(2, 7\), expected \(2, 4\)"):
        quests(wrong, lambda run: facts_of(run, cache))


CHANGED = {
    "another width": ("sizes = [", "width += 1; sizes = ["),
    "a layer more": ("*hidden]", "*hidden, 4]"),
    "a parameter less": ("self.gain = nn.Parameter(", "self.gain = ("),
}


@pytest.mark.parametrize(
    "mask", [{}, {"density": 0.3, "execution": "masked"}, {"density": 0.3, "execution": "compact"}]
)
@pytest.mark.parametrize("change", CHANGED)
def test_a_checkpoint_of_code_that_has_changed_is_not_gone_on_from(change, mask, own, nets, cache, tmp_path):
    spec, where = own(mask=mask), Surroundings(checkpoints=tmp_path / "checkpoints", keep=True)
    assert execute(spec, where, cache, should_stop=lambda: True).status == "stopped"
    before = where.resume_path(spec.name).read_bytes()
    (nets / "my_nets.py").write_text(NETS.replace(*CHANGED[change]))
    forget()
    with pytest.raises(BadStore, match="is of another network than the model's code makes now"):
        execute(spec, where, cache)
    assert where.resume_path(spec.name).read_bytes() == before
    (nets / "my_nets.py").write_text(NETS)
    forget()
    cut, whole = execute(spec, where, cache), execute(spec, Surroundings(), cache)
    assert (cut.digest, cut.resumed_at) == (whole.digest, 1)


def test_a_run_whose_code_changed_but_fits_says_so(own, nets, cache, tmp_path):
    spec, where = own(), Surroundings(checkpoints=tmp_path / "checkpoints")
    first = execute(spec, where, cache, should_stop=lambda: True)
    (nets / "my_nets.py").write_text(NETS + "# a word\n")
    forget()
    ended = execute(spec, where, cache)
    assert ended.mixed
    assert ended.fingerprint != first.fingerprint


def test_what_a_finished_run_kept_is_read_again(own, nets, cache, tmp_path):
    spec = own(mask={"criterion": "snip", "density": 0.3, "execution": "compact"})
    study = ("own", "train", {"spec": spec.changes()})
    tally = carry_out(Planned([spec]), [spec], tmp_path / "out", InProcess(), study)
    assert not tally.failed
    (run,) = find_group(str(tmp_path / "out")).runs
    net, start = reload(run, cache), reload(replace(run, at="start"), cache)
    store = Store(tmp_path / "out")
    kept = store.results()[spec.name]
    store.close()
    x, y = net.sample("test", 80, 80)[0]
    assert (net.model(x).argmax(1) == y).float().mean().item() == pytest.approx(kept["final"]["test_accuracy"])
    assert {n: int(m.sum()) for n, m in net.masks.items()} == kept["active"]
    assert all(torch.equal(net.masks[name], mask) for name, mask in start.masks.items())
    (nets / "my_nets.py").write_text(NETS.replace(*CHANGED["another width"]))
    forget()
    with pytest.raises(BadStore, match="the kept network is of another network than"):
        reload(run, cache)


def test_a_mask_file_of_it_is_trained(own, sparseflow, cache, small_npz, tmp_path):
    words = ("--data", small_npz, "-c", "magnitude", "-d", "0.25", "--seed", "5", "-o", "m.safetensors")
    sparseflow("prune", NET, *words, "--set", "model.width=5", "--set", "model.options.hidden=[4]")
    masks, made = load("m.safetensors")
    assert made.recipe["options"] == {"width": 5, "hidden": [4]}
    model = make_imported(NET, {"width": 5, "hidden": [4]}, seed=5, input_shape=(3, 6, 6), classes=4)
    assert all(torch.equal(masks[name], mask) for name, mask in prune(model, "magnitude", 0.25).items())
    told = {"width": 5, "options": {"hidden": [4]}}
    spec = own(model=told, mask={"file": "m.safetensors"})
    assert execute(spec, Surroundings(), cache).active == {name: int(mask.sum()) for name, mask in masks.items()}
    with pytest.raises(SparseflowError, match="masks of another model"):
        execute(own(mask={"file": "m.safetensors"}), Surroundings(), cache)


def test_a_mask_file_that_names_code_does_not_run_it(own):
    with pytest.raises(BadValue, match=r"names code, .*my_nets:Net, which is not run unasked"):
        rebuilt({"spec": own().changes(), "input_shape": [3, 6, 6], "classes": 4})
    assert "my_package.my_nets" not in sys.modules


@pytest.mark.slow
def test_the_command_line_trains_it(own, sparseflow, small_npz):
    words = ("train", small_npz, "--set", "train.epochs=1", "--set", "mask.density=0.5", "-o", "out")
    said = sparseflow(*words, "--set", "model.name=./my_package/my_nets.py:seven", code=2)
    assert "attempted relative import" in said  # a file is not a part of its package
    assert "got (2, 7)" in sparseflow(*words, "--set", "model.name=my_package.my_nets:seven", code=2)
    assert "active weights" in sparseflow(*words, "--set", f"model.name={NET}", "--set", "model.options.gain=2")
