from contextlib import closing

import pytest

from journal.location import journal_url, open_journal
from market.errors import ConfigError


def test_a_homes_journal_is_its_file_or_what_the_environment_names(tmp_path):
    assert journal_url(tmp_path, {}) == f"sqlite:///{tmp_path}/journal/journal.db"
    address = "postgresql+psycopg://desk@host/journal"
    assert journal_url(tmp_path, {"BALLAST_JOURNAL": address}) == address


@pytest.mark.parametrize(("setting", "level"), [({}, 1), ({"BALLAST_JOURNAL_SYNC": "FULL"}, 2)])
def test_one_setting_makes_records_survive_the_loss_of_power(tmp_path, setting, level):
    with closing(open_journal(tmp_path, "w", setting)) as journal:
        journal.append("decision", "d1", {})
        with journal._database.engine.connect() as connection:
            assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == level


def test_another_setting_is_refused_by_name(tmp_path):
    with pytest.raises(ConfigError, match="BALLAST_JOURNAL_SYNC: got 'full'; give NORMAL or FULL"):
        open_journal(tmp_path, "w", {"BALLAST_JOURNAL_SYNC": "full"})
