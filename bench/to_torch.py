"""A dagrt model as a PyTorch module of the same graph and weights, so that torch, ONNX Runtime, OpenVINO and ncnn all
compute what dagrt computes. Images are NCHW inside (PyTorch's order; run it in channels_last memory), as a PyTorch user
would write it: padding that is the same on both sides is the convolution's own, a module of its own only where Keras's
"same" is asymmetric.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

ACTIVATIONS = {
    "linear": lambda x: x,
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "softmax": lambda x: torch.softmax(x, 1 if x.ndim == 4 else -1),
    "silu": F.silu,
}


def _tensor(variable: Any) -> torch.Tensor:
    return torch.from_numpy(variable.numpy().copy())


class _Same(nn.Module):
    """Keras's "same" padding of a window (kernel, strides, dilation) for one input size."""

    def __init__(
        self, size: tuple[int, int], kernel: tuple, strides: tuple, dilation: tuple, value: float = 0.0
    ) -> None:
        super().__init__()
        pads: list[int] = []
        for n, k, s, d in zip(size, kernel, strides, dilation):
            total = max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0)
            pads = [total // 2, total - total // 2, *pads]
        self.pads, self.value = pads, value
        self.symmetric = pads[0] == pads[1] and pads[2] == pads[3]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.pad(x, self.pads, value=self.value)


def _window(layer: Any, kernel: tuple, dilation: tuple, size: tuple, value: float = 0.0) -> tuple[list[nn.Module], Any]:
    if layer.padding == "valid":
        return [], 0
    pad = _Same(size, kernel, layer.strides, dilation, value)
    if pad.symmetric:
        return [], (pad.pads[2], pad.pads[0])
    return [pad], 0


def _conv(layer: Any, size: tuple, depthwise: bool) -> nn.Module:
    kernel = _tensor(layer.kernel)
    r, s, c, f = kernel.shape
    before, padding = _window(layer, (r, s), layer.dilation_rate, size)
    groups, filters = (c, c * f) if depthwise else (layer.groups, f)
    conv = nn.Conv2d(
        c if depthwise else c * groups,
        filters,
        (r, s),
        layer.strides,
        padding,
        layer.dilation_rate,
        groups,
        layer.use_bias,
    )
    conv.weight.data = (
        kernel.permute(2, 3, 0, 1).reshape(filters, 1, r, s) if depthwise else kernel.permute(3, 2, 0, 1)
    ).contiguous()
    if layer.use_bias:
        conv.bias.data = _tensor(layer.bias)
    return nn.Sequential(*before, conv) if before else conv


class _Lstm(nn.Module):
    def __init__(self, layer: Any, features: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(features, layer.units, batch_first=True)
        kernel, recurrent, bias = layer.weights
        self.lstm.weight_ih_l0.data = _tensor(kernel).T.contiguous()
        self.lstm.weight_hh_l0.data = _tensor(recurrent).T.contiguous()
        self.lstm.bias_ih_l0.data = _tensor(bias)
        self.lstm.bias_hh_l0.data.zero_()
        self.sequences = layer.return_sequences

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, (h, _) = self.lstm(x)
        return y if self.sequences else h[0]


class _Reshape(nn.Module):
    def __init__(self, shape: tuple) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.ndim == 4:
            x = x.permute(0, 2, 3, 1)
        x = x.reshape(x.shape[0], *self.shape)
        return x.permute(0, 3, 1, 2) if x.ndim == 4 else x


class _Call(nn.Module):
    def __init__(self, f: Any) -> None:
        super().__init__()
        self.f = f

    def forward(self, *xs: torch.Tensor) -> torch.Tensor:
        return self.f(*xs)


def _norm(layer: Any, rank: int) -> nn.Module:
    make = nn.BatchNorm2d if rank == 4 else nn.BatchNorm1d
    norm = make(layer.moving_mean.shape[0], layer.epsilon, 1 - layer.momentum)
    norm.weight.data, norm.bias.data = _tensor(layer.gamma), _tensor(layer.beta)
    norm.running_mean, norm.running_var = _tensor(layer.moving_mean), _tensor(layer.moving_variance)
    return norm


def _transposed(layer: Any) -> nn.Module:
    kernel = _tensor(layer.kernel)  # (R, S, filters, channels)
    if layer.padding != "valid":
        raise NotImplementedError("Conv2DTranspose with padding 'same'")
    conv = nn.ConvTranspose2d(kernel.shape[3], kernel.shape[2], tuple(kernel.shape[:2]), layer.strides)
    conv.weight.data = kernel.permute(3, 2, 0, 1).contiguous()
    conv.bias.data = _tensor(layer.bias)
    return conv


def _pool(layer: Any, kind: str, size: tuple) -> nn.Module:
    value = float("-inf") if kind == "Max" else 0.0
    before, padding = _window(layer, layer.pool_size, (1, 1), size, value)
    if kind == "Average" and (before or padding):
        raise NotImplementedError("AveragePooling2D with padding 'same'")
    pool = (
        nn.MaxPool2d(layer.pool_size, layer.strides, padding)
        if kind == "Max"
        else nn.AvgPool2d(layer.pool_size, layer.strides)
    )
    return nn.Sequential(*before, pool) if before else pool


def _module(layer: Any, shape: tuple) -> nn.Module:
    """`shape`: of the (first) input, channels last."""
    kind, size = type(layer).__name__, tuple(shape[1:3])
    if kind in ("Conv2D", "DepthwiseConv2D"):
        return _conv(layer, size, kind == "DepthwiseConv2D")
    if kind == "Conv2DTranspose":
        return _transposed(layer)
    if kind == "Dense":
        dense = nn.Linear(layer.kernel.shape[0], layer.units, layer.use_bias)
        dense.weight.data = _tensor(layer.kernel).T.contiguous()
        if layer.use_bias:
            dense.bias.data = _tensor(layer.bias)
        return dense
    if kind == "BatchNormalization":
        return _norm(layer, len(shape))
    if kind == "Embedding":
        return nn.Embedding.from_pretrained(_tensor(layer.embeddings), freeze=False)
    if kind == "LSTM":
        return _Lstm(layer, shape[-1])
    if kind in ("MaxPooling2D", "AveragePooling2D"):
        return _pool(layer, kind.removesuffix("Pooling2D"), size)
    if kind == "ReLU":
        return nn.ReLU() if layer.get_config().get("max_value") is None else nn.ReLU6()
    if kind == "UpSampling2D":
        return nn.Upsample(scale_factor=tuple(float(s) for s in layer.size))
    if kind == "ZeroPadding2D":
        (top, bottom), (left, right) = layer.padding
        return nn.ZeroPad2d((left, right, top, bottom))
    if kind == "Reshape":
        return _Reshape(tuple(layer.target_shape))
    if kind == "Functional":
        return Converted(layer)
    simple = {
        "Activation": lambda x: x,
        "GlobalAveragePooling2D": lambda x: x.mean((2, 3)),
        "GlobalMaxPooling2D": lambda x: x.amax((2, 3)),
        "Add": lambda *xs: sum(xs[1:], xs[0]),
        "Multiply": lambda a, b: a * b,
        "Concatenate": lambda *xs: torch.cat(xs, 1 if xs[0].ndim == 4 else -1),
    }
    if kind == "Rescaling":
        scale, offset = layer.scale, layer.offset
        return _Call(lambda x: x * scale + offset)
    if kind in simple:
        return _Call(simple[kind])
    raise NotImplementedError(f"to_torch: no rule for the layer {kind}")


class Converted(nn.Module):
    """The graph, run node by node; `tracing` and `torch.compile` see through it."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.steps: list[tuple[str, list[int], int, str]] = []
        number = {id(t): i for i, t in enumerate(model.inputs)}
        self.modules_by_name = nn.ModuleDict()
        for node in model._nodes:
            if node.is_input:
                continue
            layer = node.operation
            if layer.name not in self.modules_by_name:
                self.modules_by_name[layer.name] = _module(layer, node.input_tensors[0].shape)
            number[id(node.output_tensors[0])] = len(number)
            activation = getattr(layer, "activation", None) if type(layer).__name__ != "LSTM" else None
            name = getattr(activation, "__name__", "linear")
            ins = [number[id(t)] for t in node.input_tensors]
            self.steps.append((layer.name, ins, number[id(node.output_tensors[0])], name))
        self.outputs = [number[id(t)] for t in model.outputs]

    def forward(self, *xs: torch.Tensor) -> Any:
        values = dict(enumerate(xs))
        for name, ins, out, activation in self.steps:
            values[out] = ACTIVATIONS[activation](self.modules_by_name[name](*[values[i] for i in ins]))
        found = tuple(values[i] for i in self.outputs)
        return found if len(found) > 1 else found[0]


def inputs_of(xs: list[Any]) -> list[torch.Tensor]:
    """Arrays as PyTorch takes them: images NCHW in channels_last memory where they have channels, ids as int64."""
    made = []
    for x in xs:
        t = torch.from_numpy(x)
        if t.ndim == 4:
            t = t.permute(0, 3, 1, 2)
            t = t.contiguous(memory_format=torch.channels_last) if t.shape[1] > 1 else t.contiguous()
        made.append(t.long() if t.dtype == torch.int32 else t)
    return made


def outputs_of(ys: Any) -> list[Any]:
    """Back to arrays, channels last."""
    ys = ys if isinstance(ys, (tuple, list)) else [ys]
    return [(y.permute(0, 2, 3, 1) if y.ndim == 4 else y).detach().numpy() for y in ys]


def loss_of(losses: list[str], predictions: Any, targets: list[torch.Tensor]) -> torch.Tensor:
    predictions = predictions if isinstance(predictions, tuple) else (predictions,)
    total = predictions[0].new_zeros(())
    for kind, p, y in zip(losses, predictions, targets):
        if kind == "binary_crossentropy":
            total = total + F.binary_cross_entropy(p, y)
        elif kind == "categorical_crossentropy":
            total = total - (y * torch.log(p.clamp(1e-7, 1 - 1e-7))).sum(1).mean()
        else:
            total = total + ((p - y) ** 2).mean()
    return total
