"""Options that several commands take, and the configuration they make."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from tuning.config import TrainConfig

DataOption = Annotated[
    str | None,
    typer.Option(
        "--data",
        help="CSV or Parquet path, database URL, sample:NAME[,...], synthetic:regimes?bars=N or journal:URL",
    ),
]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="a YAML or JSON file of TrainConfig keys")
]
RuleOption = Annotated[
    str | None,
    typer.Option(help="donchian, mean_reversion, moving_average_cross, csv:FILE or plugin:MODULE:CLASS"),
]
AlgoOption = Annotated[str | None, typer.Option(help="dqn, ppo, dqn+ppo or plugin")]
SeedOption = Annotated[int | None, typer.Option("--seed", help="seed of training")]


def configured(path: Path | None, overrides: dict[str, Any], named: str = "default") -> "TrainConfig":
    """The preset `named`, the file at `path` over it, and over both what the command line gave."""
    from tuning.config import parse, preset

    given = {key: value for key, value in overrides.items() if value is not None}
    return parse(path, given, base=preset(named))
