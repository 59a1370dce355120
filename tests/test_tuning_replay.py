"""The replay of transitions holds what was stepped, draws it uniformly, and its draws can be repeated."""

import numpy as np
import pytest
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from tuning.replay import TransitionReplay


def episode(first: int, steps: int, terminated: bool) -> SingleAgentEpisode:
    """Steps numbered from `first`: the number is observation, action and reward."""
    numbers = np.arange(first, first + steps + 1)
    return SingleAgentEpisode(
        observations=[np.full(2, number, dtype=np.float32) for number in numbers],
        actions=[np.int64(number) for number in numbers[:-1]],
        rewards=[float(number) for number in numbers[:-1]],
        terminated=terminated,
        len_lookback_buffer=0,
    )


def replay(capacity: int = 100, seed: int = 0) -> TransitionReplay:
    return TransitionReplay(capacity, 2, seed)


@pytest.mark.parametrize("to_numpy", [False, True])
def test_transition_is_two_observations_in_a_row_with_what_lay_between(to_numpy: bool) -> None:
    kept = replay()
    stepped = [episode(10, 3, True), episode(50, 2, False)]
    kept.add([chunk.to_numpy() for chunk in stepped] if to_numpy else stepped)
    assert len(kept) == 5
    drawn = kept.sample(200)
    np.testing.assert_array_equal(drawn["obs"][:, 0], drawn["actions"])
    np.testing.assert_array_equal(drawn["rewards"], drawn["actions"])
    np.testing.assert_array_equal(drawn["new_obs"], drawn["obs"] + 1)
    np.testing.assert_array_equal(drawn["terminateds"], drawn["actions"] == 12)
    assert set(drawn["actions"]) == {10, 11, 12, 50, 51}


def test_oldest_transitions_make_room_and_leave_no_old_flag_behind() -> None:
    kept = replay(capacity=4)
    kept.add([episode(0, 3, True), episode(10, 3, False)])
    assert len(kept) == 4
    drawn = kept.sample(200)
    assert set(drawn["actions"]) == {2, 10, 11, 12}
    np.testing.assert_array_equal(drawn["terminateds"], drawn["actions"] == 2)


def test_chunk_longer_than_the_capacity_leaves_its_newest_steps() -> None:
    kept = replay(capacity=4)
    kept.add([episode(0, 11, True)])
    drawn = kept.sample(200)
    assert set(drawn["actions"]) == {7, 8, 9, 10}
    np.testing.assert_array_equal(drawn["terminateds"], drawn["actions"] == 10)


def test_chunk_without_a_step_adds_nothing() -> None:
    kept = replay()
    kept.add([SingleAgentEpisode(observations=[np.zeros(2, dtype=np.float32)])])
    assert len(kept) == 0


def test_draw_is_uniform() -> None:
    kept = replay()
    kept.add([episode(0, 10, False)])
    counts = np.bincount(kept.sample(100_000)["actions"], minlength=10)
    np.testing.assert_allclose(counts, 10_000, atol=500)


def test_same_seed_draws_the_same_and_a_restored_buffer_goes_on_drawing_it() -> None:
    one, other, restored = replay(seed=5), replay(seed=5), replay(seed=99)
    for kept in (one, other):
        kept.add([episode(0, 60, False), episode(100, 60, True)])
    np.testing.assert_array_equal(one.sample(30)["actions"], other.sample(30)["actions"])
    restored.set_state(one.get_state())
    assert len(restored) == len(one) == 100
    np.testing.assert_array_equal(restored.sample(30)["actions"], one.sample(30)["actions"])
    for kept in (one, restored):
        kept.add([episode(500, 7, True)])
    np.testing.assert_array_equal(restored.sample(80)["new_obs"], one.sample(80)["new_obs"])
