"""The fine-tune of a tier: a size within a band around it, decided by one number.

Declares: a, the fine-tune's action; beyond [-1, 1] it counts as the nearer end. Knows nothing of who decides
it, nor of limits: the guardrail clamps what comes out to the cap.
"""

import numpy as np
import numpy.typing as npt

from envs.guardrails import LARGEST_SIZE, SIZES

Floats = npt.NDArray[np.float64]


def fine_tuned(tier: Floats, a: npt.ArrayLike, band: float) -> Floats:
    """``tier * (1 + band * a)``, float64[N], of tier sizes float64[N] and actions [N].

    SKIP stays SKIP, and a trade stays one: it is at least MICRO and at most 1.5, so that the tier it is named
    by never says SKIP. An action that is not a number makes the size of a trade not a number.
    """
    size = tier * (1.0 + band * np.clip(np.asarray(a, dtype=np.float64), -1.0, 1.0))
    return np.where(tier > 0.0, np.clip(size, SIZES[1], LARGEST_SIZE), 0.0)
