import pytest

from narratives.choices import Choice, count, first, grammar_of, in_either_order, one_of, parse, spoken


def test_the_first_options_are_one_text():
    assert first(parse("a [b|c [d|e]] f[.|!]")) == "a b f."
    assert first(parse("no choice")) == "no choice"
    assert first(parse("")) == ""


def test_a_pick_decides_each_choice_in_turn():
    heads = []

    def last(choice: Choice) -> int:
        heads.append(choice.heads)
        return len(choice.options) - 1

    assert "".join(spoken(parse("[a|b [$c|d]] e"), last)) == "b d e"
    assert heads == [("a", "b "), ("X", "d")]


def test_ways_are_counted_through_nested_choices():
    assert count(parse("[a|b [c|d]] [e|f|g]")) == 9


def test_two_sentences_go_in_either_order_in_any_of_their_variants():
    phrase = in_either_order(["A."], ["B.", "C."])
    assert count(phrase) == 4
    (choice,) = phrase
    assert ["".join(spoken((choice,), lambda c, at=at: at if c is choice else 1)) for at in range(3)] == [
        "A. C.",
        "B. A.",
        "C. A.",
    ]
    assert one_of(parse("A.")) == ("A.",)


@pytest.mark.parametrize("text", ["[a|b", "a|b", "a]", "[a|[b]", "[|a]", "[a|]", "[[a|b]|c]"])
def test_brackets_and_options_that_cannot_be_chosen_from_are_refused(text):
    with pytest.raises(ValueError, match=r"brackets do not match|does not begin with words"):
        parse(text)


@pytest.mark.parametrize("text", ["[a|a b]", "[$one more|$other more|b]"])
def test_options_that_begin_alike_are_refused(text):
    with pytest.raises(ValueError, match="begins another option"):
        parse(text)


def test_a_grammar_quotes_what_it_holds():
    assert grammar_of(['say "so"', "back\\slash"]) == 'root ::= "say \\"so\\"" | "back\\\\slash"\n'
