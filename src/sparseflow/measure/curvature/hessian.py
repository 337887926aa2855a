"""The Hessian of a loss over a model's active weights, as an operator (004 app. B "Hessian calculation", E)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from sparseflow.autodiff import Slopes
from sparseflow.core import BadValue, Batch, Loss, Masks, check_positive, stand_ins
from sparseflow.measure.coordinates import Coordinates
from sparseflow.measure.curvature.symmetric import as_scipy, checked_columns
from sparseflow.measure.probing import BatchNorm, own_copy, read
from sparseflow.sparse import compact as compacted

if TYPE_CHECKING:
    from scipy.sparse.linalg import LinearOperator

Progress = Callable[[int, int], None]


def _silent(done: int, size: int) -> None:
    pass


class Hessian:
    """d^2 loss / d theta^2 over the active weights theta alone: a masked weight has no row, not one of zeros.

    The loss is the mean over all examples of `batches`, for a loss that averages over its batch. The operator is that
    of the model at this moment: it keeps a copy, so the model may train on, and nothing is left behind in it. Two
    products of one vector are equal bit for bit on one thread.

    Args:
        loss: (model output, targets) -> scalar, a mean over its batch.
        batches: (inputs, targets) pairs, all held in memory; on the CPU, many small ones take less time than one large.
        masks: of layers in masked execution; compact layers know theirs; layers without one are dense.
        batch_norm: normalise with the running statistics ("eval": the loss of the network as it is used) or with
            each batch's ("train": what the optimiser sees, and the one that makes sense before training). Everything
            else, dropout included, is in evaluation mode.
        others: biases and the parameters of normalisation and activations are coordinates too, after the weights.
        dtype: of the copy and of floating-point inputs and targets; the model's own by default. Eigenvalues near 0
            need float64.
        compact: convert the copy's masked layers to compact execution, which gives the same products and pays at low
            density.
        keep_graphs: keep the graph of every batch between products; False makes it anew for each, at about
            twice the time and the memory of one batch's graph.
        vectors_at_once: of `matmat`, in one backward pass (torch's vmap); more than 1 pays for nets so small that a
            pass costs its overhead.

    Attributes:
        coordinates: which weight each coordinate is (`Coordinates`); `coordinates.dense(v)` is v by weight name.
        weights, gradient: (size,) the active weights and the gradient of the loss.
        value: the loss.
        products: how many products with a vector have been taken.

    Raises:
        BadValue: without an active weight, for a mask that fits no weight or that the weights do not keep to, an
            unknown `batch_norm`, no batches, a loss or gradient that is not finite (its batch is named).
        SparseflowError: for a loss that is not a scalar.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        batches: Iterable[Batch],
        masks: Masks | None = None,
        *,
        batch_norm: BatchNorm = "eval",
        others: bool = False,
        dtype: torch.dtype | None = None,
        compact: bool = False,
        keep_graphs: bool = True,
        vectors_at_once: int = 1,
    ) -> None:
        work = own_copy(model, batch_norm)
        Coordinates(work, masks, others=others)  # refuses masks that do not fit before layers are converted by them
        _check_kept(work, masks or {})
        if compact:
            work = compacted(work, masks or {}).model
        self._model, self._loss = work.to(dtype=dtype), loss
        self._at_once = check_positive("vectors_at_once", vectors_at_once)
        if vectors_at_once > 1 and stand_ins(work):
            raise BadValue("vectors_at_once must be 1 in compact execution, whose products have no rule for vmap")
        self.coordinates = Coordinates(work, _uncompacted(work, masks or {}), others=others)
        self._leaves = self.coordinates.held_by(work)
        if len(dtypes := {leaf.dtype for leaf in self._leaves.values()}) > 1:
            raise BadValue(f"the weights are of several dtypes ({', '.join(sorted(map(str, dtypes)))}); give dtype=")
        for leaf in self._leaves.values():
            leaf.requires_grad_(True)
        self._batches = [_cast(batch, dtype) for batch in read(batches)]
        self._examples = sum(len(targets) for _, targets in self._batches)
        self._kept: list[Slopes] | None = [] if keep_graphs else None
        self.products = 0
        self.weights = self.coordinates.of_model(work)
        self.value, self.gradient = self._first_pass()

    @property
    def size(self) -> int:
        """The number of active weights; the matrix is (size, size)."""
        return self.coordinates.size

    @property
    def dtype(self) -> torch.dtype:
        return self.weights.dtype

    @property
    def device(self) -> torch.device:
        return self.weights.device

    def matvec(self, vector: Tensor) -> Tensor:
        """H v: (size,) -> (size,), in the model's dtype."""
        return self.matmat(vector.reshape(-1, 1)).squeeze(1)

    def matmat(self, vectors: Tensor) -> Tensor:
        """H V: (size, k) -> (size, k), in the model's dtype.

        Raises:
            BadValue: for another number of rows.
        """
        columns = checked_columns(self, vectors).T
        total = torch.zeros_like(columns)
        for share, slopes in self._each():
            for some in torch.arange(len(columns)).split(self._at_once):
                keep = self._kept is not None or int(some[-1]) + 1 < len(columns)
                total[some] += self._product(slopes, columns[some], keep).mul_(share)
            del slopes  # before the next batch's graph is made
        self.products += len(columns)
        return total.T

    def exact(self, progress: Progress = _silent) -> Tensor:
        """The matrix, (size, size), from `size` products, symmetrised; size^2 numbers in memory.

        Args:
            progress: called with (columns done, size).
        """
        matrix = torch.empty(self.size, self.size, dtype=self.dtype, device=self.device)
        for columns, images in self._columns(progress):
            matrix[:, columns] = images
        return matrix.add_(matrix.T.clone()).div_(2)

    def trace(self, progress: Progress = _silent) -> float:
        """tr H, exactly, from `size` products and without the matrix; `hutchinson` estimates it from fewer.

        Args:
            progress: called with (columns done, size).
        """
        return sum(float(images[columns, range(len(columns))].sum()) for columns, images in self._columns(progress))

    def operator(self) -> LinearOperator:
        """The same as scipy's linear operator on numpy arrays, for its eigensolvers."""
        return as_scipy(self)

    def _columns(self, progress: Progress) -> Iterator[tuple[Tensor, Tensor]]:
        """(which, (size, k)): columns of the matrix, some at a time, so that a fresh graph serves several."""
        for columns in torch.arange(self.size, device=self.device).split(max(self._at_once, 32)):
            units = torch.zeros(self.size, len(columns), dtype=self.dtype, device=self.device)
            units[columns, range(len(columns))] = 1.0
            yield columns, self.matmat(units)
            progress(int(columns[-1]) + 1, self.size)

    def _product(self, slopes: Slopes, rows: Tensor, keep: bool) -> Tensor:
        """(k, size) -> (k, size) of one batch."""
        if len(rows) == 1:
            return self.coordinates.gather(slopes.product(self.coordinates.scatter(rows[0]), keep=keep)).unsqueeze(0)
        return self.coordinates.gather(slopes.products(self.coordinates.scatter(rows), keep=keep))

    def _each(self) -> Iterator[tuple[float, Slopes]]:
        """(share of all examples, gradient with its graph) of every batch."""
        for k, batch in enumerate(self._batches):
            if self._kept is not None and k == len(self._kept):
                self._kept.append(self._slopes(batch))
            # No name here for a fresh one, which would hold its graph until the next is made.
            yield len(batch[1]) / self._examples, self._slopes(batch) if self._kept is None else self._kept[k]

    def _slopes(self, batch: Batch) -> Slopes:
        return Slopes(self._model, self._loss, batch, self._leaves)

    def _first_pass(self) -> tuple[float, Tensor]:
        value, gradient = 0.0, torch.zeros_like(self.weights)
        each = self._each()
        for number in range(1, len(self._batches) + 1):  # enumerate and zip hold on to what they gave last
            share, slopes = next(each)
            here = float(slopes.value)
            if not torch.isfinite(slopes.value):
                raise BadValue(f"the loss of batch {number} of {len(self._batches)} is {here}, which has no curvature")
            slope = self.coordinates.gather(slopes.gradient)
            if not torch.isfinite(slope).all():
                raise BadValue(f"the gradient of batch {number} of {len(self._batches)} is not finite, its loss {here}")
            value += share * here
            gradient += slope.mul_(share)
            del slopes
        return value, gradient


def _check_kept(model: nn.Module, masks: Masks) -> None:
    layers = stand_ins(model)
    for name in masks:
        if name in layers:
            if not layers[name].has_mask(masks[name]):
                raise BadValue(f"{name} is compact and has another mask than the one given; leave that out")
            continue
        weight = model.get_parameter(name)
        outside = int((weight != 0).sum() - (weight[masks[name].to(weight.device)] != 0).sum())
        if outside:
            raise BadValue(f"{name} has {outside:,} nonzero weights where the mask has none; multiply it by the mask")


def _uncompacted(model: nn.Module, masks: Masks) -> Masks:
    layers = stand_ins(model)
    return {name: masks[name] for name in masks if name not in layers}


def _cast(batch: Batch, dtype: torch.dtype | None) -> Batch:
    if dtype is None:
        return batch
    inputs, targets = (part.to(dtype) if part.is_floating_point() else part for part in batch)
    return inputs, targets
