"""`drift`: does the model still fit what it sees, and does it still pay?"""

import os
import re
from typing import TYPE_CHECKING, Annotated

import typer

from cli.console import console, shown
from market.errors import ConfigError
from market.home import home

if TYPE_CHECKING:
    from mlops.drift import DriftReport
    from mlops.drift_baseline import Baseline
    from mlops.registry import ModelVersion

app = typer.Typer()


@app.command()
def drift(
    version: Annotated[
        int | None, typer.Argument(help="a version's number; the one in production, else in staging")
    ] = None,
    data: Annotated[
        str | None, typer.Option("--data", help="bars to check, as for train: the newest ones count")
    ] = None,
    journal: Annotated[
        str | None,
        typer.Option(
            "--journal",
            help="SQLAlchemy URL of decisions to check; default: BALLAST_JOURNAL, else the home's own",
        ),
    ] = None,
    window: Annotated[
        int | None,
        typer.Option(min=20, help="rows to compare: bars with --data (300), else journaled signals (100)"),
    ] = None,
    webhook: Annotated[str | None, typer.Option(help="POST an alarm to this URL, as JSON")] = None,
    cooldown: Annotated[
        float, typer.Option(min=0.0, help="hours until the same alarm is posted again")
    ] = 6.0,
) -> None:
    """Compare what comes in now with the training data; exit code 1 is an alarm, 2 a refusal.

    Without --data it is what the journal holds.
    """
    from datetime import UTC, datetime

    from evaluation.drift_page import print_drift, write_drift
    from mlops.alerts import Webhook
    from mlops.drift_metrics import write_metrics

    if data is not None and journal is not None:
        raise ConfigError("--journal", "--data as well", "give one of them")
    place = home()
    told = place / "drift" / "told.json"
    hook = None if webhook is None else Webhook(webhook, told, cooldown * 3600.0)
    chosen = watched(version)
    report = checked(chosen, data, journal, window)
    print_drift(report, console)
    page = place / "reports" / f"drift-{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{chosen.digest[:8]}.html"
    write_drift(report, page)
    console.print(f"report   {shown(page)}", markup=False)
    console.print(f"metrics  {shown(write_metrics(place, report))}", markup=False)
    if not report.alarm:
        return
    if hook is not None:
        summary = {name: value for name, value in report.to_dict().items() if name != "streams"}
        summary |= {"version": chosen.version, "status": chosen.status, "page": str(page)}
        console.print(hook.tell(f"{chosen.digest} {' '.join(report.kinds)}", summary), markup=False)
    raise typer.Exit(1)


def checked(
    chosen: "ModelVersion", data: str | None, journal: str | None = None, window: int | None = None
) -> "DriftReport":
    """What comes in, bars of `data` or else what the journal holds, beside the version's training rows."""
    from mlops.drift import unwatched
    from mlops.drift_baseline import NoBaseline, open_baseline

    try:
        baseline = open_baseline(home(), chosen.digest)
    except NoBaseline as reason:
        return unwatched(chosen.digest, "journal" if data is None else "bars", reason)
    if data is None:
        return _of_journal(chosen, baseline, journal, window)
    return _of_bars(chosen, baseline, data, window)


def _of_bars(chosen: "ModelVersion", baseline: "Baseline", data: str, window: int | None) -> "DriftReport":
    from market.sources import load
    from mlops.drift import check
    from mlops.drift_streams import MARKET_WINDOW, observe_bars
    from policies.bundle import open_bundle

    bundle = open_bundle(chosen.path.parent, chosen.digest)
    source = re.sub(r"//[^/@]*@", "//", data)  # the report is for others: no password of a database in it
    return check(baseline, observe_bars(bundle, load(data), source), market_window=window or MARKET_WINDOW)


def _of_journal(
    chosen: "ModelVersion", baseline: "Baseline", url: str | None, window: int | None
) -> "DriftReport":
    from journal.location import open_journal
    from journal.store import Journal
    from mlops.drift import check
    from mlops.drift_journal import observe_journal
    from mlops.drift_streams import SIGNAL_WINDOW
    from policies.bundle import open_bundle

    journal = open_journal(home(), "drift", os.environ) if url is None else Journal(url, "drift")
    meta = open_bundle(chosen.path.parent, chosen.digest).meta
    observed = observe_journal(journal.read("signal", "decision", "outcome"), meta, chosen.digest, "journal")
    return check(baseline, observed, signal_window=window or SIGNAL_WINDOW)


def watched(number: int | None) -> "ModelVersion":
    """The version of that number; without one what is in production, else in staging."""
    from mlops.registry import read_export

    versions = read_export(home())
    if number is not None:
        found = [entry for entry in versions if entry.version == number]
    else:
        holders = {alias: entry for entry in versions for alias in entry.aliases}
        found = [holders[alias] for alias in ("production", "staging") if alias in holders]
    if not found:
        mend = (
            f"choose one of {', '.join(str(entry.version) for entry in versions)}"
            if versions
            else "train one"
        )
        raise ConfigError("version", number, f"no such registered model: {mend}")
    return found[0]
