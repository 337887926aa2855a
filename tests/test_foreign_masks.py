"""Masks of torch.nn.utils.prune and of zeros."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils import prune as torch_prune

from sparseflow.core import BadData, BadValue, check_masks, weight_shapes
from sparseflow.masks import from_torch_prune, from_zeros, imported, random_masks, read_state, uniform


def net():
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 5))


@pytest.fixture
def pruned():
    model = net()
    torch_prune.l1_unstructured(model[0], "weight", amount=0.5)
    torch_prune.random_unstructured(model[4], "weight", amount=30)
    return model


def same(found, wanted):
    return found.keys() == wanted.keys() and all(torch.equal(found[name], mask) for name, mask in wanted.items())


def test_of_torch_prune(pruned, tmp_path):
    wanted = {"0.weight": pruned[0].weight_mask.bool(), "4.weight": pruned[4].weight_mask.bool()}
    assert int(wanted["4.weight"].sum()) == 50
    for source in (pruned, pruned.state_dict()):
        assert same(from_torch_prune(source), wanted)
        assert same(imported(source), wanted)
    check_masks(net(), from_torch_prune(pruned))
    torch.save({"epoch": 3, "state_dict": pruned.state_dict()}, tmp_path / "c.pt")
    assert same(imported(tmp_path / "c.pt"), wanted)
    save_file(pruned.state_dict(), tmp_path / "c.safetensors")
    assert same(imported(str(tmp_path / "c.safetensors")), wanted)
    before = {name: pruned.get_submodule(name.split(".")[0]).weight.detach().clone() for name in wanted}
    for module in (pruned[0], pruned[4]):
        torch_prune.remove(module, "weight")
    assert all(torch.equal(pruned.get_parameter(name), before[name]) for name in wanted)
    assert same(from_zeros(pruned), wanted)  # no weight is 0 by chance


def test_of_zeros(tmp_path):
    model = net()
    masks = random_masks(weight_shapes(model), uniform({"4.weight": torch.Size((5, 16))}, 0.3), 0)
    with torch.no_grad():
        model[4].weight.mul_(masks["4.weight"])
        model[4].bias.zero_()
    for source in (model, model.state_dict()):
        assert same(from_zeros(source), masks)
        assert same(imported(source), masks)
    torch.save(model.state_dict(), tmp_path / "m.pth")
    assert same(imported(tmp_path / "m.pth"), masks)
    model[4].weight.data.zero_()
    assert not from_zeros(model)["4.weight"].any()


class Compiled(nn.Module):
    """The names of torch.compile without its import, which takes seconds."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._orig_mod = model


def test_names_lose_what_wrappers_put_before_them():
    model = net()
    model[4].weight.data[0] = 0
    wanted = {"4.weight": model[4].weight != 0}
    compiled = Compiled(model)
    for wrapped in (compiled, nn.DataParallel(model), nn.DataParallel(compiled)):
        assert same(from_zeros(wrapped), wanted)
        assert same(from_zeros(wrapped.state_dict()), wanted)

    class Owner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = model

    assert list(from_zeros(Owner())) == ["module.4.weight"]  # its own name


def test_what_is_not_sparse_or_not_a_weight():
    with pytest.raises(BadValue, match="no weight has a zero"):
        from_zeros(net())
    with pytest.raises(BadValue, match=r"nothing here is pruned by torch.nn.utils.prune"):
        from_torch_prune(net())
    model = net()
    torch_prune.l1_unstructured(model[4], "bias", amount=2)
    with pytest.raises(BadValue, match=r"4.bias_mask masks a parameter of one dimension"):
        imported(model)
    halves = {"w_orig": torch.ones(2, 2), "w_mask": torch.full((2, 2), 0.5)}
    with pytest.raises(BadValue, match="w_mask has values other than 0 and 1"):
        from_torch_prune(halves)
    assert list(from_zeros({"w": torch.eye(2), "table": torch.eye(2, dtype=torch.long), "b": torch.zeros(3)})) == ["w"]


def test_bad_files_are_said(tmp_path):
    with pytest.raises(BadData, match="no file"):
        read_state(tmp_path / "none.pt")
    torch.save(net(), tmp_path / "model.pt")
    with pytest.raises(BadData, match=r"holds other objects than tensors; save model.state_dict\(\) instead"):
        read_state(tmp_path / "model.pt")
    torch.save({"epoch": 3}, tmp_path / "no.pt")
    with pytest.raises(BadData, match="holds no state_dict"):
        read_state(tmp_path / "no.pt")
    torch.save(net().state_dict(), tmp_path / "cut.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "cut.pt").read_bytes()[:-300])
    with pytest.raises(BadData, match=r"no state_dict of torch.save, or damaged"):
        read_state(tmp_path / "cut.pt")
    for content in (b"", b"some text"):
        (tmp_path / "other.pt").write_bytes(content)
        with pytest.raises(BadData, match=r"other.pt: no state_dict"):
            read_state(tmp_path / "other.pt")
