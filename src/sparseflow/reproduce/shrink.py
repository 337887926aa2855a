"""The rules by which a scale changes the specification of a study."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any

from sparseflow.models import models
from sparseflow.reproduce.scale import STAND_INS, Scale
from sparseflow.study import RunSpec

Sizes = Callable[[str], tuple[int, int, int]]
"""Data set -> (training examples, test examples, values of an input)."""

_PAPERS: Mapping[str, tuple[int, int, int]] = {
    "digits": (1_438, 359, 64),
    "mnist": (60_000, 10_000, 784),
    "fashion-mnist": (60_000, 10_000, 784),
    "cifar-10": (50_000, 10_000, 3_072),
    "cifar-100": (50_000, 10_000, 3_072),
    "tiny-imagenet": (100_000, 10_000, 12_288),
    "imagenet": (1_281_167, 50_000, 150_528),
}

_PLAIN = RunSpec()

_AS_THEY_ARE = ("lenet-5", "lenet-300-100")
"""Networks that are small already: at 004's densities narrower ones would have hardly a weight to a unit."""


def papers_sizes(name: str) -> tuple[int, int, int]:
    """The sizes of the whole data sets."""
    return _PAPERS[name]


def shrunk(content: Mapping[str, Any], scale: Scale, sizes: Sizes, data: str | None = None) -> dict[str, Any]:
    """The specification of a study at a scale; unchanged at the full one.

    Args:
        content: of any kind of study, as a file of it is written.
        sizes: of the data at hand; there may be less than the paper had.
        data: train on these instead.
    """
    base = content if content.get("kind", "pairs") == "pairs" else content.get("base", {})
    rules = _Rules(scale, sizes, base, data)
    made = rules.study(content)
    if content.get("kind") == "search":
        return _searchable(made)
    return made


