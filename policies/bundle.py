"""The policy bundle: all that serving needs of a training run, content-addressed, written whole or not at
all.

A bundle is a folder named by its SHA-256 with ``policy.safetensors`` (every array) and ``bundle.json``
(everything else). Knows nothing of registries; nothing in it is executed when it is opened.
"""

import hashlib
import json
import os
import re
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from envs.guardrails import Limits, allowed, bound
from envs.observation import OBSERVATION_FIELDS, Situation
from envs.signal_table import SignalTable, trades_table
from features.spec import FEATURE_NAMES, fingerprint
from market.errors import InputError
from market.storage import storage
from policies.baselines import PlugIn
from policies.decision import ValuePolicy
from policies.hybrid import FineTunedPolicy, Network, TierPolicy
from policies.support import Support
from signals.fields import VolatilityRanks
from signals.outcome_model import OutcomeModel
from signals.trades import Trades, trade_fields

ARRAYS_FILE: Final = "policy.safetensors"
META_FILE: Final = "bundle.json"
GOLDEN_ROWS: Final = 64
BUNDLES: Final = "bundles"  # the folder of all bundles, in a home and in BALLAST_STORAGE
DIGEST: Final = re.compile(r"[0-9a-f]{64}")
TOLERANCE: Final = 1e-5  # between BLAS builds; tiers must be equal all the same

Arrays = dict[str, npt.NDArray[Any]]


class BundleError(InputError):
    """A bundle that is missing, altered, or made for other features."""


class FineTuneFigures(BaseModel):
    """How a fine-tune did beside the tiers alone, on signals later than those it was trained on."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    band: float = Field(gt=0, le=0.5, description="largest change of a tier, as a share of it")
    served: bool = Field(description="whether the bundle holds it; otherwise it holds the tiers alone")
    mean_difference: float = Field(
        description="realised utility per signal gained on the tiers alone, in R, net of costs"
    )
    lower_bound: float | None = Field(
        description="one-sided 95 % bound of that difference; null with too few days"
    )
    signals: int
    days: int

    def __str__(self) -> str:
        said = f"{self.mean_difference:+z.4f} R per signal on the tiers alone over {self.signals:,} signals"
        low = (
            "too few days for a bound" if self.lower_bound is None else f"95 % bound {self.lower_bound:+z.4f}"
        )
        return f"fine-tune {'served' if self.served else 'not served'}: {said}, {low}"


class BundleMeta(BaseModel):
    """What a bundle is, apart from its arrays."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    schema_version: Literal[1] = 1
    algo: Literal["dqn", "ppo", "dqn+ppo", "plugin"]
    observation_fields: tuple[str, ...] = OBSERVATION_FIELDS
    feature_fingerprint: str
    rule: str = Field(description="the signal rule it was trained on")
    symbols: tuple[str, ...]
    costs: dict[str, float]
    base_risk: float
    k: float = Field(gt=0, description="Kelly divisor of the utility")
    k_from: str = Field(description="how k was set")
    session_days: float = Field(ge=1e-3, le=36_525, description="of training; how long a review window is")
    prior_win_rate: float
    volatility_median: dict[str, float] = Field(
        description="training median of atr_ratio by symbol, '*' pooled"
    )
    training_limits: dict[str, float | bool] = Field(
        description="provenance only: serving obeys the operator's limits"
    )
    training: dict[str, Any] = Field(
        description="data source and digest, trades, seeds, git revision, configuration"
    )
    calibration: dict[str, float] = Field(description="the outcome model's figures out of fold")
    outcome_model: dict[str, dict[str, float | str]] = Field(
        default_factory=dict,
        description="log loss out of fold of base rates, logit and trees; which was kept for what",
    )
    fine_tune: FineTuneFigures | None = Field(None, description="null where none was trained")


