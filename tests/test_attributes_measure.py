"""What is measured in a text: bounded, robust, quick, and pointing the right way."""

import gzip
import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pgenrm.attributes import measure as module
from pgenrm.attributes.lexicon import PHRASES, WORDS
from pgenrm.attributes.measure import ATTRIBUTES, BOUND, N_ATTRIBUTES, in_words, measure, measured

DATA = Path(__file__).parents[2] / "shared" / "data" / "responses.jsonl.gz"
INDEX = {attribute.name: i for i, attribute in enumerate(ATTRIBUTES)}

any_unicode = st.text(st.characters(exclude_categories=()))

PAIRS = {
    "length": ("It rains.", "It rains, and here is why that is so in the mountains. " * 20),
    "lists": ("Peel, cut and fry the onions.", "1. Peel\n2) Cut\n- Fry\n* Serve\nStep 5: Eat"),
    "headings": (
        "Plan the trip, then pack.",
        "# Plan\nBook it.\n**Pack**\nBags.\nAt the end:\nRest.",
    ),
    "code": ("Call print with a text.", "Call `print`:\n```python\nprint('x')\n```\nfoo();"),
    "paragraphs": ("One. Two. Three. Four.", "One.\n\nTwo.\n\nThree.\n\nFour."),
    "questions": ("That is all there is.", "That is all. Shall I go on? Which part matters?"),
    "hedging": ("It is certainly and always so.", "Perhaps it might be so, I think; not sure."),
    "warmth": ("The form is due on Monday.", "I am so sorry, dear friend. Hang in there, hugs."),
    "formality": ("Yeah, it's cool stuff, don't worry.", "Furthermore, one shall obtain approval."),
    "word_length": (
        "We go up to see it.",
        "Considerable infrastructural interdependencies persist.",
    ),
    "examples": (
        "Some birds cannot fly.",
        "Some birds cannot fly, for example penguins. Imagine it!",
    ),
    "numbers": ("Many people came.", "In 2019, 40 percent of 3,000 people came."),
    "sources": ("People say so.", "According to a study in a journal (https://x.org)."),
    "playfulness": ("The cat sat there.", "The cat sat there 😂! Haha, just kidding :)"),
    "disclaimers": (
        "Take it twice a day.",
        "As an AI, I cannot say. Please note: consult a doctor.",
    ),
    "second_person": ("One walks there.", "You can walk there, if you're up to it, with your dog."),
}


def reasons_of(text: str) -> list[str]:
    return [in_words(i, count) for i, count in enumerate(measured(text).counts)]


@given(any_unicode)
@example("")
@example("\ud800")
@example("1. ")
@example("```")
@example("你好,世界。这是一个例子？")
@example("\u2028- a\u2028- b")
def test_any_text_is_measured_within_bounds(text: str) -> None:
    vector = measure(text)
    assert vector.shape == (N_ATTRIBUTES,)
    assert np.isfinite(vector).all()
    assert (np.abs(vector) <= BOUND).all()
    assert all(reason.strip() for reason in reasons_of(text))


@pytest.mark.parametrize("name", INDEX)
def test_every_attribute_tells_its_two_directions_apart(name: str) -> None:
    low, high = PAIRS[name]
    assert measure(high)[INDEX[name]] - measure(low)[INDEX[name]] > 0.5


def test_a_measurement_cannot_be_changed_by_who_reads_it() -> None:
    with pytest.raises(ValueError, match="read-only"):
        measure("Hello.")[0] = 1.0


def test_reasons_give_the_counts() -> None:
    reasons = reasons_of("# Plan\n\n- **one** for you\n- too\n\n1. Is it 3 o'clock?")
    assert reasons[INDEX["length"]] == "10 words"
    assert reasons[INDEX["lists"]] == "3 list items"
    assert reasons[INDEX["headings"]] == "1 heading"
    assert reasons[INDEX["numbers"]] == "1 number"
    assert reasons[INDEX["questions"]] == "1 follow-up"
    assert reasons[INDEX["code"]] == "no code fragments"
    assert reasons[INDEX["formality"]] == "0 formal, 0 informal words"


def test_structure_inside_code_is_code() -> None:
    reasons = reasons_of("```\n# comment\n- x\nPlan:\n```")
    assert reasons[INDEX["headings"]] == "no headings"
    assert reasons[INDEX["lists"]] == "no list items"
    assert reasons[INDEX["code"]] == "3 code fragments"


def test_curly_quotes_dashes_and_case_do_not_matter() -> None:
    plain = measure('YOU\'RE right -- for example "so".')
    curly = measure("you’re right — for example “so”.")
    np.testing.assert_array_equal(plain, curly)


def test_chinese_characters_count_as_words() -> None:
    assert reasons_of("你好世界")[INDEX["length"]].startswith("5 ")


@pytest.mark.parametrize(
    "part",
    [
        "word ",
        "a",
        "\n",
        "- \n",
        "1",
        "'",
        "? ",
        "`",
        "```\n",
        "for example ",
        "\u4e00",
        "!",
        "\u2019",
    ],
)
def test_a_text_of_one_megabyte_is_measured_in_linear_time(part: str) -> None:
    text = part * (1_000_000 // len(part))
    start = time.process_time()
    assert np.isfinite(measure(text)).all()
    assert time.process_time() - start < 3.0


def test_the_memory_of_texts_is_bounded_and_safe_between_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "N_REMEMBERED", 10)
    texts = [f"text number {i % 40} {'x ' * (i % 7)}" for i in range(400)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(measure, texts))
    assert len(module._recent) <= 10
    for text, vector in zip(texts, found, strict=True):
        np.testing.assert_array_equal(vector, measure(text))


def test_word_lists_are_lower_case_words_of_known_kinds() -> None:
    assert set(PHRASES) <= set(WORDS)
    for words in WORDS.values():
        assert len(set(words.split())) == len(words.split())
        assert words == words.lower()
    for phrases in PHRASES.values():
        assert all(phrase == " ".join(phrase.lower().split()) for phrase in phrases)


@pytest.mark.skipif(not DATA.exists(), reason="needs the real responses in ../shared/data")
def test_a_unit_is_about_a_standard_deviation_over_real_answers() -> None:
    with gzip.open(DATA, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    texts = [text for row in rows[::4] for text in row["responses"].values()]
    values = np.array([measure(text) for text in texts])
    assert (np.abs(values.mean(axis=0)) < 0.25).all()
    assert (values.std(axis=0) > 0.6).all()
    assert (values.std(axis=0) < 1.3).all()
