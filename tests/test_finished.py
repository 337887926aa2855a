"""Finished runs by name, and their networks again."""

from __future__ import annotations

import shutil

import pytest
import torch

from finished_runs import make_single, single, tickets
from sparseflow.core import BadData, BadStore, BadValue, SparseflowError, UnknownName
from sparseflow.measure import answers
from sparseflow.study import (
    DataCache,
    Store,
    Surroundings,
    arms_of,
    build,
    find_group,
    find_groups,
    reload,
)
from sparseflow.study.run import source_for
from sparseflow.train import checkpoint


def arm(npz, name, seed):
    study = tickets(npz)
    return next(a for a in arms_of(study) if a.name == name).points[0].at(seed)


def accuracy_of(net):
    logits, targets = answers(net.model, net.sample("test"))
    return float((logits.argmax(1) == targets).double().mean())


def test_every_form_names_the_run_that_it_says(finished, small_npz):
    folder = finished / "tickets"
    wanted = arm(small_npz, "ticket", 1)
    for words in ("ticket@1", wanted.name, wanted.name[:9]):
        (run,) = find_group(f"{folder}:{words}").runs
        assert (run.spec, run.at, run.folder) == (wanted, "final", folder)
    assert find_group(f"{folder}:ticket@1").runs[0].label == "ticket@1"
    seeds = find_group(f"{folder}:rigl set")
    assert seeds.label == "rigl set"
    assert [run.spec for run in seeds.runs] == [arm(small_npz, "rigl set", seed) for seed in (0, 1)]
    assert [run.label for run in find_group(f"{folder}:ticket#start").runs] == ["ticket@0#start", "ticket@1#start"]
    (one,) = find_group(f"{finished / 'single'}#7").runs
    assert (one.spec, one.at, one.label) == (single(small_npz), 7, "single#7")
    assert one.moved("final").label == "single"


def test_a_folder_with_a_colon_in_its_name(finished, tmp_path):
    shutil.copytree(finished / "tickets", tmp_path / "a:b")
    assert find_group(f"{tmp_path / 'a:b'}:ticket@0").runs[0].label == "ticket@0"


