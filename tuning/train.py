"""The main job as stages, from bars to a registered bundle.

Each stage reads what earlier ones finished and is skipped when a resumed run has it. Knows nothing of
terminals: what happens is told to a `Listener`.
"""

import hashlib
import json
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np

from envs.rewards import net_r
from evaluation.comparison import Comparison
from evaluation.locked_test import key_of, record_look
from evaluation.report import LearningCurve, write_html
from features.pipeline import FeaturePipeline
from features.spec import WARMUP, fingerprint
from market.errors import ConfigError, DataError
from market.sources import load
from mlops.drift_baseline import baseline
from mlops.drift_streams import answered
from mlops.registry import Lineage, ModelVersion, Registry, Status, read_export
from policies.baselines import CONFIDENCE
from policies.bundle import BundleMeta, PolicyBundle, open_bundle
from policies.hybrid import Network
from signals.excursions import excursions
from signals.outcome_model import STAGES as ANSWERED
from signals.outcome_store import FileOutcomeStore
from signals.outcomes import label
from signals.predictor import PricePredictor
from signals.predictor_file import FOLDER, About, SavedPredictor
from signals.profit_tiers import TierOptimizer
from signals.rules import checked, rule
from signals.trades import Trades, pool
from tuning.artifacts import bars_to_arrays, trades_from_arrays, trades_to_arrays
from tuning.config import TrainConfig
from tuning.finished import Finished
from tuning.journal_data import NEEDS_BARS, journaled
from tuning.mirror import Mirror, recall
from tuning.prepare import (
    OutcomeFit,
    Prepared,
    Split,
    fit_outcomes,
    split,
    tables,
)
from tuning.run_folder import Arrays, RunFolder

if TYPE_CHECKING:
    from tuning.fine_tune import FineTune

STAGES: Final = (
    "load",
    "features",
    "outcomes",
    "outcome_model",
    "predictor",
    "profit_tiers",
    "sizer",
    "evaluate",
    "register",
)
PREPARATION: Final = ("load", "features", "outcomes", "outcome_model")
MODES: Final = {
    "features": ("load", "features"),
    "predictor": (*PREPARATION, "predictor"),
    "tier_optimizer": ("load", "features", "outcomes", "profit_tiers"),
    "rl_sizer": (*PREPARATION, "sizer", "register"),
    "all": STAGES,
}


class Listener(Protocol):
    """Whoever follows a run."""

    def working(self, stage: str, done: int, total: int) -> None:
        """A stage goes on: `done` of its `total` markets are behind it; it has no such parts where 0."""
        ...

    def stage(self, name: str, note: str, *, resumed: bool) -> None:
        """A stage has finished, or was found finished."""
        ...

    def warning(self, text: str) -> None:
        """Something the user should know."""
        ...

    def progress(self, done: int, total: int, score: float) -> None:
        """Environment steps of the sizer's training; `score` is the mean expected utility per signal."""
        ...


@dataclass(frozen=True)
class Result:
    """Where a run left its work."""

    folder: Path
    bundle: str | None = None  # digest
    version: ModelVersion | None = None
    comparison: Comparison | None = None
    report: Path | None = None


