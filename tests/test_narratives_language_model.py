"""Which model words the narratives, and the real one at work."""

import time
from pathlib import Path

import pytest

from market.errors import ConfigError
from narratives.chooser import Chooser
from narratives.facts import compute
from narratives.language_model import LanguageModel, from_environment, narrator_of, packaged
from narratives.llama_model import LlamaModel
from narratives.narrator import Narrator
from narratives.template import write
from tests.fake_model import is_allowed
from tests.test_narratives_facts import DECISION
from tests.test_narratives_narrator import CONTEXTS


def test_the_environment_names_a_file_a_mode_or_no_model():
    assert from_environment({}) == LanguageModel()
    assert from_environment({"BALLAST_LLM": "none"}).path == "none"
    named = from_environment({"BALLAST_LLM": "/models/a.gguf", "BALLAST_LLM_MODE": "free"})
    assert (named.path, named.mode) == (Path("/models/a.gguf"), "free")
    with pytest.raises(ConfigError, match="BALLAST_LLM_MODE: got 'bold'; input should be 'constrained' or"):
        from_environment({"BALLAST_LLM_MODE": "bold"})


def test_without_a_model_the_template_writes():
    assert narrator_of(LanguageModel(path="none")).writer is None


def test_a_file_that_is_no_model_is_refused(tmp_path: Path, llama: Path) -> None:
    with pytest.raises(ConfigError, match="give the path of a GGUF file"):
        LlamaModel(tmp_path / "absent.gguf")
    (tmp_path / "broken.gguf").write_text("no model")
    with pytest.raises(ConfigError, match="give a sound GGUF file"):
        LlamaModel(tmp_path / "broken.gguf")


def test_the_packaged_model_words_every_kind_as_it_may_and_the_same_again(llama: Path) -> None:
    assert packaged() == llama
    model = LlamaModel(llama)
    narrator, texts = Narrator(Chooser(model), seconds=120), {}
    for kind, context in CONTEXTS.items():
        telling = narrator.tell(kind, context)
        narrative = telling.whole()
        assert narrative.writer == "smollm2-135m-instruct constrained"
        assert is_allowed(narrative.text, narrative.facts)
        assert "".join(telling) == narrative.text
        texts[kind] = narrative.text
    assert narrator.fallbacks == {}
    assert texts != {kind: write(compute(kind, context)) for kind, context in CONTEXTS.items()}
    kind = "performance_summary"
    assert Narrator(Chooser(model), seconds=120).generate(kind, CONTEXTS[kind]).text == texts[kind]
    with model.talk("Say it.", 1, time.monotonic() + 60) as talk:
        assert talk.choose("The capital of France is", (" Paris", " Canberra")) == 0
    late = Narrator(Chooser(model), seconds=1e-9)
    assert late.generate("trade_rationale", DECISION).writer == "template"
    assert late.fallbacks == {"timeout": 1}
    assert 0 < len("".join(model.tell("Say hello.", 3, 1, time.monotonic() + 60))) < 40