@dataclass(frozen=True)
class PolicyBundle:
    """An opened or about-to-be-saved bundle."""

    meta: BundleMeta
    outcome_model: OutcomeModel
    ranks: VolatilityRanks
    support: Support
    network: Network | None  # None for the plug-in
    golden: Arrays  # observation, cap, probability, cost_r, impact_r, fields -> values, multiplier
    fine_tune: Network | None = None  # None where the tiers are served alone

    def __post_init__(self) -> None:
        """Raises ValueError where network and meta do not say the same of the fine-tune, or where the support
        is not of all features.
        """
        if len(self.support.mean) != len(FEATURE_NAMES):
            raise ValueError(f"it has seen {len(self.support.mean)} features, not {len(FEATURE_NAMES)}")
        served = self.meta.fine_tune is not None and self.meta.fine_tune.served
        if served != (self.fine_tune is not None) or (served and self.network is None):
            raise ValueError("a fine-tune is served with its band, its network and that of its tiers, or not")

    def policy(self) -> ValuePolicy:
        """The sizer this bundle holds."""
        if self.network is None:
            return PlugIn()
        tiers = TierPolicy(self.network)
        if self.fine_tune is None or self.meta.fine_tune is None:
            return tiers
        return FineTunedPolicy(tiers, self.fine_tune, self.meta.fine_tune.band)

    def table_of(
        self,
        trades: Trades,
        base_risk: float | None = None,
        probability: npt.NDArray[np.float64] | None = None,
    ) -> SignalTable:
        """Settled trades as this bundle sees them: its outcome model and scaling, its k and prior win rate.

        `base_risk`: the bundle's own where absent. `probability`: float64[n, J] of the outcome model where
        better is known than its own (training signals: by models that had not seen them).
        """
        fields = trade_fields(trades, self.ranks)
        return trades_table(
            trades,
            signal_fields=fields,
            probability=self.outcome_model.probability(fields) if probability is None else probability,
            outcome_r=self.outcome_model.outcome_r,
            medians=self.meta.volatility_median,
            out_of_distribution=self.support.outside(trades.features),
            k=self.meta.k,
            base_risk=self.meta.base_risk if base_risk is None else base_risk,
            prior_win_rate=self.meta.prior_win_rate,
        )

    def with_golden(self, table: SignalTable, signal_fields: npt.NDArray[np.float64]) -> "PolicyBundle":
        """This bundle with golden vectors computed on evenly spread rows of `table` (`signal_fields`:
        float64[n, 6]).
        """
        rows = np.unique(np.linspace(0, len(table) - 1, GOLDEN_ROWS).astype(np.int64))
        cap = np.linspace(0.0, 1.5, len(rows))
        observation = table.market[rows].copy()
        observation[:, 9] = cap / 1.5
        observation[:, 10:] = 1.0
        golden: Arrays = {
            "fields": signal_fields[rows],
            "observation": observation,
            "cap": cap,
            "cost_r": table.cost_r[rows],
            "impact_r": table.impact_r[rows],
        }
        golden |= _answers(self, golden)
        return replace(self, golden=golden)

    def save(self, root: Path) -> str:
        """Write the bundle below `root` and return its digest; a bundle already there is left as it is."""
        arrays = self._arrays()
        tensors = save_tensors({name: np.ascontiguousarray(value) for name, value in sorted(arrays.items())})
        meta = json.dumps(
            self.meta.model_dump(mode="json"), sort_keys=True, indent=1, allow_nan=False
        ).encode()
        digest = _digest(tensors, meta)
        target = root / digest
        if target.exists():
            open_bundle(root, digest)
            return digest
        root.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=root))
        try:
            for name, content in {ARRAYS_FILE: tensors, META_FILE: meta}.items():
                with open(draft / name, "wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
            draft.chmod(0o755)
            os.replace(draft, target)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return digest

    def _arrays(self) -> Arrays:
        ranks = self.ranks.to_dict()
        arrays: Arrays = {f"outcome/{name}": value for name, value in self.outcome_model.to_arrays().items()}
        arrays |= {f"volatility/{symbol}": np.asarray(quantiles) for symbol, quantiles in ranks.items()}
        arrays |= {
            "support/mean": self.support.mean,
            "support/scale": self.support.scale,
            "support/precision": self.support.precision,
            "support/limit": np.array([self.support.limit]),
        }
        if self.network is not None:
            arrays |= {f"network/{name}": value for name, value in self.network.to_arrays().items()}
        if self.fine_tune is not None:
            arrays |= {f"fine_tune/{name}": value for name, value in self.fine_tune.to_arrays().items()}
        return arrays | {f"golden/{name}": value for name, value in self.golden.items()}


def open_bundle(root: Path, digest: str) -> PolicyBundle:
    """Read the bundle `digest` below `root`; BundleError if it is missing, altered, of other features, or
    answers otherwise.

    One that is not below `root` is fetched from BALLAST_STORAGE, where that is set and has it.
    """
    folder = root / digest
    if not folder.exists() and DIGEST.fullmatch(digest) and (kept := storage()) is not None:
        kept.get(f"{BUNDLES}/{digest}", folder)
    try:
        tensors, meta = (folder / ARRAYS_FILE).read_bytes(), (folder / META_FILE).read_bytes()
    except OSError as error:
        raise BundleError(
            "bundle", str(folder), f"give the digest of a bundle that is there ({error.strerror})"
        ) from None
    found = _digest(tensors, meta)
    if found != digest:
        raise BundleError(
            "bundle.digest", found, f"the files of {digest} were altered; restore or train again"
        )
    try:
        bundle = _parse(load_tensors(tensors), BundleMeta.model_validate_json(meta))
    except (ValidationError, SafetensorError, KeyError, ValueError) as error:
        raise BundleError("bundle", str(folder), f"train again with this version ({error})") from None
    if bundle.meta.feature_fingerprint != fingerprint():
        raise BundleError(
            "bundle.feature_fingerprint",
            bundle.meta.feature_fingerprint,
            f"train again: features are now {fingerprint()}",
        )
    _check_golden(bundle)
    return bundle


def _parse(arrays: Arrays, meta: BundleMeta) -> PolicyBundle:
    def under(prefix: str) -> Arrays:
        return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}

    support, network, fine_tune = under("support/"), under("network/"), under("fine_tune/")
    return PolicyBundle(
        meta=meta,
        outcome_model=OutcomeModel.from_arrays(under("outcome/")),
        ranks=VolatilityRanks.from_dict(under("volatility/")),
        support=Support(support["mean"], support["scale"], support["precision"], float(support["limit"][0])),
        network=Network.from_arrays(network) if network else None,
        golden=under("golden/"),
        fine_tune=Network.from_arrays(fine_tune) if fine_tune else None,
    )


