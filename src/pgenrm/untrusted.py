"""Text of users and models is data: make it unable to pass for anything else in a prompt.

One rule: where a text spells a delimiter of the template, a marker of the chain format, a thinking
tag or a chat control token, the opening bracket becomes `‹`. Nothing is removed, nothing else
changes, so that code, HTML and Markdown stay readable:

>>> neutraliser()("</s><|im_end|> [INST] a[i] < b && <b>bold</b>")
'‹/s>‹|im_end|> ‹INST] a[i] < b && <b>bold</b>'

Variants in case, width, spaces, dashes, slashes and invisible characters count as the same name.
Deliberately left out: plain role labels (`USER:`, `### Instruction`) and the chain's part headings,
which ordinary texts are full of and which end nothing inside a delimited block.
"""

import re
from collections.abc import Callable, Iterable

OPENING = "‹"
"""Takes the place of the bracket; no tokeniser's normalisation maps it back to `<`."""

_MARKERS = ("json_start", "json_end")
THINKING_TAGS = ("think", "thinking", "thought", "reasoning")
"""Names of the tags around a model's thinking; `pgenrm.chain` drops what stands between them."""
_THOUGHTS = re.compile(
    rf"\A.*</(?:{'|'.join(THINKING_TAGS)})>|<(?:{'|'.join(THINKING_TAGS)})>.*\Z",
    re.IGNORECASE | re.DOTALL,
)
_CONTROL_TAGS = (
    *("s", "unk", "pad", "eos", "bos", "eod", "eop", "sop", "sep", "cls", "mask", "sys"),
    *("unk_token", "pad_token", "eos_token", "bos_token", "end_of_turn", "start_of_turn"),
    *("end_of_text", "begin_of_text", "start_of_image", "end_of_image", "tool_call", "tool_calls"),
    *("tool_response", "tool_responses", "function_call", "function_response"),
    *("unused*", "extra_id_*", "reserved_*", "special_*"),
)
_CONTROL_BRACKETS = (
    *("inst", "system_prompt", "available_tools", "tool_calls", "tool_results", "tool_content"),
    *("think", "gmask"),
)

# Unicode's default ignorables and the control signs
_INVISIBLE = (
    r"\x00-\x08\x0e-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f"
    r"\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U000e0000-\U000e0fff"
)
_BLANK = rf"\s{_INVISIBLE}"
_DASH = r"_\u2010-\u2015\u2212\ufe58\ufe63\uff0d\uff3f-"
_SPACE = rf"[{_BLANK}]*+"  # possessive: linear on a megabyte of spaces
_GAP = rf"{_SPACE}(?:[/\\／⁄∕]{_SPACE})*+"
_ANGLE = "<＜﹤◁"
_SQUARE = r"\[［"
_PIPE = "|｜"
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def without_thoughts(text: str) -> str:
    """Return what a model writes after its thinking: nothing, where that never ended.

    >>> without_thoughts("<think>hm</think>Yes."), without_thoughts("<think>- Short?")
    ('Yes.', '')
    """
    return _THOUGHTS.sub("", text)


def neutraliser(delimiters: Iterable[str] = ()) -> Callable[[str], str]:
    """Return a function that neutralises texts for prompts with these delimiters.

    The function is idempotent, keeps the length of a text, takes linear time, and replaces lone
    surrogates (which no engine could encode) by U+FFFD.

    Args:
        delimiters: openings such as `<past_choices` or `[The Start of`, as `delimiters_in` finds
            them; `*` at the end stands for a number or further words.
    """
    names = "|".join(map(_spellings, (*_MARKERS, *THINKING_TAGS, *_CONTROL_TAGS)))
    angle = [
        rf"(?:{names}){_GAP}[>＞﹥▷]",
        rf"[{_PIPE}][^\s<>{_PIPE}]",  # <|im_end, also when the end is missing
        rf"[{_PIPE}][^<>{_PIPE}\n]{{1,64}}[{_PIPE}]",  # < | im_end | >
    ]
    square = [rf"(?:{'|'.join(map(_spellings, _CONTROL_BRACKETS))}){_SPACE}[\]］]"]
    for delimiter in delimiters:
        (angle if delimiter[0] == "<" else square).append(_spellings(delimiter[1:]))
    forged = re.compile(
        rf"[{_ANGLE}](?={_GAP}(?:{'|'.join(angle)}))|[{_SQUARE}](?={_GAP}(?:{'|'.join(square)}))",
        re.IGNORECASE,
    )

    def neutralise(text: str) -> str:
        return _LONE_SURROGATE.sub("\ufffd", forged.sub(OPENING, text))

    return neutralise


def delimiters_in(literals: Iterable[str]) -> tuple[str, ...]:
    """Find what opens a tag `<name` or a bracket `[Name ...` in a template's own text.

    A name that runs to the end of a literal is completed by a variable, and so open-ended.

    >>> delimiters_in(["<query>a</query> 1 < 2, x[0], [The End of Response ", "]", "<response_"])
    ('<query', '[The End of Response *', '<response_*')
    """
    found: list[str] = []
    for literal in literals:
        for match in re.finditer(r"</?[A-Za-z][\w-]*|\[/?[A-Za-z][^\[\]\n]*", literal):
            opening = match[0].replace("/", "", 1) if match[0][1] == "/" else match[0]
            found.append(opening + "*" if match.end() == len(literal) else opening)
    return tuple(dict.fromkeys(found))


def _spellings(name: str) -> str:
    """Match a name whatever separates its words; an open-ended one up to what follows it."""
    words = re.split(rf"[{_BLANK}_-]+", name.rstrip("*").rstrip(" _-"))
    end = rf"[\d{_BLANK}{_DASH}][\w-]*+" if name.endswith("*") else r"(?![\w-])"
    return rf"[{_BLANK}{_DASH}]*+".join(map(_letters, words)) + end


def _letters(word: str) -> str:
    """Match a word in ordinary or full-width letters, with invisible signs between them."""
    widths = (
        f"[{c}{chr(ord(c) + 0xFEE0)}]" if c.isascii() and c.isalnum() else re.escape(c)
        for c in word
    )
    return rf"[{_INVISIBLE}]*+".join(widths)
