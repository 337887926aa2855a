"""The tensors of all members in one place, and one optimiser over them."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from sparseflow.core import BadValue
from sparseflow.train.bits import active_bits, keep_
from sparseflow.train.loop import Trainer
from sparseflow.train.stacked.memory import Pack
from sparseflow.train.stacked.program import Tensors


class Gathered:
    """The parameters, gradients, buffers and optimiser state of trainings of one shape, as tensors (members, ...).

    The members' parameters and buffers are views of these from now on, until `release`. Parameters that share the
    optimiser's settings (a group) lie in one flat tensor, so a step of the optimiser is a few operations whatever the
    number of members and of layers.

    Attributes:
        tensors: by name, (members, *shape).
    """

    @torch.no_grad()
    def __init__(self, trainers: Sequence[Trainer]) -> None:
        self._trainers = trainers
        lead = trainers[0]
        like = next(lead.model.parameters())
        names = {id(p): name for name, p in lead.model.named_parameters()}
        values: dict[str, Tensor] = {}
        gradients: dict[str, Tensor] = {}
        self._groups: list[tuple[Pack, nn.Parameter]] = []
        self._active: list[tuple[Tensor, Tensor]] = []
        for group in lead.optimizer.param_groups:
            shapes = {names[id(p)]: p.shape for p in group["params"]}
            pack = Pack(shapes, len(trainers), like)
            leaf = nn.Parameter(pack.flat)
            leaf.grad = torch.zeros_like(pack.flat)
            for name, part in pack.parts.items():
                _adopt(part, [t.model.get_parameter(name) for t in trainers])
            values |= pack.parts
            gradients |= pack.views(leaf.grad)
            self._groups.append((pack, leaf))
            self._note_masks(pack, leaf.grad)
        buffers: dict[str, Tensor] = {}
        seen: dict[str, Tensor] = {}
        self._statistics: list[tuple[Tensor, Tensor]] = []
        self._counts: list[Tensor] = []
        for dtype in dict.fromkeys(buffer.dtype for buffer in lead.model.buffers()):
            shapes = {name: b.shape for name, b in lead.model.named_buffers() if b.dtype == dtype}
            pack = Pack(shapes, len(trainers), like.new_empty(0, dtype=dtype))
            for name, part in pack.parts.items():
                _adopt(part, [t.model.get_buffer(name) for t in trainers])
            buffers |= pack.parts
            if dtype.is_floating_point:
                self._statistics.append((pack.flat, torch.zeros_like(pack.flat)))
                seen |= pack.views(self._statistics[-1][1])
            else:
                self._counts.append(pack.flat)
        self.tensors = Tensors(values, gradients, buffers, seen)
        momenta = [m.momentum for m in lead.model.modules() if isinstance(m, nn.BatchNorm1d)]
        self._momentum = momenta[0] or 0.0 if momenta else 0.0
        self._optimizer = _twin(lead.optimizer, [leaf for _, leaf in self._groups])
        self._take_state()

    def _note_masks(self, pack: Pack, gradient: Tensor) -> None:
        active = active_bits(torch.ones_like(pack.flat, dtype=torch.bool), pack.flat.dtype)
        masked = False
        for name, part in pack.views(active).items():
            for mine, trainer in zip(part, self._trainers, strict=True):
                if name in trainer.sparse.masks:
                    mine.copy_(active_bits(trainer.sparse.masks[name], pack.flat.dtype))
                    masked = True
        if masked:
            self._active.append((gradient, active))

    def update(self, lead: Trainer) -> None:
        """One step of the optimiser, at the rates of `lead`'s current step, on the gradients that a program left."""
        if lead.plan.l1:
            for name in lead.weight_names:
                sign = self.tensors.values[name].sign()
                self.tensors.gradients[name].add_(sign.mul_(lead.plan.l1))
        for gradient, active in self._active:
            # Masked gradients become 0, whatever they are (0 * NaN would be NaN). Masked weights are 0, so they and
            # their optimiser state then stay where they started.
            keep_(gradient, active)
        lead.set_rates(self._optimizer)
        self._optimizer.step()
        for flat, seen in self._statistics:
            flat.lerp_(seen, self._momentum)
        for flat in self._counts:
            flat.add_(1)

    def gradients_times(self, factor: float) -> list[Tensor]:
        """A copy of all gradients, group by group."""
        return [_gradient(leaf).mul(factor) for _, leaf in self._groups]

    def by_member(self, flats: Iterable[Tensor]) -> list[dict[str, Tensor]]:
        """For each member, parameter name -> its part of tensors as `gradients_times` makes them."""
        parts: dict[str, Tensor] = {}
        for (pack, _), flat in zip(self._groups, flats, strict=True):
            parts |= pack.views(flat)
        return [{name: part[k] for name, part in parts.items()} for k in range(len(self._trainers))]

    def _take_state(self) -> None:
        """The state of the members' optimisers, where they have one (a resumed training)."""
        for pack, leaf in self._groups:
            states = {
                name: [t.optimizer.state.get(t.model.get_parameter(name), {}) for t in self._trainers]
                for name in pack.parts
            }
            first, shape = next(iter(states.values()))[0], next(iter(pack.parts.values())).shape[1:]
            for key, value in first.items():
                if not isinstance(value, Tensor) or value.dim() == 0:
                    # Counts steps, of which all members took equally many.
                    self._optimizer.state[leaf][key] = _copy(value)
                    continue
                if value.shape != shape:
                    raise BadValue(f"optimiser state {key!r} is not of its parameter's shape and cannot be stacked")
                flat = self._optimizer.state[leaf][key] = torch.zeros_like(pack.flat)
                for name, part in pack.views(flat).items():
                    for mine, state in zip(part, states[name], strict=True):
                        mine.copy_(state[key])

    def publish(self) -> None:
        """The optimiser's state and rates into the members' optimisers: views, and steps of their own."""
        for pack, leaf in self._groups:
            state = self._optimizer.state.get(leaf, {})
            views = {
                key: pack.views(value)
                for key, value in state.items()
                if isinstance(value, Tensor) and value.shape == leaf.shape
            }
            for k, trainer in enumerate(self._trainers):
                for name in pack.parts:
                    trainer.optimizer.state[trainer.model.get_parameter(name)] = {
                        key: views[key][name][k] if key in views else _copy(value) for key, value in state.items()
                    }
        for trainer in self._trainers:
            for mine, ours in zip(trainer.optimizer.param_groups, self._optimizer.param_groups, strict=True):
                mine["lr"] = ours["lr"]

    @torch.no_grad()
    def release(self) -> None:
        """Publish, and give every member tensors of its own again."""
        self.publish()
        for trainer in self._trainers:
            for tensor in [*trainer.model.parameters(), *trainer.model.buffers()]:
                tensor.data = tensor.data.clone()
            for state in trainer.optimizer.state.values():
                state.update({key: _copy(value) for key, value in state.items()})


def _adopt(part: Tensor, members: list[Tensor]) -> None:
    for mine, tensor in zip(part, members, strict=True):
        mine.copy_(tensor)
        tensor.data = mine


def _copy(value: object) -> object:
    return value.clone() if isinstance(value, Tensor) else value


def _gradient(leaf: nn.Parameter) -> Tensor:
    assert leaf.grad is not None
    return leaf.grad


def _twin(optimizer: torch.optim.Optimizer, leaves: list[nn.Parameter]) -> torch.optim.Optimizer:
    """The same kind of optimiser with the same settings, with one leaf for each group."""
    groups = [
        {**{key: value for key, value in group.items() if key != "params"}, "params": [leaf]}
        for group, leaf in zip(optimizer.param_groups, leaves, strict=True)
    ]
    known = inspect.signature(type(optimizer).__init__).parameters
    settings = {key: value for key, value in optimizer.defaults.items() if key in known}
    return type(optimizer)(groups, **settings)
