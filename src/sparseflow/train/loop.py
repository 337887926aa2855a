"""The training loop that studies use; a user's own loop needs only `Sparse`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparseflow.core import (
    Loss,
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
from sparseflow.data import Prepared, crop_flip
from sparseflow.train import checkpoint
from sparseflow.train.evaluate import evaluate
from sparseflow.train.points import measuring_steps
from sparseflow.train.schedules import Schedule
from sparseflow.train.sparse import Sparse

_FORMAT = 1
"""Of checkpoints; one of another format is ignored."""


@dataclass(frozen=True)
class Plan:
    """How to train; everything random follows from `seed`."""

    epochs: int
    batch_size: int = 128
    seed: int = 0
    augment: bool = False
    l1: float = 0.0
    points: int = 11
    eval_every: int = 1
    schedule: Callable[[int, int], Schedule] | None = None
    """(total steps, steps per epoch) -> schedule; None keeps the optimiser's rates."""
    loss: Loss = F.cross_entropy


@dataclass
class Outcome:
    """How a training ended."""

    status: str
    """finished, diverged (training loss or weights not finite) or stopped (asked to; a checkpoint was written)."""
    step: int
    epoch: int
    """Whole epochs finished."""
    examples: int
    """Training examples seen, repeats counted."""
    final: dict[str, float] = field(default_factory=dict)
    """Metric -> value at the end of the last epoch; `best_*` at the epoch of highest validation accuracy."""
    digest: str = ""
    """SHA-256 of the final parameters and buffers."""


