from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from market.errors import InputError
from mlops.changes import BY_HAND, Changes, Told, changes
from mlops.versions import ModelVersion

CREATED = datetime(2026, 1, 2, tzinfo=UTC)


def version(number, status, **more):
    digest = f"{number:064x}"
    return ModelVersion(number, digest, Path("/bundles") / digest, status, CREATED, **more)


def told(*versions):
    return {one.version: Told(status=one.status, digest=one.digest) for one in versions}


def found(before, after):
    return [
        (record.action, record.version, record.replaced_version) for record in changes(told(*before), after)
    ]


def test_nothing_is_told_where_nothing_changed():
    versions = [version(1, "ARCHIVED"), version(2, "PRODUCTION"), version(3, "STAGING")]
    assert changes(told(*versions), versions) == []


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ([], ["STAGING"], [("registered", 1, None)]),
        ([], ["TRAINING"], [("registered", 1, None)]),
        ([], ["ARCHIVED"], [("registered", 1, None), ("archived", 1, None)]),
        ([], ["PRODUCTION"], [("registered", 1, None), ("promoted", 1, None)]),
        (["TRAINING"], ["STAGING"], [("staged", 1, None)]),
        (["TRAINING"], ["ARCHIVED"], [("archived", 1, None)]),
        (["ARCHIVED"], ["STAGING"], [("staged", 1, None)]),
        (["STAGING"], ["PRODUCTION"], [("promoted", 1, None)]),
        (["ARCHIVED"], ["PRODUCTION"], [("rolled_back", 1, None)]),
        (["PRODUCTION"], ["ARCHIVED"], [("archived", 1, None)]),
        (["PRODUCTION", "STAGING"], ["ARCHIVED", "PRODUCTION"], [("promoted", 2, 1)]),
        (["ARCHIVED", "PRODUCTION"], ["PRODUCTION", "ARCHIVED"], [("rolled_back", 1, 2)]),
    ],
)
def test_each_way_through_the_state_machine_is_told_by_its_name(before, after, expected):
    versions = [[version(n, status) for n, status in enumerate(side, start=1)] for side in (before, after)]
    assert found(*versions) == expected


def test_a_version_that_is_gone_was_pruned():
    one, two = version(1, "ARCHIVED"), version(2, "STAGING")
    assert found([one, two], [two]) == [("pruned", 1, None)]


def test_what_a_promotion_stands_on_is_told_and_where_it_stands_on_nothing_that_is_told():
    one = version(1, "STAGING")
    live = replace(one, status="PRODUCTION")
    for support, expected in (
        ({"evidence": "e" * 64}, ("e" * 64, None)),
        ({"override": "in a hurry"}, (None, "in a hurry")),
        ({}, (None, BY_HAND)),
    ):
        (record,) = changes(told(one), [replace(live, **support)])
        assert (record.evidence, record.override) == expected


def test_what_the_journal_refused_is_told_again_under_the_same_ids_and_in_the_same_order(tmp_path):
    tries = []

    def refuse(entries):
        tries.append([(record_id, payload["action"]) for _, record_id, payload in entries])
        raise InputError("journal", "here", "free some disk space")

    path = tmp_path / "registry" / "changes.json"
    staged, live = version(1, "STAGING"), version(1, "PRODUCTION", override="in a hurry")
    assert Changes(path, refuse).tell([staged]) == "journal: got 'here'; free some disk space"
    assert Changes(path, refuse).tell([live]) is not None
    accepted = []
    assert Changes(path, accepted.extend).tell([live]) is None
    assert [action for _, action in tries[-1]] == ["registered", "promoted"]
    assert [(kind, record_id) for kind, record_id, _ in accepted] == [("model", one) for one, _ in tries[-1]]
    assert tries[0][0] == tries[-1][0]
    assert Changes(path, refuse).tell([live]) is None
