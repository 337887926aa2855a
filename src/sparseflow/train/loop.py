"""The training loop that studies use; a user's own loop needs only `Sparse`."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sparseflow.core import (
    BadStore,
    Batch,
    Companion,
    Masks,
    Metric,
    Moment,
    Probe,
    Recorder,
    global_stream,
    state_digest,
    stream,
    weight_values,
)
from sparseflow.data import Prepared
from sparseflow.train import checkpoint
from sparseflow.train.evaluate import evaluate
from sparseflow.train.history import History
from sparseflow.train.plan import Outcome, Plan
from sparseflow.train.points import measuring_steps
from sparseflow.train.rules import Change, Rule
from sparseflow.train.sparse import Sparse

ProbeChange = Callable[[nn.Module, Masks, Batch], Mapping[Metric, float]]

_FORMAT = 4
"""Of checkpoints; one of another format is ignored."""


class Trainer:
    """One training of one model on one prepared data set, which can be stopped, killed and resumed bit for bit.

    `run` trains it by itself; a `Stack` trains several together, through the same bookkeeping.

    Args:
        model, masks, optimizer: masked layers are kept by `Sparse`; compact ones keep themselves.
        probes: measured at the plan's points.
        record: receives every measured value as it appears.
        save_to: checkpoint file; None keeps none. `resume` goes on from one of the same `identity`.
        should_stop: asked at the end of each epoch.
        save_every_s: an epoch's end writes a checkpoint when waiting for the next would leave more than this unsaved.
        identity: what the checkpoint belongs to; another run's checkpoint is ignored.
        fingerprint: what the bits depend on; `mixed` says whether a resumed part ran under another one.
        start_step: go on from the weights of this step: with its learning rate, its place in the data order and in the
            augmentation. A `Stack` trains from step 0 only.
        at_steps: step -> what to do after it (0: before the first).
        rule: makes what changes masks along the training, for `run`, from the number of its steps.
        companions: stepped after the optimiser, from step 0 on, and saved with the training, for `run`.
        probe_change: measures on the step's own batch just before and just after masks change.
        flops_of: masks -> floating-point operations of a forward pass on one example.
        rungs: epochs after which the training is evaluated and goes on only if `goes_on` says so.
        goes_on: told the epoch and what was last measured; on False the training ends as "halted", on None (nobody can
            say) as "stopped". Both leave a checkpoint, and one that is resumed there asks again.
    """

    def __init__(
        self,
        model: nn.Module,
        masks: Masks,
        optimizer: torch.optim.Optimizer,
        data: Prepared,
        plan: Plan,
        *,
        probes: tuple[Probe, ...] = (),
        record: Recorder | None = None,
        save_to: Path | None = None,
        should_stop: Callable[[], bool] = lambda: False,
        identity: str = "",
        fingerprint: str = "",
        save_every_s: float = 5.0,
        start_step: int = 0,
        at_steps: Mapping[int, Callable[[], None]] | None = None,
        rule: Callable[[int], Rule | None] | None = None,
        companions: Sequence[Companion] = (),
        probe_change: ProbeChange | None = None,
        flops_of: Callable[[Masks], int] = lambda masks: 0,
        rungs: Collection[int] = (),
        goes_on: Callable[[int, Mapping[str, float]], bool | None] = lambda epoch, measured: True,
    ) -> None:
        self.model, self.optimizer, self.data, self.plan = model, optimizer, data, plan
        self.probes, self.should_stop = probes, should_stop
        self.save_to, self.identity, self.fingerprint = save_to, identity, fingerprint
        self.step, self.examples = start_step, 0
        self.mixed = False
        self.save_every_s = save_every_s
        self._seconds = 0.0
        """Of work before the clock was last set."""
        self._share = 0.0
        """The part of the seconds that pass which are this training's work."""
        self.history = History(record)
        self.batches_per_epoch = plan.batches_per_epoch(len(data.train))
        following = rule(self.total_steps) if rule is not None else None
        self.sparse = Sparse(model, masks, optimizer, following, steps=start_step)
        self.sparse.watch = self._watch
        self.companions = tuple(companions)
        for _ in range(start_step):
            self._step_companions()
        self._probe_change = probe_change
        self._batch: Batch | None = None
        self._changed: dict[Metric, float] = {}
        self._flops_of, self._changes = flops_of, self.sparse.changes
        self.example_flops = flops_of(self.sparse.masks)
        """Of a forward pass on one example, with the present masks."""
        self._flops_before = self._examples_before = 0
        self.epoch = start_step // self.batches_per_epoch
        self.at_steps = at_steps or {}
        self.rungs, self._goes_on = frozenset(rungs), goes_on
        self.points = measuring_steps(plan.epochs, self.batches_per_epoch, plan.points)
        self.base_rates = [group["lr"] for group in optimizer.param_groups]
        self.rate = plan.schedule(self.total_steps, self.batches_per_epoch) if plan.schedule else None
        """Step -> factor on the base rates; None keeps them."""
        self._at_points = frozenset(self.points)
        self._began_at = self._saved_at = time.monotonic()
        self._weights = weight_values(model)

    @property
    def total_steps(self) -> int:
        return self.plan.epochs * self.batches_per_epoch

    @property
    def weight_names(self) -> list[str]:
        """Names of the weights, which alone have an L1 penalty."""
        return list(self._weights)

    @property
    def final(self) -> dict[str, float]:
        """Metric -> value, as in `Outcome.final`."""
        return self.history.final

    def run(self) -> Outcome:
        """Train to the end; call `resume` before to go on from a checkpoint."""
        self.start()
        self.do_what_is_due()
        while self.epoch < self.plan.epochs:
            if status := self.ended_at_rung():
                self.save()
                return self.outcome(status)
            epoch_began = time.monotonic()
            loss = self._train_epoch()
            if not self.end_epoch(loss, self.evaluate() if self.evaluates_now() else None):
                return self.outcome("diverged")
            if self.epoch < self.plan.epochs and self.should_stop():
                self.save()
                return self.outcome("stopped")
            self.save_if_due(epoch_began)
        return self.conclude()

    def _train_epoch(self) -> float:
        """One pass over the training split; the mean loss over the examples seen, without penalty."""
        plan = self.plan
        draws = stream(plan.seed, "augment", self.epoch)
        total = torch.zeros((), dtype=torch.float64, device=self.data.device)
        seen = self.examples
        self.model.train()
        # Indices lie where the images do: streamed ones are gathered without waiting for the device.
        order = self.batches(self.order().to(self.data.train.x.device))
        begun = self.step - self.epoch * self.batches_per_epoch
        for indices in order[:begun]:
            self.inputs(indices, draws)  # began within the epoch: the augmentation goes on where it was
        with global_stream(plan.seed, "dropout", self.epoch):
            for indices in self.data.train.announced(order[begun:]):
                total += self.train_step(indices, draws).double() * len(indices)
                self.do_what_is_due()
                if self.step in self._at_points:
                    values = [probe(self.model, self.sparse.masks) for probe in self.probes]
                    self.measure(self.evaluate(), values)
                    self.model.train()
        return float(total) / (self.examples - seen)

    def do_what_is_due(self) -> None:
        """What `at_steps` asks for after the steps taken so far."""
        if self.step in self.at_steps:
            self.at_steps[self.step]()

    def train_step(self, indices: Tensor, draws: torch.Generator) -> Tensor:
        """One optimisation step on the given training examples; the data loss, detached, without penalty."""
        self.set_rates(self.optimizer)
        x, y = self._batch = self.inputs(indices, draws)
        self.optimizer.zero_grad(set_to_none=True)
        loss = (self.plan.training_loss or self.plan.loss)(self.model(x), y)
        (loss + self._penalty() if self.plan.l1 else loss).backward()
        self.optimizer.step()
        self._step_companions()
        self.step += 1
        self.examples += len(indices)
        if self.sparse.changes != self._changes:
            self._note_change()
        return loss.detach()

    def _step_companions(self) -> None:
        for companion in self.companions:
            companion.step()

    def _watch(self, moment: str, changes: Mapping[str, Change]) -> None:
        """Just before and just after the rule changes masks, within the optimiser's step."""
        if self._probe_change is not None and self._batch is not None:
            measured = self._probe_change(self.model, self.sparse.masks, self._batch)
            self._changed |= {Metric(f"{m.name}_{moment}", m.layer): value for m, value in measured.items()}
        for name, change in changes.items():
            self._changed |= {
                Metric("dropped", name): float(len(change.drop)),
                Metric("grown", name): float(len(change.grow)),
            }

    def _note_change(self) -> None:
        """The rule has changed masks: from here on an example may cost something else."""
        self._changes = self.sparse.changes
        self._flops_before, self._examples_before = self.training_flops, self.examples
        self.example_flops = self._flops_of(self.sparse.masks)
        shares = {Metric("density"): self.sparse.density(), Metric("explored"): self.sparse.explored_share()}
        shares |= {Metric("density", name): density for name, density in self.sparse.densities().items()}
        self.note(self._changed | shares)
        self._changed = {}

    @property
    def training_flops(self) -> int:
        """Floating-point operations so far: three forward passes an example, counted from active weights."""
        return self._flops_before + 3 * self.example_flops * (self.examples - self._examples_before)

    def set_rates(self, optimizer: torch.optim.Optimizer) -> None:
        """Give the groups of an optimiser (this training's, or a stack's) the rates of the current step."""
        if self.rate is not None:
            factor = self.rate(self.step)
            for group, base in zip(optimizer.param_groups, self.base_rates, strict=True):
                group["lr"] = base * factor

    def inputs(self, indices: Tensor, draws: torch.Generator) -> tuple[Tensor, Tensor]:
        """Normalised (and augmented) training examples at `indices`, and their labels."""
        if not self.plan.augment:
            return self.data.batch(self.data.train, indices)
        return self.data.augmented(indices, self.plan.crop, draws)

    def _penalty(self) -> Tensor:
        return self.plan.l1 * torch.stack([weight.abs().sum() for weight in self._weights.values()]).sum()

    def order(self) -> Tensor:
        """The training examples in the order of the current epoch, int64 on the CPU."""
        return torch.randperm(len(self.data.train), generator=stream(self.plan.seed, "data", self.epoch))

    def batches(self, order: Tensor) -> list[Tensor]:
        """The parts of an order (along its last dimension) that are trained on together."""
        return list(order.split(self.plan.batch_size, dim=-1))[: self.batches_per_epoch]

    def end_epoch(self, train_loss: float, evaluated: Mapping[Metric, float] | None) -> bool:
        """Note the epoch that was just trained; False if its loss was not finite: it is then not counted."""
        self.note({Metric("train_loss"): train_loss} | dict(evaluated or {}))
        if not isfinite(train_loss):
            return False
        self.epoch += 1
        return True

    def ended_at_rung(self) -> str:
        """The status with which the training ends before its last epoch, if it stands at a rung; "" if it goes on."""
        if self.epoch not in self.rungs:
            return ""
        return {True: "", False: "halted", None: "stopped"}[self._goes_on(self.epoch, self.final)]

    def evaluates_now(self) -> bool:
        """Whether the epoch that was just trained ends with an evaluation (and not with a point, which has its own)."""
        epoch, every = self.epoch + 1, self.plan.eval_every
        wanted = epoch == self.plan.epochs or epoch in self.rungs or (every > 0 and epoch % every == 0)
        return self.step not in self._at_points and wanted

    def evaluate(self) -> dict[Metric, float]:
        """Loss and accuracy on the test and validation splits."""
        values: dict[Metric, float] = {}
        for name, split in (("test", self.data.test), ("val", self.data.val)):
            if split is not None:
                loss, accuracy = evaluate(self.model, self.data, split, self.plan.loss)
                values |= {Metric(f"{name}_loss"): loss, Metric(f"{name}_accuracy"): accuracy}
        return values

    def measure(self, evaluated: Mapping[Metric, float], probed: Iterable[Mapping[Metric, float]]) -> None:
        """Note what was measured at one of the plan's points."""
        values = dict(evaluated)
        for some in probed:
            values |= some
        values[Metric("point")] = float(self.points.index(self.step))
        self.note(values)

    def note(self, values: dict[Metric, float]) -> None:
        """Record values of the present step."""
        self.history.note(Moment(self.step, self.step / self.batches_per_epoch), values)

    def conclude(self) -> Outcome:
        """The outcome after the last epoch."""
        finite = all(bool(torch.isfinite(p).all()) for p in self.model.parameters())
        return self.outcome("finished" if finite else "diverged")

    def outcome(self, status: str) -> Outcome:
        """How the training ended; its clock stops."""
        self.start_clock(0.0)
        digest = state_digest(checkpoint.raw_state(self.model)) if status != "stopped" else ""
        return Outcome(status, self.step, self.epoch, self.examples, dict(self.final), digest)

    def start(self, share: float = 1.0) -> None:
        """Begin to train: time counts from here, and so does what a checkpoint would save."""
        self.start_clock(share)
        self._saved_at = time.monotonic()

    def start_clock(self, share: float = 1.0) -> None:
        """From now on `share` of the time that passes is this training's work."""
        self._seconds, self._share = self.worked(), share
        self._began_at = time.monotonic()

    def worked(self) -> float:
        """Seconds of work so far, those before a resume counted."""
        return self._seconds + self._share * (time.monotonic() - self._began_at)

    def state(self) -> dict[str, Any]:
        """Everything that a resumed training needs."""
        return {
            "format": _FORMAT,
            "identity": self.identity,
            "seconds": self.worked(),
            "step": self.step,
            "epoch": self.epoch,
            "examples": self.examples,
            "fingerprint": self.fingerprint,
            "mixed": self.mixed,
            "model": checkpoint.raw_state(self.model),
            "companions": [companion.state_dict() for companion in self.companions],
            "optimizer": self.optimizer.state_dict(),
            "history": self.history.rows,
            "final": self.final,
            "flops": (self._flops_before, self._examples_before),
            # Masks that no rule changes follow from what the training is of.
            "sparse": self.sparse.state_dict() if self.sparse.rule is not None else None,
        }

    def save(self) -> None:
        if self.save_to is not None:
            checkpoint.save(self.save_to, self.state())
        self._saved_at = time.monotonic()

    def due(self, epoch_began: float) -> bool:
        """Whether waiting for the end of another epoch as long as this one would leave too much unsaved."""
        now = time.monotonic()
        return (now - self._saved_at) + (now - epoch_began) > self.save_every_s

    def save_if_due(self, epoch_began: float) -> None:
        if self.due(epoch_began):
            self.save()

    def resume(self) -> str:
        """Go on from the checkpoint of the same identity; "resumed", "absent", or "damaged": set aside as .bad.

        Raises:
            BadStore: if it is of a network that the model's code no longer makes.
        """
        if self.save_to is None or not self.save_to.exists():
            return "absent"
        content = checkpoint.load(self.save_to, self.data.device)
        if content is None:
            self.save_to.replace(self.save_to.with_suffix(".bad"))
            return "damaged"
        if content.get("format") != _FORMAT or content["identity"] != self.identity:
            return "absent"
        if content["sparse"] is not None:  # first of all: a compact layer holds what its pattern has
            self.sparse.load_state_dict(content["sparse"])
        for companion, state in zip(self.companions, content["companions"], strict=True):
            companion.load_state_dict(state)
        if wrong := checkpoint.misfit(checkpoint.raw_state(self.model), content["model"]):
            raise BadStore(f"the checkpoint {self.save_to.name} {checkpoint.NOT_OF_IT}: {wrong}")
        checkpoint.load_raw_state(self.model, content["model"])
        self.optimizer.load_state_dict(content["optimizer"])
        self.step, self.epoch, self.examples = content["step"], content["epoch"], content["examples"]
        self.mixed = content["mixed"] or content["fingerprint"] != self.fingerprint
        self.history.rows = [tuple(row) for row in content["history"]]
        self.history.final = dict(content["final"])
        self._seconds = content["seconds"]
        self._flops_before, self._examples_before = content["flops"]
        self._changes = self.sparse.changes
        self.example_flops = self._flops_of(self.sparse.masks)
        return "resumed"
