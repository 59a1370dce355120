"""The operator's limits of each account, read from one typed JSON file per account.

Knows nothing of requests. A file that cannot be used never means the defaults: it means that nothing may be
opened.
"""

import hashlib
import json
import os
import re
from dataclasses import dataclass
from functools import cached_property
from math import nan
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from envs.guardrails import Limits, TighterLimits, limit_rows
from market.errors import ConfigError, first_line

FOLDER: Final = "limits"
DEFAULT: Final = "default"
ACCOUNT_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
LARGEST_FILE: Final = 65_536
UNUSABLE: Final = Limits.model_construct(base_risk=nan)  # the guardrail answers 0 and says invalid_limits


@dataclass(frozen=True)
class OperatorLimits:
    """Limits and where they come from; `limits` is None where they cannot be used, and `source` says why."""

    limits: Limits | None
    source: str
    digest: str | None

    @classmethod
    def of(cls, limits: Limits, source: str = "given in process") -> "OperatorLimits":
        """Limits from anywhere, with the SHA-256 of their canonical JSON."""
        text = json.dumps(limits.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return cls(limits, source, hashlib.sha256(text.encode()).hexdigest())

    def numbers(self, tighter: TighterLimits | None) -> tuple[float, ...]:
        """These limits with what is stricter in `tighter`, nine numbers as `limit_rows` gives them; UNUSABLE
        where there are none."""
        if tighter is None or self.limits is None:
            return self._own
        return _numbers(self.limits.tightened(tighter))

    @cached_property
    def _own(self) -> tuple[float, ...]:
        return _numbers(UNUSABLE if self.limits is None else self.limits)


def _numbers(limits: Limits) -> tuple[float, ...]:
    return tuple(limit_rows([limits])[0].tolist())


BUILT_IN: Final = "built-in defaults"


class LimitsFolder:
    """The limits files below a home; a changed file counts from the next question on."""

    def __init__(self, home: Path) -> None:
        self._folder = home / FOLDER
        self._known: dict[str, tuple[object, OperatorLimits]] = {}
        self._built_in = OperatorLimits.of(Limits(), BUILT_IN)

    def of(self, account_id: str) -> OperatorLimits:
        """The account's own file, else limits/default.json, else the built-in defaults.

        ConfigError for an id that is no plain name: it becomes part of a path. A file that is there but
        cannot be used gives limits of None, so that the sizer answers 0.
        """
        if not ACCOUNT_ID.fullmatch(account_id):
            raise ConfigError(
                "account_id",
                account_id,
                "give 1 to 64 letters, digits, - or _, starting with a letter or digit",
            )
        for name in dict.fromkeys((account_id, DEFAULT)):
            found = self._read(name)
            if found is not None:
                return found
        return self._built_in

    def _read(self, name: str) -> OperatorLimits | None:
        path, source = f"{self._folder}/{name}.json", f"{FOLDER}/{name}.json"
        try:
            status = os.stat(path)  # a Path would take several times as long
        except FileNotFoundError:
            return None
        except OSError as error:
            return OperatorLimits(None, f"{source} cannot be read ({error.strerror})", None)
        # A file replaced in the same tick of the clock has another inode.
        version = (status.st_mtime_ns, status.st_size, status.st_ino)
        known = self._known.get(name)
        if known is None or known[0] != version:
            known = (version, _parse(path, source))
            self._known[name] = known
        return known[1]


def _parse(path: str, source: str) -> OperatorLimits:
    try:
        with open(path, "rb") as file:
            content = file.read(LARGEST_FILE + 1)
        if len(content) > LARGEST_FILE:
            return OperatorLimits(None, f"{source} cannot be used (more than {LARGEST_FILE} bytes)", None)
        # Strict: "0.02" or true where a number belongs is a mistake to be mended, not guessed at.
        return OperatorLimits.of(Limits.model_validate_json(content, strict=True), source)
    except OSError as error:
        return OperatorLimits(None, f"{source} cannot be read ({error.strerror})", None)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "file"
        return OperatorLimits(None, f"{source} cannot be used ({place}: {first['msg']})", None)
    except ValueError as error:
        return OperatorLimits(None, f"{source} cannot be used ({first_line(error)})", None)
