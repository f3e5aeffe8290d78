"""Small data sets in the exact schemas of the hub, of our own text; see `rewrite_hub_fixture.py`.

Everything withheld from models is filled with `SECRET`, so that one search finds any leak. Traps
stand in known places: conversations and choices that cross the within-user split, equal and
reversed scores, equal and missing texts, missing survey and conversation rows, both role names,
responses as message and as list of one.
"""

from collections.abc import Iterator
from typing import Any

SECRET = "WITHHELD-7421"

JUDGES = (
    "gemini/gemini-1.5-pro",
    "azure/gpt-4o-mini-240718",
    "meta-llama/Llama-3.3-70B-Instruct",
    "meta-llama/Llama-3.1-70B-Instruct",
    "Qwen/Qwen2.5-72B-Instruct",
)
TYPES = ("unguided", "values guided", "controversy guided")
QUERIES = (
    "How do I keep basil alive on a north-facing sill?",
    "Is it rude to leave a party early?",
    "What should I cook for six people with one pot?",
    "Why do some birds sing at night?",
    "How can I ask my landlord for a new window?",
    "Should towns close their centres to cars?",
    "What is a good first instrument for an adult?",
    "How do I tell my sister that I cannot lend her money?",
)
SHORT = "In short: {}. Start small and see how it goes."
LONG = (
    "There are several things to weigh here.\n\n- First, {}.\n- Second, mind what it costs you.\n"
    "- Third, give it two weeks before you decide.\n\nIf that fails, ask somebody who knows it."
)
ADVICE = ("move it closer to the light", "say what you need", "plan one step ahead", "wait a week")


def pair_rows(dataset: str, as_list: bool, assistant: str) -> dict[str, list[dict[str, Any]]]:
    """Hub split -> rows of a PersonalRewardBench set, 37 columns each.

    Args:
        dataset: `prism` or `chatbot_arena`.
        as_list: write responses as lists of one message, as older versions do.
        assistant: what the assistant's role is called.
    """
    people = {"train": (1, 2, 3), "validation": (4, 5), "test": (6, 7, 8)}
    return {
        split: [
            row
            for number in numbers
            for row in _of_user(dataset, f"user{number}", number, as_list, assistant)
        ]
        for split, numbers in people.items()
    }


def _of_user(
    dataset: str, user_id: str, number: int, as_list: bool, assistant: str
) -> Iterator[dict[str, Any]]:
    """Yield six conversations: three to learn from, one of `val`, two of `test`; one of each kind
    has a second turn."""
    likes_short = number % 2 == 0
    for i, part in enumerate(("train", "train", "train", "val", "test", "test")):
        query = QUERIES[(number + i) % len(QUERIES)]
        good, bad = (t.format(f"{ADVICE[(number + i) % 4]}, {user_id}") for t in (SHORT, LONG))
        if not likes_short:
            good, bad = bad, good
        conversation_id = f"c{number}{i}"
        context = [{"content": query, "role": "user"}]
        yield _row(dataset, user_id, conversation_id, context, good, bad, part, as_list, assistant)
        if i in (1, 3, 5):
            context = [
                *context,
                {"content": good, "role": assistant},
                {"content": "And if that is not enough?", "role": "user"},
            ]
            args = (f"Then: {good}", f"Then: {bad}", part, as_list, assistant)
            yield _row(dataset, user_id, conversation_id, context, *args)


def _row(
    dataset: str,
    user_id: str,
    conversation_id: str,
    context: list[dict[str, str]],
    good: str,
    bad: str,
    part: str,
    as_list: bool,
    assistant: str,
) -> dict[str, Any]:
    chosen: Any = {"content": good, "role": assistant}
    rejected: Any = {"content": bad, "role": assistant}
    row: dict[str, Any] = {
        "conversation_id": conversation_id,
        "user_id": user_id,
        "context": context,
        "chosen": [chosen] if as_list else chosen,
        "rejected": [rejected] if as_list else rejected,
        "chosen_score": 81,
        "rejected_score": 34,
        "turns": (len(context) + 1) // 2,
        "type": TYPES[int(conversation_id[1:]) % 3] if dataset == "prism" else dataset,
        "dataset": dataset,
        "split": part,
        "flip": len(good) % 2 == 0,
        "personalizable_query": True,
        "query_reasoning": SECRET,
        "personalizable_responses": True,
        "response_reasoning": SECRET,
        "agreement": 0.6 if part == "test" else 0.8,
    }
    for judge in JUDGES:
        for way in ("", "flip_"):
            row[f"prediction_{way}{judge}"] = SECRET
            row[f"reasoning_{way}{judge}"] = SECRET
    return row


