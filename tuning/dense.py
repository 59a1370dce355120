"""Small dense ReLU networks, compiled: forward, gradient and Adam, in place on torch's own memory.

Declares: B, rows; W, b, layers' weights [out, in] and biases [out]. Knows nothing of losses. For networks
this small torch spends most of its time on the way to the matrix products; here nothing lies between them.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numba
import numpy as np
import numpy.typing as npt
import scipy.linalg.cython_blas  # noqa: F401 (what compiled products call: loaded, so that threads can be limited)
import torch

from market.compiled import compiled

Rows = npt.NDArray[np.float32]
Layers = tuple[Rows, ...]


class Net(NamedTuple):
    """One network with its gradient and Adam's moments, layer by layer: W [out, in] and b [out] each."""

    weights: Layers
    biases: Layers
    weight_slopes: Layers
    bias_slopes: Layers
    weight_means: Layers
    bias_means: Layers
    weight_squares: Layers
    bias_squares: Layers


def arrays_of(layers: Sequence[torch.nn.Linear]) -> tuple[Layers, Layers]:
    """W and b of each layer, on the layers' own memory."""
    weights = tuple(layer.weight.detach().numpy() for layer in layers)
    return weights, tuple(layer.bias.detach().numpy() for layer in layers)


def net_of(layers: Sequence[torch.nn.Linear], optimizer: torch.optim.Optimizer) -> Net:
    """A network and its optimizer's state, on their own memory: what is changed here is changed there."""
    weights, biases = arrays_of(layers)
    weight_moments = [moments_of(layer.weight, optimizer) for layer in layers]
    bias_moments = [moments_of(layer.bias, optimizer) for layer in layers]
    return Net(
        weights,
        biases,
        tuple(np.empty_like(weight) for weight in weights),
        tuple(np.empty_like(bias) for bias in biases),
        tuple(mean for mean, _ in weight_moments),
        tuple(mean for mean, _ in bias_moments),
        tuple(square for _, square in weight_moments),
        tuple(square for _, square in bias_moments),
    )


def moments_of(parameter: torch.Tensor, optimizer: torch.optim.Optimizer) -> tuple[Rows, Rows]:
    """Adam's two moments of a parameter, on their own memory; made as torch makes them before its first
    step.
    """
    state = optimizer.state[parameter]
    if not state:
        state["step"] = torch.tensor(0.0)
        state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
    return state["exp_avg"].numpy(), state["exp_avg_sq"].numpy()


def buffers(rows: int, weights: Layers) -> Layers:
    """Room for each layer's output: float32[rows, out]."""
    return tuple(np.empty((rows, len(weight)), dtype=np.float32) for weight in weights)


@compiled(error_model="numpy")
def forward(inputs: Rows, weights: Layers, biases: Layers, outputs: Layers) -> None:
    """Fill each layer's output, ReLU in all but the last; `inputs`: float32[B, in]."""
    last = len(weights) - 1
    for k in range(len(weights)):
        output, bias = outputs[k], biases[k]
        np.dot(inputs if k == 0 else outputs[k - 1], weights[k].T, output)
        for i in range(output.shape[0]):
            for j in range(output.shape[1]):
                value = output[i, j] + bias[j]
                output[i, j] = value if k == last or value > 0 else numba.float32(0.0)


@compiled(error_model="numpy")
def backward(inputs: Rows, outputs: Layers, slopes: Layers, net: Net) -> None:
    """Fill the gradient of `net` from the outputs of `forward` and the loss's slopes at the last one.

    `slopes` has the shapes of `outputs`: the last is given, the others are room to work in.
    """
    for k in range(len(outputs) - 1, -1, -1):
        slope, of_bias = slopes[k], net.bias_slopes[k]
        np.dot(slope.T, inputs if k == 0 else outputs[k - 1], net.weight_slopes[k])
        of_bias[:] = 0
        for i in range(slope.shape[0]):
            for j in range(slope.shape[1]):
                of_bias[j] += slope[i, j]
        if k > 0:
            before, output = slopes[k - 1], outputs[k - 1]
            np.dot(slope, net.weights[k], before)
            for i in range(before.shape[0]):
                for j in range(before.shape[1]):
                    if output[i, j] <= 0:
                        before[i, j] = 0


@compiled(error_model="numpy")
def squared_norm(net: Net) -> float:
    """Sum of the squares of the whole gradient."""
    total = 0.0
    for k in range(len(net.weights)):
        of_weight = net.weight_slopes[k]
        for i in range(of_weight.shape[0]):
            row = numba.float32(0.0)
            for j in range(of_weight.shape[1]):
                row += of_weight[i, j] * of_weight[i, j]
            total += float(row)
        for slope in net.bias_slopes[k]:
            total += float(slope * slope)
    return total


@compiled(error_model="numpy")
def adam(net: Net, scale: float, rate: float, betas: tuple[float, float], epsilon: float, step: int) -> None:
    """Adam's `step`-th step, counted from 1, along the gradient times `scale`."""
    for k in range(len(net.weights)):
        of_weight = net.weight_slopes[k]
        mean, square = net.weight_means[k], net.weight_squares[k]
        for i in range(of_weight.shape[0]):
            adam_row(net.weights[k][i], of_weight[i], mean[i], square[i], scale, rate, betas, epsilon, step)
        of_bias = net.bias_slopes[k]
        mean_b, square_b = net.bias_means[k], net.bias_squares[k]
        adam_row(net.biases[k], of_bias, mean_b, square_b, scale, rate, betas, epsilon, step)


@compiled(error_model="numpy")
def adam_row(
    values: Rows,
    slopes: Rows,
    mean: Rows,
    square: Rows,
    scale: float,
    rate: float,
    betas: tuple[float, float],
    epsilon: float,
    step: int,
) -> None:
    """`adam` for one row of numbers: float32[n] each."""
    f = numba.float32
    size = f(rate / (1.0 - betas[0] ** step))
    root = f(np.sqrt(1.0 - betas[1] ** step))
    scaled, keep, fresh, tiny = f(scale), f(betas[1]), f(1.0 - betas[1]), f(epsilon)
    share = f(1.0 - betas[0])
    for j in range(len(values)):
        slope = slopes[j] * scaled
        mean[j] += share * (slope - mean[j])
        square[j] = keep * square[j] + fresh * slope * slope
        values[j] -= size * mean[j] / (np.sqrt(square[j]) / root + tiny)
