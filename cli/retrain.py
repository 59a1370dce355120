"""`retrain`: train again when the market, the clock or new data call for it, and have the gate decide."""

import os
import re
import signal
import sys
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from importlib import import_module
from pathlib import Path
from shlex import split
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from cli.console import ConsoleListener, console, warn
from cli.drift import checked, watched
from cli.options import AlgoOption, ConfigOption, DataOption, RuleOption, SeedOption
from cli.training import say_ray_mode
from market.errors import ConfigError, InputError
from market.home import home

if TYPE_CHECKING:
    from mlops.retraining import Callback, Outcome, Retraining, Source
    from tuning.config import TrainConfig

app = typer.Typer()
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


@app.command()
def retrain(
    watch: Annotated[bool, typer.Option("--watch", help="go on checking until stopped")] = False,
    now: Annotated[bool, typer.Option("--now", help="train now, whatever the interval")] = False,
    every: Annotated[str | None, typer.Option(help="train when so long has passed: 12h, 1d, 2w")] = None,
    new_bars: Annotated[int | None, typer.Option(min=1, help="train on so many new bars of --data")] = None,
    new_trades: Annotated[
        int | None, typer.Option(min=1, help="train on so many newly journaled outcomes")
    ] = None,
    drift: Annotated[
        bool, typer.Option("--drift", help="train when `drift` alarms, on --data or else the journal")
    ] = False,
    min_interval: Annotated[str, typer.Option(help="never sooner after the last training than this")] = "6h",
    promote: Annotated[
        bool, typer.Option("--promote", help="let what passes the gate go live; else it waits as STAGING")
    ] = False,
    cluster: Annotated[
        str | None, typer.Option(help="dashboard of a Ray cluster to train on, such as http://127.0.0.1:8265")
    ] = None,
    working_dir: Annotated[
        Path | None, typer.Option(help="what a job on the cluster is given a copy of; default: this folder")
    ] = None,
    data: DataOption = None,
    rule: RuleOption = None,
    algo: AlgoOption = None,
    config: ConfigOption = None,
    seed: SeedOption = None,
    judge_with: Annotated[
        str, typer.Option(help="options for evaluate, in one string: '--folds 6 --oracle lines.jsonl'")
    ] = "",
    callback: Annotated[
        list[str] | None, typer.Option(help="MODULE:FUNCTION of yours, given every record; may be repeated")
    ] = None,
    poll: Annotated[str, typer.Option(help="time between two checks of --watch")] = "1m",
) -> None:
    """Train again if there is reason to; without options for training, as what is live was trained.

    Checks once, and exits with 1 where something failed or the gate is shut; with --watch, until stopped.
    """
    from mlops.changes import appender
    from mlops.registry import Registry
    from mlops.retraining import FOLDER, Plan, Retraining
    from tuning.attempts import Here, OnCluster, configuration, judge, launcher

    place = home()
    overrides = {"data": data, "rule": rule, "algo": algo, "seed": seed}
    given = {key: value for key, value in overrides.items() if value is not None}

    def chosen() -> "TrainConfig":
        return configuration(place, config, given)

    sources = _sources(chosen, new_bars, new_trades, drift, data)
    if not (now or every or sources):
        raise ConfigError("retrain", None, "give --every, --new-bars, --new-trades, --drift or --now")
    chosen()  # a mistake in it is told now, not when there is reason to train
    say_ray_mode()
    run = Here() if cluster is None else OnCluster(cluster, place, working_dir or Path.cwd())
    interval = None if every is None else _duration("--every", every)
    retraining = Retraining(
        Registry(place),
        Plan(interval, _duration("--min-interval", min_interval), promote),
        launcher(place, chosen, run),
        judge(place, split(judge_with), run),
        appender(place, FOLDER),
        sources=sources,
        callbacks=[_callback(name) for name in callback or ()],
        report=warn,
    )
    if watch:
        _watch(retraining, _duration("--poll", poll), asked=now)
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    outcome = retraining.check(asked=now)
    _show(outcome)
    raise typer.Exit(0 if outcome.good else 1)


@app.command("train-candidate", hidden=True)
def train_candidate(attempt: str, config: Path) -> None:
    """Train one attempt of `retrain`, which starts this here or on a cluster, or go on with it."""
    say_ray_mode()
    from tuning.attempts import train_candidate as candidate
    from tuning.config import parse

    listener = ConsoleListener()
    try:
        version = candidate(parse(config), home(), attempt, listener).version
    finally:
        listener.close()
    assert version is not None
    console.print(f"registered version {version.version}, {version.status}, bundle {version.digest}")


def _watch(retraining: "Retraining", poll: timedelta, *, asked: bool) -> None:
    """Check until SIGTERM or Ctrl-C, and tell whatever is new.

    What was being trained here is stopped then, and gone on with by the next check; on a cluster it goes on.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    said = ""
    try:
        while True:
            try:
                outcome = retraining.check(asked=asked)
            except InputError as error:
                text = str(error)
                if text != said:
                    warn(text)
            else:
                asked = False
                text = outcome.detail
                if text != said:
                    _show(outcome)
            said = text
            time.sleep(poll.total_seconds())
    except KeyboardInterrupt:
        return


def _show(outcome: "Outcome") -> None:
    colour = "green" if outcome.good else "red"
    console.print(f"[{colour}]{outcome.result}[/] {escape(outcome.detail)}", highlight=False)
    if outcome.result == "passed":
        console.print(f"promote  ballast registry promote {outcome.version}")


def _sources(
    config: "Callable[[], TrainConfig]",
    bars: int | None,
    trades: int | None,
    drift: bool,
    data: str | None,
) -> "list[Source]":
    """What is asked at each check, beside the clock; `data` is checked for drift, else the journal."""
    from mlops.retraining import Source, volume

    def new_bars(since: datetime) -> int:
        from market.sources import load

        start = round(since.timestamp() * 1e9)
        return sum(int((bars.time > start).sum()) for bars in load(config().data))

    def new_trades(since: datetime) -> int:
        from journal.location import open_journal

        start = round(since.timestamp() * 1e9)
        journal = open_journal(home(), "retraining", os.environ)
        try:
            return sum(1 for record in journal.read("outcome") if record.time > start)
        finally:
            journal.close()

    def drifted(since: datetime) -> list[str]:
        return list(checked(watched(None), data).alarms)

    sources = [Source("drift", drifted)] if drift else []
    if bars is not None:
        sources.append(Source("new_data", volume(new_bars, bars, "bars")))
    if trades is not None:
        sources.append(Source("new_data", volume(new_trades, trades, "settled trades")))
    return sources


def _callback(name: str) -> "Callback":
    module, _, function = name.partition(":")
    try:
        found = getattr(import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            "--callback", name, f"write MODULE:FUNCTION that can be imported ({error})"
        ) from None
    if not callable(found):
        raise ConfigError("--callback", name, "give a function of one record")
    called: Callback = found
    return called


def _duration(option: str, text: str) -> timedelta:
    """`90s`, `15m`, `6h`, `1d` or `2w`."""
    found = re.fullmatch(r"(\d{1,6})([smhdw])", text)
    if found is None or not int(found[1]):
        raise ConfigError(option, text, "give a whole number with s, m, h, d or w, such as 6h")
    return timedelta(**{UNITS[found[2]]: int(found[1])})
