"""The calibrated outcome model p(x): the probability of each R-bin given the six signal fields.

Knows nothing of sizes. Three questions, win or loss, which bin among the losses and which among the wins;
each is answered by a quadratic logit or by boosted trees, whichever told unseen trades better, fitted by
scikit-learn (imported only there), answered without it, and shrunk towards its base rates as far as unseen
trades ask for it. Nested rather than one flat multinomial, because how large a win is follows from the
planned target and is easy to tell, while whether a trade wins is not: one common regularisation, or one
common choice of kind, would let the easy part overfit the hard one. Letters: x are the fields, r the outcomes
in R, C scikit-learn's inverse regularisation, N rows, J bins (losses first), T = 27 terms, K = J + 2 columns
(loss, win, then the J bins), s the shrinkage.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from market.compiled import compiled
from market.errors import DataError
from market.splits import purged_folds
from signals.boosted_trees import NO_TREES, BoostedTrees, tree_scores
from signals.fields import SIGNAL_FIELDS
from signals.outcome_bins import bin_edges, bins_of
from signals.outcome_choice import choose
from signals.outcome_logit import (
    TERMS,
    Folds,
    Scaling,
    fill_logits,
    fit_logits,
    normalise,
    shrink_towards,
)
from signals.outcome_trees import grow, place_scores, restored

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

FEWEST_ROWS = 100
FOLDS = 5
EMBARGO = (
    0.01  # of all the time: what follows a tested block so closely resembles it (Lopez de Prado 2018, 7.4.2)
)
STAGES = ("win or loss", "which loss", "which win")
COMPARED = ("base rates", "logit", "trees")
_TREES = "trees/"


class Answering(NamedTuple):
    """What a model answers from, as `fill_probability` takes it."""

    center: FloatArray  # [6]
    scale: FloatArray  # [6]
    term_center: FloatArray  # [T]
    term_scale: FloatArray  # [T]
    coefficient: FloatArray  # [T, K]
    intercept: FloatArray  # [K]
    base: FloatArray  # [K]
    shrink: FloatArray  # [K]
    ends: IntArray  # [S], before which of the K columns each of the stages ends
    grown: IntArray  # [S + 1, 3], where scores, trees and nodes of each begin and those of the last end
    baseline: FloatArray  # and from here on the trees of all stages, one after the other; see `BoostedTrees`
    root: IntArray
    feature: IntArray
    threshold: FloatArray
    left: IntArray
    right: IntArray
    missing_left: IntArray
    value: FloatArray


# Stands in where no model is there: it has no bins, two stages of one class each, and says nothing.
NOTHING_LEARNED = Answering(
    np.zeros(len(SIGNAL_FIELDS)),
    np.ones(len(SIGNAL_FIELDS)),
    np.zeros(TERMS),
    np.ones(TERMS),
    np.zeros((TERMS, 2)),
    *(np.zeros(2), np.zeros(2), np.zeros(2)),
    np.array([1, 2]),
    np.zeros((3, 3), dtype=np.int64),
    *NO_TREES.to_arrays().values(),
)


@compiled()
def fill_probability(x: FloatArray, model: Answering, probability: FloatArray) -> None:
    """Fill in P(bin) of x float64[N, 6], which lie in memory row by row."""
    logits, ends = np.empty((len(x), len(model.base))), model.ends
    scaling = model.center, model.scale, model.term_center, model.term_scale
    fill_logits(x, *scaling, model.coefficient, model.intercept, logits)
    for stage in range(len(ends)):
        scores_from, trees_from, nodes_from = model.grown[stage]
        scores_to, trees_to, nodes_to = model.grown[stage + 1]
        if scores_from < scores_to:
            scores = tree_scores(
                x,
                model.baseline[scores_from:scores_to],
                model.root[trees_from:trees_to],
                model.feature[nodes_from:nodes_to],
                model.threshold[nodes_from:nodes_to],
                model.left[nodes_from:nodes_to],
                model.right[nodes_from:nodes_to],
                model.missing_left[nodes_from:nodes_to],
                model.value[nodes_from:nodes_to],
            )
            place_scores(scores, x, ends[stage - 1] if stage > 0 else 0, logits)
    normalise(logits, ends)
    shrink_towards(logits, model.base, model.shrink)
    normalise(logits, ends)
    fill_joint(logits, ends[1], probability)


@dataclass(frozen=True)
class OutcomeModel:
    """p(x) over J bins of R, as flat arrays: it travels without pickle.

    `edges` float64[J - 1] separate the bins, one of them being 0; `outcome_r` float64[J] is the mean training
    R (gross less cost) of each bin. `center` and `scale` [6], `term_center` and `term_scale` [T],
    `coefficient` [T, K], `intercept` and `base` (log base rates) [K] are the three logits, `regularisation`
    [3] their C. For each of STAGES, `rounds` int64[3] of boosting say how long its trees grew, 0 that the
    logit answers instead; `trees` holds them, or None. `shrink` [3] in [0, 1] says how far the answers stand
    from the base rates (0: no skill found, every signal gets the base rates), and `stage_skill` [3] is 1 -
    log loss / log loss of the base rates, on trades that neither the weights nor C, kind and s had seen; it
    may be negative. s is 0 unless that skill exceeds its standard error. `log_loss_skill` is the same for the
    J bins as a whole. `candidate_loss` [3, 3] are the log losses by which the kind of each of STAGES (rows)
    was chosen: nats per trade of COMPARED (columns), each kind with its best setting and s; a row of equals
    where a stage has only one answer. `rows` counts the training trades.
    """

    edges: FloatArray
    outcome_r: FloatArray
    center: FloatArray
    scale: FloatArray
    term_center: FloatArray
    term_scale: FloatArray
    coefficient: FloatArray
    intercept: FloatArray
    base: FloatArray
    shrink: FloatArray
    regularisation: FloatArray
    rounds: IntArray
    stage_skill: FloatArray
    candidate_loss: FloatArray
    log_loss_skill: float
    rows: int
    trees: tuple[BoostedTrees | None, ...]

    @classmethod
    def fit(
        cls, x: FloatArray, r: FloatArray, signal_time: IntArray, exit_time: IntArray, folds: int = FOLDS
    ) -> Self:
        """Fit on x float64[N, 6], r float64[N] (gross less cost), times int64[N] in ns, signal_time in order.

        Kind, its setting and s minimise the log loss over `folds` blocks of time, each predicted by models
        whose training trades do not overlap it; a stage whose gain over its base rates, on blocks where
        nothing was chosen, does not exceed its standard error gets s = 0. Deterministic. Raises DataError for
        fewer than 100 rows, shapes that do not fit, values that are not finite, unsorted times, or trades
        that all won or all lost.
        """
        _check_training(x, r, signal_time, exit_time)
        with _one_thread():
            return cls._fit_on_edges(x, r, signal_time, exit_time, folds, bin_edges(r))

    @classmethod
    def _fit_on_edges(
        cls,
        x: FloatArray,
        r: FloatArray,
        signal_time: IntArray,
        exit_time: IntArray,
        folds: int,
        edges: FloatArray,
    ) -> Self:
        bins, losses = bins_of(r, edges), _losses(edges)
        # Per stage the class of each trade, -1 where the question does not arise.
        classes = (
            (bins >= losses).astype(np.int64),
            np.where(bins < losses, bins, -1),
            np.where(bins >= losses, bins - losses, -1),
        )
        counts = (2, losses, edges.size + 1 - losses)
        splits = _splits(signal_time, exit_time, folds)
        choices = [choose(x, stage, count, splits) for stage, count in zip(classes, counts, strict=True)]
        scaling = Scaling.fit(x)
        terms = scaling.terms(x)
        logits = [
            fit_logits(terms[stage >= 0], stage[stage >= 0], count, (choice.regularisation,))[0]
            for stage, count, choice in zip(classes, counts, choices, strict=True)
        ]
        trees = tuple(
            grow(x[stage >= 0], stage[stage >= 0], logit.base, (choice.rounds,))[0] if choice.rounds else None
            for stage, logit, choice in zip(classes, logits, choices, strict=True)
        )
        in_bin = np.bincount(bins, minlength=edges.size + 1)
        outcome_r = np.bincount(bins, weights=r, minlength=edges.size + 1) / np.maximum(in_bin, 1)
        base_loss = np.array([choice.base_loss for choice in choices])
        loss = np.array([choice.loss for choice in choices])
        compared = [(choice.base_loss, choice.logit_loss, choice.trees_loss) for choice in choices]
        return cls(
            edges=edges,
            outcome_r=outcome_r,
            **scaling._asdict(),
            coefficient=np.concatenate([logit.coefficient for logit in logits], axis=1),
            intercept=np.concatenate([logit.intercept for logit in logits]),
            base=np.concatenate([logit.base for logit in logits]),
            shrink=np.array([choice.shrink for choice in choices]),
            regularisation=np.array([choice.regularisation for choice in choices]),
            rounds=np.array([choice.rounds for choice in choices], dtype=np.int64),
            stage_skill=1.0 - np.divide(loss, base_loss, out=np.ones(len(STAGES)), where=base_loss > 0.0),
            candidate_loss=np.array(compared) / len(r),
            log_loss_skill=1.0 - float(loss.sum() / base_loss.sum()),
            rows=len(r),
            trees=trees,
        )

    def probability(self, x: FloatArray) -> FloatArray:
        """P(bin) float64[N, J] of x float64[N, 6]; rows sum to 1, a row with NaN gives NaN. Raises DataError
        for shapes."""
        if x.ndim != 2 or x.shape[1] != self.center.size:
            raise DataError("fields shape", x.shape, f"give N rows of {self.center.size} fields")
        probability = np.empty((len(x), len(self.outcome_r)))
        fill_probability(np.ascontiguousarray(x), self.answering, probability)
        return probability

    @cached_property
    def answering(self) -> Answering:
        """All that `probability` reads."""
        losses, bins = _losses(self.edges), self.edges.size + 1
        counts = (2, losses, bins - losses)
        grown = [NO_TREES if trees is None else trees for trees in self.trees]
        sizes = [(trees.baseline.size, trees.root.size, trees.feature.size) for trees in grown]
        parts = zip(*(trees.to_arrays().values() for trees in grown), strict=True)
        return Answering(
            self.center,
            self.scale,
            self.term_center,
            self.term_scale,
            self.coefficient,
            self.intercept,
            self.base,
            np.repeat(self.shrink, counts),
            np.cumsum(counts),
            np.cumsum([(0, 0, 0), *sizes], axis=0),
            *map(np.concatenate, parts),
        )

    def win_probability(self, x: FloatArray) -> FloatArray:
        """P(r > 0) float64[N] of x float64[N, 6]."""
        return self.winning(self.probability(x))

    def winning(self, probability: FloatArray) -> FloatArray:
        """P(r > 0) float64[N] out of probability float64[N, J], which may come from `cross_fitted`."""
        winning: FloatArray = probability[:, _losses(self.edges) :].sum(axis=1)
        return winning

    @property
    def kept(self) -> tuple[str, ...]:
        """What answers each of STAGES: "trees", "logit", or "base rates" where no skill was proven."""
        return tuple(
            COMPARED[0] if shrink == 0.0 else COMPARED[1] if trees is None else COMPARED[2]
            for shrink, trees in zip(self.shrink, self.trees, strict=True)
        )

    @property
    def candidates(self) -> dict[str, float]:
        """Out-of-fold log loss over the J bins, in nats per trade, of each of COMPARED if it answered every
        stage, with the settings and s best for it; lower is better."""
        return dict(zip(COMPARED, self.candidate_loss.sum(axis=0).tolist(), strict=True))

    @property
    def compared(self) -> str:
        """`candidates` in words, and what was kept for each of STAGES."""
        losses = ", ".join(f"{name} {loss:.4f}" for name, loss in self.candidates.items())
        kept = ", ".join(f"{stage}: {kind}" for stage, kind in zip(STAGES, self.kept, strict=True))
        return f"out-of-fold log loss over {len(self.outcome_r)} bins: {losses}; kept {kept}"

    @property
    def verdict(self) -> str:
        """In words, whether the fields tell wins from losses."""
        figures = (
            f"log-loss skill {self.stage_skill[0]:+.4f} on unseen trades, shrinkage {self.shrink[0]:.2f}"
        )
        found = (
            f"skill found by the {self.kept[0]}"
            if self.shrink[0] > 0
            else "no skill proven, every signal gets the base rate"
        )
        return f"{found} ({figures})"

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Every attribute by name, float64 but for `rounds`; the single numbers as arrays of shape [1], the
        trees of stage n as trees/n/NAME with the names of `BoostedTrees`."""
        arrays: dict[str, npt.NDArray[Any]] = {
            name: np.atleast_1d(np.asarray(getattr(self, name), dtype=np.float64)) for name in _NAMES
        }
        arrays["rounds"] = self.rounds
        for stage, trees in enumerate(self.trees):
            if trees is not None:
                arrays |= {f"{_TREES}{stage}/{name}": values for name, values in trees.to_arrays().items()}
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Back from `to_arrays`, bit for bit. Raises DataError for a missing, misshapen or non-finite
        array."""
        forest = {name: values for name, values in arrays.items() if name.startswith(_TREES)}
        if set(arrays) - set(forest) != set(_NAMES):
            raise DataError("outcome model arrays", sorted(arrays), f"give {', '.join(_NAMES)}")
        plain = {name: np.array(arrays[name], dtype=np.float64) for name in _NAMES}
        bins = plain["edges"].size + 1
        shapes: dict[str, tuple[int, ...]] = {
            "edges": (bins - 1,),
            "outcome_r": (bins,),
            "coefficient": (TERMS, bins + 2),
        }
        shapes |= {
            "center": (len(SIGNAL_FIELDS),),
            "scale": (len(SIGNAL_FIELDS),),
            "log_loss_skill": (1,),
            "rows": (1,),
        }
        shapes |= {
            "term_center": (TERMS,),
            "term_scale": (TERMS,),
            "intercept": (bins + 2,),
            "base": (bins + 2,),
        }
        shapes |= {name: (len(STAGES),) for name in ("shrink", "regularisation", "rounds", "stage_skill")}
        shapes |= {"candidate_loss": (len(STAGES), len(COMPARED))}
        for name, values in plain.items():
            if values.shape != shapes[name] or not np.all(np.isfinite(values)):
                raise DataError(
                    f"outcome model, {name}", values, f"give finite numbers of shape {list(shapes[name])}"
                )
        if not np.any(plain["edges"] == 0.0) or np.any(np.diff(plain["edges"]) <= 0.0):
            raise DataError("outcome model, edges", plain["edges"], "give rising edges, one of them 0")
        if np.any((plain["shrink"] < 0.0) | (plain["shrink"] > 1.0)):
            raise DataError("outcome model, shrink", plain["shrink"], "give numbers from 0 to 1")
        rounds = plain.pop("rounds").astype(np.int64)
        if np.any((rounds < 0) | (rounds != arrays["rounds"])):
            raise DataError("outcome model, rounds", arrays["rounds"], "give whole numbers, 0 for the logit")
        losses = _losses(plain["edges"])
        trees: list[BoostedTrees | None] = []
        for stage, count in enumerate((2, losses, bins - losses)):
            prefix = f"{_TREES}{stage}/"
            grown = {
                name.removeprefix(prefix): forest.pop(name)
                for name in list(forest)
                if name.startswith(prefix)
            }
            # Neither trees that nothing speaks of nor rounds without trees: `restored` refuses the latter.
            trees.append(restored(grown, count, int(rounds[stage])) if grown or rounds[stage] else None)
            if grown and not rounds[stage]:
                raise DataError("outcome model, rounds", rounds, f"stage {stage} has trees, yet 0 rounds")
        if forest:
            raise DataError("outcome model arrays", sorted(forest), f"give trees of {len(STAGES)} stages")
        single = {"log_loss_skill": float(plain.pop("log_loss_skill")[0]), "rows": int(plain.pop("rows")[0])}
        return cls(**plain, **single, rounds=rounds, trees=tuple(trees))  # type: ignore[arg-type]  # the names were compared above


@compiled()
def fill_joint(stages: FloatArray, wins: int, probability: FloatArray) -> None:
    """Fill in P(bin) out of the log probabilities of the STAGES; column `wins` is the first win."""
    for row in range(len(stages)):
        for column in range(2, stages.shape[1]):
            of_stage = stages[row, 0 if column < wins else 1]
            probability[row, column - 2] = np.exp(stages[row, column] + of_stage)


# What `to_arrays` names plainly; the trees have names of their own.
_NAMES = tuple(field.name for field in fields(OutcomeModel) if field.name != "trees")


def cross_fitted(
    x: FloatArray, r: FloatArray, signal_time: IntArray, exit_time: IntArray, folds: int = FOLDS
) -> FloatArray:
    """P(bin) float64[N, J] of each training row from a model that saw neither the row nor any trade
    overlapping its block.

    Arguments as in `OutcomeModel.fit`, which on the same rows gives the same bins. The bin edges come from
    all training outcomes, those of the predicted row among them: they say how outcomes are distributed, never
    which row has which, so no row's own outcome can be read out of its probabilities. Weights, base rates,
    kind, its setting and s are chosen afresh for each block.
    """
    _check_training(x, r, signal_time, exit_time)
    edges = bin_edges(r)
    probability = np.full((len(r), edges.size + 1), np.nan)
    with _one_thread():
        for train, test in _splits(signal_time, exit_time, folds):
            rows = (x[train], r[train], signal_time[train], exit_time[train])
            probability[test] = OutcomeModel._fit_on_edges(*rows, folds, edges).probability(x[test])
    return probability


def _losses(edges: FloatArray) -> int:
    """How many of the bins hold losses (r <= 0): the first ones."""
    return int(np.searchsorted(edges, 0.0, side="right"))


def _one_thread() -> AbstractContextManager[object]:
    """Matrices this small gain nothing from threads: they only wait for each other (10 x slower); and one
    thread always adds in one order."""
    import sklearn.ensemble  # noqa: F401  # the limit holds only for libraries that are loaded by then
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    return threadpool_limits(limits=1)  # type: ignore[no-any-return]


def _splits(signal_time: IntArray, exit_time: IntArray, folds: int) -> Folds:
    embargo = int(EMBARGO * (signal_time[-1] - signal_time[0]))
    return list(purged_folds(signal_time, exit_time, folds, embargo))


def _check_training(x: FloatArray, r: FloatArray, signal_time: IntArray, exit_time: IntArray) -> None:
    rows = len(r)
    if x.shape != (rows, len(SIGNAL_FIELDS)) or len(signal_time) != rows or len(exit_time) != rows:
        seen = (x.shape, r.shape, signal_time.shape, exit_time.shape)
        raise DataError(
            "training shapes", seen, f"give N rows of {len(SIGNAL_FIELDS)} fields, N outcomes and N times"
        )
    if rows < FEWEST_ROWS:
        raise DataError(
            "training trades", rows, f"give at least {FEWEST_ROWS}, from more bars or more markets"
        )
    sound = np.isfinite(x).all(axis=1) & np.isfinite(r)
    if not np.all(sound):
        row = int(np.argmin(sound))
        raise DataError(
            f"training row {row}", [*x[row].tolist(), float(r[row])], "give finite fields and outcomes"
        )
    late = np.flatnonzero(np.diff(signal_time) < 0)
    if late.size:
        raise DataError(
            f"training row {int(late[0]) + 1}, signal_time",
            int(signal_time[late[0] + 1]),
            "sort the trades by time",
        )
