"""The sizer's networks as RLlib modules, with the tiers that the limits forbid at minus infinity.

Knows nothing of environments or training: what is legal is read off the observation's own `max_position_pct`.
`export` takes the trained weights out, to be served without RLlib or torch.
"""

from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import torch
from gymnasium.spaces import Discrete
from ray.rllib.algorithms.dqn.torch.default_dqn_torch_rl_module import DefaultDQNTorchRLModule
from ray.rllib.algorithms.ppo.torch.default_ppo_torch_rl_module import DefaultPPOTorchRLModule
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.torch import TorchRLModule
from torch import nn

from envs.guardrails import LARGEST_SIZE, SIZES
from envs.observation import CAP_COLUMN, MARKET_COLUMNS
from market.errors import ConfigError
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


class _Sizing(TorchRLModule):
    """What the sizer's modules share; mixed into one of RLlib's.

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

    def eval(self) -> Self:
        """RLlib asks for it before every forward pass; the walk through all layers is made only once."""
        return super().eval() if self.training else self

    def standard(self, observation: torch.Tensor) -> torch.Tensor:
        """What the networks see of observations, float32[N, width]."""
        standard: torch.Tensor = (observation - self.input_mean) / self.input_scale
        return standard

    def legal(self, observation: torch.Tensor) -> torch.Tensor:
        """Legal tiers, bool[N, 6], of observations float32[N, 11 or 12]: the rule of
        `envs.guardrails.allowed`.
        """
        cap = LARGEST_SIZE * observation[..., CAP_COLUMN : CAP_COLUMN + 1]
        legal: torch.Tensor = self.sizes <= cap + CAP_SLACK
        if self.allow_skip:
            return legal
        return torch.cat([~legal[..., 1:2], legal[..., 1:]], dim=-1)


class MaskedDQN(_Sizing, DefaultDQNTorchRLModule):
    """RLlib's DQN network over standardised observations, its forbidden tiers masked."""

    def dense(self) -> tuple[list[nn.Linear], list[nn.Linear]] | None:
        """The layers of the network and of its target, if both are plain: see `tuning.learner`."""
        online, target = _plain(self.encoder, self.af), _plain(self._target_encoder, self._target_af)
        if online is None or target is None or self.uses_dueling or self.num_atoms > 1:
            return None
        return online, target

    def _qf_forward_helper(self, batch: dict[str, Any], encoder: Any, head: Any) -> dict[str, torch.Tensor]:
        observation = batch[Columns.OBS]
        output: dict[str, torch.Tensor] = super()._qf_forward_helper(
            {**batch, Columns.OBS: self.standard(observation)}, encoder, head
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


class SizingPPO(_Sizing, DefaultPPOTorchRLModule):
    """RLlib's PPO networks over standardised observations: a policy of any action space, and its critic."""

    def dense(self) -> tuple[list[nn.Linear], list[nn.Linear], nn.Parameter | None] | None:
        """The layers of the policy and of the critic, and a continuous policy's free log deviations, if both
        networks are plain and share nothing: see `tuning.learner`.
        """
        if self.model_config["vf_share_layers"]:
            return None
        log_std = getattr(self.pi, "log_std", None)
        actor = _plain(self.encoder.actor_encoder, self.pi)
        critic = _plain(self.encoder.critic_encoder, self.vf)
        if actor is None or critic is None or (log_std is None) != isinstance(self.action_space, Discrete):
            return None
        return actor, critic, log_std

    def legal(self, observation: torch.Tensor) -> torch.Tensor:
        """All outputs of a continuous policy, bool[N, ...]; the environment clamps what it is given."""
        return torch.ones((len(observation), *self.action_space.shape), dtype=torch.bool)

    def compute_values(self, batch: dict[str, Any], embeddings: Any = None) -> torch.Tensor:
        """See `ray.rllib.core.rl_module.apis.value_function_api.ValueFunctionAPI`."""
        values: torch.Tensor = super().compute_values(self._standardised(batch), embeddings)
        return values

    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return self._masked(batch, super()._forward(self._standardised(batch), **kwargs))

    def _forward_train(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return self._masked(batch, super()._forward_train(self._standardised(batch), **kwargs))

    def _standardised(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {**batch, Columns.OBS: self.standard(batch[Columns.OBS])}

    def _masked(self, batch: dict[str, Any], output: dict[str, Any]) -> dict[str, Any]:
        return output


class MaskedPPO(SizingPPO):
    """`SizingPPO` over the six tiers, its forbidden tiers masked by the rule of `MaskedDQN`."""

    def legal(self, observation: torch.Tensor) -> torch.Tensor:
        """See `MaskedDQN.legal`."""
        return _Sizing.legal(self, observation)

    def _masked(self, batch: dict[str, Any], output: dict[str, Any]) -> dict[str, Any]:
        logits = output[Columns.ACTION_DIST_INPUTS]
        legal = self.legal(batch[Columns.OBS])
        return {**output, Columns.ACTION_DIST_INPUTS: torch.where(legal, logits, -torch.inf)}

    def _forward_exploration(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Draws the tiers too, by the law of RLlib's own categorical distribution, which takes longer: one
        even draw falls into each tier's share of the whole with its probability.
        """
        with torch.no_grad():
            logits = self._forward(batch)[Columns.ACTION_DIST_INPUTS]
            # Torch's softmax over so few numbers takes longer than the whole network.
            shares = torch.exp(logits - logits.amax(dim=-1, keepdim=True))
            bounds = shares.cumsum(dim=-1)
            whole = bounds[:, -1:]
            drawn = torch.rand(whole.shape) * whole  # less than the whole, however that is rounded
            actions = (bounds <= drawn).sum(dim=-1)
            chances = shares.gather(-1, actions[:, None]) / whole
        return {
            Columns.ACTIONS: actions,
            Columns.ACTION_LOGP: chances.squeeze(-1).log(),
            Columns.ACTION_DIST_INPUTS: logits,
        }


def export(module: MaskedDQN | SizingPPO) -> Network:
    """The weights of a trained module as plain arrays: the values or logits of the module, without the mask.

    Of PPO it is the policy alone: the legal tier of its largest logit is what it most likely takes, and a
    continuous one's output is the mean.
    """
    dqn = isinstance(module, MaskedDQN)
    parts = (module.encoder, module.af) if dqn else (module.encoder.actor_encoder, module.pi)
    layers = _plain(*parts)
    if layers is None:
        raise ConfigError("hidden", str(module), "give dense layers with ReLU: they are what a bundle holds")
    return Network(
        mean=_array(module.input_mean),
        scale=_array(module.input_scale),
        weights=tuple(_array(layer.weight) for layer in layers),
        biases=tuple(_array(layer.bias) for layer in layers),
    )


def _plain(*parts: nn.Module) -> list[nn.Linear] | None:
    """The layers of `parts` as one network, or None unless it is dense layers with ReLU between them."""
    layers = [layer for part in parts for layer in part.modules() if not list(layer.children())]
    alike = all(
        isinstance(layer, nn.ReLU if i % 2 else nn.Linear) and getattr(layer, "bias", layer) is not None
        for i, layer in enumerate(layers)
    )
    return [layer for layer in layers if isinstance(layer, nn.Linear)] if alike and len(layers) % 2 else None


def _array(tensor: torch.Tensor) -> Rows:
    return np.array(tensor.detach().cpu().numpy(), dtype=np.float32)
