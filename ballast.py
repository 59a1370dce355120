"""The command line of Ballast: parse, wire, call one function, print.

Heavy imports live inside the commands, so that ``--help`` and mistakes answer at once.
"""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from market.errors import ConfigError, InputError
from market.home import home

if TYPE_CHECKING:
    from tuning.config import TrainConfig
    from tuning.examples import Example
    from tuning.experiment import Trial
    from tuning.seeds import Spread
    from tuning.train import Result, Training

app = typer.Typer(
    help="Ballast learns how much to bet: a size for each signal, never above your own limits.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
registry_app = typer.Typer(help="Registered models.", no_args_is_help=True)
app.add_typer(registry_app, name="registry")
console = Console(soft_wrap=True)
STOPS = {signal.SIGINT, signal.SIGTERM}
complaints = Console(stderr=True, soft_wrap=True)

DataOption = Annotated[
    str | None,
    typer.Option(
        "--data", help="CSV or Parquet path, database URL, sample:NAME[,NAME...] or synthetic:regimes?bars=N"
    ),
]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="a YAML or JSON file of TrainConfig keys")
]
SeedOption = Annotated[int | None, typer.Option("--seed", help="seed of training")]


class ConsoleListener:
    """A training run told on the terminal: a line for each finished stage, a bar for the one at work."""

    def __init__(self) -> None:
        self.bar: tuple[Progress, TaskID] | None = None

    def working(self, stage: str, done: int, total: int) -> None:
        """See `tuning.train.Listener`."""
        if not total:
            self.close()
            bar = Progress(
                TextColumn(f"{stage:>13} "),
                BarColumn(30),
                TextColumn("{task.description}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=console,
                transient=True,
                disable=not console.is_terminal,
            )
            bar.start()
            self.bar = bar, bar.add_task("", total=None)
        else:
            self._move(done, total, f"{done} / {total} markets")

    def stage(self, name: str, note: str, *, resumed: bool) -> None:
        """See `tuning.train.Listener`."""
        self.close()
        again = "  [dim](from the resumed run)[/]" if resumed else ""
        console.print(f"[bold]{name:>13}[/]  {escape(note)}{again}")

    def warning(self, text: str) -> None:
        """See `tuning.train.Listener`."""
        console.print(f"      [yellow]warning[/]  {escape(text)}")

    def progress(self, done: int, total: int, score: float) -> None:
        """See `tuning.train.Listener`."""
        self._move(done, total, f"{done:,} / {total:,} steps, expected utility {score:+.4f} R per signal")

    def searching(self, done: int, total: int, running: int, best: float | None) -> None:
        """See `tuning.tune.SearchListener`."""
        if self.bar is None:
            columns = (
                TextColumn("       trials  "),
                BarColumn(40),
                TextColumn("{task.completed} / {task.total}"),
                TextColumn("{task.description}"),
            )
            bar = Progress(*columns, console=console, transient=True)
            bar.start()
            self.bar = bar, bar.add_task("", total=total)
        seen = "" if best is None else f", best so far {best:+.4f} R per signal"
        self.bar[0].update(self.bar[1], completed=done, description=f"{running} running{seen}")

    def trial(self, trial: "Trial") -> None:
        """See `tuning.tune.SearchListener`."""
        settings = ", ".join(
            f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
            for key, value in trial.sample.items()
        )
        said = f"{escape(trial.standing)}  [dim]{escape(settings)}[/]"
        console.print(f"[bold]{trial.name:>13}[/]  {said}", highlight=False)

    def close(self) -> None:
        """Take the bar off the screen."""
        if self.bar is not None:
            self.bar[0].stop()
            self.bar = None

    def _move(self, done: int, total: int, text: str) -> None:
        if self.bar is not None:
            bar, task = self.bar
            bar.update(task, completed=done, total=total, description=text)


@app.command()
def train(
    mode: Annotated[str, typer.Option(help="all, features, predictor, tier_optimizer or rl_sizer")] = "all",
    data: DataOption = None,
    rule: Annotated[
        str | None,
        typer.Option(help="donchian, mean_reversion, moving_average_cross, csv:FILE or plugin:MODULE:CLASS"),
    ] = None,
    episodes: Annotated[
        int | None, typer.Option(help="stop the sizer after this many environment episodes")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="epochs of the price predictor's perceptron")] = None,
    preset: Annotated[
        str, typer.Option(help="default, or owner: a replay of 10,000 and a target update every 100 updates")
    ] = "default",
    algo: Annotated[str | None, typer.Option(help="dqn, ppo, dqn+ppo or plugin")] = None,
    config: ConfigOption = None,
    seed: SeedOption = None,
    seeds: Annotated[
        int, typer.Option(min=1, max=100, help="train so many seeds, register the median on the select part")
    ] = 1,
    resume: Annotated[
        bool, typer.Option("--resume", help="go on with the newest run of this configuration")
    ] = False,
) -> None:
    """Train on a source of bars, and register what comes out as STAGING."""
    overrides = {
        "data": data,
        "rule": rule,
        "algo": algo,
        "dqn.episodes": episodes,
        "ppo.episodes": episodes,
        "predictor.epochs": epochs,
        "seed": seed,
    }
    _, result = _train(_config(config, overrides, preset), mode, resume=resume, seeds=seeds)
    if result.comparison is not None:
        _show(result)
    console.print(f"run  {result.folder}", markup=False)
    if result.version is not None:
        version = result.version
        console.print(f"registered version {version.version}, {version.status}, bundle {version.digest}")


