"""The updates of PPO and DQN on dense networks, compiled: minibatch after minibatch, in place.

Declares: M, steps of a batch; B, of a minibatch; A, outputs of the policy. The mathematics is that of RLlib's
`PPOTorchLearner` and `DQNTorchLearner`, with the gradient written out. Knows nothing of RLlib.
"""

from typing import Any, NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from market.compiled import compiled
from tuning.dense import Layers, Net, Rows, adam, adam_row, backward, forward, squared_norm

Integers = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

HALF_LOG_TWO_PI = 0.5 * np.log(2.0 * np.pi)
LARGEST_LOG_STD = 20.0  # RLlib's clip
NORM_SLACK = 1e-6  # RLlib's: keeps its clip coefficient from dividing by zero


class Adam(NamedTuple):
    """An optimizer's settings, and the largest gradient norm (infinite: no clipping)."""

    rate: float
    betas: tuple[float, float]
    epsilon: float
    largest_norm: float


class PPOBatch(NamedTuple):
    """What PPO learns from."""

    inputs: Rows  # [M, in], as the networks take them
    legal: Bools  # [M, A]; all True for a continuous policy
    actions: Rows  # [M, 1] categories, or [M, A] numbers
    logp: Rows  # [M], when they were drawn
    dist_inputs: Rows  # [M, ...], the same; read only where `kl_coefficient` is above zero
    advantages: Rows  # [M]
    value_targets: Rows  # [M]


class PPOLoss(NamedTuple):
    """The loss's settings, as RLlib names them."""

    clip: float
    value_clip: float
    value_coefficient: float
    entropy_coefficient: float
    kl_coefficient: float


class LogStd(NamedTuple):
    """The free log deviations of a continuous policy, [A], with gradient and moments; [0] of a discrete
    one.
    """

    values: Rows
    slopes: Rows
    mean: Rows
    square: Rows


class DQNBatch(NamedTuple):
    """What DQN learns from: transitions, in the order in which they are taken."""

    inputs: Rows  # [M, in]
    following: Rows  # [M, in]
    legal: Bools  # [M, A]
    following_legal: Bools  # [M, A]
    actions: Integers  # [M]
    rewards: Rows  # [M]
    terminated: Bools  # [M]


@compiled(error_model="numpy")
def ppo_updates(
    batch: PPOBatch,
    order: Integers,
    size: int,
    actor: Net,
    critic: Net,
    log_std: LogStd,
    rooms: tuple[Layers, Layers, Layers, Layers],
    loss: PPOLoss,
    optimizer: Adam,
    steps_before: int,
) -> Floats:
    """Go through minibatches of `size` rows of `order`, int64[n * size], and change the networks in place.

    `rooms`: outputs and slopes of the actor, outputs and slopes of the critic. Returns the last minibatch's
    policy loss, value loss clipped and not, explained variance, entropy, KL divergence, total loss and
    gradient norm, then how many minibatches were passed over for a gradient that was not finite.
    """
    actor_outputs, actor_slopes, critic_outputs, critic_slopes = rooms
    inputs = np.empty((size, batch.inputs.shape[1]), dtype=np.float32)
    values, value_slopes = critic_outputs[-1], critic_slopes[-1]
    figures = np.zeros(9)
    step = steps_before
    for start in range(0, len(order), size):
        rows = order[start : start + size]
        for i in range(size):
            inputs[i] = batch.inputs[rows[i]]
        forward(inputs, actor.weights, actor.biases, actor_outputs)
        forward(inputs, critic.weights, critic.biases, critic_outputs)
        if len(log_std.values):
            figures[:6] = _gaussian(batch, rows, actor_outputs[-1], actor_slopes[-1], log_std, loss)
        else:
            figures[:6] = _categorical(batch, rows, actor_outputs[-1], actor_slopes[-1], loss)
        _value(batch, rows, values, value_slopes, loss, figures)
        figures[6] = figures[0] + loss.value_coefficient * figures[1]
        figures[6] += loss.kl_coefficient * figures[5] - loss.entropy_coefficient * figures[4]
        backward(inputs, actor_outputs, actor_slopes, actor)
        backward(inputs, critic_outputs, critic_slopes, critic)
        squares = squared_norm(actor) + squared_norm(critic)
        for slope in log_std.slopes:
            squares += float(slope * slope)
        figures[7] = np.sqrt(squares)
        if not np.isfinite(figures[7]):
            figures[8] += 1
            continue
        step += 1
        scale = _clip_scale(figures[7], optimizer.largest_norm)
        rate, betas, epsilon = optimizer.rate, optimizer.betas, optimizer.epsilon
        adam(actor, scale, rate, betas, epsilon, step)
        adam(critic, scale, rate, betas, epsilon, step)
        adam_row(
            log_std.values,
            log_std.slopes,
            log_std.mean,
            log_std.square,
            scale,
            rate,
            betas,
            epsilon,
            step,
        )
    return figures


