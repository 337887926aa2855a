"""Every way to carry out one sparse layer that is timed here: this project's and its rivals, each in its best form.

An `Implementation` makes of a dense layer with exact zeros and its mask a module that takes and gives tensors of the
same shapes. Where a library has several forms (kernels, memory formats), each is a `Form`: all are timed in the same
run, and the fastest stands for the library.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from sparseflow.bench.cases import LayerCase, Layout
from sparseflow.bench.torch_csr import TorchCsrLinear
from sparseflow.core import BadValue, Catalog, SparseflowError
from sparseflow.sparse import batch_first, compact
from sparseflow.train import Sparse

Make = Callable[[Any, Tensor], nn.Module]
"""(dense layer with exact zeros, mask) -> the module that takes its place; it may take over the layer."""


class Missing(SparseflowError):
    """An implementation that is not here, with a sentence on how to get it."""


@dataclass(frozen=True)
class Form:
    """One form of an implementation.

    Attributes:
        name: tells the forms of one implementation apart; "" where there is only one.
        layouts: of the input and of the output's gradient.
        plain_output: the output is made contiguous, and that is timed.
        fits: whether it is right for a case.
    """

    name: str
    make: Make
    layouts: tuple[Layout, Layout] = ("batch-major", "batch-major")
    plain_output: bool = False
    fits: Callable[[LayerCase], bool] = lambda case: True


Forms = dict[str, tuple[Form, ...]]
"""Kind of layer ("linear", "conv") -> the forms that it can have."""

implementations: Catalog[Callable[[], Forms]] = Catalog("implementation")
"""Facts: `label`, as rows and tables name it; `twin`, whether it runs the dense twin of a case instead of the case."""


def as_masked(layer: nn.Module, mask: Tensor) -> nn.Module:
    """Masked execution as `Sparse` does it: the dense layer, and a hook that masks its weight's gradient."""
    Sparse(layer, {"weight": mask}, torch.optim.SGD(layer.parameters(), lr=0.0))
    return layer


def as_pruned(layer: nn.Module, mask: Tensor) -> nn.Module:
    """torch.nn.utils.prune: the forward pass computes weight = weight_orig * mask."""
    prune.custom_from_mask(layer, "weight", mask)
    return layer


def as_compact(layer: nn.Module, mask: Tensor) -> nn.Module:
    """This project's compact layer.

    Raises:
        Missing: where the layer has no compact form.
    """
    conversion = compact(nn.Sequential(layer), {"0.weight": mask})
    if conversion.left_masked:
        raise Missing(f"compact is left out: {conversion.left_masked['0.weight']}")
    return conversion.model.get_submodule("0")


def as_sparselab(layer: nn.Linear, mask: Tensor) -> nn.Module:
    """sparselab's kernels.

    Raises:
        Missing: where it is not installed.
    """
    lab, ops = _imported("sparselab", "sparselab.ops")
    return _SparselabLinear(lab, ops, layer)


def as_sparseprop(layer: nn.Linear, mask: Tensor) -> nn.Module:
    """sparseprop's linear layer.

    Raises:
        Missing: where it is not installed.
    """
    (modules,) = _imported("sparseprop.modules")
    made: nn.Module = modules.SparseLinear.from_dense(layer)
    return made


def as_sparseprop_conv(over_output: bool) -> Make:
    """sparseprop's convolution, vectorised over the output's width or over the batch."""

    def make(layer: nn.Conv2d, mask: Tensor) -> nn.Module:
        (modules,) = _imported("sparseprop.modules")
        made: nn.Module = modules.SparseConv2d.from_dense(layer, vectorizing_over_on=over_output)
        return made

    return make


def _as_it_is(layer: nn.Module, mask: Tensor) -> nn.Module:
    return layer


def _channels_last(make: Make) -> Make:
    def made(layer: nn.Module, mask: Tensor) -> nn.Module:
        return make(layer.to(memory_format=torch.channels_last), mask)  # type: ignore[call-overload]

    return made


def _dense_forms(make: Make) -> tuple[Form, ...]:
    """torch's own convolutions prefer one memory format or the other, depending on the shape."""
    last: tuple[Layout, Layout] = ("channels-last", "channels-last")
    return Form("contiguous", make), Form("channels-last", _channels_last(make), last)


@implementations.add("compact", cite="this project", label="compact", twin=False)
def _compact() -> Forms:
    """Active weights only, in the layout that flows between compact layers (feature-major)."""
    form = Form("", as_compact, ("feature-major", "feature-major"))
    return {"linear": (form,), "conv": (form,)}


@implementations.add("compact-batch-major", cite="this project", label="compact, batch-major", twin=False)
def _compact_batch_major() -> Forms:
    """The same with contiguous input, output and output gradient; the conversions are timed."""
    form = Form("", as_compact, plain_output=True)
    return {"linear": (form,), "conv": (form,)}


@implementations.add("twin", cite="the comparison's other member", label="dense twin", twin=True)
def _twin() -> Forms:
    """The dense layer with as many weights, both dimensions scaled by the root of the density."""
    return {"linear": (Form("", _as_it_is),), "conv": _dense_forms(_as_it_is)}


@implementations.add("dense", cite="torch", label="dense", twin=False)
def _dense() -> Forms:
    """torch's dense convolution of the same shape (a dense linear layer is what masked execution runs)."""
    return {"conv": _dense_forms(_as_it_is)}


@implementations.add("masked", cite="this project", label="masked", twin=False)
def _masked() -> Forms:
    """The dense layer with exact zeros, its gradient masked by a hook (`Sparse`)."""
    return {"linear": (Form("", as_masked),), "conv": _dense_forms(as_masked)}


