"""Keep the control tokens of a tokenizer out of the texts that go into a chat template.

A chat template pastes texts between control tokens, and the tokenizer then reads whatever spells
one as one. The prompt renderer neutralises what usual tokenizers know; this does the rest for the
tokenizer at hand, exactly.
"""

import re
from collections.abc import Callable, Iterable
from typing import Any


def control_tokens(tokenizer: Any) -> frozenset[str]:
    """Return what a text must not spell: special tokens, and others that the template writes.

    Some tokenizers do not mark their role tokens as special, so the template decides. Added tokens
    that are ordinary text, such as blank lines or HTML tags, are none of them.
    """
    template = tokenizer.get_chat_template()
    added = tokenizer.added_tokens_decoder.values()
    tokens = {token.content for token in added if token.special or token.content in template}
    return frozenset(tokens | set(tokenizer.all_special_tokens))


def token_breaker(tokens: Iterable[str]) -> Callable[[str], str]:
    """Return a function that puts a space after the first character of each of the tokens.

    Single characters and blanks cannot be broken and are left alone.

    >>> token_breaker(["</s>", "<|end|>"])("a </s> b<|end|><|end")
    'a < /s> b< |end|><|end'
    """
    breakable = sorted(token for token in tokens if len(token.strip()) > 1)
    if not breakable:
        return str
    # Looking ahead instead of matching finds tokens that overlap.
    start = re.compile(rf"(?=(?:{'|'.join(map(re.escape, breakable))}))(.)", re.DOTALL)
    return lambda text: start.sub(r"\1 ", text)