def arena() -> dict[str, list[dict[str, Any]]]:
    """Responses are lists of one message; the assistant is called assistant."""
    return pair_rows("chatbot_arena", as_list=True, assistant="assistant")


def prism() -> dict[str, list[dict[str, Any]]]:
    """Responses are messages, the model is called model; here stand the traps."""
    splits = pair_rows("prism", as_list=False, assistant="model")
    train, test = splits["train"], splits["test"]
    first = test[0]  # user6 learns from c60; a later turn of it stands in his test rows
    late = [*first["context"], first["chosen"], {"content": "Anything else?", "role": "user"}]
    test.append(
        first
        | {"context": late, "chosen": _said("Only patience."), "turns": 2, "split": "test"}
        | {"rejected": _said("No, that is all that can be said about it.")}
    )
    again = next(r for r in test if r["user_id"] == "user7" and r["split"] == "test")
    test.append(again | {"conversation_id": "c79", "split": "train"})  # the choice itself, to learn
    train[0] |= {"chosen_score": 50, "rejected_score": 50}
    train[1] |= {"chosen_score": 20, "rejected_score": 70}
    train[2] |= {"rejected_score": None}
    train[3] |= {"rejected": train[3]["chosen"]}
    test[6] |= {"rejected": _said("EMPTY STRING")}
    test[7] |= {"rejected": test[7]["chosen"]}
    return splits


def _said(text: str) -> dict[str, str]:
    return {"content": text, "role": "model"}


def survey() -> list[dict[str, Any]]:
    """Everybody but user8 filled in the survey; user2 left the texts empty."""
    return [_survey_row(number) for number in (1, 2, 3, 4, 5, 6, 7, 99)]


def _survey_row(number: int) -> dict[str, Any]:
    is_silent = number == 2
    likes = "be brief" if number % 2 == 0 else "go into detail"
    rated = ("values", "creativity", "fluency", "factuality", "diversity", "safety")
    return {
        "user_id": f"user{number}",
        "survey_only": number == 99,
        "num_completed_conversations": 6,
        "consent": "Yes, I consent to take part",
        "consent_age": "Yes, I am 18 or older",
        "lm_familiarity": "Somewhat familiar",
        "lm_indirect_use": "Yes",
        "lm_direct_use": "Yes",
        "lm_frequency_use": "Once per month",
        "self_description": "EMPTY STRING"
        if is_silent
        else f"I run a small shop, number {number}.",
        "system_string": None if is_silent else f"You should {likes} and stay polite.",
        "age": "25-34 years old",
        "gender": "Female" if number % 2 else "Male",
        "employment_status": "Working full-time",
        "education": "Vocational",
        "marital_status": "Prefer not to say" if number == 3 else "Never been married",
        "english_proficiency": "Fluent",
        "study_id": "prolific",
        "study_locale": "uk",
        "timing_duration_s": 812.5,
        "timing_duration_mins": 13.5,
        "generated_datetime": "2023-11-28 10:12:00",
        "religion": {
            "self_described": SECRET,
            "categorised": "No affiliation",
            "simplified": "No affiliation",
        },
        "ethnicity": {"self_described": SECRET, "categorised": "White", "simplified": "White"},
        "location": {
            "birth_country": "United Kingdom",
            "birth_countryISO": "GBR",
            "birth_region": "Europe",
            "birth_subregion": "Northern Europe",
            "reside_country": "United Kingdom",
            "reside_countryISO": "GBR",
            "reside_region": "Europe",
            "reside_subregion": "Northern Europe",
            "same_birth_reside_country": "Yes",
            "special_region": "UK",
        },
        "lm_usecases": {"homework_assistance": 0, "games": 1, "other": 0, "other_text": None},
        "stated_prefs": {
            **dict.fromkeys(rated, None if is_silent else 40 + number),
            "personalisation": None if is_silent else 90,
            "helpfulness": None if is_silent else 88,
            "other": 70 if number == 1 else None,
            "other_text": "honest doubt" if number == 1 else None,
        },
        "order_lm_usecases": ["games", "homework_assistance", "other"],
        "order_stated_prefs": ["values", "creativity", "fluency"],
        "included_in_US_REP": False,
        "included_in_UK_REP": True,
        "included_in_balanced_subset": True,
    }


