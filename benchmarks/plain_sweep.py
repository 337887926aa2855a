"""The capacity-matched comparison as a plain PyTorch script: the rival of `sparseflow bench sweep`.

What one would write without this project: a DataLoader over a TensorDataset, one process, one network after the other;
a sparse network is a dense one whose weights are multiplied by a mask after every step; the test accuracy after every
epoch. It trains the networks of `sparseflow compare digits` (240 of them), or of one cell of Fashion-MNIST: in every
cell, for every width and seed, a sparse network of input size + 4 units and its dense twin.

    python plain_sweep.py --study digits --epochs 5
    python plain_sweep.py --study fashion-mnist --data fashion-mnist.npz --epochs 1 --train-limit 6000

It needs torch, and scikit-learn for its digits; other data come as an .npz with x, y, x_test and y_test. It prints one
line of JSON. Give it one thread (OMP_NUM_THREADS=1): networks this small are slower with more.
"""

from __future__ import annotations

import argparse
import json
import time
from itertools import pairwise, product

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

PARTS = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Widths of the dense twins as parts of the sparse network's."""

MOMENTUM = {"name": "momentum", "lr": 0.1}
ADAM = {"name": "adam", "lr": 0.001}
NO, L2 = 0.0, 1e-4

STUDIES = {
    # optimiser, weight decay, batch normalisation
    "digits": {
        "cells": [
            (o, l2, bn) for o in (MOMENTUM, ADAM) for l2, bn in ((NO, False), (L2, False), (NO, True), (L2, True))
        ],
        "epochs": 50,
    },
    "fashion-mnist": {"cells": [({"name": "momentum", "lr": 0.001}, NO, False)], "epochs": 1},
}
BATCH = 128
DEPTH = 4


class Net(nn.Module):
    """Hidden layers of one width without biases, ReLU, batch normalisation if wanted."""

    def __init__(self, inputs: int, width: int, classes: int, batch_norm: bool) -> None:
        super().__init__()
        sizes = [inputs] + [width] * DEPTH
        self.hidden = nn.ModuleList(nn.Linear(i, o, bias=False) for i, o in pairwise(sizes))
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) if batch_norm else nn.Identity() for _ in range(DEPTH))
        self.output = nn.Linear(width, classes, bias=False)

    def forward(self, x):
        for linear, norm in zip(self.hidden, self.norms, strict=True):
            x = F.relu(norm(linear(x)))
        return self.output(x)

    def weights(self):
        return [layer.weight for layer in [*self.hidden, self.output]]


