"""API keys by name: told once, kept as hashes, limited in rate, revoked while endpoints run."""

import json
import re
import stat
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import ballast
from market.errors import ConfigError
from serving.keys import Key, Keys, add, listed, revoke
from serving.rates import Rates
from serving.sizing_service import sizing_api
from tests.serving_client import ask
from tests.test_serving_services import sizing_desk


class Clock:
    """A clock that a test turns."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def key(rate: float | None, name: str = "a") -> Key:
    return Key(name=name, sha256=name * 64, rate=rate)


def test_a_key_is_told_once_and_kept_as_a_hash_for_its_owner_alone(home: Path) -> None:
    secret = add(home, "desk", rate=5.0)
    assert len(secret) >= 43
    content = (home / "keys.json").read_text()
    assert secret not in content
    assert stat.S_IMODE((home / "keys.json").stat().st_mode) == 0o600
    found = Keys(home, {}).find(secret.encode())
    assert found is not None
    assert (found.name, found.rate) == ("desk", 5.0)
    assert [one.name for one in listed(home)] == ["desk"]


def test_a_revoked_key_is_refused_from_the_next_request_on_and_the_last_shuts_the_door(home: Path) -> None:
    secrets = {name: add(home, name) for name in ("desk", "robot")}
    api = sizing_api(sizing_desk(home))

    def asked(name: str) -> int:
        return ask(api, "GET", "/healthz", headers={"x-api-key": secrets[name]}).status_code

    assert [asked("desk"), asked("robot")] == [200, 200]
    revoke(home, "desk")
    assert [asked("desk"), asked("robot")] == [401, 200]
    revoke(home, "robot")
    assert [asked("desk"), asked("robot")] == [401, 401]
    assert Keys(home, {}).required()


def test_keys_added_at_once_are_all_there(home: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        secrets = list(pool.map(lambda i: add(home, f"key {i}"), range(16)))
    keys = Keys(home, {})
    assert {found.name for secret in secrets if (found := keys.find(secret.encode()))} == {
        f"key {i}" for i in range(16)
    }


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda home: add(home, "desk"), "name"),
        (lambda home: add(home, " "), "name"),
        (lambda home: add(home, "n" * 65), "name"),
        (lambda home: add(home, "other", rate=0.0), "rate"),
        (lambda home: add(home, "other", rate=float("nan")), "rate"),
        (lambda home: revoke(home, "other"), "name"),
    ],
)
def test_what_cannot_be_a_key_changes_nothing(home: Path, call: Callable[[Path], object], field: str) -> None:
    add(home, "desk")
    before = (home / "keys.json").read_bytes()
    with pytest.raises(ConfigError) as refused:
        call(home)
    assert refused.value.field == field
    assert (home / "keys.json").read_bytes() == before


def test_a_file_that_cannot_be_used_is_named_and_left_alone(home: Path) -> None:
    (home / "keys.json").write_text("{")
    for call in (lambda: add(home, "desk"), lambda: revoke(home, "desk"), lambda: listed(home)):
        with pytest.raises(ConfigError, match=r"keys\.json"):
            call()
    assert (home / "keys.json").read_text() == "{"


def test_a_bucket_holds_a_second_and_fills_at_the_keys_share_of_the_rate() -> None:
    clock = Clock()
    rates = Rates(clock)
    waits = [rates.wait(key(8.0), replicas=2) for _ in range(6)]
    assert waits == [0.0] * 4 + [0.25, 0.25]
    clock.now += 0.25
    assert [rates.wait(key(8.0), 2), rates.wait(key(8.0), 2)] == [0.0, 0.25]
    clock.now += 3600.0
    assert [rates.wait(key(8.0), 2) for _ in range(5)] == [0.0] * 4 + [0.25]
    assert rates.wait(key(8.0, "b"), 2) == 0.0, "each key has a bucket of its own"
    assert [rates.wait(key(None, "c"), 2) for _ in range(1000)] == [0.0] * 1000


def test_a_slow_key_has_one_request_at_a_time() -> None:
    clock = Clock()
    rates = Rates(clock)
    assert [rates.wait(key(0.5), 2), rates.wait(key(0.5), 2)] == [0.0, 4.0]
    clock.now += 4.0
    assert rates.wait(key(0.5), 2) == 0.0


def test_a_clock_that_stands_still_lets_no_more_in_whatever_is_asked_meanwhile() -> None:
    rates = Rates(Clock())
    assert sum(rates.wait(key(10.0), 1) == 0.0 for _ in range(1000)) == 10


def test_a_key_that_asks_too_often_gets_429_with_retry_after_and_others_are_let_in(home: Path) -> None:
    slow, fast = add(home, "slow", rate=0.01), add(home, "fast")
    desk = sizing_desk(home)
    desk.deploy({"home": str(home), "replicas": 2})
    api = sizing_api(desk)
    assert ask(api, "GET", "/healthz", headers={"x-api-key": slow}).status_code == 200
    answer = ask(api, "GET", "/healthz", headers={"x-api-key": slow})
    assert answer.status_code == 429
    assert answer.json()["error"]["field"] == "key"
    assert 190 <= int(answer.headers["retry-after"]) <= 200  # half of the rate: 200 s
    assert ask(api, "GET", "/healthz", headers={"x-api-key": "wrong"}).status_code == 401
    assert ask(api, "GET", "/healthz", headers={"x-api-key": fast}).status_code == 200


def test_keys_are_kept_from_the_command_line(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ballast", "keys", *words])
        monkeypatch.setenv("COLUMNS", "200")
        with pytest.raises(SystemExit) as stopped:
            ballast.main()
        said = capsys.readouterr()
        assert isinstance(stopped.value.code, int)
        return stopped.value.code, said.out, said.err

    assert "`keys add NAME` makes one" in run("list")[1]
    code, secret, _ = run("add", "desk", "--rate", "50")
    assert code == 0
    assert re.fullmatch(r"[\w-]{43}\n", secret)
    assert Keys(home, {}).find(secret.strip().encode()) is not None
    _, shown, _ = run("list")
    assert "desk" in shown
    assert " 50 " in shown
    assert secret.strip() not in shown
    assert run("add", "desk")[0] == 2
    assert run("revoke", "desk") == (0, "revoked; 0 left: the endpoints refuse everybody, add a key\n", "")
    assert run("revoke", "desk")[0] == 2
    assert json.loads((home / "keys.json").read_text()) == {"keys": []}
