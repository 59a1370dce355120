"""The page of a search in a real browser: complete, drawn without an error, honest about what is missing."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState
from selenium.webdriver import Chrome
from selenium.webdriver.support.ui import Select, WebDriverWait

from envs.guardrails import TIERS
from policies.hybrid import Network
from tests.headless_browser import fetched, marks, set_scheme, shown
from tests.synthetic_signals import table
from tuning import tune
from tuning.config import parse
from tuning.experiment import Experiment, Found, plan_of
from tuning.experiment_report import read, write_report
from tuning.search import read_space
from tuning.tune import Outcome

CHARTS = ("curves", "parallel", "importance", "mix")
SPACE = {
    "dqn.learning_rate": {"kind": "loguniform", "low": 1e-4, "high": 1e-2},
    "dqn.gamma": {"kind": "choice", "values": [0.0, 1.0]},
    "dqn.hidden": {"kind": "choice", "values": [[8], [16, 8]]},
}
TRIALS = 12


class Tables:
    train, select = table(50, seed=1), table(200, seed=2)


def network(random: np.random.Generator) -> Network:
    weights = random.normal(size=(6, 12)).astype(np.float32)
    zeros = np.zeros(12, dtype=np.float32)
    return Network(zeros, zeros + 1, (weights,), (np.zeros(6, dtype=np.float32),))


def experiment(home: Path, name: str = "made", scheduler: str = "asha") -> Experiment:
    """A search as its trials would have left it: ten finished, one stopped early, one failed."""
    config = parse({"dqn": {"env_steps": 1_000}})
    plan = plan_of(config, read_space(SPACE, config), trials=TRIALS, seeds=None, scheduler=scheduler)
    made = Experiment.start(home, name, plan)
    random = np.random.default_rng(5)
    study = made.study()
    distributions: dict[str, optuna.distributions.BaseDistribution] = {
        "dqn.learning_rate": optuna.distributions.FloatDistribution(1e-4, 1e-2, log=True),
        "dqn.gamma": optuna.distributions.CategoricalDistribution((0.0, 1.0)),
        "dqn.hidden": optuna.distributions.CategoricalDistribution(("[8]", "[16, 8]")),
    }
    for number in range(TRIALS):
        rate = float(10 ** random.uniform(-4, -2))
        gamma = float(number % 2)
        sample: dict[str, Any] = {"dqn.learning_rate": rate, "dqn.gamma": gamma, "dqn.hidden": "[16, 8]"}
        if scheduler == "pbt":
            del sample["dqn.hidden"]
        trial = f"t{number:02d}"
        made.begin(trial, sample)
        if number == TRIALS - 1:
            made.fail(trial, "ValueError: <b>no luck</b>\n\nTraceback ...")
            continue
        score, done = 0.0, 0
        for step in range(1, 11 if number else 4):
            score = 0.01 * step * (1.0 + rate * 100)
            shares = random.dirichlet(np.ones(6))
            done = step // (5 if plan.seeds == 2 else 10)
            row = {
                "env_steps": 200 * step, "seed": min(done, plan.seeds - 1), "score": score,
                "objective": score,
                "worst": score / 2, "seeds_done": done, "seconds": 3.0 * step,
                "tiers": dict(zip(TIERS, shares.tolist(), strict=True)),
            }  # fmt: skip
            if scheduler == "pbt":
                row["origin"] = "t01"
            made.record(trial, row)
        for seed in range(plan.seeds if number else 1):
            made.keep(trial, seed, Found(network(random), score, finished=bool(number)))
        study.add_trial(
            optuna.trial.create_trial(
                state=TrialState.COMPLETE,
                value=score,
                params=sample | {"dqn.hidden": "[16, 8]"},
                distributions=distributions,
            )
        )
    return made


def summed_up(made: Experiment) -> Outcome:
    return tune._sum_up(made, made.plan, Tables())  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    made = experiment(tmp_path_factory.mktemp("home"))
    summed_up(made)
    return made


@pytest.fixture(scope="module")
def page(finished: Experiment) -> Path:
    return write_report(finished)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_every_chart_is_drawn_without_a_script_error(
    browser: Chrome, page: Path, width: int, scheme: str
) -> None:
    assert shown(browser, page, width, scheme) == []
    assert {chart: marks(browser, chart) > 0 for chart in CHARTS} == dict.fromkeys(CHARTS, True)
    assert marks(browser, "curves") == 2 * 10 + 1  # each seed has a line of its own
    assert marks(browser, "parallel") == TRIALS - 1
    assert marks(browser, "importance") == 3
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width


def test_page_fetches_nothing(browser: Chrome, page: Path) -> None:
    browser.get_log("performance")
    shown(browser, page)
    assert fetched(browser) == []


def test_no_line_of_the_parallel_coordinates_leaves_its_axes(browser: Chrome, page: Path) -> None:
    shown(browser, page)
    spots = browser.execute_script("return document.getElementById('parallel').data.map((line) => line.y)")
    assert len(spots) == TRIALS - 1
    assert all(0.0 <= spot <= 1.0 for line in spots for spot in line)
    assert all(len(line) == len(SPACE) + 1 for line in spots)


def test_sizes_of_the_chosen_trial_are_drawn(browser: Chrome, page: Path) -> None:
    shown(browser, page)
    first = "return document.getElementById('mix').data[0].y"
    before = browser.execute_script(first)
    Select(browser.find_element("id", "mix-trial")).select_by_index(3)
    WebDriverWait(browser, 30).until(lambda found: found.execute_script(first) != before)


def test_charts_follow_the_readers_light_or_dark_setting(browser: Chrome, page: Path) -> None:
    ink = "return getComputedStyle(document.querySelector('#curves .xtick text')).fill"
    shown(browser, page, scheme="light")
    light = browser.execute_script(ink)
    set_scheme(browser, "dark")
    WebDriverWait(browser, 30).until(lambda found: found.execute_script(ink) != light)


def test_leaderboard_has_every_trial_the_best_finished_one_first(page: Path) -> None:
    html = page.read_text()
    body = html[html.index("Leaderboard") : html.index("Learning curves")]
    names = re.findall(r'<th scope="row">(t\d\d)</th>', body)
    assert sorted(names) == [f"t{number:02d}" for number in range(TRIALS)]
    kept = json.loads(page.with_suffix(".json").read_text())
    assert names == [trial["name"] for trial in kept["trials"]]
    assert names[0] == kept["best"]
    assert names[-2:] == ["t00", "t11"]
    assert "stopped early" in body
    assert "ValueError: &lt;b&gt;no luck&lt;/b&gt;" in body
    assert "<b>no luck</b>" not in html


def test_differences_are_those_of_the_realised_utilities(finished: Experiment) -> None:
    with np.load(finished.folder / "utilities.npz") as file:
        kept = dict(file)
    search = read(finished)
    for trial in search.trials:
        if trial.status == "failed":
            assert (trial.versus_rule, trial.versus_plug_in) == (None, None)
            continue
        (column,) = np.flatnonzero(kept["trial"] == trial.name)
        assert trial.versus_rule is not None
        assert trial.versus_plug_in is not None
        own = kept["utility"][:, column].mean()
        assert trial.versus_rule.mean == pytest.approx(own - kept["rule"].mean())
        assert trial.versus_plug_in.mean == pytest.approx(own - kept["plug_in"].mean())
        assert trial.versus_rule.low is not None
        assert trial.versus_rule.low < trial.versus_rule.mean


def test_importance_is_optunas_and_finds_the_setting_that_made_the_score(finished: Experiment) -> None:
    importance = read(finished).importance
    assert importance is not None
    assert max(importance, key=lambda key: importance[key]) == "dqn.learning_rate"
    assert sum(importance.values()) == pytest.approx(1.0)


def test_running_search_is_shown_as_far_as_it_is(browser: Chrome, tmp_path: Path) -> None:
    made = experiment(tmp_path)
    page = write_report(made)
    search = read(made)
    assert search.best is not None
    assert (search.best.versus_rule, search.config) == (None, None)
    assert {trial.status for trial in search.trials} == {"finished", "unfinished", "failed"}
    assert any("11 of 12 trials have ended" in caveat for caveat in search.caveats)
    assert shown(browser, page) == []


def test_search_that_has_only_been_planned_makes_a_page(browser: Chrome, tmp_path: Path) -> None:
    config = parse()
    space = read_space(SPACE, config)
    made = Experiment.start(tmp_path, "new", plan_of(config, space, trials=5, seeds=1, scheduler=None))
    assert shown(browser, write_report(made)) == []
    search = read(made)
    assert search.headline == "No trial has trained all its seeds yet"
    assert (search.importance, search.importance_note[:8]) == (None, "0 trials")


def test_search_of_one_trial_claims_no_lead(finished: Experiment) -> None:
    search = read(finished)
    assert search.best is not None
    assert search.headline.startswith(f"Trial {search.best.name} leads {TRIALS} trials with +")
    assert "1 trial failed; the table says why." in search.caveats
    alone = replace(search, trials=[search.best])
    assert alone.headline.startswith(f"Trial {search.best.name}, the only one, has +")


def test_population_based_training_says_what_its_settings_are(tmp_path: Path) -> None:
    made = experiment(tmp_path, scheduler="pbt")
    search = read(made)
    assert search.importance is None
    assert any("a trial's last" in caveat for caveat in search.caveats)
    assert "work from t01" in write_report(made).read_text()
    assert "<small>dqn</small>" in write_report(made).read_text()
