"""No text can pass for a delimiter, a marker or a control token; ordinary text stays as it is."""

import gzip
import json
import re
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgenrm.prompts import BUILT_IN, Template
from pgenrm.untrusted import OPENING, delimiters_in, neutraliser

RESPONSES = Path(__file__).parents[2] / "shared" / "data" / "responses.jsonl.gz"

DELIMITERS = ("<past_choices", "<response_*", "[The Start of *")
FORBIDDEN = [
    *("<JSON_START>", "<JSON_END>", "<think>", "</think>", "</thinking>", "[THINK]", "◁think▷"),
    *("<|im_start|>", "<|im_end|>", "<|eot_id|>", "<|start_header_id|>", "<|endoftext|>"),
    *("<|START_OF_TURN_TOKEN|>", "<｜begin▁of▁sentence｜>", "<｜User｜>", "<|/inst|>"),
    *("<s>", "</s>", "<bos>", "<eos>", "<pad>", "<unk>", "<start_of_turn>", "<end_of_turn>"),
    *("[INST]", "[/INST]", "<<SYS>>", "<</SYS>>", "[SYSTEM_PROMPT]", "[TOOL_CALLS]", "[gMASK]"),
    *("<tool_call>", "</tool_response>", "<unused7>", "<extra_id_0>", "<BOS_TOKEN>"),
    *("<past_choices>", "</past_choices>", "<past_choices number='1'>"),
    *("<response_1>", "</response_12>", "[The Start of Response 1]", "[The Start of the query]"),
]
ORDINARY = [
    "if (a < b && c > d) x[i] = y[j];",
    "List<String> s = new ArrayList<>(); vector<int> v; std::cout << s;",
    '<div class="s"><span>hi</span><br/><strong>s</strong><summary>x</summary></div>',
    "<script>const f = <T,>(x: T) => x;</script> <select><option>1</option></select>",
    "<response>200</response> <responseText> <thinker> <pads> <chosen_one>",
    "xs |> List.map f <| 3; a <|> b; p <- q; [x | x <- xs]; {|x|}",
    "[link](https://example.org) [1] [x] [ ] [instance] [imgur] $[0, 1)$ \\[x^2\\]",
    "| a | b |\n|---|---|\n| < | > |\nPART 2: Methods\nUSER: hello\n### Response:",
    "‹quoted› «zitiert» 3 ‹ 4 ＞ 2 日本語 العربية 👩‍🚀",
]


def letters(text: str) -> str:
    """Reduce a text to what is left when spacing, hyphens and case do not count."""
    folded = re.sub(r"[\s_\-\u00ad\u200b-\u200f\u2060\ufeff]", "", text.replace("＜", "<"))
    return folded.replace("［", "[").casefold()


@st.composite
def spellings(draw: st.DrawFn) -> tuple[str, str]:
    """A forbidden string and a variant of it in case, spacing and brackets."""
    forbidden = draw(st.sampled_from(FORBIDDEN))
    spelled = "".join(draw(st.sampled_from([c, c.upper(), c.lower()])) for c in forbidden)
    if draw(st.booleans()):
        spelled = spelled.replace("<", "＜").replace("[", "［")
    if draw(st.booleans()):
        spelled = spelled.replace("_", draw(st.sampled_from([" ", "-", "", "__", "\u200b"])))
    blank = draw(st.sampled_from(["", " ", "\n", "\t \u200b", "\u2060"]))
    spelled = re.sub(r"^([<＜\[［]{1,2}/?)", lambda m: blank.join((*m[0], "")), spelled)
    return forbidden, spelled


@given(st.data())
def test_no_spelling_of_a_forbidden_string_survives(data: st.DataObject) -> None:
    forbidden, spelled = data.draw(spellings())
    text = data.draw(st.text(max_size=20)) + spelled + data.draw(st.text(max_size=20))
    assert letters(forbidden) not in letters(neutraliser(DELIMITERS)(text))


@given(st.lists(st.sampled_from([*FORBIDDEN, *"<[/|>]_ \n", "s", "think", "1"]), max_size=12))
def test_fragments_cannot_be_combined_into_a_forbidden_string(parts: list[str]) -> None:
    neutral = neutraliser(DELIMITERS)("".join(parts))
    assert not any(f in neutral for f in FORBIDDEN)


@given(st.text() | st.lists(st.sampled_from(FORBIDDEN)).map(" ".join))
def test_neutralising_is_idempotent_and_changes_opening_brackets_only(text: str) -> None:
    neutralise = neutraliser(DELIMITERS)
    once = neutralise(text)
    assert neutralise(once) == once
    assert len(once) == len(text)
    changed = {a for a, b in zip(text, once, strict=True) if a != b}
    assert changed <= set("<＜﹤[［◁")
    assert all(b in (a, OPENING) for a, b in zip(text, once, strict=True))


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert neutraliser(DELIMITERS)(text) == text


def test_a_lone_surrogate_becomes_the_replacement_character() -> None:
    assert neutraliser()("a\ud800b") == "a\ufffdb"


def test_delimiters_are_found_in_the_built_in_templates() -> None:
    source = (BUILT_IN / "chain_signals.jinja").read_text()
    found = delimiters_in([source])
    for tag in ("<profile", "<past_choices", "<conversation", "<chosen", "<turn", "<JSON_START"):
        assert tag in found
    assert Template.load("chain_signals")


@pytest.mark.parametrize(
    "unit",
    [
        "<",
        "< ",
        " ",
        "<|",
        "<past",
        "<past_",
        "< / ",
        "[the ",
        "[the  start ",
        "<response_",
        "<|a b",
    ],
)
def test_a_megabyte_takes_little_time(unit: str) -> None:
    neutralise = neutraliser(DELIMITERS)
    text = "<" + unit * (1_000_000 // len(unit))
    started = time.perf_counter()
    neutralise(text)
    assert time.perf_counter() - started < 5  # a quadratic search would take minutes


def test_nearly_all_real_responses_stay_as_they_are() -> None:
    if not RESPONSES.exists():
        pytest.skip(f"{RESPONSES} is absent")
    neutralise = Template.load("chain_signals").neutralise
    with gzip.open(RESPONSES, "rt", encoding="utf-8") as lines:
        texts = [t for line in lines for t in json.loads(line)["responses"].values()]
    changed = [t for t in texts if neutralise(t) != t]
    assert len(texts) == 14_400
    assert changed == []


@pytest.mark.parametrize(
    "forged",
    [
        "</cho\u200bsen>",
        "</ch\u00adosen>",
        "<J\u200bSON_START>",
        "<\u2063/chosen>",
        "</past\u2063_choices>",
        "<\u202e/chosen>",
        "</\ufe0fchosen>",
        "<\u2063|im_end|>",
        "<//chosen>",
        "<\\/chosen>",
        "</\uff43\uff48\uff4f\uff53\uff45\uff4e>",
        "\uff1cJSON\uff3fSTART\uff1e",
        "<response\u20111>",
        "<\x00/chosen>",
    ],
)
def test_a_disguised_delimiter_is_found(forged: str) -> None:
    neutralise = neutraliser(("<chosen", "<past_choices", "<response_*"))
    assert neutralise(forged)[0] == OPENING
    assert neutralise(forged)[1:] == forged[1:]
