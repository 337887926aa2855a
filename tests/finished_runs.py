"""Finished studies in folders, trained in this process: arms with tickets in small, and a single training."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import torch
from torch.nn import functional as F

from sparseflow.study import (
    ArmsSpec,
    DataCache,
    FactsBook,
    RunSpec,
    Store,
    Surroundings,
    arms_of,
    execute_group,
    facts_of,
    first_runs,
    legacy,
    validate,
    with_predecessors,
)

SEEDS = 2


def base(npz: Path) -> dict:
    return {
        "data": {"name": str(npz)},
        "model": {"depth": 2, "width": 8, "norm": "batch", "activation": "relu"},
        "optimizer": {"lr": 0.05},
        "train": {"epochs": 3, "batch_size": 32},
        "measure": {"points": 0},
    }


def tickets(npz: Path) -> ArmsSpec:
    """A pruned solution, tickets of it (rewound to step 1), scratch on its masks, and random masks."""
    gradual = {"density": 0.2, "gradual": {"start": 2, "end": 8, "every": 2}}
    arms = {
        "pruned": {"mask": gradual},
        "ticket": {"mask": {"inherited": {"run": "pruned", "seed": 0, "weights": "rewound", "rewind_step": 1}}},
        "scratch": {"mask": {"inherited": {"run": "pruned", "seed": 0}}},
        "random": {"mask": {"density": 0.2}},
        "rigl set": {"mask": {"density": 0.2}, "rewire": {"rule": "rigl", "every": 4}},
    }
    return validate(ArmsSpec, {"base": base(npz), "seeds": SEEDS, "arms": arms})


def train_all(runs, folder: Path, study, *, keep: bool = True) -> None:
    """Train the runs and those before them, keep their networks, and enter everything into a store."""
    chain = with_predecessors(runs)
    where = Surroundings(checkpoints=folder / "checkpoints", legacy=legacy(chain), keep=keep)
    folder.mkdir(parents=True)
    store = Store(folder, create=True)
    for spec, result in execute_group(chain, where, DataCache(where)):
        assert result.status == "finished", result.error
        store.start_run(spec)
        store.put_result(spec, result)
    store.put_study(*study)
    store.close()


def make_tickets(folder: Path, npz: Path) -> None:
    spec = tickets(npz)
    runs = first_runs(spec, arms_of(spec))
    book = FactsBook.of(runs, DataCache(Surroundings()))
    train_all(runs, folder, (spec.study_name, "arms", {"spec": spec.changes(), "facts": book.dump()}))


def single(npz: Path, **changes) -> RunSpec:
    return validate(RunSpec, {**base(npz), "mask": {"density": 0.25}, "seed": 5, **changes})


def make_single(folder: Path, npz: Path, *, keep: bool = True, **changes) -> RunSpec:
    spec = single(npz, **changes)
    facts = facts_of(spec, DataCache(Surroundings()))
    study = (f"train-{spec.name}", "train", {"spec": spec.changes(), "facts": asdict(facts)})
    train_all([spec], folder, study, keep=keep)
    return spec


def dense_hessian(net, examples):
    """(loss, gradient, matrix) over the active weights, float64, by torch's own second derivatives."""
    model = net.model.double().eval().requires_grad_(False)
    x, y = (torch.cat(parts) for parts in zip(*net.sample("train", examples), strict=True))
    weights = {name: p.detach() for name, p in model.named_parameters() if p.dim() > 1}
    masks = {name: net.masks.get(name, torch.ones_like(w, dtype=torch.bool)) for name, w in weights.items()}
    start = torch.cat([w[masks[name]] for name, w in weights.items()])

    def loss(theta):
        parts = theta.split([int(m.sum()) for m in masks.values()])
        placed = {n: torch.zeros_like(weights[n]).masked_scatter(m, p) for (n, m), p in zip(masks.items(), parts)}  # noqa: B905
        return F.cross_entropy(torch.func.functional_call(model, placed, (x.double(),)), y)

    functional = torch.autograd.functional
    return float(loss(start)), functional.jacobian(loss, start), functional.hessian(loss, start)
