"""The scheduler of population-based training, on trials that only look like Ray Tune's."""

from typing import Any

import pytest
from ray import tune
from ray.tune.schedulers import PopulationBasedTraining
from ray.tune.schedulers.pbt import _PBTTrialState

from tuning.population import InStep


class Waiting:
    """A paused trial, and the last perturbation it has come to."""

    config: dict[str, float] = {}  # noqa: RUF012

    def __init__(self, reached: int, status: str = "PAUSED") -> None:
        self.reached, self.status = reached, status
        self.evaluated_params: dict[str, float] = {}
        self.experiment_tag = "tag"

    def is_finished(self) -> bool:
        return self.status in ("ERROR", "TERMINATED")


class Controller:
    """What knows the trials."""

    def __init__(self, *trials: Waiting) -> None:
        self.trials = list(trials)

    def get_trials(self) -> list[Waiting]:
        return self.trials


def chosen(kind: type[PopulationBasedTraining], *trials: Waiting) -> Any:
    """Whom the scheduler lets run, the second perturbation being the next."""
    scheduler: Any = kind(
        time_attr="generation",
        metric="objective",
        mode="max",
        perturbation_interval=1,
        synch=True,
        hyperparam_mutations={"rate": tune.uniform(0, 1)},
    )
    for trial in trials:
        scheduler._trial_state[trial] = _PBTTrialState(trial)  # type: ignore[arg-type]
        scheduler._trial_state[trial].last_train_time = trial.reached
    scheduler._next_perturbation_sync = 2
    return scheduler.choose_trial_to_run(Controller(*trials))


def test_trial_that_is_behind_goes_first() -> None:
    behind = Waiting(1)
    assert chosen(InStep, Waiting(2), behind) is behind


@pytest.mark.parametrize(
    "trials",
    [
        pytest.param((Waiting(3), Waiting(3)), id="all overshot the perturbation"),
        pytest.param((Waiting(2), Waiting(1, "ERROR")), id="the one waited for has failed"),
        pytest.param((Waiting(2), Waiting(1, "TERMINATED")), id="the one waited for has ended"),
    ],
)
def test_trials_that_would_wait_for_ever_go_on(trials: tuple[Waiting, ...]) -> None:
    assert chosen(PopulationBasedTraining, *trials) is None  # Tune's own waits
    assert chosen(InStep, *trials) is trials[0]


def test_nobody_goes_on_while_one_still_runs_to_the_perturbation() -> None:
    assert chosen(InStep, Waiting(2), Waiting(1, "RUNNING")) is None


def test_order_to_stop_is_not_kept_for_the_next_save(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(
        PopulationBasedTraining, "_exploit", lambda self, c, trial, source: seen.append(trial.temporary_state)
    )

    class Saving:
        class temporary_state:
            saving_to: Any = "a save that pausing has begun"

    InStep._exploit(object.__new__(InStep), None, Saving(), None)  # type: ignore[arg-type]
    assert seen[0].saving_to is None
