"""A configuration or a registered bundle evaluated: walk-forward, on demand the locked part, then the gate.

Knows nothing of terminals.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from filelock import FileLock, Timeout

from evaluation.evaluation_page import Page, Part, write_evaluation
from evaluation.findings import PLUG_IN, Findings, FoldRow, SeedRow, by_fold, by_seed, find
from evaluation.gate import Criterion, Figures, criteria, evidence, judge
from evaluation.locked_test import key_of, looks, record_look
from evaluation.walk_forward import WalkForward, bounds, walk_forward
from features.spec import fingerprint
from market.errors import ConfigError, InputError
from mlops.evidence import Evidence, Verdict
from mlops.versions import read_export
from policies.bundle import PolicyBundle, open_bundle
from signals.outcome_model import FEWEST_ROWS
from tuning.cluster import connected
from tuning.config import TrainConfig, parse
from tuning.final_test import FinalTest, final_of_bundle, final_of_configuration, stated, won
from tuning.folds import FoldFits, too_small
from tuning.judgement import experiment_of, gate_figures_of, search_of
from tuning.run_folder import RunFolder
from tuning.study import Study, study
from tuning.train import Listener, revision

FOLDER: Final = "evaluations"
EVIDENCE: Final = "evidence"
LEAST_TRAIN: Final = round(1.25 * FEWEST_ROWS)  # the outcome model's own least, after purging and selection


class Opened(NamedTuple):
    """A registered bundle."""

    version: int
    digest: str
    bundle: PolicyBundle


@dataclass(frozen=True)
class Request:
    """What is to be evaluated, and how."""

    config: TrainConfig
    opened: Opened | None = None  # the bundle made with `config`; without one the configuration itself
    folds: int = 5
    seeds: int = 3
    final: bool = False  # whether to open the locked part, which is counted
    experiment: str | None = None  # the search that chose the configuration; looked for if absent
    oracle_lines: Sequence[Mapping[str, Any]] = ()  # what `benchmarks.oracle` printed for its algorithm
    waived: Mapping[str, str] = field(default_factory=dict)  # see `evaluation.gate.criteria`


@dataclass(frozen=True)
class Judged:
    """What the gate says of a bundle."""

    figures: Figures
    criteria: tuple[Criterion, ...]
    verdict: Verdict
    evidence: Evidence
    path: Path  # of the evidence


@dataclass(frozen=True)
class Evaluation:
    """Everything found."""

    walked: Findings
    folds: tuple[FoldRow, ...]
    seeds: tuple[SeedRow, ...]
    left_out: str | None  # why no sizer was trained, where none was
    final: Findings | None  # on the locked part, where it was opened
    looks: int  # at the locked part of this data, ever
    judged: Judged | None  # of a bundle, once the locked part was opened
    page: Path


class _Walked(NamedTuple):
    tested: WalkForward
    fits: FoldFits
    left_out: str | None


def registered(home: Path, number: int) -> Opened:
    """A version of the registry; InputError where there is none."""
    versions = {version.version: version for version in read_export(home)}
    if number not in versions:
        known = ", ".join(map(str, versions))
        raise InputError("version", number, f"give one of {known}" if known else "train one first")
    version = versions[number]
    return Opened(number, version.digest, open_bundle(version.path.parent, version.digest))


def configuration_of(opened: Opened, data: str | None) -> TrainConfig:
    """The configuration that a bundle was made with; `data`: the same bars from elsewhere."""
    return parse(opened.bundle.meta.training["config"], {} if data is None else {"data": data})


def read_oracle_lines(path: Path) -> tuple[dict[str, Any], ...]:
    """The JSON lines in a file of what `python -m benchmarks.oracle` printed, other lines left out.

    InputError where the file cannot be read or holds none.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        found = tuple(json.loads(line) for line in lines if line.startswith("{"))
    except (OSError, ValueError) as error:
        raise InputError("--oracle", str(path), f"give a file that can be read ({error})") from None
    if not found:
        raise InputError("--oracle", str(path), "give what `python -m benchmarks.oracle --task L1` prints")
    return found


