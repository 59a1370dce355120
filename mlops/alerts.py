"""An alarm told to a webhook: one POST of JSON, tried a few times, with a cooldown. Knows nothing of drift.

A server that fails, hangs or is not there costs seconds, never an exception: who is told must not decide
whether a check ends.
"""

import json
import threading
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from pydantic import TypeAdapter, ValidationError

from market.errors import ConfigError, first_line
from market.home import write_atomically

ATTEMPTS: Final = 3
TIMEOUT: Final = 3.0  # seconds, of one attempt
PAUSE: Final = 0.5  # seconds before the second attempt; twice as long before the third
DEADLINE: Final = 12.0  # seconds in all, even where a server answers one byte at a time
COOLDOWN: Final = 6 * 3600.0  # seconds in which the same alarm is not told again
_SENT: Final = TypeAdapter(dict[str, float])


def checked_url(url: str) -> str:
    """The webhook's URL; ConfigError unless it is http or https with a host, which is all that is shown."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ConfigError("--webhook", url.partition("://")[0], "give http://HOST[:PORT]/PATH or https://…")
    return url


class Webhook:
    """Alarms go to `url`; when each was last told is kept in the file `sent`."""

    def __init__(self, url: str, sent: Path, cooldown: float = COOLDOWN, deadline: float = DEADLINE) -> None:
        self.url, self.sent, self.cooldown, self.deadline = checked_url(url), sent, cooldown, deadline

    def tell(self, subject: str, payload: Mapping[str, Any], now: float | None = None) -> str:
        """Tell of the alarm `subject`; what became of it, in words. Never raises, ends within the deadline.

        Not again within the cooldown since it was last told to somebody who answered 2xx; a clock that
        stepped back does not silence it.
        """
        now = time.time() if now is None else now
        key = f"{urlsplit(self.url).netloc.rpartition('@')[2]} {subject}"
        told = self._told()
        if key in told and 0.0 <= now - told[key] < self.cooldown:
            return f"webhook told {(now - told[key]) / 60.0:.0f} minutes ago already"
        fault = deliver(self.url, payload, self.deadline)
        if fault is not None:
            return f"webhook not reached: {fault}"
        recent = {name: at for name, at in told.items() if 0.0 <= now - at < self.cooldown}
        try:
            write_atomically(self.sent, json.dumps(recent | {key: now}).encode())
        except OSError as error:
            return f"webhook told; it will be told again, for that could not be noted ({error.strerror})"
        return "webhook told"

    def _told(self) -> dict[str, float]:
        """When each alarm was last told; a note that cannot be read silences nothing."""
        try:
            return _SENT.validate_json(self.sent.read_bytes())
        except (OSError, ValidationError):
            return {}


def deliver(url: str, payload: Mapping[str, Any], deadline: float = DEADLINE) -> str | None:
    """POST the payload as JSON, with up to three attempts; None once answered 2xx, else why it was not."""
    outcome: list[str | None] = []
    content = json.dumps(payload, allow_nan=False).encode()
    # Daemonic: a server that trickles its answer keeps neither the check nor the process.
    sender = threading.Thread(target=lambda: outcome.append(_attempts(url, content, deadline)), daemon=True)
    sender.start()
    sender.join(deadline)
    return outcome[0] if outcome else f"no answer within {deadline:g} s"


def _attempts(url: str, content: bytes, deadline: float) -> str | None:
    ends = time.monotonic() + deadline
    fault: str | None = None
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(PAUSE * 2 ** (attempt - 1))
        if (left := ends - time.monotonic()) <= 0.0:
            break
        fault = _post(url, content, min(TIMEOUT, left))
        if fault is None:
            break
    return fault


class _Unredirected(urllib.request.HTTPRedirectHandler):
    """An alarm goes where it was addressed, or it fails: a redirected POST would arrive as an empty GET."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _post(url: str, content: bytes, timeout: float) -> str | None:
    headers = {"Content-Type": "application/json"}
    parts = urlsplit(url)
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Authorization"] = f"Basic {b64encode(pair.encode()).decode()}"
        url = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    request = urllib.request.Request(url, content, headers, method="POST")
    try:
        with urllib.request.build_opener(_Unredirected).open(request, timeout=timeout) as answer:
            answer.read(1024)
    except urllib.error.HTTPError as error:
        error.close()
        return f"it answered {error.code}"
    except (OSError, ValueError, urllib.error.URLError) as error:
        return first_line(error)
    except Exception as error:  # http.client raises kinds of its own at servers that speak no HTTP
        return f"{type(error).__name__}: {first_line(error)}"
    return None
