"""What the finished stages of a run hold, read back from its folder.

Knows nothing of how a stage is run.
"""

from pathlib import Path

from evaluation.backtest import Path as Walk
from evaluation.backtest import run_all
from evaluation.comparison import Comparison, compare
from market.bars import Bars
from policies.baselines import baselines
from policies.bundle import PolicyBundle, open_bundle
from policies.decision import Policy
from policies.hybrid import FineTunedPolicy, Network, TierPolicy
from signals.trades import Trades
from tuning.artifacts import bars_from_arrays, trades_from_arrays
from tuning.config import TrainConfig
from tuning.examples import Example, newest_signal
from tuning.journal_data import is_journal
from tuning.prepare import OutcomeFit, Prepared, Split, tables
from tuning.run_folder import RunFolder


class Finished:
    """The finished stages of one run; FileNotFoundError where one that is asked for is not."""

    def __init__(self, config: TrainConfig, folder: RunFolder, home: Path) -> None:
        self.config, self.folder, self.home = config, folder, home
        self.journaled = is_journal(config.data)  # whether its signals come from a journal
        self._compared: tuple[Comparison, list[Walk], Prepared] | None = None

    def example(self) -> Example:
        """The newest signal of the run's bars, as a request."""
        return newest_signal(self.markets(), self.trades()[0])

    def prepared(self) -> Prepared:
        """The tables that the sizer learns from and is judged on."""
        trades, rows = self.trades()
        return tables(trades, rows, self.outcome_fit(), self.config)

    def markets(self) -> tuple[Bars, ...]:
        """The bars of all markets; none where the signals came from a journal."""
        if self.journaled:
            return ()
        return tuple(bars_from_arrays(self.folder.arrays("load", name)) for name in self.folder.names("load"))

    def rule(self) -> str:
        """The signal rule, or the strategy of the signals journaled."""
        return str(self.folder.facts("load")["rule"]) if self.journaled else self.config.rule

    def trades(self) -> tuple[Trades, Split]:
        """All trades, and which of them are for training, selection and the test."""
        rows = self.folder.arrays("outcomes", "split")
        return trades_from_arrays(self.folder.arrays("outcomes", "trades")), Split(**rows)

    def outcome_fit(self) -> OutcomeFit:
        """The outcome model and all that was fitted with it."""
        stage = "outcome_model"
        return OutcomeFit.from_files(lambda name: self.folder.arrays(stage, name), self.folder.facts(stage))

    def compared(self) -> tuple[Comparison, list[Walk], Prepared]:
        """The bundle and the baselines on the test part; computed once, for whoever asks."""
        if self._compared is None:
            trades, rows = self.trades()
            prepared = tables(trades, rows, self.outcome_fit(), self.config)
            opened = open_bundle(self.home / "bundles", self.folder.facts("sizer")["bundle"])
            sizers = [*self.learned(opened), *baselines(self.config.seed)]
            walks = run_all(sizers, prepared.test, self.config.limits, self.config.session.days)
            comparison = compare(walks, prepared.test, symbols=trades.symbols, learned=opened.policy().name)
            self._compared = comparison, walks, prepared
        return self._compared

    def learned(self, opened: PolicyBundle) -> list[Policy]:
        """What the run has trained: the tiers, and their fine-tune whether it is served or not."""
        if opened.network is None:
            return []
        tiers = TierPolicy(opened.network)
        if opened.meta.fine_tune is None:
            return [tiers]
        network = Network.from_arrays(self.folder.arrays("sizer", "fine_tune"))
        return [tiers, FineTunedPolicy(tiers, network, opened.meta.fine_tune.band)]