class Trainer:
    """One training of one model on one prepared data set, which can be stopped, killed and resumed bit for bit.

    Args:
        model, masks, optimizer: masked layers are kept by `Sparse`; compact ones keep themselves.
        probes: measured at the plan's points.
        record: receives every measured value as it appears.
        save_to: checkpoint file; None keeps none. `resume` goes on from one of the same `identity`.
        should_stop: asked at the end of each epoch.
        save_every_s: an epoch's end writes a checkpoint when waiting for the next would leave more than this unsaved.
        identity: what the checkpoint belongs to; another run's checkpoint is ignored.
        fingerprint: what the bits depend on; `mixed` says whether a resumed part ran under another one.
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
    ) -> None:
        self.model, self.optimizer, self.data, self.plan = model, optimizer, data, plan
        self.sparse = Sparse(model, masks, optimizer)
        self.probes, self.record, self.should_stop = probes, record, should_stop
        self.save_to, self.identity, self.fingerprint = save_to, identity, fingerprint
        self.step = self.epoch = self.examples = 0
        self.mixed = False
        self.save_every_s = save_every_s
        self.seconds = 0.0
        """Seconds of work before this attempt began."""
        self.final: dict[str, float] = {}
        self.history: list[tuple[int, float, str, str, float]] = []
        """Everything recorded so far: (step, epoch, metric, layer, value)."""
        self._batches_per_epoch = len(list(self._batches(torch.arange(len(data.train)))))
        total = plan.epochs * self._batches_per_epoch
        self._schedule = plan.schedule(total, self._batches_per_epoch) if plan.schedule else None
        self._base_rates = [group["lr"] for group in optimizer.param_groups]
        self._points = frozenset(measuring_steps(plan.epochs, self._batches_per_epoch, plan.points))
        self._began_at = self._saved_at = time.monotonic()
        self._weights = list(weight_values(model).values())

    @property
    def total_steps(self) -> int:
        return self.plan.epochs * self._batches_per_epoch

    def run(self) -> Outcome:
        """Train to the end; call `resume` before to go on from a checkpoint."""
        self._began_at = self._saved_at = time.monotonic()
        while self.epoch < self.plan.epochs:
            epoch_began = time.monotonic()
            if not self._run_epoch():
                return self._outcome("diverged")
            self.epoch += 1
            if self.epoch < self.plan.epochs and self.should_stop():
                self._save()
                return self._outcome("stopped")
            now = time.monotonic()
            if (now - self._saved_at) + (now - epoch_began) > self.save_every_s:
                self._save()
        finite = all(bool(torch.isfinite(p).all()) for p in self.model.parameters())
        return self._outcome("finished" if finite else "diverged")

    def _run_epoch(self) -> bool:
        """One pass over the training split; False if the loss was not finite."""
        plan = self.plan
        order = torch.randperm(len(self.data.train), generator=stream(plan.seed, "data", self.epoch))
        draws = stream(plan.seed, "augment", self.epoch)
        total = torch.zeros((), dtype=torch.float64, device=self.data.device)
        seen = self.examples
        self.model.train()
        with global_stream(plan.seed, "dropout", self.epoch):
            for indices in self._batches(order.to(self.data.device)):
                total += self.train_step(indices, draws).double() * len(indices)
                if self.step in self._points:
                    self._measure()
        train_loss = float(total) / (self.examples - seen)
        values = {Metric("train_loss"): train_loss}
        if self._evaluates(self.epoch + 1) and self.step not in self._points:
            values |= self._evaluate()
        self._note(values)
        return isfinite(train_loss)

    def train_step(self, indices: Tensor, draws: torch.Generator) -> Tensor:
        """One optimisation step on the given training examples; the data loss, detached, without penalty."""
        if self._schedule is not None:
            factor = self._schedule(self.step)
            for group, rate in zip(self.optimizer.param_groups, self._base_rates, strict=True):
                group["lr"] = rate * factor
        x, y = self._inputs(indices, draws)
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.plan.loss(self.model(x), y)
        (loss + self._penalty() if self.plan.l1 else loss).backward()
        self.optimizer.step()
        self.step += 1
        self.examples += len(indices)
        return loss.detach()

    def _inputs(self, indices: Tensor, draws: torch.Generator) -> tuple[Tensor, Tensor]:
        if not self.plan.augment:
            return self.data.batch(self.data.train, indices)
        taken = self.data.train.take(indices)
        return self.data.normalise(crop_flip(taken.x, draws, padding=4, flip=self.data.flip_ok)), taken.y

    def _penalty(self) -> Tensor:
        return self.plan.l1 * torch.stack([weight.abs().sum() for weight in self._weights]).sum()

    def _batches(self, order: Tensor) -> Iterator[Tensor]:
        # A last batch of one example has no batch statistics, so it is left out.
        return (part for part in order.split(self.plan.batch_size) if len(part) > 1 or len(order) == 1)

    def _evaluates(self, epoch: int) -> bool:
        return epoch == self.plan.epochs or (self.plan.eval_every > 0 and epoch % self.plan.eval_every == 0)

    def _evaluate(self) -> dict[Metric, float]:
        values: dict[Metric, float] = {}
        for name, split in (("test", self.data.test), ("val", self.data.val)):
            if split is not None:
                loss, accuracy = evaluate(self.model, self.data, split, self.plan.loss)
                values |= {Metric(f"{name}_loss"): loss, Metric(f"{name}_accuracy"): accuracy}
        return values

    def _measure(self) -> None:
        values = self._evaluate()
        for probe in self.probes:
            values |= probe(self.model, self.sparse.masks)
        values[Metric("point")] = float(sorted(self._points).index(self.step))
        self._note(values)
        self.model.train()

    def _note(self, values: Mapping[Metric, float]) -> None:
        at = Moment(self.step, self.step / self._batches_per_epoch)
        self.history.extend((at.step, at.epoch, m.name, m.layer, float(v)) for m, v in values.items())
        whole = {m.name: float(v) for m, v in values.items() if not m.layer and m.name != "point"}
        self.final |= whole
        best = self.final.get("best_val_accuracy", float("-inf"))
        if whole.get("val_accuracy", float("-inf")) > best:
            # Chosen on the validation split; the test values of that moment stand beside it.
            evaluated = {name: value for name, value in whole.items() if name.startswith(("test_", "val_"))}
            self.final |= {f"best_{name}": value for name, value in evaluated.items()} | {"best_epoch": at.epoch}
        if self.record is not None:
            self.record(at, values)

    def _outcome(self, status: str) -> Outcome:
        digest = state_digest(checkpoint.raw_state(self.model)) if status != "stopped" else ""
        return Outcome(status, self.step, self.epoch, self.examples, dict(self.final), digest)

    def state(self) -> dict[str, Any]:
        """Everything that a resumed training needs."""
        return {
            "format": _FORMAT,
            "identity": self.identity,
            "seconds": self.seconds + time.monotonic() - self._began_at,
            "step": self.step,
            "epoch": self.epoch,
            "examples": self.examples,
            "fingerprint": self.fingerprint,
            "mixed": self.mixed,
            "model": checkpoint.raw_state(self.model),
            "optimizer": self.optimizer.state_dict(),
            "history": self.history,
            "final": self.final,
        }

    def _save(self) -> None:
        if self.save_to is not None:
            checkpoint.save(self.save_to, self.state())
        self._saved_at = time.monotonic()

    def resume(self) -> str:
        """Go on from the checkpoint of the same identity; "resumed", "absent", or "damaged": set aside as .bad."""
        if self.save_to is None or not self.save_to.exists():
            return "absent"
        content = checkpoint.load(self.save_to, self.data.device)
        if content is None:
            self.save_to.replace(self.save_to.with_suffix(".bad"))
            return "damaged"
        if content.get("format") != _FORMAT or content["identity"] != self.identity:
            return "absent"
        checkpoint.load_raw_state(self.model, content["model"])
        self.optimizer.load_state_dict(content["optimizer"])
        self.step, self.epoch, self.examples = content["step"], content["epoch"], content["examples"]
        self.mixed = content["mixed"] or content["fingerprint"] != self.fingerprint
        self.history = [tuple(row) for row in content["history"]]
        self.final = dict(content["final"])
        self.seconds = content["seconds"]
        return "resumed"
