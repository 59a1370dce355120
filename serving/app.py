"""The three applications, each deployed and failing on its own: the only place that binds.

`serving/config.yaml` finds them here by import path.
"""

from ray import serve

from serving.feature_service import FeatureService
from serving.narrative_service import NarrativeService
from serving.sizing_service import SizingService

features = serve.deployment(name="Features")(FeatureService).bind()
sizing = serve.deployment(name="Sizing")(SizingService).bind()
narratives = serve.deployment(name="Narratives")(NarrativeService).bind()