def conversations() -> list[dict[str, Any]]:
    """Every conversation but c11; choice attributes name their conversation by their values."""
    rows = prism()
    ids = dict.fromkeys(
        (r["conversation_id"], r["user_id"]) for found in rows.values() for r in found
    )
    return [_conversation_row(*key) for key in ids if key[0] != "c11"]


def _conversation_row(conversation_id: str, user_id: str) -> dict[str, Any]:
    number = int(conversation_id[1:])
    ratings = {
        "values": None,
        "creativity": number,
        "fluency": 100 - number,
        "factuality": 70,
        "diversity": None,
        "safety": 12,
        "helpfulness": 95,
    }
    return {
        "conversation_id": conversation_id,
        "user_id": user_id,
        "included_in_balanced_subset": True,
        "generated_datetime": "2023-12-01 09:00:00",
        "timing_duration_s": 305.0,
        "timing_duration_mins": 5.1,
        "conversation_type": TYPES[number % 3],
        "opening_prompt": QUERIES[number % len(QUERIES)],
        "conversation_turns": 1,
        "conversation_history": [
            {"turn": 0, "role": "user", "content": SECRET} | _model_fields(None),
            {"turn": 0, "role": "model", "content": SECRET} | _model_fields(81),
        ],
        "performance_attributes": ratings,
        "choice_attributes": ratings,
        "open_feedback": SECRET,
    }


def _model_fields(score: int | None) -> dict[str, Any]:
    is_user = score is None
    return {
        "model_provider": None if is_user else "maker",
        "model_name": None if is_user else "model-1",
        "score": score,
        "if_chosen": None if is_user else True,
        "within_turn_id": None if is_user else 0,
    }


def utterances() -> list[dict[str, Any]]:
    """One utterance; nothing reads this configuration."""
    return [
        {
            "utterance_id": "ut1",
            "interaction_id": "int1",
            "conversation_id": "c10",
            "user_id": "user1",
            "turn": 0,
            "within_turn_id": 0,
            "included_in_balanced_subset": True,
            "conversation_type": "unguided",
            "user_prompt": SECRET,
            "model_response": SECRET,
            "model_name": "model-1",
            "model_provider": "maker",
            "score": 81,
            "if_chosen": True,
        }
    ]


DOMAINS = (
    "Art_and_Entertainment",
    "Lifestyle_and_Personal_Development",
    "Society_and_Culture",
)
MODELS = tuple(f"policy-{letter}" for letter in "abcdef")


def lampqa(domain: int) -> dict[str, list[dict[str, Any]]]:
    """Hub split -> questions of a domain; the second asker of each split has no posts."""
    return {
        split: [_question(f"{domain}_{s}_{i}", n_posts=0 if i == 1 else 5) for i in range(3)]
        for s, split in enumerate(("train", "validation", "test"))
    }


def _question(id_: str, n_posts: int) -> dict[str, Any]:
    return {
        "id": id_,
        "question": f"{QUERIES[int(id_[-1])]} (question {id_})",
        "profile": [
            {
                "id": f"{id_}_{i}",
                "category": "gardening",
                "text": f"{QUERIES[i]} I have tried {ADVICE[i % 4]}, post {id_}_{i}.",
            }
            for i in range(n_posts)
        ],
        "rubric_aspects": [
            {"aspect": f"light {SECRET}", "reason": SECRET, "evidence": SECRET},
            {"aspect": f"cost {SECRET}", "reason": SECRET, "evidence": SECRET},
        ],
        "narrative": SECRET,
        "category": "gardening",
    }


def candidates() -> list[dict[str, Any]]:
    """Answers of six models to all test questions but the last; scores of three judges."""
    ids = [row["id"] for d in range(3) for row in lampqa(d)["test"]][:-1]
    return [
        {
            "id": id_,
            "model": model,
            "response": (SHORT if m % 2 else LONG).format(f"{ADVICE[m % 4]}, {id_}") + "!" * m,
            "scores": {judge: round(m / 5 + j / 10, 2) for j, judge in enumerate("xyz")},
        }
        for id_ in ids
        for m, model in enumerate(MODELS)
    ]


def reward_bench(domain: int) -> dict[str, list[dict[str, Any]]]:
    """One hub split, as a test set has."""
    return {
        "test": [
            row | {"chosen": SHORT.format(f"yes {i}"), "rejected": LONG.format(f"no {i}")}
            for i, row in enumerate(lampqa(domain)["test"])
        ]
    }
