"""Trainings of equal shape carried out together: one program per step, everything else each member's own."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparseflow.core import BadValue, GradientProbe, Metric, stream, stream_seed
from sparseflow.data import Split
from sparseflow.train.evaluate import evaluation_batches
from sparseflow.train.loop import Trainer
from sparseflow.train.plan import Outcome
from sparseflow.train.stacked.gathered import Gathered
from sparseflow.train.stacked.memory import room
from sparseflow.train.stacked.program import CannotStack, Program, outline

ELEMENTWISE = (torch.optim.SGD, torch.optim.Adagrad, torch.optim.RMSprop, torch.optim.Adam, torch.optim.AdamW)
"""Optimisers that update every element by itself, so that one tensor may hold the parameters of many networks."""


def obstacle(model: nn.Module) -> str | None:
    """Why a model (on the meta device, say) cannot be trained stacked; None if it can."""
    try:
        outline(model)
    except CannotStack as error:
        return str(error)
    return None


class Stack:
    """Trains several trainings in lockstep; each ends with the very bits that it would have in a stack of its own.

    The members keep their model, masks, optimiser, data order, measurements and checkpoint. While the stack runs, their
    parameters and buffers are views of tensors (members, ...); their optimisers' state is brought up to date whenever a
    checkpoint is written and at the end.

    Args:
        trainers: of models of one shape, with equal plans but for the seed, equal optimisers and equal progress.

    Raises:
        BadValue: for trainings that differ in more, or with an optimiser or loss that has no stacked form.
        CannotStack: for a model without a stacked form.
    """

    def __init__(self, trainers: Sequence[Trainer]) -> None:
        _check(trainers)
        self._all = list(trainers)
        self._outcomes: dict[int, Outcome] = {}
        self._gather(self._all)

    def _gather(self, trainers: list[Trainer]) -> None:
        self._live = trainers
        self._programs: dict[tuple[int, bool], Program] = {}
        self._one_data = all(t.data is trainers[0].data for t in trainers)
        self._gathered = Gathered(trainers)

    def run(self) -> list[Outcome]:
        """Train to the end; the outcomes in the order of the trainings."""
        for trainer in self._live:
            trainer.start(1.0 / len(self._live))
            trainer.do_what_is_due()
        while self._live and self._lead.epoch < self._lead.plan.epochs:
            self._ask_at_rung()
            if not self._live:
                break
            began = time.monotonic()
            self._end_epoch(self.train_epoch())
            if not self._live:
                break
            stop = self._lead.epoch < self._lead.plan.epochs and _asked_to_stop(self._live)
            if stop or any(trainer.due(began) for trainer in self._live):
                self._gathered.publish()
                for trainer in self._live:
                    trainer.save()
            if stop:
                self._leave([(trainer, "stopped") for trainer in self._live])
        self._leave([(trainer, "") for trainer in self._live])
        return [self._outcomes[id(trainer)] for trainer in self._all]

    @property
    def _lead(self) -> Trainer:
        return self._live[0]

    def _ask_at_rung(self) -> None:
        ended = [(trainer, status) for trainer in self._live if (status := trainer.ended_at_rung())]
        if ended:
            self._gathered.publish()
            for trainer, _ in ended:
                trainer.save()
        self._leave(ended)

    def _end_epoch(self, losses: list[float]) -> None:
        wanted = self._lead.evaluates_now()
        evaluated = self.evaluate() if wanted else [None] * len(losses)
        members = zip(self._live, losses, evaluated, strict=True)
        self._leave([(t, "diverged") for t, loss, values in members if not t.end_epoch(loss, values)])

    def _leave(self, done: list[tuple[Trainer, str]]) -> None:
        """Trainings that are done, with their status ("" asks their weights); the others go on without them."""
        if not done:
            return
        self._gathered.release()
        for trainer, status in done:
            self._outcomes[id(trainer)] = trainer.outcome(status) if status else trainer.conclude()
        leavers = {id(trainer) for trainer, _ in done}
        stay = [trainer for trainer in self._live if id(trainer) not in leavers]
        for trainer in stay:
            trainer.start_clock(1.0 / len(stay))
        if stay:
            self._gather(stay)
        else:
            self._live = []

    # Training ---------------------------------------------------------------------------------------------------------

    def train_epoch(self) -> list[float]:
        """One pass of every member over its training split; their mean losses over the examples seen."""
        live, lead, device = self._live, self._lead, self._lead.data.device
        orders = torch.stack([t.order() for t in live]).to(device)
        labels = torch.stack([t.data.train.y.index_select(0, order) for t, order in zip(live, orders, strict=True)])
        batches = list(zip(lead.batches(orders), lead.batches(labels), strict=True))
        losses = torch.empty(len(batches), len(live), dtype=lead.data.dtype, device=device)
        augment = [stream(t.plan.seed, "augment", t.epoch) for t in live]
        seeds = [stream_seed(t.plan.seed, "dropout", t.epoch) for t in live]
        dropout = [torch.Generator(device).manual_seed(seed) for seed in seeds]
        points = frozenset(lead.points)
        for (indices, y), into in zip(batches, losses, strict=True):
            self.train_step(indices, y, into, augment, dropout)
            for trainer in live:
                trainer.do_what_is_due()
            if lead.step in points:
                self.measure()
        sizes = [y.shape[1] for _, y in batches]
        per_member = zip(*losses.double().tolist(), strict=True)
        return [sum(loss * n for loss, n in zip(one, sizes, strict=True)) / sum(sizes) for one in per_member]

    @torch.no_grad()
    def train_step(
        self,
        indices: Tensor,
        y: Tensor,
        losses: Tensor,
        augment: list[torch.Generator],
        dropout: list[torch.Generator],
    ) -> None:
        """One optimisation step of every member.

        Args:
            indices, y: training examples and their labels, (members, batch).
            losses: (members,), receives the mean losses without penalty.
            augment, dropout: the members' streams.
        """
        program = self._program(y.shape[1])
        self._fill(program.x, indices, augment)
        program.draw(dropout)
        program.forward("train", y, losses)
        program.backward()
        self._gathered.update(self._lead)
        for trainer in self._live:
            trainer.step += 1
            trainer.examples += y.shape[1]

    def _program(self, batch: int, *, one_input: bool = False) -> Program:
        """For batches of one size; with one and the same input for all members if so."""
        known = self._programs.get((batch, one_input))
        if known is None:
            tensors, shape = self._gathered.tensors, (batch, *self._lead.data.input_shape)
            x = room(1 if one_input else len(self._live), shape, next(iter(tensors.values.values())))
            x = x.expand(len(self._live), *shape)
            known = self._programs[batch, one_input] = Program(self._lead.model, tensors, x)
        return known

    def _fill(self, x: Tensor, indices: Tensor, draws: list[torch.Generator]) -> None:
        data = self._lead.data
        ready = None if self._lead.plan.augment or not self._one_data else data.normalised(data.train)
        if ready is not None and x.is_contiguous():
            torch.index_select(ready, 0, indices.reshape(-1), out=x.view(-1, *x.shape[2:]))
            return
        for k, trainer in enumerate(self._live):
            x[k].copy_(trainer.inputs(indices[k], draws[k])[0])

    # Measuring --------------------------------------------------------------------------------------------------------

    def evaluate(self) -> list[dict[Metric, float]]:
        """Each member's loss and accuracy on the test and validation splits."""
        values: list[dict[Metric, float]] = [{} for _ in self._live]
        for name, splits in (
            ("test", [t.data.test for t in self._live]),
            ("val", [t.data.val for t in self._live if t.data.val is not None]),
        ):
            if splits:
                for mine, loss, accuracy in zip(values, *self._evaluate(splits), strict=True):
                    mine |= {Metric(f"{name}_loss"): loss, Metric(f"{name}_accuracy"): accuracy}
        return values

    @torch.no_grad()
    def _evaluate(self, splits: list[Split]) -> tuple[list[float], list[float]]:
        device, count = self._lead.data.device, len(splits[0])
        total = torch.zeros(len(splits), dtype=torch.float64, device=device)
        right = torch.zeros(len(splits), dtype=torch.int64, device=device)
        losses = torch.empty(len(splits), dtype=self._lead.data.dtype, device=device)
        for indices in evaluation_batches(self._lead.data, splits[0]):
            program = self._program(len(indices), one_input=self._one_data)
            if self._one_data:
                x, one = self._lead.data.batch(splits[0], indices)
                program.x[0].copy_(x)
                y = one.expand(len(splits), -1)
            else:
                batches = [t.data.batch(split, indices) for t, split in zip(self._live, splits, strict=True)]
                for mine, (x, _) in zip(program.x, batches, strict=True):
                    mine.copy_(x)
                y = torch.stack([y for _, y in batches])
            program.forward("evaluate", y, losses)
            total += losses.double() * len(indices)
            right += program.right(y)
        return [x / count for x in total.tolist()], [x / count for x in right.tolist()]

    def measure(self) -> None:
        """Evaluate and take the probes, at one of the plan's points."""
        evaluated = self.evaluate()
        probes: list[list[dict[Metric, float]]] = [self._probe(k) for k in range(len(self._lead.probes))]
        for k, trainer in enumerate(self._live):
            trainer.measure(evaluated[k], [values[k] for values in probes])

    def _probe(self, place: int) -> list[dict[Metric, float]]:
        """The values of the probe at `place`, for each member; of gradients taken together where that can be."""
        probes = [trainer.probes[place] for trainer in self._live]
        together = [p for p in probes if isinstance(p, GradientProbe) and p.takes_gradients()]
        if len(together) < len(probes) or any(p.loss is not F.cross_entropy for p in together):
            return [dict(p(t.model, t.sparse.masks)) for p, t in zip(probes, self._live, strict=True)]
        gradients = self._mean_gradients(together)
        members = zip(together, self._live, gradients, strict=True)
        return [dict(p.of_gradients(t.model, t.sparse.masks, mine)) for p, t, mine in members]

    @torch.no_grad()
    def _mean_gradients(self, probes: Sequence[GradientProbe]) -> list[dict[str, Tensor]]:
        """Each member's gradient of the mean loss over all examples of its probe, masked weights included."""
        total: list[Tensor] = []
        examples = 0
        for batches in zip(*(probe.batches for probe in probes), strict=True):
            y = torch.stack([y for _, y in batches])
            program = self._program(y.shape[1])
            for mine, (x, _) in zip(program.x, batches, strict=True):
                mine.copy_(x)
            program.forward("probe", y, torch.empty(len(probes), dtype=program.x.dtype, device=y.device))
            program.backward()
            examples += y.shape[1]
            found = self._gathered.gradients_times(float(y.shape[1]))
            total = [a.add_(b) for a, b in zip(total, found, strict=True)] if total else found
        return self._gathered.by_member([flat.div_(examples) for flat in total])


