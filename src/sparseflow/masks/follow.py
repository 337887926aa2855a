"""A model run in truth values: which units a signal from the input reaches, and which reach the output.

Inside `Following`, the layers of a model compute "is there a path" instead of numbers. Linear maps and convolutions
without bias turn their outputs into 0 and 1, and the gradients that come back to them too, so that nothing grows or
shrinks with depth. Whatever acts on single values (activations, normalisation, dropout) lets them pass; a maximum
becomes a mean, since every entry of a window is a path, not only the largest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from sparseflow.core import BadValue


def _names(words: str) -> frozenset[str]:
    return frozenset(words.split())


ELEMENTWISE = _names(
    "relu relu6 leaky_relu prelu rrelu elu celu selu gelu silu mish sigmoid hardsigmoid hardswish hardtanh hardshrink "
    "softshrink softplus softsign logsigmoid tanh tanhshrink threshold clamp clip clamp_min clamp_max abs neg exp "
    "pow square sqrt softmax log_softmax softmin dropout dropout1d dropout2d dropout3d alpha_dropout "
    "feature_alpha_dropout batch_norm layer_norm group_norm instance_norm rms_norm local_response_norm normalize"
)
"""Of these, the first signal among the arguments is followed, and comes back as it is."""

SUMS = _names("add iadd radd sub isub rsub subtract maximum minimum")
"""The result depends on both; what is not a signal (a shift, a learned or constant threshold) is no path."""

LAYERS = _names("linear conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d")

MEANS: Mapping[str, Callable[..., Tensor]] = {
    "max_pool1d": F.avg_pool1d,
    "max_pool2d": F.avg_pool2d,
    "max_pool3d": F.avg_pool3d,
    "adaptive_max_pool1d": F.adaptive_avg_pool1d,
    "adaptive_max_pool2d": F.adaptive_avg_pool2d,
    "adaptive_max_pool3d": F.adaptive_avg_pool3d,
    "amax": torch.mean,
    "amin": torch.mean,
}

PRODUCTS = _names("mul imul rmul multiply")

MATRIX_PRODUCTS = _names("matmul rmatmul mm bmm baddbmm einsum bilinear")

GATED = _names(
    "lstm gru rnn_tanh rnn_relu lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell multi_head_attention_forward "
    "scaled_dot_product_attention _native_multi_head_attention _transformer_encoder_layer_fwd glu"
)
"""Signals multiply signals there: a gate or an attention weight opens and closes paths that it does not lie on."""

CHOOSING = _names("max min topk kthvalue median mode cummax cummin")


class Following(TorchFunctionMode):
    """While active, torch's functions follow paths.

    A signal is what depends on the input. All else (parameters of fewer than two dimensions, what is made of weights
    alone) scales signals and is no path when it is added to one.

    Args:
        names: id of a weight of the model -> its name.

    Attributes:
        uses: (weight name, what its layer gave, axis of the units) for every use of a weight by a layer, in order; the
            outputs are 0 and 1.
    """

    def __init__(self, names: Mapping[int, str]) -> None:
        super().__init__()
        self._names = names
        self._of_weights: dict[int, Tensor] = {}
        self.uses: list[tuple[str, Tensor, int]] = []

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "").strip("_")
        signals = [a for a in _flat((*args, *kwargs.values())) if self._is_signal(a)]
        if not signals:
            out = func(*args, **kwargs)
            self._of_weights |= {id(t): t for t in _flat((out,)) if isinstance(t, Tensor) and t.requires_grad}
            return out
        if name in GATED:
            raise BadValue(f"paths cannot be followed through {name}: there signals multiply signals")
        if name in CHOOSING and len(signals) == 1:
            raise BadValue(f"paths cannot be followed through {name}, which chooses among entries; amax can be")
        if name in LAYERS and len(signals) == 1:
            return self._layer(func, args, kwargs, axis=-1 if name == "linear" else 1)
        if name in ELEMENTWISE:
            return signals[0]
        if name in MEANS:
            return _mean_of_window(name, args, kwargs)
        if name in SUMS or name in CHOOSING:
            return _sum(func, signals)
        if name in PRODUCTS:
            _check_product(signals)
        if name in MATRIX_PRODUCTS:
            if len(signals) > 1:
                raise BadValue(f"paths cannot be followed through {name} of two signals, as in attention")
            return truth(func(*args, **kwargs))
        return func(*args, **kwargs)

    def _is_signal(self, value: Any) -> bool:
        if not isinstance(value, Tensor) or not value.requires_grad:
            return False
        return id(value) not in self._names and id(value) not in self._of_weights

    def _layer(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any], axis: int) -> Tensor:
        kwargs.pop("bias", None)
        given = [*args[:2], None, *args[3:]] if len(args) > 2 else list(args)
        out = truth(func(*given, **kwargs))
        weight = args[1] if len(args) > 1 else kwargs["weight"]
        if id(weight) in self._names:
            self.uses.append((self._names[id(weight)], out, axis))
        return out.clone()  # what comes next may work in place


def _sum(func: Any, signals: Sequence[Tensor]) -> Tensor:
    if len(signals) == 1:
        return signals[0]
    in_place = func.__name__.endswith("_") and not func.__name__.endswith("__")
    return signals[0].add_(signals[1]) if in_place else signals[0] + signals[1]


def _check_product(signals: Sequence[Tensor]) -> None:
    """x * sigmoid(x) is as alive as x; a gate that is dead where the other is not says nothing about paths."""
    if len(signals) == 2 and not torch.equal(*torch.broadcast_tensors(signals[0] > 0, signals[1] > 0)):
        raise BadValue("paths cannot be followed through a product of two signals, of which one alone is dead: a gate")


class _Truth(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        if not (torch.isfinite(x).all() and (x >= 0).all()):
            raise BadValue("paths cannot be followed: a function of the model turns what is positive into negative")
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return (gradients[0] > 0).to(gradients[0].dtype)


def truth(x: Tensor) -> Tensor:
    """1 where x is positive, else 0; the gradients come back as 1 where they are positive, else 0.

    Raises:
        BadValue: for values that are negative or not finite.
    """
    out: Tensor = _Truth.apply(x)
    return out


def _flat(values: Sequence[Any]) -> list[Any]:
    """The values, with those inside of lists and tuples (`cat`, `stack`, `einsum`)."""
    found: list[Any] = []
    for value in values:
        found += _flat(value) if isinstance(value, list | tuple) else [value]
    return found


_POOLING = ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")


def _mean_of_window(name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor:
    mean = MEANS[name]
    if not name.startswith("max_pool"):
        kwargs.pop("return_indices", None)
        return mean(*args[: 3 if mean is torch.mean else 2], **kwargs)
    given = {**dict(zip(_POOLING, args[1:], strict=False)), **kwargs}
    x = args[0] if args else given.pop("input")
    dilation = given.pop("dilation", 1)
    if given.pop("return_indices", False) or any(d != 1 for d in _flat([dilation])):
        raise BadValue(f"paths cannot be followed through {name} with indices or a dilation")
    return mean(x, **given)
