"""The API keys of a home: several, kept as SHA-256 only, each with its own rate, added and revoked by name.

Knows nothing of requests. A keys file that changes counts at once; one that cannot be used shuts the door.
"""

import hashlib
import hmac
import os
import secrets
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

from filelock import FileLock
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from market.errors import ConfigError, first_line

KEYS_FILE: Final = "keys.json"
KEYS_VARIABLE: Final = "BALLAST_API_KEYS_SHA256"  # hashes, separated by commas; their rate has no limit

Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Key(BaseModel):
    """One key, of which only the hash is known. It is random and long: a plain SHA-256 gives nothing away."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: Annotated[str, Field(min_length=1, max_length=64)]
    sha256: Hash
    rate: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="requests per second to each application, over all its replicas"
    )
    created: AwareDatetime | None = None


class _KeysFile(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    keys: tuple[Key, ...]


class Keys:
    """The API keys of a home: BALLAST_HOME/keys.json and the hashes in the environment.

    Without either, no key is asked for. Once there was a file, its loss or a fault in it shuts the door.
    """

    def __init__(self, home: Path, environment: Mapping[str, str]) -> None:
        self._file = home / KEYS_FILE
        hashes = [
            text.strip().lower() for text in environment.get(KEYS_VARIABLE, "").split(",") if text.strip()
        ]
        self._fixed = tuple(
            Key.model_construct(name=KEYS_VARIABLE, sha256=text, rate=None) for text in hashes
        )
        self._version: object = None
        self._from_file: tuple[Key, ...] = ()
        self._seen_file = False

    def required(self) -> bool:
        """Whether a request must bring a key."""
        self._refresh()
        return bool(self._fixed) or self._seen_file

    def find(self, secret: bytes) -> Key | None:
        """The key that `secret` is; None where it is none of them."""
        self._refresh()
        digest = hashlib.sha256(secret).hexdigest()
        # All are compared, each in constant time, so that the time taken does not tell which one was near.
        same = [key for key in (*self._fixed, *self._from_file) if hmac.compare_digest(digest, key.sha256)]
        return same[0] if same else None

    def _refresh(self) -> None:
        try:
            status = os.stat(self._file)
        except FileNotFoundError:
            self._version, self._from_file = None, ()
            return
        except OSError:
            self._seen_file, self._version, self._from_file = True, None, ()
            return
        self._seen_file = True
        version = (status.st_mtime_ns, status.st_size, status.st_ino)
        if version != self._version:
            self._version = version
            try:
                self._from_file = _read(self._file)
            except (OSError, ValidationError):
                self._from_file = ()


def listed(home: Path) -> tuple[Key, ...]:
    """The keys in the file of `home`, oldest first; ConfigError where it cannot be used."""
    path = home / KEYS_FILE
    try:
        return _read(path)
    except FileNotFoundError:
        return ()
    except (OSError, ValidationError) as error:
        raise ConfigError(
            "keys", str(path), f"mend it, or take it away and add the keys anew ({first_line(error)})"
        ) from None


def add(home: Path, name: str, rate: float | None = None) -> str:
    """A new key under `name`, which no other may have; it is told here and nowhere else again."""
    secret = secrets.token_urlsafe(32)
    try:
        key = Key(
            name=name.strip(),
            sha256=hashlib.sha256(secret.encode()).hexdigest(),
            rate=rate,
            created=datetime.now(UTC).replace(microsecond=0),
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(
            str(first["loc"][0]), first["input"], first["msg"][:1].lower() + first["msg"][1:]
        ) from None
    with _alone(home):
        keys = listed(home)
        if any(known.name == key.name for known in keys):
            raise ConfigError("name", key.name, "give another: revoke that one first to use its name again")
        _write(home / KEYS_FILE, (*keys, key))
    return secret


def revoke(home: Path, name: str) -> None:
    """Take the key of that name away; running replicas refuse it from their next request on.

    Without its last key a home has no door left, not an open one. ConfigError for a name that is not there.
    """
    with _alone(home):
        keys = listed(home)
        left = tuple(key for key in keys if key.name != name)
        if len(left) == len(keys):
            known = ", ".join(key.name for key in keys)
            raise ConfigError(
                "name", name, f"give one of {known}" if known else "there is no key yet: add one"
            )
        _write(home / KEYS_FILE, left)


def _read(path: Path) -> tuple[Key, ...]:
    return _KeysFile.model_validate_json(path.read_bytes()).keys


def _alone(home: Path) -> FileLock:
    """Who holds it is alone in changing the file."""
    home.mkdir(parents=True, exist_ok=True)
    return FileLock(home / f".{KEYS_FILE}.lock")


def _write(path: Path, keys: tuple[Key, ...]) -> None:
    """The whole file or nothing, for its owner alone."""
    content = _KeysFile(keys=keys).model_dump_json(indent=1, exclude_none=True)
    descriptor, draft = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)  # mode 0600
    try:
        with open(descriptor, "w") as file:
            file.write(f"{content}\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise
