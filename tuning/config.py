"""What a training run is made of: one frozen, typed model, read from a mapping or a file.

Knows nothing of training. A search space uses the same keys, written with dots: ``dqn.gamma``.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal, Self, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from envs.guardrails import Limits
from envs.sizing_env import Session
from market.digests import digest_of
from market.errors import ConfigError, first_line
from signals.outcomes import Costs

Units = Annotated[int, Field(ge=1, le=4_096)]
Share = Annotated[float, Field(gt=0, lt=1)]

PRESETS: Final = ("default", "owner")
BOUNDS: Final = {
    "gt": "above",
    "ge": "at least",
    "lt": "below",
    "le": "at most",
    "min_length": "at least",
    "max_length": "at most",
}


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class _Learning(_Settings):
    """What every learner is told: the network, how many steps, and when to look up from it."""

    hidden: tuple[Units, ...] = Field(
        (64, 32), min_length=1, max_length=8, description="units of each hidden layer"
    )
    learning_rate: float = Field(0.005, gt=0, le=1, description="at the first step; falls in a straight line")
    final_learning_rate: float = Field(0.0001, gt=0, le=1, description="at the last step")
    gamma: float = Field(1.0, ge=0, le=1, description="discount per signal; 0 looks at no later signal")
    environments: int = Field(64, ge=1, le=4_096, description="accounts stepped together")
    env_runners: int = Field(0, ge=0, le=256, description="remote sampling processes; 0 samples in this one")
    env_steps: int = Field(60_000, ge=1, le=10**9, description="signals sized in training, over all accounts")
    episodes: int | None = Field(
        None, ge=1, le=10**8, description="episodes to train for, in place of env_steps"
    )
    report_every: int = Field(1_000, ge=1, description="environment steps between two scores")
    checkpoint_every: int = Field(10_000, ge=1, description="environment steps between two checkpoints")


class DQNSettings(_Learning):
    """The masked DQN; the defaults are what measured best on the oracle market."""

    double_q: bool = Field(
        False, description="choose the next action by the online network, value it by the target's"
    )
    counterfactual: bool = Field(
        False, description="learn from what every legal tier would have brought, beside the one taken"
    )
    replay_capacity: int = Field(100_000, ge=1_000, le=10_000_000, description="transitions kept")
    train_batch_size: int = Field(1024, ge=1, le=65_536, description="transitions in one update")
    training_intensity: float = Field(
        32.0, gt=0, le=1_024, description="replayed transitions per environment step"
    )
    learning_starts: int = Field(1_000, ge=1, description="environment steps before the first update")
    target_update: int = Field(
        2_000, ge=1, description="environment steps between updates of the target network"
    )
    target_rate: float = Field(
        1.0, gt=0, le=1, description="how far an update moves the target network: 1 copies, less averages"
    )
    epsilon: float = Field(1.0, ge=0, le=1, description="share of random legal actions at the first step")
    final_epsilon: float = Field(0.3, ge=0, le=1, description="the same at the last step")

    @property
    def env_steps_per_update(self) -> float:
        """Environment steps sampled for each update of the network."""
        return self.train_batch_size / self.training_intensity


class _PPO(_Learning):
    """What PPO is told, whatever it trains: a policy network, and a value network of the same shape."""

    key: ClassVar[str]  # of the settings in the configuration

    learning_rate: float = Field(0.003, gt=0, le=1, description="at the first step; falls in a straight line")
    final_learning_rate: float = Field(0.0003, gt=0, le=1, description="at the last step")
    lambda_: float = Field(0.8, ge=0, le=1, description="how far an advantage looks past the value network")
    train_batch_size: int = Field(
        15_360, ge=1, le=10_000_000, description="environment steps that one update learns from"
    )
    epochs: int = Field(4, ge=1, le=100, description="passes over each batch")
    minibatch_size: int = Field(2_048, ge=1, le=1_000_000, description="steps in one step of the optimizer")
    clip: float = Field(0.2, gt=0, le=1, description="change of an action's probability that is rewarded")
    entropy: float = Field(0.0, ge=0, le=1, description="weight of the policy's entropy in the loss")
    value_loss: float = Field(
        0.5, ge=0, le=100, description="weight of the value network's error in the loss"
    )
    value_clip: float | None = Field(
        None, gt=0, description="largest squared error of a value in the loss; no limit if absent"
    )
    grad_clip: float | None = Field(0.5, gt=0, description="largest norm of a gradient; no limit if absent")
    use_kl: bool = Field(False, description="hold a policy to the one before it by their KL divergence")
    environments: int = Field(256, ge=1, le=4_096, description="accounts stepped together")
    env_steps: int = Field(
        300_000, ge=1, le=10**9, description="signals sized in training, over all accounts"
    )
    report_every: int = Field(15_000, ge=1, description="environment steps between two scores")
    checkpoint_every: int = Field(100_000, ge=1, description="environment steps between two checkpoints")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.minibatch_size > self.train_batch_size:
            raise ConfigError(
                f"{self.key}.minibatch_size",
                self.minibatch_size,
                f"give at most {self.key}.train_batch_size, {self.train_batch_size}",
            )
        return self


class PPOSettings(_PPO):
    """The masked PPO, which chooses tiers."""

    key: ClassVar[str] = "ppo"

    warm_start: Literal["none", "plugin", "rule"] = Field(
        "none",
        description="the policy that is imitated before PPO starts: none, the plug-in or the rule's 1x",
    )


class FineTuneSettings(_PPO):
    """The continuous fine-tune of the DQN's tiers, which stay as they are."""

    key: ClassVar[str] = "fine_tune"

    band: float = Field(0.15, gt=0, le=0.5, description="largest change of a tier, as a share of it")
    hidden: tuple[Units, ...] = Field(
        (64,), min_length=1, max_length=8, description="units of each hidden layer"
    )
    train_batch_size: int = Field(
        4_096, ge=1, le=10_000_000, description="environment steps that one update learns from"
    )
    minibatch_size: int = Field(512, ge=1, le=1_000_000, description="steps in one step of the optimizer")


