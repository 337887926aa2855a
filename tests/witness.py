"""Sees what a measurement leaves behind."""

from __future__ import annotations

import random

import numpy as np
import torch

from small_nets import Case
from sparseflow.core import state_digest


class Witness:
    """All that looking could change in a model, its hooks and the generators, with a way to look again."""

    def __init__(self, of: Case) -> None:
        self.model = of.model
        self.fired: list[str] = []
        modules = list(of.model.modules())
        for k, module in enumerate(modules):
            module.train(k % 2 == 0)
            module.register_forward_hook(self._of_the_original)
            module.register_forward_pre_hook(self._of_the_original)
        for k, parameter in enumerate(of.model.parameters()):
            parameter.requires_grad_(k % 3 != 1)
            if parameter.requires_grad:
                parameter.grad = torch.full_like(parameter, float(k)) if k % 2 else None
                parameter.register_hook(lambda gradient: self.fired.append("gradient"))
                parameter.register_post_accumulate_grad_hook(lambda p: self.fired.append("accumulated"))
        self.before = self.look()

    def _of_the_original(self, module, *_):
        if any(module is own for own in self.model.modules()):
            self.fired.append("module")

    def look(self):
        parameters = dict(self.model.named_parameters())
        return {
            "values": state_digest(self.model.state_dict()),
            "objects": {name: id(p) for name, p in parameters.items()},
            "memory": {name: p.data_ptr() for name, p in parameters.items()},
            "versions": {name: p._version for name, p in parameters.items()},
            "frozen": {name: p.requires_grad for name, p in parameters.items()},
            "gradients": {name: p.grad if p.grad is None else id(p.grad) for name, p in parameters.items()},
            "gradient values": state_digest({n: p.grad for n, p in parameters.items() if p.grad is not None}),
            "modes": {name: module.training for name, module in self.model.named_modules()},
            "keys": {name: sorted(vars(module)) for name, module in self.model.named_modules()},
            "torch": torch.get_rng_state().tolist(),
            "numpy": [str(part) for part in np.random.get_state()],  # noqa: NPY002 - the global state is the matter
            "python": random.getstate(),
        }

    def check(self) -> None:
        after = self.look()
        for what, before in self.before.items():
            assert after[what] == before, what
        assert not self.fired