@dataclass(frozen=True)
class _Rules:
    scale: Scale
    sizes: Sizes
    base: Mapping[str, Any]
    data: str | None

    def study(self, content: Mapping[str, Any]) -> dict[str, Any]:
        made = self._within(content)
        kind = content.get("kind", "pairs")
        if kind == "pairs":
            made = self._completed(made)
            made["compare"] = self._grid(made.get("compare", {}))
        else:
            made["base"] = self._completed(made.get("base", {}))
            pairs = 2 if content.get("likeness") else 1  # networks are compared with each other
            made["seeds"] = self._seeds(made.get("seeds", 5 if kind == "search" else 3), pairs)
        if kind == "search" and self.scale.samples is not None:
            made["samples"] = min(made.get("samples", 50), self.scale.samples)
        return made

    def _seeds(self, seeds: Any, least: int = 1) -> Any:
        if self.scale.seeds is None:
            return seeds
        most = max(self.scale.seeds, least)
        return min(seeds, most) if isinstance(seeds, int) else list(seeds)[:most]

    def _grid(self, grid: Mapping[str, Any]) -> dict[str, Any]:
        made = dict(grid) | {"seeds": self._seeds(grid.get("seeds", 3))}
        if self.scale.dense_widths is not None:
            widths = list(grid.get("dense_widths", (0.1, 0.3, 0.5, 0.7, 0.9)))
            middle = (len(widths) - self.scale.dense_widths) // 2
            made["dense_widths"] = widths[middle : middle + self.scale.dense_widths]
        return made

    def _completed(self, base: Mapping[str, Any]) -> dict[str, Any]:
        """With the sections that the scale bounds, whether or not the study writes them out."""
        made = dict(base)
        if self.scale.full:
            return made
        data, train, model = (dict(base.get(key, {})) for key in ("data", "train", "model"))
        name = data.get("name", _PLAIN.data.name)
        there, tests, _ = self.sizes(name)
        if self.scale.examples is not None:
            data["train_limit"] = min(data.get("train_limit") or there, self.scale.examples, there)
        if self.scale.tests is not None and self.scale.tests < tests:
            data["test_limit"] = self.scale.tests
        train.setdefault("epochs", self.scale.shorter(_PLAIN.train.epochs))
        train["batch_size"] = self.scale.batch(train.get("batch_size", _PLAIN.train.batch_size))
        made |= {"data": data, "train": train, "model": self._sized(model, name)}
        if self.scale.points is not None:
            measure = dict(base.get("measure", {}))
            measure["points"] = min(measure.get("points", _PLAIN.measure.points), self.scale.points)
            made["measure"] = measure
        return {section: fields for section, fields in made.items() if fields != {}}

    def _sized(self, model: Mapping[str, Any], data: str) -> dict[str, Any]:
        """A model of the base at the scale's width, its default width if it writes none."""
        made = dict(model)
        name = made.get("name", _PLAIN.model.name)
        if "width" in made or name not in models.names or name in _AS_THEY_ARE:
            return made  # what is written has been divided where it stands
        if name == "mlp":
            made["width"] = self.scale.perceptron(self.sizes(data)[2] + 4)
        elif "width" in (options := models.entry(name).facts["options"]):
            made["width"] = self.scale.channels(options["width"])
        return made if made.get("width") is not None else dict(model)

    # -- what is changed wherever it is written ---------------------------------------------------------------------

    def _within(self, tree: Mapping[str, Any]) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for key, value in tree.items():
            change = getattr(self, f"_in_{key}", None)
            if change is not None and isinstance(value, Mapping):
                made[key] = change(self._within(value))
            elif isinstance(value, Mapping):
                made[key] = self._within(value)
            elif key == "base.data.name" and isinstance(value, list):
                made[key] = [self.data] if self.data else value
            else:
                made[key] = value
        return made

    def _in_data(self, data: dict[str, Any]) -> dict[str, Any]:
        name = self.data or (None if self.scale.full else STAND_INS.get(data.get("name", "")))
        if name is None or "name" not in data:
            return data
        changed = {key: value for key, value in data.items() if key not in ("crop", "image_size", "train_limit")}
        return changed | {"name": name}

    def _in_model(self, model: dict[str, Any]) -> dict[str, Any]:
        if "width" in model:
            model = model | {"width": self._width(model)}
        replaced = self.data or not self.scale.full
        if replaced and model.get("stem") == "imagenet":
            model = {key: value for key, value in model.items() if key != "stem"}
        return model

    def _width(self, model: Mapping[str, Any]) -> int:
        """A small dense network's goes with the base's, so that it stays below it; others by the scale alone."""
        own: Mapping[str, Any] = self.base.get("model", {})
        base_name = own.get("name", _PLAIN.model.name)
        name, width = model.get("name", base_name), int(model["width"])
        if name in _AS_THEY_ARE:
            return width
        known = models.entry(name).facts["options"].get("width") if name in models.names else None
        usual = int(own.get("width") or known or 0)
        if name == base_name and usual and name != "mlp":
            return max(1, round(width * self.scale.channels(usual) / usual))
        return self.scale.perceptron(width) if name == "mlp" else self.scale.channels(width)

    def _in_train(self, train: dict[str, Any]) -> dict[str, Any]:
        return train if "epochs" not in train else train | {"epochs": self.scale.shorter(train["epochs"])}

    def _in_optimizer(self, optimizer: dict[str, Any]) -> dict[str, Any]:
        """Rates of very large batches fall with the batch (linear scaling), for those of ImageNet alone are larger."""
        was = self.base.get("train", {}).get("batch_size", _PLAIN.train.batch_size)
        if "lr" not in optimizer or was <= _PLAIN.train.batch_size or self.scale.full:
            return optimizer
        return optimizer | {"lr": optimizer["lr"] * self.scale.batch(was) / was}

    def _in_schedule(self, schedule: dict[str, Any]) -> dict[str, Any]:
        made = dict(schedule)
        if "milestones" in made:
            made["milestones"] = [self._epochs * epoch for epoch in made["milestones"]]
        if "warmup_epochs" in made:
            made["warmup_epochs"] = self._epochs * made["warmup_epochs"]
        return made

    def _in_gradual(self, gradual: dict[str, Any]) -> dict[str, Any]:
        start = int(gradual["start"] * self._steps)
        least = start + (gradual["end"] > gradual["start"])  # one pruning stays one
        end = max(least, int(gradual["end"] * self._steps))
        return gradual | {"start": start, "end": end, "every": max(1, int(gradual.get("every", 100) * self._steps))}

    def _in_rewire(self, rewire: dict[str, Any]) -> dict[str, Any]:
        return rewire | {"every": max(1, int(rewire.get("every", 100) * self._steps))}

    def _rewound(self, fields: dict[str, Any]) -> dict[str, Any]:
        step = fields.get("rewind_step")
        return fields if not step else fields | {"rewind_step": int(step * self._steps)}

    _in_inherited = _rewound
    _in_lottery = _rewound

    def _in_tost(self, tost: dict[str, Any]) -> dict[str, Any]:
        made = dict(tost)
        if isinstance(made.get("until"), int | float):
            made["until"] = self._epochs * made["until"]
        if isinstance(made.get("rescale"), Mapping) and self.scale.epochs > 1:
            was = made["rescale"].get("iterations", 180)
            made["rescale"] = dict(made["rescale"]) | {"iterations": max(4, round(was / self.scale.epochs))}
        return made

    def _in_mask(self, mask: dict[str, Any]) -> dict[str, Any]:
        most = self.scale.examples
        scored = mask.get("examples")
        return mask if most is None or scored is None else mask | {"examples": min(scored, most // 2)}

    def _in_halving(self, halving: dict[str, Any]) -> dict[str, Any]:
        return halving | {"first": self.scale.shorter(halving.get("first", 1))}

    def _in_likeness(self, likeness: dict[str, Any]) -> dict[str, Any]:
        made = dict(likeness)
        for field, most in (("examples", self.scale.tests), ("path_examples", self.scale.examples)):
            if most is not None:
                made[field] = min(made.get(field, 10_000), most)
        if self.scale.points is not None:
            made["points"] = min(made.get("points", 21), 2 * self.scale.points + 1)
        return made

    @property
    def _epochs(self) -> float:
        """Epochs of the study's base, new ones for one of the paper's."""
        was: int = self.base.get("train", {}).get("epochs", _PLAIN.train.epochs)
        return self.scale.shorter(was) / was

    @property
    def _steps(self) -> float:
        """Optimiser steps of the study's base, new ones for one of the paper's."""
        data, train = self.base.get("data", {}), self.base.get("train", {})
        name = data.get("name", _PLAIN.data.name)
        batch: int = train.get("batch_size", _PLAIN.train.batch_size)
        here = self.data or (name if self.scale.full else STAND_INS.get(name, name))
        there = self.sizes(here)[0]
        before = ceil((data.get("train_limit") or papers_sizes(name)[0]) / batch)
        limit = min(there, self.scale.examples or there, data.get("train_limit") or there)
        return self._epochs * ceil(limit / self.scale.batch(batch)) / before


def _searchable(content: dict[str, Any]) -> dict[str, Any]:
    """Halving needs a rung before the end of the training."""
    first = content.get("halving", {}).get("first", 0)
    train = dict(content["base"].get("train", {}))
    train["epochs"] = max(train.get("epochs", _PLAIN.train.epochs), first + 1)
    return content | {"base": content["base"] | {"train": train}}
