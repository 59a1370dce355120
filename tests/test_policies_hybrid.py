"""The learned policies at inference, and the bundle that a fine-tune travels in."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from envs.guardrails import LARGEST_SIZE, SIZES, Limits
from evaluation.backtest import run
from market.errors import DataError
from policies.bundle import META_FILE, BundleError, _digest, open_bundle
from policies.hybrid import FineTunedPolicy, TierPolicy
from tests.serving_bundles import FINE_TUNE, bundle, fine_network, fine_tuned_bundle, network
from tests.synthetic_signals import table

POLICY = FineTunedPolicy(TierPolicy(network(0)), fine_network(0), 0.15)


def test_fine_tuned_sizes_lie_within_the_band_of_the_tiers_chosen() -> None:
    signals = table(400, out_of_distribution=np.zeros(400, dtype=bool))
    free = Limits(max_position=1.0, max_exposure=1.0, max_daily_risk=1.0, max_drawdown=0.99)
    tiers, sizes = (run(policy, signals, free, 28.0).multiplier for policy in (POLICY.tiers, POLICY))
    # Where no limit binds, what the account did before moves the observation but little: most tiers agree.
    same = np.abs(sizes - tiers) <= 0.15 * tiers + 1e-12
    assert same.mean() > 0.8
    assert (sizes[tiers == 0.0] == 0.0).mean() > 0.8
    assert np.count_nonzero(~np.isin(sizes, SIZES)) > 50


def test_network_is_products_sums_and_ramps() -> None:
    made, rows = network(0), np.random.default_rng(0).normal(size=(50, 12)).astype(np.float32)
    hidden = (rows[:, : len(made.mean)] - made.mean) / made.scale
    for weight, bias in zip(made.weights[:-1], made.biases[:-1], strict=True):
        hidden = np.maximum(hidden @ weight.T + bias, 0.0)
    np.testing.assert_allclose(made(rows), hidden @ made.weights[-1].T + made.biases[-1], atol=1e-5)
    for i in range(50):
        np.testing.assert_array_equal(made(rows[i : i + 1])[0], made(rows)[i])
    rows[3, 1] = np.nan
    assert np.isnan(made(rows)).any(axis=1).tolist() == [i == 3 for i in range(50)]


def test_network_whose_layers_do_not_fit_is_refused() -> None:
    made = network(0)
    with pytest.raises(DataError, match="network weights"):
        replace(made, weights=(*made.weights[:-1], made.weights[-1][:, 1:]))
    with pytest.raises(DataError, match="network weights"):
        replace(made, scale=made.scale[1:])
    with pytest.raises(DataError, match="columns"):
        made(np.zeros((2, len(made.mean) - 1), dtype=np.float32))


def test_fine_tuned_walk_keeps_every_limit() -> None:
    signals = table(400)
    tight = Limits(max_position=0.011, max_exposure=0.03, max_daily_risk=0.025)
    path = run(FineTunedPolicy(TierPolicy(network(0, 5)), fine_network(0, 1.0), 0.15), signals, tight, 28.0)
    assert path.multiplier.max() == pytest.approx(1.1)  # clamped to the cap, not floored to a tier
    assert (path.multiplier <= LARGEST_SIZE).all()
    assert path.exposure.max() <= 0.03 + 1e-9
    assert (path.multiplier[signals.out_of_distribution] <= 1.0).all()


def test_bundle_brings_its_fine_tune_back(tmp_path: Path) -> None:
    made = fine_tuned_bundle(3)
    opened = open_bundle(tmp_path, made.save(tmp_path))
    policy = opened.policy()
    assert isinstance(policy, FineTunedPolicy)
    assert (policy.band, policy.snaps) == (0.15, False)
    signals = table(100)
    walks = (run(p, signals, Limits(), 28.0).multiplier for p in (policy, made.policy()))
    np.testing.assert_array_equal(*walks)
    sizes = opened.golden["multiplier"]
    assert np.count_nonzero(~np.isin(sizes, SIZES)) > 5
    assert (sizes <= opened.golden["cap"]).all()


def test_golden_vectors_notice_another_fine_tune(tmp_path: Path) -> None:
    made = fine_tuned_bundle(3)
    altered = replace(made, fine_tune=fine_network(4))
    digest = altered.save(tmp_path)
    with pytest.raises(BundleError, match=r"golden\.multiplier"):
        open_bundle(tmp_path, digest)


def test_bundle_of_before_there_was_a_fine_tune_still_opens(tmp_path: Path) -> None:
    folder = tmp_path / bundle(0).save(tmp_path)
    meta = json.loads((folder / META_FILE).read_bytes())
    del meta["fine_tune"]
    (folder / META_FILE).write_text(json.dumps(meta))
    digest = _digest((folder / "policy.safetensors").read_bytes(), (folder / META_FILE).read_bytes())
    folder.rename(tmp_path / digest)
    opened = open_bundle(tmp_path, digest)
    assert opened.meta.fine_tune is None
    assert isinstance(opened.policy(), TierPolicy)


def test_fine_tune_that_is_not_served_leaves_the_tiers_alone(tmp_path: Path) -> None:
    unproven = FINE_TUNE | {"served": False, "lower_bound": -0.01}
    opened = open_bundle(tmp_path, bundle(0, algo="dqn+ppo", fine_tune=unproven).save(tmp_path))
    assert isinstance(opened.policy(), TierPolicy)
    assert opened.meta.fine_tune is not None
    assert opened.meta.fine_tune.lower_bound == -0.01


def test_support_of_other_features_is_refused() -> None:
    made = bundle(0)
    few = replace(
        made.support,
        mean=made.support.mean[:30],
        scale=made.support.scale[:30],
        precision=made.support.precision[:30, :30],
    )
    with pytest.raises(ValueError, match="30 features, not 31"):
        replace(made, support=few)


@pytest.mark.parametrize("days", [0.0, 1e-15, 1e300])
def test_sessions_that_are_no_time_are_refused(days: float) -> None:
    with pytest.raises(ValidationError, match="session_days"):
        bundle(0, session_days=days)


def test_network_without_figures_or_figures_without_network_are_refused() -> None:
    with pytest.raises(ValueError, match="fine-tune"):
        bundle(0, fine_tune_network=fine_network(0))
    with pytest.raises(ValueError, match="fine-tune"):
        bundle(0, fine_tune=FINE_TUNE)
