"""The Q network of the sizer as an RLlib module: six values, with the tiers that the limits forbid at minus
infinity.

Knows nothing of environments or training: what is legal is read off the observation's own `max_position_pct`.
`export` takes the trained weights out, to be served without RLlib or torch.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from ray.rllib.algorithms.dqn.torch.default_dqn_torch_rl_module import DefaultDQNTorchRLModule
from ray.rllib.core.columns import Columns
from torch import nn

from envs.guardrails import LARGEST_SIZE, SIZES
from envs.observation import CAP_COLUMN, MARKET_COLUMNS
from policies.hybrid import Network

Rows = npt.NDArray[np.float32]

CAP_SLACK: Final = (
    1e-6  # the observation holds the cap in float32; the environment's own guardrail has the last word
)
SMALLEST_SCALE: Final = 1e-3  # a column that hardly varied in training is not blown up by what it does later
QF_PREDS: Final = "qf_preds"  # RLlib's name for the six values


def standardisation(market: Rows, width: int) -> tuple[Rows, Rows]:
    """Mean and scale of the network's inputs, float32[width] each, from the training table's market rows,
    float32[n, 12].

    The account's columns are shares of a limit already: mean 0, scale 1.
    """
    mean, scale = np.zeros(width, dtype=np.float32), np.ones(width, dtype=np.float32)
    columns = np.array([column for column in MARKET_COLUMNS if column < width])
    rows = market[:, columns].astype(np.float64)
    mean[columns] = rows.mean(axis=0)
    deviation = rows.std(axis=0)
    scale[columns] = np.where(deviation > SMALLEST_SCALE, deviation, 1.0)
    return mean, scale


class MaskedDQN(DefaultDQNTorchRLModule):
    """RLlib's DQN network over standardised observations, its forbidden tiers masked.

    `model_config` adds to RLlib's keys ``mean`` and ``scale`` (lists of one number per input) and
    ``allow_skip``. The mask is minus infinity, not a large number: RLlib's exploration draws from all actions
    whose value is finite, and its learner replaces infinite values by zero before it takes differences. SKIP,
    or MICRO where vetoes are off, is always legal, so that no row is without a finite value.
    """

    def setup(self) -> None:
        """Build the network and hold what the mask and the standardisation need."""
        super().setup()
        for name in ("mean", "scale"):
            self.register_buffer(f"input_{name}", torch.tensor(self.model_config[name], dtype=torch.float32))
        self.register_buffer("sizes", torch.tensor(SIZES, dtype=torch.float32), persistent=False)
        self.allow_skip = bool(self.model_config["allow_skip"])

    def legal(self, observation: torch.Tensor) -> torch.Tensor:
        """Legal tiers, bool[N, 6], of observations float32[N, 11 or 12]: the rule of
        `envs.guardrails.allowed`.
        """
        cap = LARGEST_SIZE * observation[..., CAP_COLUMN : CAP_COLUMN + 1]
        legal: torch.Tensor = self.sizes <= cap + CAP_SLACK
        if self.allow_skip:
            return legal
        return torch.cat([~legal[..., 1:2], legal[..., 1:]], dim=-1)

    def _qf_forward_helper(self, batch: dict[str, Any], encoder: Any, head: Any) -> dict[str, torch.Tensor]:
        observation = batch[Columns.OBS]
        standard = (observation - self.input_mean) / self.input_scale
        output: dict[str, torch.Tensor] = super()._qf_forward_helper(
            {**batch, Columns.OBS: standard}, encoder, head
        )
        output[QF_PREDS] = torch.where(self.legal(observation), output[QF_PREDS], -torch.inf)
        return output

    def _forward_exploration(self, batch: dict[str, Any], t: int) -> dict[str, torch.Tensor]:
        """Epsilon-greedy by RLlib's law and schedule; its own draw from a multinomial took longer than the
        network.
        """
        values = self.compute_q_values(batch)[QF_PREDS]
        self.epsilon_schedule.update(t)
        exploring = torch.rand((len(values), 1)) < self.epsilon_schedule.get_current_value()
        lots = torch.rand(values.shape).masked_fill(torch.isneginf(values), -torch.inf)
        return {Columns.ACTIONS: torch.where(exploring, lots, values).argmax(dim=-1)}


def export(module: MaskedDQN) -> Network:
    """The weights of a trained module as plain arrays: the same values as the module's, without the mask."""
    layers = [
        layer
        for part in (module.encoder, module.af)
        for layer in part.modules()
        if isinstance(layer, nn.Linear)
    ]
    return Network(
        mean=_array(module.input_mean),
        scale=_array(module.input_scale),
        weights=tuple(_array(layer.weight) for layer in layers),
        biases=tuple(_array(layer.bias) for layer in layers),
    )


def _array(tensor: torch.Tensor) -> Rows:
    return np.array(tensor.detach().cpu().numpy(), dtype=np.float32)
