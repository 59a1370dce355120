"""`drift`: does the model still fit what it sees, and does it still pay?"""

from typing import TYPE_CHECKING, Annotated

import typer

from cli.console import console, shown
from market.errors import ConfigError
from market.home import home

if TYPE_CHECKING:
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
    window: Annotated[
        int | None, typer.Option(min=20, help="rows compared with the training rows: bars (300)")
    ] = None,
    webhook: Annotated[str | None, typer.Option(help="POST an alarm to this URL, as JSON")] = None,
    cooldown: Annotated[
        float, typer.Option(min=0.0, help="hours until the same alarm is posted again")
    ] = 6.0,
) -> None:
    """Compare what comes in now with the training data; exit code 1 is an alarm, 2 a refusal."""
    from datetime import UTC, datetime

    from evaluation.drift_page import print_drift, write_drift
    from market.sources import load
    from mlops.alerts import Webhook
    from mlops.drift import check, unwatched
    from mlops.drift_baseline import NoBaseline, open_baseline
    from mlops.drift_metrics import write_metrics
    from mlops.drift_streams import MARKET_WINDOW, observe_bars
    from policies.bundle import open_bundle

    if data is None:
        raise ConfigError("--data", None, "say what is to be checked")
    place = home()
    told = place / "drift" / "told.json"
    hook = None if webhook is None else Webhook(webhook, told, cooldown * 3600.0)
    chosen = _version(version)
    try:
        baseline = open_baseline(place, chosen.digest)
        bundle = open_bundle(chosen.path.parent, chosen.digest)
        report = check(baseline, observe_bars(bundle, load(data), data), window or MARKET_WINDOW)
    except NoBaseline as reason:
        report = unwatched(chosen.digest, data, reason)
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


def _version(number: int | None) -> "ModelVersion":
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
