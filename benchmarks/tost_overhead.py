"""What the tweaks of ToST cost a training step, against the plain sparse step, as ratios within one run.

    python tost_overhead.py                             # ResNet-20, images of 32 x 32, batches of 128, density 0.05
    python tost_overhead.py --depth 8 --batch 64 --execution compact

Steps are taken in turn, each variant on its own copy of the network with the same mask and the same images, in
processor time, so that other work on the machine and a speed that drifts change the ratios little. "removed" is a
network whose ghosts are gone. A rescaling is no part of a step: it is given as the plain steps that one of its
iterations costs. Give it one thread (OMP_NUM_THREADS=1). It prints a table, and with --json one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from statistics import median

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparseflow import Sparse, compact, init, tost
from sparseflow.bench.timing import thread_limit
from sparseflow.core import stream, weight_shapes
from sparseflow.init import draw_active_
from sparseflow.masks import count, random_masks
from sparseflow.models import materialise, models
from sparseflow.tost import Fade
from sparseflow.train import smoothed

VARIANTS = ("plain", "plain again", "neurons", "skips", "neurons and skips", "smoothing", "removed")
ITERATIONS = 4  # of rescaling, timed together


def network(options: argparse.Namespace) -> tuple[nn.Module, dict[str, Tensor]]:
    """A residual network with random masks; those that are left to keep, where layers are compact."""
    with torch.device("meta"):
        outline = models["resnet"]((3, options.size, options.size), 10, depth=options.depth)
    model = materialise(outline)
    shapes = weight_shapes(model)
    masks = random_masks(shapes, count("uniform", shapes, options.density), seed=0)
    draw_active_(model, masks, seed=0)
    if options.execution == "compact":
        done = compact(model, masks)
        model, masks = done[0], {name: mask for name, mask in masks.items() if name in done[2]}
    return model, masks


def images(options: argparse.Namespace) -> tuple[Tensor, Tensor]:
    draw = stream(0, "bench", "images")
    x = torch.randn(options.batch, 3, options.size, options.size, generator=draw)
    return x, torch.arange(options.batch) % 10


def stepper(variant: str, options: argparse.Namespace) -> Callable[[], None]:
    """One training step of a variant."""
    model, masks = network(options)
    x, y = images(options)
    fade = Fade("linear", 10**9, alpha=0.5)
    ghosts: list[tost.Ghosts] = []
    if variant in ("neurons", "neurons and skips", "removed"):
        ghosts.append(tost.ghost_neurons_(model, fade))
    if variant in ("skips", "neurons and skips", "removed"):
        ghosts.append(tost.ghost_skips_(model, fade, x[:2]))
    if variant == "removed":
        for one in ghosts:
            one.finish()
        ghosts = []
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    Sparse(model, masks, optimizer)
    loss = smoothed(0.1) if variant == "smoothing" else F.cross_entropy
    model.train()

    def step() -> None:
        optimizer.zero_grad()
        loss(model(x), y).backward()
        optimizer.step()
        for one in ghosts:
            one.step()

    return step


def rescaling(options: argparse.Namespace) -> Callable[[], None]:
    """`ITERATIONS` iterations of the learned rescaling."""
    x, y = images(options)

    def rescale() -> None:
        model, masks = network(options)
        init.rescale_(model, masks, F.cross_entropy, [(x, y)] * 2, lr=0.1, iterations=ITERATIONS)

    return rescale


def processor_seconds(call: Callable[[], None]) -> float:
    began = time.process_time()
    call()
    return time.process_time() - began


def measure(options: argparse.Namespace) -> dict[str, list[float]]:
    """Variant -> processor seconds of a step in every round."""
    found: dict[str, list[float]] = {name: [] for name in VARIANTS}
    with thread_limit(1):
        steps = {name: stepper(name, options) for name in VARIANTS}
        for step in steps.values():
            step()
        for number in range(options.rounds):
            for name, step in list(steps.items())[:: -1 if number % 2 else 1]:
                found[name].append(processor_seconds(step))
        found["an iteration of rescaling"] = [
            processor_seconds(rescaling(options)) / ITERATIONS for _ in range(max(2, options.rounds // 5))
        ]
    return found


def table(found: dict[str, list[float]]) -> list[str]:
    plain = found["plain"]
    lines = [f"{'':<28}{'median ms':>10}{'min ms':>9}  ratio of medians, minima x plain"]
    for name, seconds in found.items():
        ratios = f"{median(seconds) / median(plain):.3f}, {min(seconds) / min(plain):.3f}"
        lines.append(f"{name:<28}{1e3 * median(seconds):>10.1f}{1e3 * min(seconds):>9.1f}  {ratios}")
    return lines


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depth", type=int, default=20)
    parser.add_argument("--size", type=int, default=32, help="of the images")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--density", type=float, default=0.05)
    parser.add_argument("--execution", choices=("masked", "compact"), default="masked")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(words)
    found = measure(options)
    print("\n".join(table(found)))
    if options.json:
        print(json.dumps({"options": vars(options), "processor_seconds": found}))


if __name__ == "__main__":
    main()