def _asked_to_stop(trainers: list[Trainer]) -> bool:
    askers: list[Callable[[], bool]] = []
    for trainer in trainers:  # trainings of one worker share the question, which may be answered only once
        if trainer.should_stop not in askers:
            askers.append(trainer.should_stop)
    answers = [asker() for asker in askers]
    return any(answers)


_WHAT = ("parameters", "modules", "plan", "rungs", "optimizer", "progress", "probes", "data")


def _check(trainers: Sequence[Trainer]) -> None:
    if not trainers:
        raise BadValue("a stack needs at least one training")
    lead = trainers[0]
    outline(lead.model)
    if type(lead.optimizer) not in ELEMENTWISE:
        raise BadValue(f"{type(lead.optimizer).__name__} does not update every element by itself; it cannot be stacked")
    if any(trainer.plan.training_loss is not None for trainer in trainers) or lead.plan.loss is not F.cross_entropy:
        raise BadValue("only the cross entropy has a stacked form")
    if any(trainer.companions for trainer in trainers):
        raise BadValue("what goes along with a training within its model, such as ghosts, has no stacked form")
    for trainer in trainers[1:]:
        for what, mine, leads in zip(_WHAT, _shape(trainer), _shape(lead), strict=True):
            if mine != leads:
                raise BadValue(f"trainings that differ in their {what} cannot be stacked")


def _shape(trainer: Trainer) -> tuple[object, ...]:
    """What the members of a stack must have in common."""
    model, plan, data, groups = trainer.model, trainer.plan, trainer.data, trainer.optimizer.param_groups
    names = {id(p): name for name, p in model.named_parameters()}
    return (
        {name: (p.shape, p.dtype, p.device) for name, p in model.named_parameters()},
        repr(model),
        (plan.epochs, plan.batch_size, plan.augment, plan.crop, plan.l1, plan.points, plan.eval_every, plan.loss),
        trainer.rungs,
        (
            type(trainer.optimizer),
            [{key: value for key, value in group.items() if key != "params"} for group in groups],
            [[names[id(p)] for p in group["params"]] for group in groups],
            trainer.base_rates,
        ),
        (trainer.epoch, trainer.step),
        len(trainer.probes),
        (len(data.train), len(data.test), data.val and len(data.val), data.input_shape, data.dtype, data.device),
    )