class Training:
    """One run over its stages; every stage method finishes by writing its folder."""

    def __init__(self, config: TrainConfig, run: RunFolder, home: Path, listener: Listener) -> None:
        self.config, self.folder, self.home, self.listener = config, run, home, listener
        self.finished = Finished(config, run, home)
        self.mirror = Mirror(home, run.folder, listener.warning)
        self.tags: dict[str, str] = {}  # what else the registry is told
        self.status: Status = "STAGING"  # that it is registered with
        self.seeds: tuple[int, ...] = (config.seed,)  # all that are trained beside this one, itself included

    def run(self, mode: str) -> Result:
        """Run the mode's stages in order; ConfigError for an unknown mode."""
        if mode not in MODES:
            raise ConfigError("--mode", mode, f"give one of {', '.join(MODES)}")
        if self.finished.journaled and MODES[mode][-1] in NEEDS_BARS:
            raise ConfigError("--mode", mode, "needs bars: give --data that holds some, not a journal")
        self.finish(MODES[mode])
        return self.result()

    def prepare(self) -> Prepared:
        """Run the stages before the sizer, and the tables that it learns from and is judged on."""
        self.finish(PREPARATION)
        return self.finished.prepared()

    def finish(self, stages: Iterable[str]) -> None:
        """Run those of the stages that are not done, in their order."""
        for stage in stages:
            resumed = self.folder.done(stage)
            if not resumed:
                self.listener.working(stage, 0, 0)
                if self.finished.journaled and stage in NEEDS_BARS:
                    self.folder.write(stage, {}, {"note": "left out: it needs bars, a journal holds none"})
                else:
                    getattr(self, f"_{stage}")()
            self.mirror.stage(stage)
            self.listener.stage(stage, self.folder.facts(stage)["note"], resumed=resumed)

    def result(self) -> Result:
        """What the finished stages left."""
        done = self.folder.done
        return Result(
            folder=self.folder.folder,
            bundle=self.folder.facts("sizer")["bundle"] if done("sizer") else None,
            version=Registry(self.home).version(self.folder.facts("register")["version"])
            if done("register")
            else None,
            comparison=self.finished.compared()[0] if done("evaluate") else None,
            report=Path(self.folder.facts("evaluate")["report"]) if done("evaluate") else None,
        )

    def _load(self) -> None:
        if self.finished.journaled:
            history, facts, notes = journaled(self.config.data, self.config.costs)
            for note in notes:
                self.listener.warning(note)
            self.folder.write("load", {"trades": trades_to_arrays(history.trades)}, facts)
            return
        markets = load(self.config.data)
        for bars in markets:
            if len(bars) < WARMUP:
                raise DataError(
                    f"{bars.symbol} bars", len(bars), f"give at least {WARMUP}: the features need them"
                )
        arrays = {f"bars-{i:04d}": bars_to_arrays(bars) for i, bars in enumerate(markets)}
        listed = ", ".join(f"{bars.symbol} {len(bars):,}" for bars in markets)
        digests = {bars.symbol: bars.digest() for bars in markets}
        self.folder.write(
            "load", arrays, {"note": f"{listed} bars", "source": self.config.data, "digests": digests}
        )

    def _features(self) -> None:
        if self.finished.journaled:
            note = "31 features of each signal, as journaled"
            self.folder.write("features", {}, {"note": note, "fingerprint": fingerprint()})
            return
        markets = self.finished.markets()
        pipeline = FeaturePipeline()
        arrays = {f"features-{i:04d}": {"features": pipeline.matrix(bars)} for i, bars in enumerate(markets)}
        rows = sum(len(bars) for bars in markets)
        self.folder.write(
            "features", arrays, {"note": f"31 features x {rows:,} bars", "fingerprint": fingerprint()}
        )

    def _outcomes(self) -> None:
        trades, source = self._settled()
        rows = split(trades, self.config)
        if len(rows.train) < self.config.advised_trades:
            self.listener.warning(
                f"{len(rows.train):,} training trades; {self.config.advised_trades:,} or more are advised: "
                "read small differences between sizers as noise"
            )
        counts = {"train": len(rows.train), "select": len(rows.select), "test": len(rows.test)}
        note = f"{len(trades):,} trades of {source}: " + ", ".join(
            f"{n:,} {part}" for part, n in counts.items()
        )
        self.folder.write(
            "outcomes",
            {
                "trades": trades_to_arrays(trades),
                "split": {"train": rows.train, "select": rows.select, "test": rows.test},
            },
            {"note": note, "counts": counts, "dropped": trades.dropped._asdict(), "rule": source},
        )

    def _outcome_model(self) -> None:
        trades, rows = self.finished.trades()
        fit = fit_outcomes(trades, rows, self.config)
        figures = fit.calibration
        note = (
            f"log loss {figures['log_loss']:.4f} beside base rate {figures['base_log_loss']:.4f}, "
            f"ECE {figures['expected_calibration_error']:.3f}; k = {fit.k:.1f} ({fit.k_from}); "
            f"{fit.model.compared}"
        )
        arrays, facts = fit.to_files()
        compared = {
            "candidates": fit.model.candidates,
            "kept": dict(zip(ANSWERED, fit.model.kept, strict=True)),
        }
        self.folder.write("outcome_model", arrays, {"note": note, **facts, **compared})

    def _predictor(self) -> None:
        settings = self.config.predictor
        reports: dict[str, Any] = {}
        files: dict[str, str] = {}
        notes = []
        markets = self.finished.markets()
        for bars, name in zip(markets, self.folder.names("features"), strict=True):
            self.listener.working("predictor", len(reports), len(markets))
            try:
                predictor, report = PricePredictor.fit(
                    bars, settings.horizon, settings.threshold, settings.epochs, self.config.seed
                )
            except DataError as error:  # one short market among many must not stop the others
                reports[bars.symbol] = None
                self.listener.warning(f"no price predictor for {bars.symbol}: {error}")
                continue
            matrix = self.folder.arrays("features", name)["features"]
            about = About(
                symbol=bars.symbol,
                horizon=report.horizon,
                threshold=report.thresholds[bars.symbol],
                verdict=report.verdict,
                data=bars.digest(),
            )
            saved = SavedPredictor(predictor, about, predictor.golden(matrix))
            files[bars.symbol] = str(saved.save(self.home / FOLDER))
            reports[bars.symbol] = report.to_dict()
            scores = report.all_markets
            skill = "" if report.shrink > 0.0 else ", no proven skill"
            notes.append(f"{bars.symbol} {scores.log_loss:.3f}/{scores.base_log_loss:.3f}{skill}")
        note = f"log loss/base rates {settings.horizon} bars ahead: " + "; ".join(notes)
        self.folder.write("predictor", {}, {"note": note, "reports": reports, "files": files})

    def _profit_tiers(self) -> None:
        trades, rows = self.finished.trades()
        # The test part's outcomes stay unseen: they judge the sizer.
        seen = trades.take(np.concatenate([rows.train, rows.select]))
        # A store of its own for all that makes the trades: another run's would hold other costs, or its test
        # part's.
        known = [self.config.rule, self.config.costs.model_dump(), self.config.fractions]
        source = json.dumps([*known, self.folder.facts("load")["digests"]])
        name = f"training-{hashlib.sha256(source.encode()).hexdigest()[:16]}"
        optimizer = TierOptimizer(FileOutcomeStore(name, self.home / "outcomes"))
        for bars in self.finished.markets():
            optimizer.record_outcomes(excursions(bars, seen, self.config.rule))
        report = optimizer.optimize(seed=self.config.seed)
        self.folder.write("profit_tiers", {}, {"note": report.verdict, "report": report.to_dict()})

    def _sizer(self) -> None:
        champion = next((one.digest for one in read_export(self.home) if one.status == "PRODUCTION"), None)
        trades, rows = self.finished.trades()
        fit = self.finished.outcome_fit()
        prepared = tables(trades, rows, fit, self.config)
        network, curve = self._train_network(prepared)
        tuned = None if network is None else self._fine_tune(prepared, network)
        bundle = self._bundle(trades, rows, fit, prepared, network, tuned)
        digest = bundle.save(self.home / "bundles")
        open_bundle(self.home / "bundles", digest)
        self.mirror.bundle(self.home / "bundles", digest)
        facts: dict[str, Any] = {
            "note": f"bundle {digest[:12]}",
            "bundle": digest,
            "curve": curve,
            "champion": champion,
        }
        arrays: dict[str, Arrays] = {}
        if tuned is not None:
            facts["note"] += f"; {tuned.figures}"
            facts |= {"fine_tune": str(tuned.figures), "fine_tune_curve": tuned.curve}
            arrays["fine_tune"] = tuned.policy.network.to_arrays()
        self.folder.write("sizer", arrays, facts)

    def _evaluate(self) -> None:
        key = key_of(self.folder.facts("load")["digests"], self.config.rule, self.config.costs.model_dump())
        by = {"command": "train", "run": self.folder.name, "config": self.config.digest()}
        looked = record_look(self.home, key, by)
        comparison, paths, prepared = self.finished.compared()
        report = self.home / "reports" / f"{self.folder.name}.html"
        trades, _ = self.finished.trades()
        test = prepared.test
        meta = {
            "data": self.config.data,
            "symbols": list(trades.symbols),
            "counts": self.folder.facts("outcomes")["counts"],
            "bundle": self.folder.facts("sizer")["bundle"],
            "k": test.k,
            "k_from": self.folder.facts("outcome_model")["k_from"],
            "calibration": self.folder.facts("outcome_model")["calibration"],
            "outcome_model": self.finished.outcome_fit().model.compared,
            "costs": self.config.costs.model_dump(),
            "limits": self.config.limits.model_dump(),
            "seed": self.config.seed,
            "looks_at_the_test_part": looked,
            "revision": revision(),
        }
        # The test part's probabilities: the outcome model has not seen one of its outcomes.
        stated = test.market[:, CONFIDENCE].astype(np.float64)
        won = net_r(1.0, test.gross_r, test.cost_r, test.impact_r) > 0.0
        curve = self.folder.facts("sizer")["curve"]
        learning = LearningCurve(*np.array(curve, dtype=np.float64).T) if curve else None
        found = self.folder.facts("predictor").get("reports", {}) if self.folder.done("predictor") else {}
        write_html(
            comparison,
            paths,
            test,
            meta,
            report,
            learning=learning,
            reliability=(stated, won),
            predictors={symbol: figures for symbol, figures in found.items() if figures is not None},
        )
        self.folder.write(
            "evaluate",
            {},
            {"note": comparison.verdict, "report": str(report), "comparison": comparison.to_dict()},
        )

    def _register(self) -> None:
        digest = self.folder.facts("sizer")["bundle"]
        tags: dict[str, Any] = {
            "data": self.config.data,
            "rule": self.finished.rule(),
            "algo": self.config.algo,
            "seed": self.config.seed,
            "revision": revision(),
            **self.tags,
        }
        if "fine_tune" in self.folder.facts("sizer"):
            tags["fine_tune"] = self.folder.facts("sizer")["fine_tune"]
        if self.folder.done("evaluate"):
            comparison = self.folder.facts("evaluate")["comparison"]
            tags |= {"headline": comparison["headline"], "verdict": comparison["verdict"]}
        open_bundle(self.home / "bundles", digest)  # fetched, where the run was begun on another machine
        self._baseline(digest)  # before the version is there: what is registered can be watched
        data = json.dumps(self.folder.facts("load")["digests"], sort_keys=True)
        lineage = Lineage(
            data=hashlib.sha256(data.encode()).hexdigest(),
            features=fingerprint(),
            config=self.config.digest(),
            seeds=self.seeds,
            parent=self.folder.facts("sizer").get("champion"),
        )
        registry = Registry(self.home)
        folder = self.home / "bundles" / digest
        version = registry.register(digest, folder, tags, lineage=lineage, status=self.status)
        if registry.unjournaled is not None:
            self.listener.warning(f"registered, but not journaled yet: {registry.unjournaled}")
        self.folder.write(
            "register",
            {},
            {"note": f"version {version.version}, {version.status}", "version": version.version},
        )

    def _baseline(self, digest: str) -> None:
        """Keep what drift is measured from: training rows, and results of signals not trained on."""
        trades, rows = self.finished.trades()
        bundle = open_bundle(self.home / "bundles", digest)
        known = trades.take(rows.train)
        markets = {}
        for bars, name in zip(self.finished.markets(), self.folder.names("features"), strict=True):
            seen = bars.time + bars.interval <= known.signal_time[-1]
            matrix = self.folder.arrays("features", name)["features"][seen][WARMUP - 1 :]
            if len(matrix):
                markets[bars.symbol] = matrix
        signals, _ = answered(bundle, known, self.finished.outcome_fit().probability[rows.train])
        # The test part has been looked at where it was evaluated; elsewhere it stays unseen.
        part = "test" if self.folder.done("evaluate") else "select"
        _, results = answered(bundle, trades.take(getattr(rows, part)))
        baseline(digest, self.config.data, markets, signals, (results, f"{part} part")).save(self.home)

    def _settled(self) -> tuple[Trades, str]:
        """All outcomes that are known, and the name of the rule that gave the signals."""
        if self.finished.journaled:
            return trades_from_arrays(self.folder.arrays("load", "trades")), self.finished.rule()
        parts = []
        chosen = rule(self.config.rule)
        for bars, name in zip(self.finished.markets(), self.folder.names("features"), strict=True):
            matrix = self.folder.arrays("features", name)["features"]
            signals = checked(chosen.generate(bars), bars)
            parts.append(label(bars, signals, self.config.costs, matrix))
        return pool(parts), chosen.name

    def _train_network(self, prepared: Prepared) -> tuple[Network | None, list[Any]]:
        if self.config.algo == "plugin":
            return None, []
        from tuning.sizer import train_sizer  # Ray and torch are slow to import: only this stage needs them

        with self._copied():
            return train_sizer(
                prepared.train, prepared.select, self.config, self.folder.work("sizer"), self._progress
            )

    def _fine_tune(self, prepared: Prepared, network: Network) -> "FineTune | None":
        if self.config.algo != "dqn+ppo":
            return None
        from tuning.fine_tune import fine_tune

        tables = prepared.train, prepared.select
        folder = self.folder.work("sizer") / "fine_tune"
        with self._copied():
            return fine_tune(*tables, network, self.config, folder, self._progress)

    @contextmanager
    def _copied(self) -> Iterator[None]:
        """Copy what a training wrote that was asked to end."""
        try:
            yield
        except SystemExit:
            self.mirror.checkpoint(last=True)
            raise

    def _progress(self, done: int, total: int, score: float) -> None:
        self.mirror.checkpoint()
        self.listener.progress(done, total, score)

    def _bundle(
        self,
        trades: Trades,
        rows: Split,
        fit: OutcomeFit,
        prepared: Prepared,
        network: Network | None,
        tuned: "FineTune | None",
    ) -> PolicyBundle:
        config = self.config
        meta = BundleMeta(
            algo=config.algo,
            feature_fingerprint=fingerprint(),
            rule=self.finished.rule(),
            symbols=trades.symbols,
            costs=config.costs.model_dump(),
            base_risk=config.limits.base_risk,
            k=fit.k,
            k_from=fit.k_from,
            session_days=config.session.days,
            prior_win_rate=prepared.prior_win_rate,
            volatility_median=prepared.volatility_median,
            training_limits=config.limits.model_dump(),
            training={
                "data": config.data,
                "data_digests": self.folder.facts("load")["digests"],
                "trades": self.folder.facts("outcomes")["counts"],
                "config": config.model_dump(mode="json"),
                "revision": revision(),
            },
            calibration=fit.calibration,
            outcome_model={
                "log_loss": fit.model.candidates,
                "kept": dict(zip(ANSWERED, fit.model.kept, strict=True)),
            },
            fine_tune=None if tuned is None else tuned.figures,
        )
        served = tuned.policy.network if tuned is not None and tuned.figures.served else None
        bundle = PolicyBundle(meta, fit.model, fit.ranks, prepared.support, network, {}, served)
        return bundle.with_golden(prepared.train, prepared.train_fields)


def start(config: TrainConfig, home: Path, listener: Listener, *, resume: bool) -> Training:
    """A new run of `config`, or with `resume` its newest one; ConfigError for a rule that cannot be had."""
    rule(config.rule)  # a misspelt one is told at once, not after the stages before it
    digest = config.digest()
    if resume:
        recall(home, digest)
        run = RunFolder.latest(home, digest)
        _check_features(run)
        return Training(config, run, home, listener)
    return Training(config, RunFolder.start(home, digest, config.model_dump(mode="json")), home, listener)


def _check_features(run: RunFolder) -> None:
    """Refuse a run whose features were computed by another definition: what follows would not know."""
    if run.done("features") and (kept := run.facts("features")["fingerprint"]) != fingerprint():
        mend = f"the features of {run.name} are not today's ({fingerprint()}): leave --resume out"
        raise ConfigError("feature_fingerprint", kept, mend)


def revision() -> str:
    """The git revision of the working tree, or "unknown" outside one."""
    try:
        return subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"
