"""The specification: 31 names in their order, and a fingerprint that moves with a definition and with nothing
else."""

import subprocess
import sys
from pathlib import Path

import pytest

from features import spec, step
from features.spec import CATEGORIES, FEATURE_NAMES, FEATURES, WARMUP, fingerprint, fingerprint_of, index

SOURCE = Path(step.__file__).read_text(encoding="utf-8")


def test_there_are_31_features_in_the_order_of_the_specification():
    assert ",".join(FEATURE_NAMES) == (
        "mom_5,mom_10,mom_20,mom_50,ret_1,ret_2,ret_3,ret_4,ret_5,atr_ratio,bb_position,bb_width,range_position,"
        "vol_ratio_5_20,vol_trend,vol_spike,higher_highs,lower_lows,swing_position,rsi_norm,rsi_slope,macd_norm,"
        "macd_hist,adx_norm,adx_direction,hour_sin,hour_cos,day_of_week,trend_strength,choppiness,mean_reversion"
    )
    assert [index(name) for name in FEATURE_NAMES] == list(range(31))
    assert max(feature.first for feature in FEATURES) == WARMUP == 101


def test_categories_hold_each_feature_once_in_order():
    assert tuple(name for names in CATEGORIES.values() for name in names) == FEATURE_NAMES


def test_neutral_values_lie_within_the_range():
    for feature in FEATURES:
        assert feature.low < feature.high
        assert feature.neutral is None or feature.low <= feature.neutral <= feature.high


def test_an_unknown_name_is_refused():
    with pytest.raises(KeyError):
        index("rsi")


def test_the_fingerprint_is_that_of_the_compiled_source():
    assert fingerprint() == fingerprint_of(SOURCE)
    assert len(bytes.fromhex(fingerprint())) == 32


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("(11.0 / 13.0)", "(12.0 / 14.0)"),
        ("LONG, SHORT = 100, 20", "LONG, SHORT = 100, 21"),
        ('error_model="numpy")', 'error_model="numpy", fastmath=True)'),
        ("MOM_5, MOM_10", "MOM_10, MOM_5"),
        ("> 0.0 else 1.0", "> 0.0 else 0.0"),
    ],
)
def test_a_changed_definition_changes_the_fingerprint(old: str, new: str):
    assert old in SOURCE
    assert fingerprint_of(SOURCE.replace(old, new, 1)) != fingerprint()


def test_changed_names_change_the_fingerprint(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(spec, "FEATURE_NAMES", FEATURE_NAMES[::-1])
    assert fingerprint_of(SOURCE) != fingerprint()


def test_comments_docstrings_layout_and_line_ends_do_not_change_the_fingerprint():
    lines = SOURCE.splitlines()
    commented = "\r\n".join(f"{line}  # why" if line.endswith(":") else line for line in lines)
    assert fingerprint_of(commented) == fingerprint()
    reworded = SOURCE.replace('"""The higher of every value and the one `apart` later."""', '"""Pairs."""')
    assert reworded != SOURCE
    assert fingerprint_of(reworded) == fingerprint()


def test_importing_the_specification_loads_no_numba_and_the_kernel_no_pandas():
    check = "import sys, features.{}; sys.exit('{}' in sys.modules)"
    for module, heavy in (("spec", "numba"), ("kernel", "pandas")):
        done = subprocess.run([sys.executable, "-c", check.format(module, heavy)], timeout=60, check=False)
        assert done.returncode == 0, module