def evaluate(request: Request, home: Path, listener: Listener) -> Evaluation:
    """Walk-forward on the trades before the locked part, with `final` that part too; the page is written.

    A bundle is judged once the locked part is open, against the champion in production or else the rule; its
    evidence lies under ``home/evidence``. A look is counted before anything is known of it. Raises InputError
    for bars that are not those of the bundle, and whatever its parts raise.
    """
    config, opened = request.config, request.opened
    champion = None if opened is None else _champion(home)
    experiment = None if opened is None else experiment_of(config, home, request.experiment)
    listener.working("data", 0, 0)
    seen = study(config)
    if opened is not None:
        _check_bars(opened, seen)
    listener.stage("data", str(seen), resumed=False)
    walked = _walk(request, seen, home, listener)
    folds, seeds = by_fold(walked.tested), by_seed(walked.tested)
    subject = walked.tested.paths[0].name if walked.tested.learned else PLUG_IN
    parts = [_part("Walk-forward", subject, walked.tested, config, seen)]
    key = key_of(seen.digests, config.rule, config.costs.model_dump())
    judged = None
    if request.final:
        by = {"command": "evaluate", "version": opened and opened.version, "config": config.digest()}
        count = record_look(home, key, by)
        listener.working("locked test", 0, 0)
        last = _final(request, champion, seen, walked, listener)
        parts.append(_part("Locked test", last.subject, last, config, seen))
        listener.stage("locked test", f"look number {count} at the locked part of this data", resumed=False)
        if opened is not None:
            against = None if champion is None else champion.bundle
            search = search_of(experiment, against, opened.bundle, seen, config, last)
            found = [part.findings for part in parts]
            figures = gate_figures_of(opened.bundle, config, found, folds, last, search, request.oracle_lines)
            judged = _judged(figures, request.waived, opened, champion, home)
    meta = {
        "evaluated": "the configuration" if opened is None else f"version {opened.version}, {opened.digest}",
        "champion": None if champion is None else f"version {champion.version}, {champion.digest}",
        "data": config.data,
        "bars": seen.bars,
        "bar digests": seen.digests,
        "trades": {"before the locked part": len(seen.open), "in it": len(seen.locked)},
        "rule": config.rule,
        "algorithm": config.algo,
        "seeds": list(walked.tested.seeds) or "none: nothing is trained",
        "folds": len(folds),
        "k by fold": [round(walked.fits.outcomes(number).k, 2) for number in range(len(folds))],
        "costs": config.costs.model_dump(),
        "limits": config.limits.model_dump(),
        "search": None if experiment is None else experiment.name,
        "looks at the locked part": looks(home, key),
        "configuration": config.digest(),
        "features": fingerprint(),
        "revision": revision(),
    }
    page = home / "reports" / f"evaluation-{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{config.digest()[:8]}.html"
    evaluation = Evaluation(
        walked=parts[0].findings,
        folds=folds,
        seeds=seeds,
        left_out=walked.left_out,
        final=parts[1].findings if request.final else None,
        looks=looks(home, key),
        judged=judged,
        page=page,
    )
    shown = Page(
        parts,
        folds,
        seeds,
        () if judged is None else judged.criteria,
        None if judged is None else judged.figures,
        walked.left_out,
        evaluation.looks,
    )
    write_evaluation(shown, meta, page)
    return evaluation