@app.command()
def tune(
    data: DataOption = None,
    rule: Annotated[str | None, typer.Option(help="the signal rule, as train takes it")] = None,
    config: ConfigOption = None,
    space: Annotated[
        Path | None, typer.Option("--space", help="a YAML or JSON file: key -> kind, low and high, or values")
    ] = None,
    trials: Annotated[int | None, typer.Option(help="settings to try (20)")] = None,
    seeds: Annotated[int | None, typer.Option(help="trainings of each trial (2)")] = None,
    scheduler: Annotated[str | None, typer.Option(help="asha or pbt (asha)")] = None,
    seed: SeedOption = None,
    name: Annotated[str | None, typer.Option("--name", help="name of the experiment")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="go on with the experiment --name, or with the newest")
    ] = False,
) -> None:
    """Search for better training settings, judged on the select part of the data."""
    from tuning.experiment import Experiment, plan_of
    from tuning.search import read_space

    given = {
        "--data": data, "--rule": rule, "--config": config, "--space": space, "--trials": trials,
        "--seeds": seeds, "--scheduler": scheduler, "--seed": seed,
    }  # fmt: skip
    if resume:
        for option, value in given.items():
            if value is not None:
                raise ConfigError(option, str(value), "leave it out: --resume goes on as it was planned")
        experiment = Experiment.open(home(), name)
    else:
        base = _config(config, {"data": data, "rule": rule, "seed": seed})
        plan = plan_of(base, read_space(space, base), trials=trials, seeds=seeds, scheduler=scheduler)
        experiment = Experiment.start(home(), name, plan)
    _say_ray_mode()
    from tuning.tune import search

    listener = ConsoleListener()
    try:
        outcome = search(experiment, home(), listener, resume=resume)
    finally:
        listener.close()
    if outcome.best is None:
        raise InputError("experiment", experiment.name, "no trial was trained to its end: see what they said")
    python, programs = _shown(Path(sys.executable)), _shown(Path(sys.executable).parent)
    score = f"{outcome.best.objective:+.4f} R expected per signal of the select part"
    console.print(f"best trial   {outcome.best.name} of {len(outcome.trials)}: {score}")
    console.print(f"train it     {python} -m ballast train --config {outcome.config}")
    console.print(f"report       {python} -m ballast report {experiment.name}")
    console.print(f"TensorBoard  {python} -m tensorboard.main --logdir {experiment.board}")
    if experiment.plan.scheduler == "asha":
        missing = "" if (programs / "optuna-dashboard").exists() else "  (comes with pip install '.[ui]')"
        console.print(
            f"Optuna       {programs}/optuna-dashboard {experiment.study_url}{missing}", markup=False
        )


