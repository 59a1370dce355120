"""`demo`: the whole of Ballast once, on real bars."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from cli.console import console, shown
from cli.options import ConfigOption, DataOption, configured
from cli.serving import endpoints
from cli.training import show, trained
from market.errors import InputError
from market.home import home, write_atomically

if TYPE_CHECKING:
    from tuning.examples import Example

app = typer.Typer()


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
    training, result = trained(configured(config, {"data": data}), "all", resume=False)
    assert result.version is not None
    show(result)
    console.rule("Three endpoints")
    with endpoints(result.version.digest, result.version.status, port) as server:
        url = server.url
        _ask(url, training.finished.example())
    console.rule("What to type next")
    python = shown(Path(sys.executable))
    console.print(f"open    {result.report}")
    console.print(f"serve   {python} -m ballast serve --staging")
    console.print(
        f"train   {python} -m ballast train --data sample:eurusd,nasdaq --rule donchian?lookback=55"
    )
    console.print(f"models  {python} -m ballast registry list")


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