def digits():
    """The digits that scikit-learn ships, 80 % of them to train on."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    x, y = load_digits(return_X_y=True)
    x, x_test, y, y_test = train_test_split(x, y, test_size=0.2, stratify=y, random_state=0)
    return x, y, x_test, y_test


def read(path):
    with np.load(path) as file:
        return file["x"], file["y"], file["x_test"], file["y_test"]


def datasets(arrays, train_limit):
    """TensorDatasets for training and test, normalised per channel (or feature), flat."""
    x, y, x_test, y_test = arrays
    x, y = x[:train_limit].astype("float32"), y[:train_limit]
    # Images (N, C, H, W) have statistics per channel, rows of features one for all.
    axes = (0, 2, 3) if x.ndim == 4 else None
    mean, std = x.mean(axis=axes, keepdims=True), x.std(axis=axes, keepdims=True)

    def ready(x, y):
        flat = ((x - mean) / std).reshape(len(x), -1)
        return TensorDataset(torch.tensor(flat, dtype=torch.float32), torch.tensor(y, dtype=torch.int64))

    return ready(x, y), ready(x_test, y_test)


def networks(inputs, classes, study, seeds):
    """(settings, seed, width, twin width or None) of every network, the members of a pair together."""
    widest = inputs + 4
    for cell, seed, part in product(STUDIES[study]["cells"], range(seeds), PARTS):
        width = int(part * widest + 0.5)
        yield cell, seed, widest, width
        yield cell, seed, width, None


def build(inputs, classes, width, twin, batch_norm, seed):
    """A network and its masks; a sparse one has, layer by layer, as many active weights as its twin has weights."""
    torch.manual_seed(seed)
    model = Net(inputs, width, classes, batch_norm)
    if twin is None:
        fans = [weight.shape[1] for weight in model.weights()]
        masks = []
    else:
        thin = [w.shape for w in Net(inputs, twin, classes, batch_norm).weights()]
        fans = [shape[1] for shape in thin]
        masks = []
        for weight, shape in zip(model.weights(), thin, strict=True):
            mask = torch.zeros(weight.numel())
            mask[torch.randperm(weight.numel())[: shape.numel()]] = 1
            masks.append(mask.view_as(weight))
    for weight, fan in zip(model.weights(), fans, strict=True):
        nn.init.normal_(weight, std=(2 / fan) ** 0.5)
    apply(model, masks)
    return model, masks


def apply(model, masks):
    for weight, mask in zip(model.weights(), masks, strict=False):
        weight.data *= mask


def optimizer_for(model, settings, weight_decay):
    if settings["name"] == "adam":
        return torch.optim.Adam(model.parameters(), lr=settings["lr"], weight_decay=weight_decay)
    return torch.optim.SGD(model.parameters(), lr=settings["lr"], momentum=0.9, weight_decay=weight_decay)


def train(model, masks, optimizer, train_set, test_set, epochs):
    """Train the network; its test accuracy after every epoch."""
    # A last batch of one example has no batch statistics.
    loader = DataLoader(train_set, batch_size=BATCH, shuffle=True, drop_last=len(train_set) % BATCH == 1)
    test_loader = DataLoader(test_set, batch_size=1024)
    accuracies = []
    for _ in range(epochs):
        model.train()
        for x, y in loader:
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
            apply(model, masks)
        accuracies.append(test_accuracy(model, test_loader))
    return accuracies


def test_accuracy(model, loader):
    model.eval()
    right = 0
    with torch.no_grad():
        for x, y in loader:
            right += (model(x).argmax(1) == y).sum().item()
    return right / len(loader.dataset)


def main(words=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", choices=STUDIES, default="digits")
    parser.add_argument("--data", help="an .npz with x, y, x_test and y_test; default: scikit-learn's digits")
    parser.add_argument("--epochs", type=int, help="0 trains nothing: what starting and reading cost")
    parser.add_argument("--train-limit", type=int, help="train on the first so many examples")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args(words)
    if options.data is None and options.study != "digits":
        parser.error(f"--study {options.study} needs --data FILE.npz")
    began = time.perf_counter()
    arrays = digits() if options.data is None else read(options.data)
    train_set, test_set = datasets(arrays, options.train_limit)
    inputs, classes = train_set[0][0].numel(), int(arrays[1].max()) + 1
    epochs = STUDIES[options.study]["epochs"] if options.epochs is None else options.epochs
    runs, active, finals = 0, [], []
    for (settings, weight_decay, batch_norm), seed, width, twin in networks(
        inputs, classes, options.study, options.seeds
    ):
        model, masks = build(inputs, classes, width, twin, batch_norm, seed)
        optimizer = optimizer_for(model, settings, weight_decay)
        finals += train(model, masks, optimizer, train_set, test_set, epochs)[-1:]
        active.append([int(m.sum()) for m in masks] or [w.numel() for w in model.weights()])
        runs += 1
    seconds = time.perf_counter() - began
    result = {
        "runs": runs,
        "run_epochs": runs * epochs,
        "seconds": seconds,
        "run_epochs_per_second": runs * epochs / seconds,
        "train_examples": len(train_set),
        "active": active,
        "mean_test_accuracy": sum(finals) / len(finals) if finals else None,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