def _answers(bundle: PolicyBundle, golden: Arrays) -> Arrays:
    """What the bundle says to its golden situations, the sizes after the guardrail."""
    probability = bundle.outcome_model.probability(golden["fields"])
    count = len(golden["cap"])
    situation = Situation(
        observation=golden["observation"],
        mask=allowed(golden["cap"], Limits()),
        cap=golden["cap"],
        probability=probability,
        outcome_r=bundle.outcome_model.outcome_r,
        cost_r=golden["cost_r"],
        impact_r=golden["impact_r"],
        volatility_ratio=np.ones(count),
        settled_kelly=np.full(count, np.nan),
        settled_optimal=np.full(count, np.nan),
        k=bundle.meta.k,
        base_risk=bundle.meta.base_risk,
    )
    policy = bundle.policy()
    no_rule = np.zeros(count, dtype=np.int8)
    guarded = bound(policy.size(situation), golden["cap"], no_rule, Limits(), snap=policy.snaps)
    return {
        "probability": probability,
        "values": policy.values(situation),
        "multiplier": guarded.multiplier,
    }


def _check_golden(bundle: PolicyBundle) -> None:
    for name, answer in _answers(bundle, bundle.golden).items():
        recorded = bundle.golden[name]
        exact = name == "multiplier" and bundle.fine_tune is None
        if not (
            np.array_equal(answer, recorded)
            if exact
            else np.allclose(answer, recorded, rtol=TOLERANCE, atol=TOLERANCE)
        ):
            raise BundleError(
                f"bundle.golden.{name}",
                "another answer than was recorded",
                "do not serve it; train again on this machine",
            )


def _digest(tensors: bytes, meta: bytes) -> str:
    return hashlib.sha256(hashlib.sha256(tensors).digest() + hashlib.sha256(meta).digest()).hexdigest()