@app.command()
def report(experiment: Annotated[str, typer.Argument(help="name of a search, as tune printed it")]) -> None:
    """Write the page of a search: leaderboard, learning curves, settings, sizes taken."""
    from tuning.experiment import Experiment
    from tuning.experiment_report import write_report

    console.print(f"report  {write_report(Experiment.open(home(), experiment))}", markup=False)


@app.command()
def sample(data: DataOption = None) -> None:
    """List the bars that come with the installed packages, or report on the bars of --data: gaps, repeats,
    outliers, sessions."""
    from market.quality import in_words, report
    from market.samples import SAMPLES
    from market.sources import load

    table = Table("symbol", "bars", "from", "to", "missing", "repeats", "outliers", box=SIMPLE_HEAD)
    reports = [report(bars) for bars in load(f"sample:{','.join(SAMPLES)}" if data is None else data)]
    for seen in reports:
        table.add_row(
            escape(seen.symbol),
            f"{seen.bars:,}",
            seen.first[:10],
            seen.last[:10],
            f"{seen.missing_bars:,}",
            f"{seen.duplicates:,}",
            f"{seen.outliers:,}",
        )
    console.print(table)
    for seen in reports if data is not None else ():
        console.print(f"[bold]{escape(seen.symbol)}[/]")
        for line in in_words(seen):
            console.print(f"  {escape(line)}", highlight=False)
    if data is None:
        console.print(f"sample:NAME[,NAME...] with {', '.join(SAMPLES)}; sample:demo pools all of them")


@app.command()
def lookahead(
    subject: Annotated[
        str, typer.Argument(help="features, a rule such as donchian, or plugin:MODULE:NAME of your own")
    ],
    data: Annotated[str, typer.Option("--data", help="bars to try it on")] = "sample:eurusd",
    cuts: Annotated[int, typer.Option(help="moments at which the future is taken away")] = 20,
    seed: Annotated[int, typer.Option(help="of the cuts and of the other futures")] = 0,
) -> None:
    """Find values of a rule or feature that move when the future does; exit code 1 if any does."""
    from evaluation.lookahead import lookahead as analyse
    from evaluation.lookahead import print_table

    report = analyse(data, subject, cuts, seed)
    print_table(report, console)
    raise typer.Exit(0 if report.clean else 1)


@app.command()
def serve(
    port: Annotated[int, typer.Option(help="port of the three endpoints on 127.0.0.1")] = 8100,
    version: Annotated[
        int | None, typer.Option(help="registered version; default: PRODUCTION, else the rule alone")
    ] = None,
    staging: Annotated[
        bool, typer.Option("--staging", help="serve the newest STAGING version, and say so")
    ] = False,
) -> None:
    """Serve /features, /sizing and /narratives until interrupted."""
    digest, status = _served(version, staging)
    if digest is None:
        console.print(
            "no model to serve: /sizing answers the rule's own size, and says so (--staging, --version)"
        )
    with _serving(digest, status, port) as url:
        console.print(f"{url}/features  {url}/sizing  {url}/narratives  Ctrl-C stops them")
        _until_interrupted()