@implementations.add("prune", cite="torch.nn.utils.prune", label="torch prune", twin=False)
def _prune() -> Forms:
    """torch.nn.utils.prune: weight_orig * mask in every forward pass."""
    return {"linear": (Form("", as_pruned),), "conv": _dense_forms(as_pruned)}


@implementations.add("csr", cite="torch.sparse", label="torch CSR", twin=False)
def _csr() -> Forms:
    """torch's CSR products in an autograd function, feature-major."""
    return {"linear": (Form("", TorchCsrLinear, ("feature-major", "feature-major")),)}


@implementations.add("sparselab", cite="sparselab 0.2.2", label="sparselab", twin=False)
def _sparselab() -> Forms:
    """sparselab's padded CSR kernels, feature-major as they want it."""
    return {"linear": (Form("", as_sparselab, ("feature-major", "feature-major")),)}


@implementations.add("sparseprop", cite="Nikdan et al. 2023, arXiv:2302.04852", label="sparseprop", twin=False)
def _sparseprop() -> Forms:
    """sparseprop's layers: both input layouts, for convolutions both of its kernels."""
    linear = (
        Form("batch-major", as_sparseprop),
        # Its blocked transpose, for sizes that are multiples of 16, takes any tensor for a contiguous one. For other
        # sizes it transposes by copying, which a transposed input saves.
        Form(
            "feature-major",
            as_sparseprop,
            ("feature-major", "batch-major"),
            fits=lambda case: bool(case.batch % 16 or case.into % 16),
        ),
    )
    conv = (
        # Its loop over what is left of a batch after multiples of 8 misses three of four columns.
        Form(
            "over batch",
            as_sparseprop_conv(over_output=False),
            ("feature-major", "feature-major"),
            fits=lambda case: case.batch % 8 == 0,
        ),
        Form("over width", as_sparseprop_conv(over_output=True)),
    )
    return {"linear": linear, "conv": conv}


HOW_TO_GET = {
    "sparselab": "pip install -c constraints.txt sparselab==0.2.2",
    "sparseprop": "pip install -c constraints.txt pybind11 setuptools wheel tqdm, then "
    "pip install -c constraints.txt --no-build-isolation sparseprop==0.1.14 (a C++ compiler with AVX2 is needed)",
}


def _imported(*names: str) -> list[Any]:
    library = names[0].partition(".")[0]
    try:
        return [importlib.import_module(name) for name in names]
    except Exception as error:  # a wheel for another processor or torch fails in many ways
        reason = "not installed" if isinstance(error, ModuleNotFoundError) else f"does not load ({error})"
        raise Missing(f"{library} is left out: {reason}; to get it: {HOW_TO_GET[library]}") from None


class _SparselabLinear(nn.Module):
    """sparselab's autograd function on its padded CSR; its own SparseLinear draws a random mask, and copies twice.

    `values` is padded: `live` says where the active ones stand, row-major.
    """

    def __init__(self, lab: Any, ops: Any, layer: nn.Linear) -> None:
        super().__init__()
        self._apply_product = ops._SpMMFunction.apply
        # It keeps transposes by id(), which a layer that is gone may have had before this one.
        ops._clear_transpose_cache()
        self._csr = lab.PaddedCSR.from_dense(layer.weight.detach())
        # Shares memory with the kernels' own buffer, so an optimiser's step reaches them.
        self.values = nn.Parameter(torch.from_numpy(self._csr.values))
        self.live = torch.tensor(self._csr.col_indices) >= 0

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self._apply_product(self.values, self._csr, x.t().contiguous(), "simd")
        return y.t()


def timed_call(name: str, form: str, case: LayerCase) -> Callable[[], Tensor]:
    """A closure: forward pass, input gradient and weight gradient through autograd; it returns the output.

    Args:
        name: in `implementations`.
        form: name of one of its forms.

    Raises:
        Missing: where the implementation is not here.
    """
    module, x, g, plain = prepare(name, form, case)
    leaves = [x, *module.parameters()]

    def call() -> Tensor:
        # Accumulated as in training, so that hooks on gradients run and each gradient gets its leaf's layout.
        for leaf in leaves:
            leaf.grad = None
        y: Tensor = module(x)
        if plain:
            y = batch_first(y)
        y.backward(g)
        return y

    return call


def prepare(name: str, form: str, case: LayerCase) -> tuple[nn.Module, Tensor, Tensor, bool]:
    """(module, input, output gradient, whether the output is made contiguous) of one form on one case."""
    chosen = next((f for f in forms_for(name, case) if f.name == form), None)
    if chosen is None:
        known = ", ".join(repr(f.name) for f in forms_for(name, case))
        raise BadValue(f"{name} has no form {form!r} for {case.title} (it has: {known or 'none'})")
    if implementations.entry(name).facts["twin"]:
        case = case.twin()
    mask = case.mask()
    module = chosen.make(case.layer(mask), mask)
    return module, case.input(chosen.layouts[0]), case.output_gradient(chosen.layouts[1]), chosen.plain_output


def forms_for(name: str, case: LayerCase) -> tuple[Form, ...]:
    """The forms of an implementation that can do a case."""
    return tuple(form for form in forms(name, case.kind) if form.fits(case))


def forms(name: str, kind: str) -> tuple[Form, ...]:
    """The forms of an implementation for a kind of layer; none if it cannot do that kind."""
    return implementations[name]().get(kind, ())


def label(name: str, form: str = "") -> str:
    """As rows name it, e.g. "dense (channels-last)"."""
    text = str(implementations.entry(name).facts["label"])
    return f"{text} ({form})" if form else text
