"""Signal propagation through an untrained network (004 Fig. 1c)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from sparseflow.init import initialisations
from sparseflow.masks import Provenance
from sparseflow.measure import DENSITIES, Propagation, points
from sparseflow.report import SIGNAL_HEADER, signal_cells
from sparseflow.report.blocks import Block, Table, Text
from sparseflow.report.signal import findings
from sparseflow.report.signal_figure import signal_figure
from sparseflow.reproduce.makers.registry import makers
from sparseflow.reproduce.scale import Scale
from sparseflow.study import DrawFile, RunSpec, validate
from sparseflow.study.build import build
from sparseflow.study.fingerprint import fingerprint
from sparseflow.study.lock import locked

DRAWS = 100
"""Networks for each density and initialisation: the paper's five tell little apart where the spread is large."""

SETTINGS: Any = {"probes": 256, "seed": 0, "budget": "uniform", "dense": [], "batch_norm": "train"}


@makers.add("signal", cite="004 Fig. 1c")
def signal(options: Mapping[str, Any], scale: Scale, folder: Path, progress: Callable[[int, int], None]) -> list[Block]:
    """Standard deviation of the outputs of an untrained network against the sparsity of its masks.

    What is drawn is kept in the folder, and a call that was cut goes on; a scale has fewer draws or more.

    Options: `model` and `init`, sections of a run's specification; `input_shape` and `classes`; `initialisations` and
    `densities`, all and those of `sparseflow analyse signal` by default.

    Raises:
        Busy, BadStore: if the folder cannot be had or used, or holds draws of other settings.
    """
    spec = validate(RunSpec, {"model": options["model"], "init": options.get("init", {})})
    shape, classes = tuple(options["input_shape"]), int(options["classes"])
    model = build(spec, shape, classes, "cpu").model
    scheme = spec.init.scheme_object()
    propagation = Propagation(model, shape, scheme=scheme, **SETTINGS)
    keys = propagation.keys(
        options.get("densities", DENSITIES),
        options.get("initialisations", initialisations.names),
        DRAWS if scale.draws is None else scale.draws,
    )
    settings = {
        "model": spec.model.name,
        "input_shape": list(shape),
        "weights": Provenance.of(model).weights_digest,
        **SETTINGS,
        **asdict(scheme),
        "made_with": fingerprint("cpu", torch.get_num_threads()),
    }
    with locked(folder):
        file = DrawFile(folder, settings)
        try:
            for done, key in enumerate(keys, 1):
                if key not in file.found:
                    file.add(key, propagation.draw(key))
                progress(done, len(keys))
        finally:
            file.close()
        ready = points({key: file.found[key] for key in keys})
        figure = signal_figure(ready, folder / "figures")
    caption = (
        "Output deviation: of all outputs for all inputs, root of the mean square over networks ± its standard error. "
        "Unreached units are the same for every input; dead are these and those on which no output depends for any "
        "input. Least fan-in: active weights of the unit with the fewest, in any of the networks."
    )
    table = Table("Every density and initialisation", caption, SIGNAL_HEADER, list(signal_cells(ready)), labels=2)
    return [figure, *map(Text, findings(ready)), table]
