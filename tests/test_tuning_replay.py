"""The replay of transitions holds what was stepped, draws it uniformly, and its draws can be repeated."""

from dataclasses import replace

import numpy as np

from tuning.replay import TransitionReplay
from tuning.rollout import Rollout


def rollout(first: int, steps: int, terminated: bool) -> Rollout:
    """Steps of one environment, numbered from `first`: the number is observation, action and reward. After
    the first a reset is put in.
    """
    numbers = np.arange(first, first + steps + 1)
    if steps:
        numbers = np.insert(numbers, 1, -1)
    observed = np.repeat(numbers[:, None, None], 2, axis=2).astype(np.float32)
    if steps:
        observed[1] = first + 1
    ends = np.arange(len(numbers) - 1)[:, None] == len(numbers) - 2
    return Rollout(
        observed,
        numbers[:-1, None],
        numbers[:-1, None].astype(np.float32),
        ends & terminated,
        ends & (not terminated),
        numbers[:-1, None] >= 0,
        0,
    )


def replay(capacity: int = 100, seed: int = 0) -> TransitionReplay:
    return TransitionReplay(capacity, 2, seed)


def test_transition_is_two_observations_in_a_row_with_what_lay_between() -> None:
    kept = replay()
    kept.add([rollout(10, 3, True), rollout(50, 2, False)])
    assert len(kept) == 5
    drawn = kept.sample(200)
    np.testing.assert_array_equal(drawn["obs"][:, 0], drawn["actions"])
    np.testing.assert_array_equal(drawn["rewards"], drawn["actions"])
    np.testing.assert_array_equal(drawn["new_obs"], drawn["obs"] + 1)
    np.testing.assert_array_equal(drawn["terminateds"], drawn["actions"] == 12)
    assert set(drawn["actions"]) == {10, 11, 12, 50, 51}


def test_oldest_transitions_make_room_and_leave_no_old_flag_behind() -> None:
    kept = replay(capacity=4)
    kept.add([rollout(0, 3, True), rollout(10, 3, False)])
    assert len(kept) == 4
    drawn = kept.sample(200)
    assert set(drawn["actions"]) == {2, 10, 11, 12}
    np.testing.assert_array_equal(drawn["terminateds"], drawn["actions"] == 2)


def test_rollout_longer_than_the_capacity_leaves_its_newest_steps() -> None:
    kept = replay(capacity=4)
    kept.add([rollout(0, 11, True)])
    drawn = kept.sample(200)
    assert set(drawn["actions"]) == {7, 8, 9, 10}
    np.testing.assert_array_equal(drawn["terminateds"], drawn["actions"] == 10)


def test_rollout_without_a_step_adds_nothing() -> None:
    kept = replay()
    kept.add([rollout(0, 0, False)])
    assert len(kept) == 0


def test_draw_is_uniform() -> None:
    kept = replay()
    kept.add([rollout(0, 10, False)])
    counts = np.bincount(kept.sample(100_000)["actions"], minlength=10)
    np.testing.assert_allclose(counts, 10_000, atol=500)


def test_same_seed_draws_the_same_and_a_restored_buffer_goes_on_drawing_it() -> None:
    one, other, restored = replay(seed=5), replay(seed=5), replay(seed=99)
    for kept in (one, other):
        kept.add([rollout(0, 60, False), rollout(100, 60, True)])
    np.testing.assert_array_equal(one.sample(30)["actions"], other.sample(30)["actions"])
    restored.set_state(one.get_state())
    assert len(restored) == len(one) == 100
    np.testing.assert_array_equal(restored.sample(30)["actions"], one.sample(30)["actions"])
    for kept in (one, restored):
        kept.add([rollout(500, 7, True)])
    np.testing.assert_array_equal(restored.sample(80)["new_obs"], one.sample(80)["new_obs"])


def test_told_alternatives_take_the_place_of_the_step_taken_and_the_forbidden_are_left_out() -> None:
    taken = rollout(10, 3, True)  # four rows, the second a reset
    legal = np.array([[1, 0, 1], [1, 1, 1], [1, 0, 0], [1, 1, 1]], dtype=bool)[:, None]
    rewards = 100.0 * taken.observations[:-1, :, :1] + np.arange(3)
    following = np.repeat(1_000.0 * rewards[..., None], 2, axis=-1).astype(np.float32)
    told = {"legal": legal, "rewards": rewards, "observations": following}
    kept = replay()
    kept.add([replace(taken, alternatives=told)])
    assert len(kept) == 2 + 1 + 3
    stored = kept.get_state()["columns"]
    assert stored["obs"][:, 0].tolist() == [10, 10, 11, 12, 12, 12]
    assert stored["actions"].tolist() == [0, 2, 0, 0, 1, 2]
    np.testing.assert_array_equal(stored["rewards"], 100 * stored["obs"][:, 0] + stored["actions"])
    np.testing.assert_array_equal(stored["new_obs"][:, 1], 1_000 * stored["rewards"])
    assert stored["terminateds"].tolist() == [False, False, False, True, True, True]
