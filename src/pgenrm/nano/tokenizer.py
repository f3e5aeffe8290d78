"""The bundled judge's tokenizer: whole phrases of the simulated world and of its own chains.

Every piece has the same score, so a text is cut into as few pieces as possible; bytes stand in
for what no piece covers. Nothing is trained: the vocabulary follows from the world's phrases, the
prompt templates and the form of the chain.
"""

import re
from collections.abc import Iterator
from itertools import product
from typing import TYPE_CHECKING, Final

from pgenrm.nano import steps
from pgenrm.nano.words import POLES, TASTE_NAMES
from pgenrm.prompts import Template
from pgenrm.sim.language import PHRASES, SCENES
from pgenrm.sim.tastes import DEMOGRAPHICS, DESCRIPTIONS, SCENARIOS, read_data
from pgenrm.types import Message, Preference, User

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD, USER, ASSISTANT, END = "<|pad|>", "<|user|>", "<|assistant|>", "<|end|>"
CHAT_TEMPLATE: Final = (
    "{% for m in messages %}"
    "{% if m.role == 'user' %}<|user|>{{ m.content }}"
    "{% elif m.role == 'assistant' %}<|assistant|>{{ m.content }}<|end|>"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
"""System messages are left out: the judge knows one task only, and knows it by heart."""
MAX_TASTE_SUM: Final = 24
MAX_CHOICES: Final = 6
MAX_RESPONSES: Final = 4
CONTEXT_TOKENS: Final = 1024
_HOLE: Final = "\ue000"


def build() -> "PreTrainedTokenizerFast":
    """Build the tokenizer, the same on every machine."""
    from tokenizers import AddedToken, Tokenizer, decoders
    from tokenizers.models import Unigram
    from transformers import PreTrainedTokenizerFast

    special = [PAD, USER, ASSISTANT, END]
    pieces = special + [f"<0x{byte:02X}>" for byte in range(256)]
    pieces += sorted(set(_pieces()) - set(pieces))
    # Bytes cost more: they are for what nothing else covers.
    scores = [-10.0] * len(pieces)
    tokenizer = Tokenizer(
        Unigram(list(zip(pieces, scores, strict=True)), unk_id=0, byte_fallback=True)
    )
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in special])
    wrapped: PreTrainedTokenizerFast = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        model_max_length=CONTEXT_TOKENS,
        clean_up_tokenization_spaces=False,
    )
    wrapped.chat_template = CHAT_TEMPLATE
    return wrapped


def _pieces() -> Iterator[str]:
    yield from map(chr, range(32, 127))
    yield "\n"
    yield from _of_texts()
    yield from _of_statements()
    yield from _of_prompts()
    yield from _of_chains()


def _of_texts() -> Iterator[str]:
    """Yield phrases of queries and responses, with and without a blank before them."""
    phrases: set[str] = set()
    for name in ("sentences", "headings", "openings", "prose"):
        for texts in PHRASES[name].values():
            for text in texts:
                phrases.update(re.split(r"\{\}|\d+", text))
    for mark in PHRASES["marks"]["list"]:
        phrases.update(mark.format(i) for i in range(1, 5))
        phrases.update(f".\n{mark.format(i)}" for i in range(1, 5))
    for scene in SCENES.values():
        for template in scene["templates"]:
            phrases.update(re.split(r"\{\w+\}", template))
        phrases.update(scene["contexts"])
        for topic, content in scene["topics"].items():
            phrases.update((topic, content["example"], *content["points"]))
    for phrase in phrases - {""}:
        yield from (phrase, phrase[:1].upper() + phrase[1:], f" {phrase}")


def _of_statements() -> Iterator[str]:
    """Yield what users say of themselves."""
    attributes = read_data("tastes.toml")["attributes"].values()
    for wish in (wish for words in attributes for both in words.values() for wish in both):
        if len(wish) > 1:
            yield from (wish, wish[:1].upper() + wish[1:])
    for template in read_data("tastes.toml")["criteria"]["templates"]:
        yield from filter(None, template.split("{}"))
    yield from (text for texts in DESCRIPTIONS for text in texts)
    for name, values in DEMOGRAPHICS.items():
        yield from (f"- {name}: {value}\n" for value in values)


def _of_prompts() -> Iterator[str]:
    """Yield what stands between the variable parts of the prompts."""
    hole = (Message(role="user", content=_HOLE),)
    pair = Preference(context=hole, chosen=_HOLE + "1", rejected=_HOLE + "2")
    users = [
        User(
            id="u",
            history=(pair,) * n_choices,
            criteria=(_HOLE,) * n_criteria,
            self_description=_HOLE if is_described else None,
            demographics={_HOLE: _HOLE} if has_demographics else {},
        )
        for n_choices in range(MAX_CHOICES + 1)
        for n_criteria, is_described, has_demographics in product(range(3), (0, 1), (0, 1))
    ]
    for name in ("chain_history", "chain_signals"):
        template = Template.load(name)
        for user, n in product(users, range(1, MAX_RESPONSES + 1)):
            messages = template.render(user, hole, (_HOLE,) * n)
            yield from re.split(f"{_HOLE}[12]?|- {_HOLE}: {_HOLE}\n", messages[-1].content)


def _of_chains() -> Iterator[str]:
    """Yield the constants, words and numbers of chains; JSON escapes its line breaks."""
    lines = ["Chosen:", "Rejected:", "Likes:", "Dislikes:", "States:", "Scenario:", "Most:"]
    lines += [f"Past choice {i}\nScenario:" for i in range(1, MAX_CHOICES + 1)]
    lines += [f"{head} {TASTE_NAMES[0]}" for head in ("Says:", "So far:", "Leans to:")]
    numbers = range(1, MAX_RESPONSES + 1)
    lines += [f"Response {i}:" for i in numbers] + [f"Sets response {i} apart:" for i in numbers]
    lines += ["Wants here:"]
    yield from (f"\n{line}" for line in lines)
    yield from (f"{steps.HEADING}\n{line}" for line in lines)
    yield from (f", {name}" for name in TASTE_NAMES)
    words = [word for poles in POLES for word in poles]
    yield from (f" {word}" for word in (*words, *TASTE_NAMES, *SCENARIOS, steps.NOTHING))
    yield from (f" {n:+d}" for n in range(-MAX_TASTE_SUM, MAX_TASTE_SUM + 1))
    yield from (f" {n}" for n in range(steps.MAX_CRITERIA * steps.MAX_STRENGTH + 1))
    yield from (" +", " -", " of")
    yield '\n\n<JSON_START>\n{"rationale": "A. Evaluation Criteria & Weights\\n1.'
    yield from (f"\\n{i}." for i in range(2, steps.MAX_CRITERIA + 1))
    yield from (f"\\n\\nB. Scoring Breakdown\\nResponse {i}\\n-" for i in numbers)
    yield from (f"\\nResponse {i}\\n-" for i in numbers)
    for percent in range(0, 101, steps.UNIT_PERCENT):
        yield from (f" ({percent}%)", f" {percent}%", f" {steps.total_of(percent):g}")
    for rating, answer in ((steps.MET, "yes"), (steps.UNMET, "no")):
        yield from (f": {rating}/10 - {answer},", f" {rating} x", f" + {rating} x")
    yield from (" met\\n-", " met\\nFinal score =", " =")
    yield '", "better_response": {"response_1":'
    yield from (f', "response_{i}":' for i in numbers)
    yield "}}\n<JSON_END>"
