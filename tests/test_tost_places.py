"""Where ghosts go in a user's own model, and what is said of the places where they cannot."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparseflow import tost
from sparseflow.core import BadValue
from sparseflow.models import models
from sparseflow.tost import Fade


class Odd(nn.Module):
    """One convolution of every kind that the trace must tell apart."""

    def __init__(self) -> None:
        super().__init__()
        self.dropped, self.dropped_norm = nn.Conv2d(2, 2, 3, padding=1), nn.BatchNorm2d(2)
        self.relu_first, self.late_norm = nn.Conv2d(2, 2, 3, padding=1), nn.BatchNorm2d(2)
        self.functional = nn.Conv2d(2, 2, 3, padding=1)
        self.shared = nn.Conv2d(2, 2, 3, padding=1)
        self.one, self.two, self.both = nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, 3, padding=1), nn.BatchNorm2d(2)
        self.forked, self.fork_norm = nn.Conv2d(2, 2, 3, padding=1), nn.BatchNorm2d(2)
        self.keyword, self.unused, self.wide = (nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, 3), nn.Conv2d(2, 2, 5))
        self.dropout, self.act = nn.Dropout(0.5), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.dropped_norm(self.dropout(self.dropped(x))))
        x = self.late_norm(self.act(self.relu_first(x)))
        x = F.relu(F.batch_norm(self.functional(x), torch.zeros(2), torch.ones(2)))
        x = self.shared(self.shared(x))
        x = self.both(self.one(x)) + self.both(self.two(x))
        forked = self.forked(x)
        x = self.fork_norm(forked) + forked
        return self.keyword(input=x)


def test_a_users_model_is_followed_by_what_it_does():
    x = torch.randn(3, 2, 6, 6)
    model = Odd()
    before = [value.clone() for value in model.state_dict().values()]
    ghosts = tost.ghost_skips_(model, Fade("constant"), x)
    assert ghosts.done == {
        "dropped": "behind dropped_norm",  # dropout hands on the very tensor in evaluation
        "relu_first": "behind the convolution itself",  # a ReLU in place works on it before the norm
        "forked": "behind the convolution itself",
    }
    assert ghosts.left == {
        "functional": "is followed by a normalisation that is called as a function; make it a module",
        "shared": "is called several times in one pass",
        "one": "is followed by both, which is called several times in one pass",
        "two": "is followed by both, which is called several times in one pass",
        "keyword": "takes its input as a keyword",
        "unused": "is not called in evaluation mode",
    }
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), before, strict=True))
    assert model.training
    assert model.dropout.training
    neurons = tost.ghost_neurons_(model, Fade("constant"), example=x)
    assert neurons.done == {"act": "ReLU"}
    assert neurons.left == {"Odd": "calls ReLU as a function, which cannot be replaced; make it an nn.ReLU"}


class LikeReLU(nn.ReLU):
    pass


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.conv(x))


def test_models_without_places_are_refused():
    x = torch.randn(2, 2, 6, 6)
    with pytest.raises(BadValue, match=r"need modules nn.ReLU or nn.ReLU6, and the model has none \(1 is a LikeReLU"):
        tost.ghost_neurons_(nn.Sequential(nn.Linear(3, 3), LikeReLU()), Fade(end=2))
    with pytest.raises(BadValue, match=r"has none$"):
        tost.ghost_neurons_(nn.Linear(3, 3), Fade(end=2))
    with pytest.raises(BadValue, match=r"need 3x3 convolutions .* and the model has none"):
        tost.ghost_skips_(nn.Sequential(nn.Conv2d(2, 2, 5)), Fade(end=2), x)
    with pytest.raises(BadValue, match="no 3x3 convolution can be passed: conv is called several times"):
        tost.ghost_skips_(Twice(), Fade(end=2), x)
    for beta_max in (0.5, float("inf"), float("nan")):
        with pytest.raises(BadValue, match="beta_max must be at least 1 and finite"):
            tost.ghost_neurons_(nn.ReLU(), Fade(end=2), beta_max=beta_max)
    with pytest.raises(BadValue, match="shortcut must be one of pool, conv"):
        tost.ghost_skips_(models["resnet"]((2, 6, 6), 5, depth=8), Fade(end=2), x, shortcut="pad")
    model = models["resnet"]((2, 6, 6), 5, depth=8, width=2)
    tost.ghost_neurons_(model, Fade(end=2))
    tost.ghost_skips_(model, Fade(end=2), x)
    with pytest.raises(BadValue, match=r"has ghost neurons already, at 'activation'"):
        tost.ghost_neurons_(model, Fade(end=2))
    with pytest.raises(BadValue, match=r"has ghost skips already"):
        tost.ghost_skips_(model, Fade(end=2), x)


def test_a_transformers_fused_relu_is_left():
    layer = nn.TransformerEncoderLayer(4, 2, 8, activation=nn.ReLU(), batch_first=True)
    model = nn.Sequential(layer, nn.ReLU())
    ghosts = tost.ghost_neurons_(model, Fade(end=2))
    assert list(ghosts.done) == ["1"]
    assert "fused" in ghosts.left["0.activation"]


def test_unpadded_convolutions_have_no_1x1_of_their_shape():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1))
    ghosts = tost.ghost_skips_(model, Fade("constant"), torch.randn(2, 3, 6, 6), shortcut="conv")
    assert list(ghosts.done) == ["2"]
    assert "padding" in ghosts.left["0"]
