"""The English words and phrases that `measure.py` counts, by kind.

A word list measures how a text sounds, not what it means: "I do not hedge" counts as no hedge and
"may" in "in May" as one. The lists are ours, written from everyday usage and kept short; phrases
stand without punctuation, as the tokeniser leaves them ("sorry, but" is "sorry but").
"""

from typing import Final

WORDS: Final[dict[str, str]] = {
    "hedge": """
        might may maybe perhaps possibly probably likely unlikely could seems seem seemed appears
        appear generally usually often sometimes somewhat roughly approximately arguably presumably
        potentially suggests suggest tends tend depends typically apparently supposedly unsure
        uncertain guess""",
    "certain": """
        definitely certainly clearly always never must obviously undoubtedly absolutely guaranteed
        guarantee exactly surely indeed precisely proven simply plainly unquestionably invariably
        undeniably totally completely""",
    "warm": """
        glad happy hope hopefully wonderful lovely congratulations congrats thank thanks welcome
        appreciate proud dear friend friends friendly kind kindly kindness gentle gently love hug
        hugs comfort comforting care caring cheer cheers enjoy warm warmly warmest understandable
        together support supportive sorry delighted heart hearts encourage courage patient brave
        rooting sweet smile""",
    "formal": """
        moreover furthermore therefore thus hence regarding concerning consequently additionally
        nevertheless nonetheless notwithstanding whereas whom shall utilize utilise utilizing
        facilitate commence sincerely regards respectively aforementioned herein thereby wherein
        pertaining subsequently accordingly demonstrate demonstrates ensure ensures ensuring
        individuals numerous significant significantly sufficient obtain obtained prior upon
        constitutes constitute endeavour endeavor advisable particularly notably recommended
        sir madam""",
    "informal": """
        gonna wanna gotta kinda sorta yeah yep yup nope hey hi ok okay cool stuff guys guy lol btw
        awesome tons super pretty basically folks dude bit lots totally huge crazy weird kid kids
        gosh wow oh nah ya alright fyi tbh thing things
        don't doesn't didn't can't won't isn't aren't wasn't weren't couldn't wouldn't shouldn't
        haven't hasn't hadn't ain't it's that's there's here's what's who's let's he's she's
        i'm i've i'll i'd you're you've you'll you'd we're we've we'll we'd they're they've they'll
        they'd y'all""",
    "example": """
        example examples instance imagine suppose picture illustrate illustrates illustration
        scenario analogy consider eg""",
    "number": """
        percent percentage two three four five six seven eight nine ten twelve fifteen twenty thirty
        forty fifty sixty ninety hundred hundreds thousand thousands million millions billion
        billions dozen dozens half twice quarter third""",
    "source": """
        study studies research researchers researcher source sources cited cites citation citations
        journal journals published survey surveys report reports reported evidence university
        professor wikipedia reference references http https www doi findings scientists encyclopedia
        handbook""",
    "humour": """
        haha hahaha lol lmao joke jokes joking kidding funny hilarious silly pun puns ridiculous
        giggle laugh laughs laughing wink spoiler spoilers oops whoops yay ta-da tada drumroll
        ninja wizard snazzy goofy""",
    "disclaimer": """
        disclaimer disclaimers consult consulting consultation cannot apologize apologise
        apologies unable caution cautious professional professionals qualified guarantees liable
        liability inappropriate unethical""",
    "you": """
        you your yours yourself yourselves you're you've you'll you'd y'all""",
    "ask": "",
}
"""Kind -> single words. A word may be of several kinds."""

PHRASES: Final[dict[str, tuple[str, ...]]] = {
    "hedge": (
        "it depends",
        "not sure",
        "i think",
        "i believe",
        "in my opinion",
        "hard to say",
        "as far as i know",
        "more or less",
        "in some cases",
    ),
    "certain": ("without a doubt", "no doubt", "of course", "for sure", "in fact", "rest assured"),
    "warm": (
        "happy to help",
        "here for you",
        "not alone",
        "great question",
        "good luck",
        "hang in there",
        "i understand",
        "i hear you",
        "that sounds",
        "best wishes",
        "you've got this",
    ),
    "formal": ("in order to", "with respect to", "in accordance with", "for the purpose of"),
    "informal": ("a lot", "no worries", "you know", "no big deal", "sort of", "kind of"),
    "example": ("such as", "e g", "let's say", "think of"),
    "source": ("according to", "et al", "as described in", "as documented"),
    "humour": ("just kidding", "no pun", "fun fact", "plot twist"),
    "disclaimer": (
        "as an ai",
        "language model",
        "i can't",
        "i'm not able",
        "i am not able",
        "not a substitute",
        "please note",
        "important to note",
        "medical advice",
        "legal advice",
        "financial advice",
        "your doctor",
        "sorry but",
        "at your own risk",
    ),
    "ask": ("let me know", "feel free", "would you like", "do you want", "shall i", "want me to"),
}
"""Kind -> phrases; every kind here is also a key of `WORDS`."""