class PredictorSettings(_Settings):
    """The price predictor: the sign of the return `horizon` bars ahead, beyond `threshold`."""

    horizon: int = Field(5, ge=1, le=1_000, description="bars ahead")
    threshold: float | None = Field(
        None, gt=0, lt=1, description="log return that is no longer flat; each market's own if absent"
    )
    epochs: int = Field(
        20, ge=0, le=10_000, description="of the perceptron among the candidates; 0 leaves it out"
    )


class TrainConfig(_Settings):
    """One training run, from the bars to the bundle."""

    data: str = Field(
        "sample:demo",
        min_length=1,
        description="where the bars, or the trades of a journal, come from, as `--data` takes it",
    )
    rule: str = Field("donchian", min_length=1, description="the signal rule")
    costs: Costs = Field(default_factory=Costs)
    limits: Limits = Field(default_factory=lambda: Limits.model_validate({}))
    session: Session = Field(default_factory=lambda: Session.model_validate({}))
    reward: Literal["expected", "excess"] = Field(
        "expected", description="what training pays; see envs/signal_table.py"
    )
    k: float | None = Field(
        None, gt=0, le=10_000, description="Kelly divisor; calibrated on the training signals if absent"
    )
    fractions: tuple[Share, Share, Share] = Field(
        (0.7, 0.1, 0.2), description="train, select and test, in time order"
    )
    folds: int = Field(5, ge=2, le=50, description="time blocks of the outcome model's cross-fitting")
    algo: Literal["dqn", "ppo", "dqn+ppo", "plugin"] = Field(
        "dqn",
        description="what learns to size: dqn+ppo fine-tunes DQN's tiers, plugin learns nothing",
    )
    seed: int = Field(0, ge=0, le=2**31 - 1)
    least_trades: int = Field(
        500, ge=1, description="training trades below which the rule's own size is used"
    )
    advised_trades: int = Field(2_000, ge=1, description="training trades below which a warning is given")
    predictor: PredictorSettings = Field(default_factory=lambda: PredictorSettings.model_validate({}))
    dqn: DQNSettings = Field(default_factory=lambda: DQNSettings.model_validate({}))
    ppo: PPOSettings = Field(default_factory=lambda: PPOSettings.model_validate({}))
    fine_tune: FineTuneSettings = Field(default_factory=lambda: FineTuneSettings.model_validate({}))

    @property
    def learner(self) -> Literal["dqn", "ppo"]:
        """The key of the algorithm that learns tiers. Raises ConfigError where none does."""
        if self.algo == "plugin":
            raise ConfigError("algo", self.algo, "give dqn, ppo or dqn+ppo; the plug-in needs no training")
        return "ppo" if self.algo == "ppo" else "dqn"

    @property
    def learning(self) -> DQNSettings | PPOSettings:
        """The settings under `learner`."""
        return self.ppo if self.learner == "ppo" else self.dqn

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if abs(sum(self.fractions) - 1.0) > 1e-9:
            raise ConfigError(
                "fractions", self.fractions, "give three shares that sum to 1: train, select and test"
            )
        if self.advised_trades < self.least_trades:
            raise ConfigError(
                "advised_trades", self.advised_trades, f"give at least least_trades, {self.least_trades}"
            )
        return self

    def digest(self) -> str:
        """SHA-256 of the whole configuration, defaults included."""
        return digest_of(self)


