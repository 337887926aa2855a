"""Whether learned rescaling gives a sparse network a better first step (003 sec. 2.3): the loss of a held batch.

    python rescaled_start.py --data-root DATA                    # ResNet-20 on CIFAR-10, density 0.1, one mask
    python rescaled_start.py --depth 8 --seeds 10 --iterations 60

For each random mask and start, the loss of a batch that was never shown, before training and after one step of SGD at
the training's rate, from the start as drawn and from the rescaled one. It prints a row per seed, with --json one line
of JSON.
"""

from __future__ import annotations

import argparse
import copy
import json

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparseflow import init
from sparseflow.core import stream, weight_shapes
from sparseflow.data import load, prepare
from sparseflow.init import draw_active_
from sparseflow.masks import count, random_masks
from sparseflow.models import materialise, models

Batch = tuple[Tensor, Tensor]


def start(options: argparse.Namespace, seed: int) -> tuple[nn.Module, dict[str, Tensor]]:
    """A residual network with a random mask, drawn as a training would draw it."""
    with torch.device("meta"):
        outline = models["resnet"]((3, 32, 32), 10, depth=options.depth)
    model = materialise(outline)
    shapes = weight_shapes(model)
    masks = random_masks(shapes, count("uniform", shapes, options.density), seed=seed)
    draw_active_(model, masks, seed=seed)
    with torch.no_grad():
        for name, mask in masks.items():
            model.get_parameter(name).masked_fill_(~mask, 0.0)
    return model, masks


def held_loss(model: nn.Module, held: Batch) -> float:
    """In training mode, with batch norm's statistics of the batch itself: none have been gathered yet."""
    model.train()
    with torch.no_grad():
        return float(F.cross_entropy(model(held[0]), held[1]))


def step(model: nn.Module, masks: dict[str, Tensor], batch: Batch, lr: float) -> None:
    """One real step of SGD on the active weights."""
    model.train()
    model.zero_grad()
    F.cross_entropy(model(batch[0]), batch[1]).backward()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                slope = parameter.grad if name not in masks else parameter.grad.masked_fill(~masks[name], 0.0)
                parameter.sub_(lr * slope)


def compared(options: argparse.Namespace, seed: int, batches: list[Batch], held: Batch) -> dict[str, float]:
    """Losses of the held batch: at the start and after one step, plain and rescaled."""
    plain, masks = start(options, seed)
    rescaled = copy.deepcopy(plain)
    init.rescale_(rescaled, masks, F.cross_entropy, batches, lr=options.lr, iterations=options.iterations, seed=seed)
    found = {"plain, start": held_loss(plain, held), "rescaled, start": held_loss(rescaled, held)}
    for name, model in (("plain", plain), ("rescaled", rescaled)):
        step(model, masks, batches[0], options.lr)
        found[f"{name}, after a step"] = held_loss(model, held)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depth", type=int, default=20)
    parser.add_argument("--density", type=float, default=0.1)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--iterations", type=int, default=180)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--data-root")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    data = prepare(load("cifar-10", options.data_root))
    order = torch.randperm(len(data.train), generator=stream(0, "rescaled-start"))
    drawn = [data.batch(data.train, part) for part in order[: 9 * options.batch].split(options.batch)]
    *batches, held = drawn
    rows = []
    for seed in range(options.seeds):
        rows.append({"seed": seed, **compared(options, seed, batches, held)})
        if not options.json:
            print("  ".join(f"{name} {value:.4g}" for name, value in rows[-1].items()), flush=True)
    better = sum(row["rescaled, after a step"] < row["plain, after a step"] for row in rows)
    print(json.dumps(rows) if options.json else f"rescaling is ahead after a step in {better} of {len(rows)}")


if __name__ == "__main__":
    main()