@app.command()
def demo(
    data: DataOption = None,
    port: Annotated[
        int | None, typer.Option(help="port of the endpoints; default: 8100, or the next free one")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """The whole of Ballast once, on real bars: train, evaluate, register, serve, ask, show."""
    from serving.launch import port_to_serve_on

    port = port_to_serve_on(port)
    console.rule("Ballast: how large may this position be?")
    training, result = _train(_config(config, {"data": data}), "all", resume=False)
    assert result.version is not None
    _show(result)
    console.rule("Three endpoints")
    with _serving(result.version.digest, result.version.status, port) as url:
        _ask(url, training.example())
    console.rule("What to type next")
    shown = _shown(Path(sys.executable))
    console.print(f"open    {result.report}")
    console.print(f"serve   {shown} -m ballast serve --staging")
    console.print(f"train   {shown} -m ballast train --data sample:eurusd,nasdaq --rule donchian?lookback=55")
    console.print(f"models  {shown} -m ballast registry list")


def _ask(url: str, example: "Example") -> None:
    """One request to each endpoint, about one signal."""
    features = _post(
        f"{url}/features", {"symbol": example.signal["symbol"], "bars": example.bars}, "features.json"
    )
    first = ", ".join(f"{name} {value:+.3f}" for name, value in list(features["features"].items())[:4])
    console.print(f"{len(features['features'])} features from {features['bars_seen']:,} bars: {first}, ...")
    request = {
        "signal": example.signal,
        "market": {"features": features["features"]},
        "account": example.account,
    }
    sizing = _post(f"{url}/sizing", request, "sizing.json")
    hidden = ("observation", "ladder", "model_fault")
    console.print_json(data={key: value for key, value in sizing.items() if key not in hidden})
    ladder = sizing["ladder"]
    rungs = Table("ladder of six", *(rung["action"] for rung in ladder), box=SIMPLE_HEAD, show_edge=False)
    rungs.add_row("size", *(f"{rung['size']:g}x" for rung in ladder))
    rungs.add_row("value", *("-" if rung["value"] is None else f"{rung['value']:+.4f}" for rung in ladder))
    rungs.add_row("blocked by", *(rung["blocked_by"] or "" for rung in ladder))
    console.print(rungs)
    story = _post(
        f"{url}/narratives",
        {"kind": "trade_rationale", "decision_id": sizing["decision_id"]},
        "narrative.json",
    )
    console.print(f"[bold]{escape(story['text'])}[/]")


def _post(url: str, body: dict[str, Any], name: str) -> dict[str, Any]:
    """Ask, showing the same request as a curl command over a file that stays."""
    import json
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    from market.home import write_atomically

    path = home() / "demo" / name
    content = json.dumps(body, allow_nan=False).encode()
    write_atomically(path, content)
    console.print(f"\n[dim]$[/] curl -s {url} -H 'content-type: application/json' -d @{path}")
    try:
        with urlopen(Request(url, content, {"content-type": "application/json"}), timeout=30) as answer:
            parsed: dict[str, Any] = json.load(answer)
    except HTTPError as error:
        raise InputError(url, error.code, error.read(2000).decode(errors="replace")) from None
    except OSError as error:
        raise InputError(
            url, str(error), "the endpoint does not answer: is the machine overloaded?"
        ) from None
    return parsed


@registry_app.command("list")
def registry_list() -> None:
    """All versions, newest first."""
    from mlops.registry import read_export

    versions = read_export(home())
    if not versions:
        console.print("no version is registered yet: train one with `train` or `demo`")
        return
    table = Table("version", "status", "aliases", "bundle", "created (UTC)", box=SIMPLE_HEAD)
    table.add_column("finding", overflow="fold")
    for entry in reversed(versions):
        table.add_row(
            str(entry.version),
            entry.status,
            ", ".join(entry.aliases),
            entry.digest[:12],
            f"{entry.created:%Y-%m-%d %H:%M}",
            entry.tags.get("headline", entry.tags.get("verdict", "not evaluated")),
        )
    console.print(table)


@contextmanager
def _serving(digest: str | None, status: str, port: int) -> Iterator[str]:
    """The three endpoints for the block; what is being waited for is on the terminal meanwhile."""
    from serving.launch import serving

    console.print("starting Ray Serve on this machine ...")
    with ExitStack() as served:
        with Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        ) as shown:
            task = shown.add_task("")
            url = served.enter_context(
                serving(home(), digest, status, port, lambda text: shown.update(task, description=text))
            )
        yield url


def _shown(path: Path) -> Path:
    """As one would type it here."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _until_interrupted() -> None:
    """Wait for Ctrl-C or SIGTERM."""
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    signal.sigwait(STOPS)


def _config(path: Path | None, overrides: dict[str, Any], named: str = "default") -> "TrainConfig":
    from tuning.config import parse, preset

    given = {key: value for key, value in overrides.items() if value is not None}
    return parse(path, given, base=preset(named))


def _say_ray_mode() -> None:
    """Settle Ray's authentication before Ray is imported, which is when it is read.

    Unsaid, the first local cluster of a machine switches it on by itself and later commands fail against it;
    said, Ray wants a token that is there already.
    """
    from serving.cluster import own_token

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    mode = os.environ.setdefault("RAY_AUTH_MODE", "token")
    if mode == "token" and not {"RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys():
        os.environ["RAY_AUTH_TOKEN_PATH"] = str(own_token(home()))


def _train(config: "TrainConfig", mode: str, *, resume: bool, seeds: int = 1) -> "tuple[Training, Result]":
    _say_ray_mode()
    from tuning.train import start

    listener = ConsoleListener()
    training = start(config, home(), listener, resume=resume)
    try:
        if seeds == 1:
            return training, training.run(mode)
        from tuning.seeds import train_seeds

        spread = train_seeds(training, mode, seeds)
    finally:
        listener.close()
    _show_spread(spread)
    return spread.median.training, spread.result


def _show_spread(spread: "Spread") -> None:
    """Every seed's scores, and how far they lie apart."""
    from statistics import median

    names = ["select part, R", "test part: over the rule, R", "over the plug-in, R"]
    rows = [(one.select, one.over_rule, one.over_plug_in) for one in spread.trained]
    columns = [
        [figure for figure in column if figure is not None] for column in zip(*rows, strict=True)
    ]  # of the test part empty where it was not evaluated
    table = Table("seed", box=SIMPLE_HEAD)
    for name, column in zip(names, columns, strict=True):
        if column:
            table.add_column(name, justify="right")
    for one, figures in zip(spread.trained, rows, strict=True):
        cells = [f"{figure:+.4f}" for figure in figures if figure is not None]
        table.add_row(str(one.seed), *cells, style="bold" if one is spread.median else None)
    table.add_section()
    for name, of in (("best", max), ("median", median), ("worst", min)):
        table.add_row(name, *(f"{of(column):+.4f}" for column in columns if column))
    console.print(table)
    which = "the median" if len(rows) % 2 else "the lower of the two in the middle"
    proviso = "; what the test part says of a seed decides nothing" if columns[1] else ""
    console.print(f"seed {spread.median.seed}, {which} on the select part, is registered{proviso}")


def _show(result: "Result") -> None:
    from evaluation.report import print_table

    assert result.comparison is not None
    print_table(result.comparison, console)
    console.print(f"report  {result.report}", markup=False)


def _served(version: int | None, staging: bool) -> tuple[str | None, str]:
    """The digest to serve and its status; no model is no error: the rule's tier is answered."""
    from mlops.registry import read_export

    entries = read_export(home())
    if version is not None:
        chosen = [entry for entry in entries if entry.version == version]
        if not chosen:
            known = ", ".join(str(entry.version) for entry in entries)
            mend = f"the versions are {known}" if known else "no version is registered yet: train one first"
            raise ConfigError("--version", version, mend)
    else:
        chosen = [entry for entry in entries if entry.status == ("STAGING" if staging else "PRODUCTION")]
    return (chosen[-1].digest, chosen[-1].status) if chosen else (None, "NONE")


def main() -> None:
    """Run a command; what was refused is one line and exit code 2."""
    try:
        app(prog_name="ballast")
    except InputError as error:
        complaints.print(f"[red]refused[/] {escape(str(error))}", highlight=False)
        sys.exit(2)


if __name__ == "__main__":
    main()
