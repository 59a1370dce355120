"""What a search may change: ranges and choices on TrainConfig's own dotted keys, from a mapping or a file.

Knows nothing of how trials run. Ray Tune is imported only where a range becomes one of its own.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, RootModel, ValidationError, model_validator

from market.errors import ConfigError, first_line
from tuning.config import TrainConfig, parse

# Trials are compared at equal steps, on equal machines: these are the same for all of them.
SHARED: Final = ("env_steps", "episodes", "report_every", "checkpoint_every", "env_runners")
# What a checkpoint is built with: population-based training, which hands checkpoints on, leaves it alone.
STRUCTURE: Final = ("hidden", "environments", "replay_capacity")
GOLDEN: Final = 0.618034  # an inner point of a range that is on no grid


class _Domain(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class _Range(_Domain):
    low: float = Field(description="smallest value")
    high: float = Field(description="largest value, itself allowed")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"give a high above the low, {self.low:g}")
        return self

    @property
    def examples(self) -> tuple[Any, ...]:
        """Both ends and something between: what the configuration must accept."""
        return self.low, self.high, self.low + GOLDEN * (self.high - self.low)

    def nearest(self, value: float) -> float:
        """The value of the range that is nearest to `value`."""
        return min(max(value, self.low), self.high)


class Uniform(_Range):
    """Any number between low and high."""

    kind: Literal["uniform"]

    def build(self) -> Any:
        """As a domain of Ray Tune."""
        from ray import tune

        return tune.uniform(self.low, self.high)


class LogUniform(_Range):
    """Any number between low and high, as likely in each decade."""

    kind: Literal["loguniform"]
    low: float = Field(gt=0, description="smallest value")

    def build(self) -> Any:
        """As a domain of Ray Tune."""
        from ray import tune

        return tune.loguniform(self.low, self.high)


class QUniform(_Range):
    """A number between low and high in steps of q from low."""

    kind: Literal["quniform"]
    q: float = Field(gt=0, description="step")

    @model_validator(mode="after")
    def _on_grid(self) -> Self:
        for name, value in (("low", self.low), ("high", self.high)):
            if abs(value / self.q - round(value / self.q)) > 1e-9:
                raise ValueError(f"give a {name} that is a multiple of q, {self.q:g}")
        return self

    @property
    def examples(self) -> tuple[Any, ...]:
        """See `_Range.examples`."""
        return self.low, self.high, min(self.low + self.q, self.high)

    def nearest(self, value: float) -> float:
        """See `_Range.nearest`."""
        return super().nearest(round(value / self.q) * self.q)

    def build(self) -> Any:
        """As a domain of Ray Tune."""
        from ray import tune

        return tune.quniform(self.low, self.high, self.q)


class RandInt(_Range):
    """A whole number from low to high, both among them."""

    kind: Literal["randint"]
    low: int = Field(description="smallest value")
    high: int = Field(description="largest value, itself allowed")

    @property
    def examples(self) -> tuple[Any, ...]:
        """See `_Range.examples`."""
        return self.low, self.high

    def nearest(self, value: float) -> float:
        """See `_Range.nearest`."""
        return round(super().nearest(value))

    def build(self) -> Any:
        """As a domain of Ray Tune."""
        from ray import tune

        return tune.randint(self.low, self.high + 1)


class LogRandInt(RandInt):
    """A whole number from low to high, as likely in each decade."""

    kind: Literal["lograndint"]  # type: ignore[assignment]
    low: int = Field(ge=1, description="smallest value")

    def build(self) -> Any:
        """As a domain of Ray Tune."""
        from ray import tune

        return tune.lograndint(self.low, self.high + 1)


class Choice(_Domain):
    """One of the values given; a list, such as the units of hidden layers, is one value."""

    kind: Literal["choice"]
    values: tuple[Any, ...] = Field(min_length=1)

    @property
    def examples(self) -> tuple[Any, ...]:
        """Every value: what the configuration must accept."""
        return self.values

    @property
    def names(self) -> list[Any]:
        """The values as a database of trials can hold them: lists as their JSON text."""
        return [json.dumps(value) if isinstance(value, list) else value for value in self.values]

    def build(self) -> Any:
        """As a domain of Ray Tune."""
        from ray import tune

        return tune.choice(self.names)


Domain = Annotated[
    Uniform | LogUniform | QUniform | RandInt | LogRandInt | Choice, Field(discriminator="kind")
]


class Space(RootModel[dict[str, Domain]]):
    """Domains by dotted key of TrainConfig."""

    model_config = ConfigDict(frozen=True)

    def build(self) -> dict[str, Any]:
        """The space as Ray Tune takes it: domains by dotted key."""
        return {key: domain.build() for key, domain in self.root.items()}

    def mutations(self) -> dict[str, Any]:
        """The space as population-based training takes it: choices as lists, to be stepped through."""
        return {
            key: domain.names if isinstance(domain, Choice) else domain.build()
            for key, domain in self.root.items()
        }

    def clamp(self, sample: dict[str, Any]) -> dict[str, Any]:
        """`sample` with every number inside its range: population-based training steps over the edge."""
        ranges = {key: domain for key, domain in self.root.items() if isinstance(domain, _Range)}
        return {key: ranges[key].nearest(value) if key in ranges else value for key, value in sample.items()}

    def config(self, base: TrainConfig, sample: Mapping[str, Any]) -> TrainConfig:
        """`base` with the sampled values; ConfigError where the configuration refuses them."""
        return parse({}, {key: self.value(key, value) for key, value in sample.items()}, base)

    def without_structure(self) -> "Space":
        """The keys that a running trial can change."""
        kept = {key: domain for key, domain in self.root.items() if key.split(".")[-1] not in STRUCTURE}
        return Space(kept)

    def value(self, key: str, sampled: Any) -> Any:
        """What the configuration gets for a sampled value of `key`."""
        domain = self.root[key]
        return domain.values[domain.names.index(sampled)] if isinstance(domain, Choice) else sampled


# The one default space, by section of TrainConfig: around the defaults, which are what measured best.
DEFAULT: Final[dict[str, dict[str, dict[str, Any]]]] = {
    "dqn": {
        "dqn.learning_rate": {"kind": "loguniform", "low": 5e-4, "high": 2e-2},
        "dqn.final_learning_rate": {"kind": "loguniform", "low": 1e-5, "high": 1e-3},
        "dqn.gamma": {"kind": "choice", "values": [0.0, 0.9, 0.97, 1.0]},
        "dqn.train_batch_size": {"kind": "choice", "values": [256, 512, 1024, 2048]},
        "dqn.training_intensity": {"kind": "loguniform", "low": 8.0, "high": 64.0},
        "dqn.target_update": {"kind": "lograndint", "low": 500, "high": 10_000},
        "dqn.final_epsilon": {"kind": "uniform", "low": 0.05, "high": 0.5},
        "dqn.hidden": {"kind": "choice", "values": [[64, 32], [64, 64], [128, 64]]},
    },
    "ppo": {
        "ppo.learning_rate": {"kind": "loguniform", "low": 5e-4, "high": 1e-2},
        "ppo.final_learning_rate": {"kind": "loguniform", "low": 1e-5, "high": 1e-3},
        "ppo.gamma": {"kind": "choice", "values": [0.0, 0.9, 0.97, 1.0]},
        "ppo.lambda_": {"kind": "uniform", "low": 0.5, "high": 0.98},
        "ppo.train_batch_size": {"kind": "choice", "values": [8_192, 16_384, 32_768]},
        "ppo.epochs": {"kind": "randint", "low": 2, "high": 8},
        "ppo.entropy": {"kind": "loguniform", "low": 1e-5, "high": 1e-2},
        "ppo.hidden": {"kind": "choice", "values": [[64, 32], [64, 64], [128, 64]]},
    },
}


def read_space(source: str | Path | Mapping[str, Any] | None, config: TrainConfig) -> Space:
    """The search space of `source`, a mapping or the path of a YAML or JSON file; the default one without.

    Every end and every choice is tried on `config`. Raises ConfigError naming the key's path and what is
    allowed: for an unknown key, one that is not part of the learner's settings or must be the same in all
    trials, and a value that the configuration refuses.
    """
    section = config.learner
    if source is None:
        content: Any = DEFAULT[section]
    else:
        content = source if isinstance(source, Mapping) else _read(Path(source))
    if not isinstance(content, Mapping) or not content or not all(isinstance(key, str) for key in content):
        raise ConfigError("--space", str(source), "give at least one key with its range or choices")
    for key in content:
        _known(key, section, config)
    try:
        space = Space.model_validate(dict(content))
    except ValidationError as error:
        raise _refusal(error) from None
    for key, domain in space.root.items():
        _accepted(key, domain, config)
    return space


def _read(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(
            "--space", str(path), f"give a readable YAML or JSON file ({first_line(error)})"
        ) from None


def _known(key: str, section: str, config: TrainConfig) -> None:
    """Refuse a key that a trial cannot have for itself."""
    keys = sorted(f"{section}.{field}" for field in type(config.learning).model_fields if field not in SHARED)
    if key in {f"{section}.{field}" for field in SHARED}:
        raise ConfigError(
            key, "a range", "all trials share it, or they could not be compared: set it in --config"
        )
    if key not in keys:
        raise ConfigError(
            key,
            "a range",
            "bars, outcomes and limits are prepared once for all trials; choose among " + ", ".join(keys),
        )


def _accepted(key: str, domain: Domain, config: TrainConfig) -> None:
    """Refuse a domain that holds a value the configuration refuses."""
    for value in domain.examples[:2] if isinstance(domain, _Range) else domain.examples:
        parse({}, {key: value}, config)
    for inner in domain.examples[2:] if isinstance(domain, _Range) else ():
        try:
            parse({}, {key: inner}, config)
        except ConfigError:
            mend = "this key takes whole numbers: give randint, lograndint, a whole q, or choice"
            raise ConfigError(key, domain.kind, mend) from None


def _refusal(error: ValidationError) -> ConfigError:
    """The first complaint, as key path, value and what is allowed."""
    first = error.errors(include_url=False)[0]
    key, *rest = (str(part) for part in first["loc"])
    kinds = "uniform, loguniform, quniform, randint, lograndint or choice"
    if first["type"].startswith("union_tag") or not rest:
        seen = first["input"].get("kind") if isinstance(first["input"], dict) else first["input"]
        return ConfigError(f"{key}.kind", seen, f"give one of {kinds}, with low and high, or values")
    path = ".".join([key, *rest[1:]])
    message = str(first.get("ctx", {}).get("error", first["msg"]))
    return ConfigError(path, first["input"], message[0].lower() + message[1:])