def _walk(request: Request, seen: Study, home: Path, listener: Listener) -> _Walked:
    """Fit and test every fold; what an interrupted evaluation of the same bars has finished is taken up."""
    config = request.config
    trades, late = seen.open_part()
    rows = bounds(trades.signal_time, trades.exit_time, request.folds, LEAST_TRAIN)
    small = too_small(trades, rows, config)
    left_out = None
    if small and config.algo != "plugin":
        counts = ", ".join(f"{count:,} in fold {number + 1}" for number, count in small.items())
        left_out = (
            f"No sizer was trained: {counts} are fewer training trades than least_trades, "
            f"{config.least_trades}. Pool more markets (--data sample:demo) or bring longer history."
        )
        listener.warning(left_out)
    learns = config.algo != "plugin" and not small
    key = [config.digest(), request.folds, seen.digests, fingerprint(), revision(), learns]
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    folder = RunFolder(home / FOLDER / name, config.model_dump(mode="json"))
    fits = FoldFits(trades, late, config, folder, listener, learns)

    def told(number: int, seed: int) -> None:
        listener.working(f"fold {number + 1}", 0, 0)

    with _alone(folder), _ray(config, learns):
        tested = walk_forward(rows, fits, config.limits, config.session.days, _seeds(request), told)
    signals = ", ".join(f"{int(np.sum(tested.fold == number)):,}" for number in range(len(rows)))
    listener.stage("walk-forward", f"{len(rows)} folds tested on {signals} signals", resumed=False)
    return _Walked(tested, fits, left_out)


def _final(
    request: Request, champion: Opened | None, seen: Study, walked: _Walked, listener: Listener
) -> FinalTest:
    config, fits = request.config, walked.fits
    if request.opened is not None:
        return final_of_bundle(request.opened.bundle, champion and champion.bundle, seen, config)
    folder = fits.folder.within("final", config.model_dump(mode="json"))
    whole = FoldFits(seen.trades, seen.late, config, folder, listener, fits.learns, "before it")
    with _alone(fits.folder), _ray(config, fits.learns):
        return final_of_configuration(whole, seen, _seeds(request))


def _judged(
    figures: Figures, waived: Mapping[str, str], opened: Opened, champion: Opened | None, home: Path
) -> Judged:
    verdict = judge(figures, waived=waived)
    found = evidence(opened.digest, None if champion is None else champion.digest, figures, verdict)
    path = home / EVIDENCE / f"{found.digest}.json"
    found.save(path)
    return Judged(figures, criteria(figures, waived=waived), verdict, found, path)


def _part(title: str, subject: str, seen: WalkForward | FinalTest, config: TrainConfig, data: Study) -> Part:
    findings = find(
        seen.paths,
        seen.table,
        seen.late_paths,
        seen.late,
        subject,
        config.limits,
        config.session.days,
        data.trades.symbols,
        config.seed,
    )
    return Part(title, findings, seen.paths, stated(seen.table), won(seen.table))


def _champion(home: Path) -> Opened | None:
    """The version in production, or None."""
    live = next((version for version in read_export(home) if "production" in version.aliases), None)
    return None if live is None else registered(home, live.version)


def _check_bars(opened: Opened, seen: Study) -> None:
    """Refuse bars that are not those of the bundle's training: their parts would be others."""
    known = opened.bundle.meta.training["data_digests"]
    for symbol in sorted({*known, *seen.digests}):
        if known.get(symbol) != seen.digests.get(symbol):
            mend = f"version {opened.version} was trained on {known.get(symbol, 'no such bars')}: give those"
            raise InputError(f"bars of {symbol}", seen.digests.get(symbol, "none"), mend)


def _seeds(request: Request) -> range:
    return range(request.config.seed, request.config.seed + request.seeds)


@contextmanager
def _alone(folder: RunFolder) -> Iterator[None]:
    """Nobody else evaluates the same during the block; ConfigError where somebody does."""
    folder.folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.folder.with_suffix(".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ConfigError(
            "evaluation", folder.name, "the same is being evaluated: wait for its end, or stop it"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _ray(config: TrainConfig, learns: bool) -> AbstractContextManager[None]:
    """One Ray for all folds."""
    if not learns:
        return nullcontext()
    runners = config.fine_tune.env_runners if config.algo == "dqn+ppo" else 0
    return connected(1 + max(config.learning.env_runners, runners))