def test_labels_that_two_folders_share_say_the_folders(finished, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(finished / "tickets", copy)
    one, other, third = find_groups([f"{finished / 'tickets'}:ticket@0", f"{copy}:ticket@0", f"{copy}:ticket@1"])
    assert [g.runs[0].label for g in (one, other, third)] == [
        f"{finished / 'tickets'}:ticket@0",
        f"{copy}:ticket@0",
        "ticket@1",
    ]


def test_what_cannot_be_named_is_said(finished, tmp_path):
    folder = finished / "tickets"
    for words, kind, said in (
        (f"{tmp_path / 'no'}:x", BadStore, "no such folder"),
        (str(tmp_path), BadStore, "no results.db here"),
        (str(folder), BadValue, "holds 10 runs; name one of them.*arms: pruned, ticket.*seeds: 0, 1"),
        (f"{folder}:tickets@0", UnknownName, "known: .*ticket.*did you mean 'ticket'"),
        (f"{folder}:ticket@7", UnknownName, "seed of ticket '7'.*known: 0, 1"),
        (f"{folder}:ffffffffffff", UnknownName, "unknown run of"),
        (f"{folder}:ticket@0#end", BadValue, "behind # stands start, final or a number"),
    ):
        with pytest.raises(kind, match=said):
            find_group(words)
    with pytest.raises(BadValue, match="ticket@0 is named twice"):
        find_groups([f"{folder}:ticket", f"{folder}:ticket@0"])


def test_a_prefix_of_two_runs_and_a_run_that_did_not_finish(small_npz, tmp_path):
    folder = tmp_path / "o"
    spec = make_single(folder, small_npz)
    store = Store(folder)
    other = next(s for s in (single(small_npz, seed=k) for k in range(6, 200)) if s.name[0] == spec.name[0])
    store.start_run(other)
    store.close()
    with pytest.raises(BadValue, match="2 runs begin with"):
        find_group(f"{folder}:{spec.name[0]}")
    with pytest.raises(SparseflowError, match="has the status 'running'"):
        find_group(f"{folder}:{other.name}")


def test_the_final_network_is_the_one_that_was_tested(finished, small_npz):
    cache = DataCache(Surroundings())
    for words in ("tickets:pruned@1", "tickets:ticket@0", "tickets:rigl set@0", "single"):
        (run,) = find_group(f"{finished}/{words}").runs
        net = reload(run, cache)
        assert accuracy_of(net) == run.accuracy
        assert net.density == pytest.approx(0.25 if words == "single" else 0.2, abs=2e-3)
        assert net.active == sum(int((net.model.get_parameter(name) != 0).sum()) for name in net.masks)
        assert not net.model.training


def test_the_start_is_what_the_run_began_with(finished, small_npz):
    cache = DataCache(Surroundings())
    folder = finished / "tickets"
    early = checkpoint.load(folder / "checkpoints" / f"{arm(small_npz, 'pruned', 0).name}.step1.pt")
    final = checkpoint.load(folder / "checkpoints" / f"{arm(small_npz, 'pruned', 0).name}.final.pt")
    (run,) = find_group(f"{folder}:ticket@1#start").runs
    net = reload(run, cache)
    for name, value in net.model.state_dict().items():
        wanted = early["state_dict"][name]
        assert torch.equal(value, wanted * final["masks"][name] if name in final["masks"] else wanted), name
    (run,) = find_group(f"{finished / 'single'}#start").runs
    net = reload(run, cache)
    spec = single(small_npz)
    data = cache.prepared(spec)
    drawn = build(spec, data.input_shape, data.classes, source=source_for(spec, data, Surroundings()))
    for name, value in drawn.model.state_dict().items():
        assert torch.equal(value * drawn.masks.get(name, 1), net.model.state_dict()[name]), name
    assert all(torch.equal(drawn.masks[n], m) for n, m in net.masks.items())
    assert len(net.masks) == len(drawn.masks) == 3


def test_networks_that_were_not_kept_or_belong_to_other_data(small_npz, tmp_path):
    spec = make_single(tmp_path / "o", small_npz, keep=False)
    cache = DataCache(Surroundings())
    (run,) = find_group(str(tmp_path / "o")).runs
    with pytest.raises(SparseflowError, match=r"the network was not kept.*--keep-weights"):
        reload(run, cache)
    reload(run.moved("start"), cache)
    checkpoint.save(tmp_path / "o" / "checkpoints" / f"{spec.name}.final.pt", {"masks": {}, "state_dict": {}})
    with pytest.raises(SparseflowError, match="the weights of that step were not kept"):
        reload(run.moved(3), cache)
    (tmp_path / "o" / "checkpoints" / f"{spec.name}.final.pt").write_bytes(b"PK")
    with pytest.raises(BadStore, match="is damaged"):
        reload(run, cache)
    with pytest.raises(BadData, match="was trained on other data"):
        reload(type(run)(run.label, run.folder, run.spec, run.at, "0" * 16, None), cache)


def test_masks_that_change_are_those_of_the_end_alone(finished):
    cache = DataCache(Surroundings())
    (run,) = find_group(f"{finished / 'tickets'}:pruned@0#1").runs
    with pytest.raises(SparseflowError, match="the masks of this run change"):
        reload(run, cache)
    (start,) = find_group(f"{finished / 'tickets'}:pruned@0#start").runs
    assert reload(start, cache).density == 1.0


def test_ghosts_that_stay_are_refused(small_npz, tmp_path):
    make_single(tmp_path / "o", small_npz, mask={}, tost={"neurons": True, "until": "never", "shape": "constant"})
    (run,) = find_group(str(tmp_path / "o")).runs
    with pytest.raises(SparseflowError, match="keeps its ghosts"):
        reload(run, DataCache(Surroundings()))


def test_a_sample_is_that_of_the_probes_and_stratified(finished):
    cache = DataCache(Surroundings())
    (run,) = find_group(str(finished / "single")).runs
    net = reload(run, cache)
    batches = net.sample("train", 83, batch_size=20)
    assert [len(y) for _, y in batches] == [17, 17, 17, 16, 16]
    x, _ = net.data.probe(83)
    key = lambda t: sorted(t.flatten(1).sum(1).tolist())  # noqa: E731
    assert key(torch.cat([a for a, _ in batches])) == pytest.approx(key(net.data.normalise(x)))
    assert torch.bincount(torch.cat([y for _, y in batches])).tolist() in ([21, 21, 21, 20], [20, 21, 21, 21])
    assert sum(len(y) for _, y in net.sample("test", 1000)) == 80
