import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from features.pipeline import FeaturePipeline
from features.spec import FEATURE_NAMES, WARMUP
from market.errors import DataError
from signals import predictor_file
from signals.outcome_logit import log_softmax
from signals.predictor import KINDS, PricePredictor
from signals.predictor_file import About, SavedPredictor, file_name, open_predictor
from signals.price_models import Candidate, learn
from tests.jumpy_bars import jumpy_bars

BARS = jumpy_bars(500)


def saved(kind: str = "trees", symbol: str = "JUMPY") -> SavedPredictor:
    random = np.random.default_rng(0)
    x, y = random.normal(size=(900, len(FEATURE_NAMES))), random.integers(0, 3, 900)
    x[:, 0] += y  # something to learn
    (model,) = learn(x, y, [Candidate(kind, {"logit": 0.01, "trees": 15, "mlp": 1}[kind])], seed=0)
    base = log_softmax(np.zeros((1, 3)))[0]
    predictor = PricePredictor(kind, model, base, 0.7)
    about = About(symbol=symbol, horizon=5, threshold=0.001, verdict="a test", data=BARS.digest())
    return SavedPredictor(predictor, about, predictor.golden(FeaturePipeline().matrix(BARS)))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_found_again_by_its_symbol_and_predicts_from_bars(kind: str, home: Path):
    one = saved(kind)
    path = one.save(home / predictor_file.FOLDER)
    for found in (open_predictor("JUMPY"), open_predictor(" jumpy"), open_predictor(path)):
        assert found.about == one.about
        assert found.predictor.kind == kind
        p = found.predictor.predict(BARS.frame())
        np.testing.assert_array_equal(p, one.predictor.predict(BARS))
        assert np.isnan(p[: WARMUP - 1]).all()
        np.testing.assert_allclose(p[WARMUP - 1 :].sum(axis=1), 1.0, atol=1e-12)
        assert np.ptp(p[WARMUP - 1 :, 0]) > 0.01, "constant answers would prove nothing"


def test_nothing_in_the_file_is_executed(tmp_path: Path):
    content = saved().save(tmp_path).read_bytes()
    arrays = load_tensors(content)
    assert {array.dtype.kind for array in arrays.values()} <= {"f", "i"}
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert sum(int(np.prod(array.shape)) * array.itemsize for array in arrays.values()) == max(
        entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"
    )


def text_of(path: Path) -> dict[str, str]:
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return dict(header["__metadata__"])


def test_a_file_with_a_changed_number_or_word_is_refused(tmp_path: Path):
    path = saved().save(tmp_path)
    whole, text = path.read_bytes(), text_of(path)
    arrays = load_tensors(whole)
    for name in ("predictor/base", "predictor/model/value", "golden/answers"):
        changed = arrays[name].copy()
        changed.flat[0] = np.nextafter(changed.flat[0], 9.0)
        path.write_bytes(save_tensors({**arrays, name: changed}, text))
        with pytest.raises(DataError, match="predictor digest"):
            open_predictor(path)
    for key, value in (
        ("about", text["about"].replace('"horizon":5', '"horizon":6')),
        ("features", "0" * 64),
    ):
        assert value != text[key]
        path.write_bytes(save_tensors(arrays, {**text, key: value}))
        with pytest.raises(DataError, match="predictor digest"):
            open_predictor(path)
    for broken in (b"", whole[:-9], whole[:200], b"\x80\x04."):
        path.write_bytes(broken)
        with pytest.raises(DataError, match="predictor file"):
            open_predictor(path)
    path.write_bytes(save_tensors(arrays, {"schema": "another"}))
    with pytest.raises(DataError, match="needs schema"):
        open_predictor(path)


def test_a_predictor_of_other_features_or_other_answers_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    one = saved()
    path = replace(one, predictor=replace(one.predictor, shrink=0.69)).save(tmp_path)
    with pytest.raises(DataError, match="golden answers"):
        open_predictor(path)
    with pytest.raises(DataError, match="golden rows"):
        open_predictor(replace(one, golden={}).save(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(predictor_file, "fingerprint", lambda: "of yesterday")
        path = one.save(tmp_path)
    with pytest.raises(DataError, match="predictor features: got 'of yesterday'"):
        open_predictor(path)


def test_a_symbol_nobody_trained_says_how_to_train_it(home: Path):
    with pytest.raises(DataError, match="--mode predictor"):
        open_predictor("EURUSD")


@pytest.mark.parametrize("symbol", ["BTC/USDT", "../../ESCAPE", "..", "Ü" * 64, "A B\\C:D", "%2F"])
def test_any_symbol_has_a_file_of_its_own_within_the_folder(symbol: str, tmp_path: Path):
    path = saved(symbol=symbol).save(tmp_path / "predictors")
    assert path.parent == tmp_path / "predictors"
    assert [entry.name for entry in tmp_path.iterdir()] == ["predictors"]
    assert open_predictor(symbol, path.parent).about.symbol == symbol
    assert len(path.name.encode()) < 255
    others = ("BTC%2FUSDT", "BTC-USDT", "Ü" * 63)
    assert file_name(symbol) not in {file_name(other) for other in others}


def test_a_full_disk_leaves_the_predictor_of_yesterday(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = saved("logit").save(tmp_path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        saved("trees").save(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    assert open_predictor(path).predictor.kind == "logit"