@compiled(error_model="numpy")
def dqn_updates(
    batch: DQNBatch,
    size: int,
    online: Net,
    target: tuple[Layers, Layers],
    rooms: tuple[Layers, Layers, Layers, Layers],
    gamma: float,
    double_q: bool,
    optimizer: Adam,
    steps_before: int,
) -> Floats:
    """Go through minibatches of `size` rows in order, and change the online network in place.

    `target`: weights and biases of the target network. `rooms`: outputs and slopes of the online network on
    observations, its outputs and the target's on the observations that follow. Returns the last minibatch's
    loss, the mean, largest and smallest Q value of the actions taken, the mean absolute TD error and the
    gradient norm, then how many minibatches were passed over for a gradient that was not finite.
    """
    outputs, slopes, online_following, target_following = rooms
    f = numba.float32
    q, q_slopes, chooser = outputs[-1], slopes[-1], target_following[-1]
    if double_q:
        chooser = online_following[-1]
    figures = np.zeros(7)
    step = steps_before
    for start in range(0, len(batch.rewards) - size + 1, size):
        inputs, following = batch.inputs[start : start + size], batch.following[start : start + size]
        forward(inputs, online.weights, online.biases, outputs)
        forward(following, target[0], target[1], target_following)
        if double_q:
            forward(following, online.weights, online.biases, online_following)
        figures[:5] = 0.0
        figures[2], figures[3] = -np.inf, np.inf
        for i in range(size):
            row = start + i
            best = -1
            for j in range(q.shape[1]):
                q_slopes[i, j] = 0
                if batch.following_legal[row, j] and (best < 0 or chooser[i, j] > chooser[i, best]):
                    best = j
            wanted = batch.rewards[row]
            if not batch.terminated[row] and best >= 0:
                wanted += f(gamma) * target_following[-1][i, best]
            action = batch.actions[row]
            learned = batch.legal[row, action]
            value = q[i, action] if learned else f(0.0)
            error = value - wanted
            if learned:
                q_slopes[i, action] = f(2.0) * error / f(size)
            figures[0] += error * error / size
            figures[1] += value / size
            figures[2], figures[3] = max(figures[2], value), min(figures[3], value)
            figures[4] += abs(error) / size
        backward(inputs, outputs, slopes, online)
        figures[5] = np.sqrt(squared_norm(online))
        if not np.isfinite(figures[5]):
            figures[6] += 1
            continue
        step += 1
        scale = _clip_scale(figures[5], optimizer.largest_norm)
        adam(online, scale, optimizer.rate, optimizer.betas, optimizer.epsilon, step)
    return figures


@compiled(error_model="numpy")
def _clip_scale(norm: float, largest: float) -> float:
    return 1.0 if norm + NORM_SLACK <= largest else largest / (norm + NORM_SLACK)


@compiled(error_model="numpy")
def _surrogate(advantage: Any, ratio: Any, clip: float) -> Any:
    """The clipped objective of one step, and its slope in the log probability."""
    f = numba.float32
    free = advantage * ratio
    held = advantage * min(max(ratio, f(1.0 - clip)), f(1.0 + clip))
    if held < free:
        return held, f(0.0)
    return free, free  # a number that is not finite goes on, to be seen in the gradient


@compiled(error_model="numpy")
def _categorical(batch: PPOBatch, rows: Integers, logits: Rows, slopes: Rows, loss: PPOLoss) -> Any:
    """Policy loss, three places for the critic, entropy and KL divergence; and the slopes of the loss in the
    logits.
    """
    f = numba.float32
    share = f(1.0) / f(len(rows))
    entropy_share, kl_share = f(loss.entropy_coefficient) * share, f(loss.kl_coefficient) * share
    objectives, entropies, divergences = 0.0, 0.0, 0.0
    log_p, old = np.empty(logits.shape[1], dtype=np.float32), np.empty(logits.shape[1], dtype=np.float32)
    for i in range(len(rows)):
        row = rows[i]
        legal = batch.legal[row]
        _log_softmax(logits[i], legal, log_p)
        entropy = f(0.0)
        for j in range(len(log_p)):
            slopes[i, j] = np.exp(log_p[j]) if legal[j] else f(0.0)
            if legal[j]:
                entropy -= slopes[i, j] * log_p[j]
        action = int(batch.actions[row, 0])
        ratio = np.exp(log_p[action] - batch.logp[row])
        objective, slope = _surrogate(batch.advantages[row], ratio, loss.clip)
        objectives += objective
        entropies += float(entropy)
        slope *= -share
        for j in range(len(log_p)):
            if legal[j]:
                p = slopes[i, j]
                slopes[i, j] = p * (entropy_share * (log_p[j] + entropy) - slope)
        slopes[i, action] += slope
        if loss.kl_coefficient > 0.0:
            _log_softmax(batch.dist_inputs[row], legal, old)
            for j in range(len(old)):
                if legal[j]:
                    was = np.exp(old[j])
                    divergences += was * (old[j] - log_p[j])
                    slopes[i, j] += kl_share * (np.exp(log_p[j]) - was)
    return -objectives / len(rows), 0.0, 0.0, 0.0, entropies / len(rows), divergences / len(rows)


