"""Which network a command means: one of the catalog, set up as a run would be, or the user's own by import path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sparseflow.cli.bench import numbers
from sparseflow.cli.setup import surroundings_for
from sparseflow.core import BadSpec, BadValue, Batch, stream
from sparseflow.data import Prepared, stratified
from sparseflow.masks import read_state
from sparseflow.models import check_answer, is_imported, make_imported, models
from sparseflow.study import DataCache, RunSpec, assign, build, validate

PER_CLASS = 10
"""Examples of each class that weights are scored on unless told otherwise, as GraSP's authors do."""


@dataclass(frozen=True)
class Request:
    """What a person asked for; the seed and the fields of `sets` are those of a run's specification.

    Attributes:
        name: of the catalog, or package.module:factory, or file.py:factory.
        input_shape: "3,32,32"; with `classes` in the place of `data`.
    """

    name: str
    sets: Sequence[str] = ()
    data: str = ""
    data_root: str | None = None
    input_shape: str = ""
    classes: int | None = None
    seed: int = 0
    weights: Path | None = None
    device: str = "cpu"


@dataclass(frozen=True)
class Network:
    """A network, and what is needed to find it again.

    Attributes:
        input_shape: of one example; None where nobody said.
        data: what it can be scored on.
    """

    name: str
    model: nn.Module
    spec: RunSpec
    input_shape: tuple[int, ...] | None = None
    data: Prepared | None = None
    recipe: Mapping[str, Any] = field(default_factory=dict)


def network(request: Request) -> Network:
    """The network that a request means: initial weights by the seed, as `train` draws those of a dense network.

    One's own has the weights that its factory gives it, which may be trained ones.

    Raises:
        BadSpec, BadValue, UnknownName, BadData: for whatever of it does not fit together.
    """
    spec = _spec(request)
    prepared = None
    shape = tuple(numbers("--input-shape", request.input_shape, int)) or None
    classes = request.classes
    if request.data:
        if shape or classes:
            raise BadValue("--data says what the inputs and classes are; leave out --input-shape and --classes")
        prepared = DataCache(surroundings_for(Path(), request.data_root, request.device, 0.0, keep=False)).prepared(
            spec
        )
        shape, classes = prepared.input_shape, prepared.classes
    recipe: dict[str, Any]
    if is_imported(request.name):
        model, recipe = _own(spec, shape, classes), {"import": request.name}
        if told := spec.model.arguments():
            recipe["options"] = told
        model = model.to(request.device)
    else:
        if shape is None or classes is None:
            raise BadValue(f"{request.name} needs to know its inputs: give --data NAME, or --input-shape and --classes")
        model, recipe = build(spec, shape, classes, request.device).model, {"spec": spec.changes(), "classes": classes}
    if request.weights is not None:
        _load_weights(model, request.weights)
        recipe["weights"] = str(request.weights)
    if shape is not None:
        recipe["input_shape"] = list(shape)
    return Network(request.name, model, spec, shape, prepared, recipe)


def rebuilt(recipe: Mapping[str, Any]) -> Network:
    """The network of a recipe that `network` wrote, if it is one of the catalog: what a file names is not imported.

    Raises:
        BadValue: for a recipe of something else.
        BadSpec: for one that this version does not understand.
    """
    if "spec" not in recipe or "input_shape" not in recipe or "classes" not in recipe:
        named = f": give --model {recipe['import']}" if "import" in recipe else "; give --model"
        raise BadValue(f"the file has no recipe of a model of the catalog{named}")
    spec, shape = validate(RunSpec, recipe["spec"]), tuple(recipe["input_shape"])
    if is_imported(spec.model.name):
        raise BadValue(f"the file names code, {spec.model.name}, which is not run unasked: give --model")
    return Network(spec.model.name, build(spec, shape, recipe["classes"]).model, spec, shape)


def scoring_batches(found: Network, examples: int | None, batch_size: int) -> list[Batch]:
    """Training examples, stratified and drawn by the run's seed, in batches of nearly equal size.

    Raises:
        BadValue: for a network without data, or more examples than there are.
    """
    data = found.data
    if data is None:
        raise BadValue("weights are scored on examples; give --data NAME (see `sparseflow list datasets`)")
    count = min(PER_CLASS * data.classes, len(data.train)) if examples is None else examples
    if not 1 <= count <= len(data.train):
        raise BadValue(f"--examples must be in [1, {len(data.train):,}], the training examples, got {count:,}")
    draw = stream(found.spec.seed, "score", "examples")
    taken = stratified(data.train.y, count, draw)
    shuffled = taken[torch.randperm(count, generator=draw)]
    return [data.batch(data.train, part) for part in shuffled.tensor_split(-(-count // batch_size))]


def _spec(request: Request) -> RunSpec:
    content: dict[str, Any] = {"seed": request.seed}
    if request.data:
        content["data"] = {"name": request.data}
    content["model"] = {"name": request.name if is_imported(request.name) else models.entry(request.name).name}
    given = assign(content, request.sets)
    if "mask" in given:
        raise BadSpec(["--set mask...: this command makes the mask; use --criterion, --density and --budget"])
    return validate(RunSpec, given)


def _own(spec: RunSpec, shape: tuple[int, ...] | None, classes: int | None) -> nn.Module:
    name = spec.model.name
    model = make_imported(name, spec.model.arguments(), seed=spec.seed, input_shape=shape, classes=classes)
    if shape is not None and classes is not None:
        check_answer(name, model, shape, classes)
    return model


def _load_weights(model: nn.Module, path: Path) -> None:
    try:
        model.load_state_dict(read_state(path))
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()]
        raise BadValue(f"--weights {path}: not of this model: {' '.join(lines[1:3])}") from None
