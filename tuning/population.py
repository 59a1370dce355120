"""Population-based training in step: Ray Tune's, with trials compared at equal steps that never wait in vain.

Knows nothing of what is trained. Tune's asynchronous mode compares a trial that reports with what the others
reported earlier: where scores grow with the steps, the one that reports is never among the worst.
"""

from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import PopulationBasedTraining


class InStep(PopulationBasedTraining):
    """Tune's synchronous mode, mended where it hangs or loses a trial; give `synch`."""

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """See `PopulationBasedTraining`; where all wait for one another, they go on.

        They would wait for ever where a report overshot the next perturbation, or where the trial that they
        waited for has failed.
        """
        states: dict[Any, Any] = self._trial_state
        live = {trial: state for trial, state in states.items() if not trial.is_finished()}
        for trial, state in states.items():
            if trial not in live:  # Tune counts a trial without a process as live: nobody waits for it
                state.last_train_time = max(state.last_train_time, self._next_perturbation_sync)
        reached = [state.last_train_time for state in live.values()]
        waiting = all(trial.status == Trial.PAUSED for trial in live)
        if live and waiting and min(reached) >= self._next_perturbation_sync:
            self._next_perturbation_sync = max(reached) + self._perturbation_interval
        return super().choose_trial_to_run(tune_controller)

    def _exploit(self, tune_controller: Any, trial: Trial, trial_to_clone: Trial) -> None:
        # A trial still being saved for its pause would keep the order to stop, and obey it at its next save.
        trial.temporary_state.saving_to = None
        super()._exploit(tune_controller, trial, trial_to_clone)
