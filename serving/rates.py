"""How often a key may ask: one token bucket for each, in this process alone.

Knows nothing of requests or files. Requests are balanced over replicas, so each grants its share of the rate.
"""

import time
from collections.abc import Callable

from serving.keys import Key


class Rates:
    """The buckets of one replica: each holds what its rate gives in a second, at least one request.

    Not for several threads: the guard runs in the loop of its replica. `clock` gives seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}  # by hash: requests left, and when

    def wait(self, key: Key, replicas: int) -> float:
        """0 where a request of `key` is let in, and counted; else the seconds until one would be."""
        if key.rate is None:
            return 0.0
        rate, now = key.rate / replicas, self._clock()
        full = max(rate, 1.0)
        left, since = self._buckets.get(key.sha256, (full, now))
        left = min(full, left + (now - since) * rate)
        let_in = left >= 1.0
        self._buckets[key.sha256] = left - 1.0 if let_in else left, now
        return 0.0 if let_in else (1.0 - left) / rate