def preset(name: str) -> TrainConfig:
    """A named starting point: "default", or "owner": replay of 10,000, target update every 100 updates."""
    if name not in PRESETS:
        raise ConfigError("preset", name, f"choose one of {', '.join(PRESETS)}")
    config = TrainConfig.model_validate({})
    if name == "default":
        return config
    every_100 = round(100 * config.dqn.env_steps_per_update)
    return parse({"dqn": {"replay_capacity": 10_000, "target_update": every_100}})


def parse(
    source: str | Path | Mapping[str, Any] | None = None,
    overrides: Mapping[str, Any] | None = None,
    base: TrainConfig | None = None,
) -> TrainConfig:
    """The configuration of `source` on top of `base`, and `overrides` on top of both.

    `source`: a mapping, or the path of a YAML or JSON file. `overrides`: values by dotted key, such as
    ``{"dqn.gamma": 0.99}``; a value may be text, as a command line gives it. Raises ConfigError naming the
    key's path, the value and what is allowed.
    """
    values = (base or TrainConfig.model_validate({})).model_dump(mode="json")
    _merge(values, _read(source) if source is not None else {})
    for path, value in (overrides or {}).items():
        *parents, last = path.split(".")
        nested: dict[str, Any] = {last: value}
        for parent in reversed(parents):
            nested = {parent: nested}
        _merge(values, nested)
    try:
        return TrainConfig.model_validate(values)
    except ValidationError as error:
        raise _refusal(error) from None


def _read(source: str | Path | Mapping[str, Any]) -> Mapping[str, Any]:
    if isinstance(source, Mapping):
        return source
    try:
        content = yaml.safe_load(Path(source).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(
            "config", str(source), f"give a readable YAML or JSON file ({first_line(error)})"
        ) from None
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ConfigError("config", str(source), "give a file that holds keys and values")
    return content


def _merge(into: dict[str, Any], values: Mapping[str, Any]) -> None:
    """Put `values` over `into`, key by key where both hold a mapping."""
    for key, value in values.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = dict(value) if isinstance(value, Mapping) else value


def _refusal(error: ValidationError) -> ConfigError:
    """The first complaint, as key path, value and allowed range."""
    first = error.errors(include_url=False)[0]
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, ConfigError):
        return cause
    location = first["loc"]
    path = ".".join(str(part) for part in location) or "config"
    if first["type"] == "extra_forbidden":
        known = ", ".join(sorted(_model_at(location[:-1]).model_fields))
        return ConfigError(path, first["input"], f"there is no such key; choose one of {known}")
    return ConfigError(path, first["input"], _allowed(location) or first["msg"])


def _model_at(location: tuple[int | str, ...]) -> type[BaseModel]:
    """The model that holds the keys at `location`."""
    model: type[BaseModel] = TrainConfig
    for part in location:
        found = model.model_fields.get(str(part))
        if (
            found is None
            or not isinstance(found.annotation, type)
            or not issubclass(found.annotation, BaseModel)
        ):
            break
        model = found.annotation
    return model


def _allowed(location: tuple[int | str, ...]) -> str:
    """What the key at `location` may hold, in words; an element of a list is described with its list."""
    names = [part for part in location if isinstance(part, str)]
    field = _model_at(tuple(names[:-1])).model_fields.get(names[-1]) if names else None
    if field is None:
        return ""
    if get_origin(field.annotation) is tuple:
        kinds = get_args(field.annotation)
        element, count = get_args(kinds[0]), "" if kinds[-1] is ... else f"{len(kinds)} "
        return f"give a list of {count}numbers{_range(field.metadata)}, each{_range(element[1].metadata)}"
    optional = ", or nothing" if type(None) in get_args(field.annotation) else ""
    return f"give {_kind(field.annotation)}{_range(field.metadata)}{optional}"


def _kind(annotation: Any) -> str:
    """A field's type in words."""
    if get_origin(annotation) is Literal:
        return f"one of {', '.join(get_args(annotation))}"
    kinds = set(get_args(annotation)) or {annotation}
    names = {bool: "true or false", str: "text", int: "a whole number", float: "a finite number"}
    return next((name for kind, name in names.items() if kind in kinds), "keys and values")


def _range(constraints: Iterable[Any]) -> str:
    """A field's bounds in words, with a leading space if there are any."""
    found = [
        f"{word} {getattr(constraint, name):,}{' long' if 'length' in name else ''}"
        for constraint in constraints
        for name, word in BOUNDS.items()
        if getattr(constraint, name, None) is not None
    ]
    return " " + " and ".join(found) if found else ""
