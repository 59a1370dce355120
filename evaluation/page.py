"""One HTML page that works without a network: a template, the look shared by all pages, figures and charts.

Knows nothing of what a page is about. The page's own figures lie beside it as JSON.
"""

import json
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from market.home import write_atomically


def write_page(
    path: Path, name: str, document: Mapping[str, Any], *, scripts: Sequence[str] = (), **values: Any
) -> None:
    """Write the page of the template ``<name>.html.j2`` and the charts of ``<name>.js`` to `path`, whole.

    `scripts`: files of charts that it shares with other pages. `document`: the figures, of JSON types; they
    are embedded for the charts, and appear beside the page as `.json` before it does. `values` go to the
    template.
    """
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=FunctionLoader(_text),
    )
    environment.filters |= {"signed": _signed, "typeset": _typeset, "words": _words}
    html = environment.get_template(f"{name}.html.j2").render(
        document=document,
        data=_script_json(document),
        css=Markup(_text("page.css")),
        shared_script=Markup("\n".join(_text(one) for one in ("page.js", *scripts))),
        script=Markup(_text(f"{name}.js")),
        plotly=Markup(get_plotlyjs()),
        **values,
    )
    content = json.dumps(document, allow_nan=False)
    write_atomically(path.with_suffix(".json"), content.encode())
    write_atomically(path, html.encode())


def plain(value: object) -> Any:
    """`value` in JSON types: a number that is not finite becomes None, what JSON has no type for its text."""
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(entry) for entry in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def _signed(value: float | None, decimals: int = 3) -> str:
    return "–" if value is None else _typeset(f"{value:+z.{decimals}f}")


def _typeset(text: str) -> str:
    """Hyphens before numbers as minus signs; no line break between a number and its unit."""
    return re.sub(r"(?<=\d) (?=%|R\b)", "\N{NO-BREAK SPACE}", re.sub(r"(?<![\w-])-(?=\d)", "−", text))


def _words(value: object) -> str:
    """A provenance value as one line of text."""
    if isinstance(value, Mapping):
        return " · ".join(f"{key} {_words(entry)}" for key, entry in value.items())
    if isinstance(value, list):
        return ", ".join(_words(entry) for entry in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    return "–" if value is None else str(value)


def _script_json(document: object) -> Markup:
    """JSON that may stand inside a script element: nothing in it can end the element."""
    text = json.dumps(document, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))


def _text(name: str) -> str:
    return resources.files("evaluation").joinpath(name).read_text(encoding="utf-8")