@compiled(error_model="numpy")
def _log_softmax(logits: Rows, legal: Bools, log_p: Rows) -> None:
    """Log probabilities among the legal; the others are minus infinity."""
    f = numba.float32
    largest = f(-np.inf)
    for j in range(len(logits)):
        if legal[j]:
            largest = max(largest, logits[j])
    total = f(0.0)
    for j in range(len(logits)):
        if legal[j]:
            total += np.exp(logits[j] - largest)
    largest += np.log(total)
    for j in range(len(logits)):
        log_p[j] = logits[j] - largest if legal[j] else f(-np.inf)


@compiled(error_model="numpy")
def _gaussian(
    batch: PPOBatch, rows: Integers, means: Rows, slopes: Rows, log_std: LogStd, loss: PPOLoss
) -> Any:
    """`_categorical` for independent normal laws with free deviations; fills the slopes of those too."""
    f = numba.float32
    count = len(log_std.values)
    share = f(1.0) / f(len(rows))
    kl_share = f(loss.kl_coefficient) * share
    held = np.minimum(np.maximum(log_std.values, f(-LARGEST_LOG_STD)), f(LARGEST_LOG_STD))
    precision = np.exp(f(-2.0) * held)
    objectives, divergences = 0.0, 0.0
    log_std.slopes[:] = f(-loss.entropy_coefficient)
    for i in range(len(rows)):
        row = rows[i]
        logp = f(0.0)
        for j in range(count):
            away = batch.actions[row, j] - means[i, j]
            logp -= f(0.5) * away * away * precision[j] + held[j] + f(HALF_LOG_TWO_PI)
        ratio = np.exp(logp - batch.logp[row])
        objective, slope = _surrogate(batch.advantages[row], ratio, loss.clip)
        objectives += objective
        slope *= -share
        for j in range(count):
            away = batch.actions[row, j] - means[i, j]
            slopes[i, j] = slope * away * precision[j]
            log_std.slopes[j] += slope * (away * away * precision[j] - f(1.0))
        if loss.kl_coefficient > 0.0:
            for j in range(count):
                was = batch.dist_inputs[row, count + j]
                moved = means[i, j] - batch.dist_inputs[row, j]
                spread = (np.exp(f(2.0) * was) + moved * moved) * precision[j]
                divergences += held[j] - was + f(0.5) * spread - f(0.5)
                slopes[i, j] += kl_share * moved * precision[j]
                log_std.slopes[j] += kl_share * (f(1.0) - spread)
    entropy = 0.0
    for j in range(count):
        entropy += 0.5 + HALF_LOG_TWO_PI + held[j]
        if held[j] != log_std.values[j]:
            log_std.slopes[j] = 0
    return -objectives / len(rows), 0.0, 0.0, 0.0, entropy, divergences / len(rows)


@compiled(error_model="numpy")
def _value(
    batch: PPOBatch, rows: Integers, values: Rows, slopes: Rows, loss: PPOLoss, figures: Floats
) -> None:
    """Fill figures 1 to 3 and the slopes of the value loss in the critic's outputs."""
    f = numba.float32
    size = len(rows)
    share = f(2.0 * loss.value_coefficient) / f(size)
    clipped, unclipped, mean_error, mean_target = 0.0, 0.0, 0.0, 0.0
    for i in range(size):
        error = values[i, 0] - batch.value_targets[rows[i]]
        square = error * error
        slopes[i, 0] = share * error if square <= loss.value_clip else f(0.0)
        unclipped += square
        clipped += min(square, f(loss.value_clip))
        mean_error += error
        mean_target += batch.value_targets[rows[i]]
    mean_error, mean_target = mean_error / size, mean_target / size
    of_error, of_target = 0.0, 0.0
    for i in range(size):
        target = batch.value_targets[rows[i]]
        of_error += (values[i, 0] - target - mean_error) ** 2
        of_target += (target - mean_target) ** 2
    figures[1], figures[2] = clipped / size, unclipped / size
    freedom = max(size - 1, 1)
    figures[3] = max(-1.0, 1.0 - (of_error / freedom) / (of_target / freedom + 1e-6))
