"""What `make llm` builds: the small language model loads and writes what a grammar allows."""

from pathlib import Path


def test_language_model_writes_only_what_the_grammar_allows(llama: Path) -> None:
    from llama_cpp import Llama, LlamaGrammar

    model = Llama(model_path=str(llama), n_ctx=128, n_threads=1, seed=0, verbose=False)
    grammar = LlamaGrammar.from_string('root ::= "The position is " ("small" | "standard") "."')
    answer = model.create_completion("Describe it.", grammar=grammar, max_tokens=16, temperature=0.0)
    model.close()
    assert answer["choices"][0]["text"] in ("The position is small.", "The position is standard.")
