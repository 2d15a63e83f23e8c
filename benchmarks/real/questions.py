"""Questions in plain English, written here: a fixed list, longer ones and shorter ones mixed."""

from __future__ import annotations

import random

_PLACES = """
France Italy Japan Egypt Kenya Peru Canada Norway India Brazil Spain Greece Turkey Poland Mexico
Chile Cuba Portugal Austria Ireland
""".split()
_WORDS = """
river mountain engine bridge candle mirror harbour ladder library orchard bakery compass garden
hammer blanket telescope lantern window market railway
""".split()
_SUBJECTS = (
    "how rain forms", "why the sky is blue", "how bread rises", "how a bicycle stays upright",
    "why leaves turn red in autumn", "how a vaccine works", "what makes the tides",
    "how a refrigerator cools", "why iron rusts", "how bees make honey", "what a black hole is",
    "how sound travels", "why we sleep", "how a battery stores energy", "what inflation means",
    "how a rainbow appears", "why ice floats", "how an aeroplane flies", "what a prime number is",
    "how plants drink water",
)  # fmt: skip
_PEOPLE = ("a child of eight", "a new colleague", "a farmer", "a tourist", "my grandmother")
_STORY = (
    "Anna and her brother walked to the old mill before breakfast. The door was locked, but a "
    "window on the north side stood open, and they heard water under the floor. Inside they found "
    "a wooden box with a brass key, three letters tied with a red ribbon, and a map of the valley. "
    "The map showed a second mill, further up the river, that nobody in the village had ever "
    "spoken of. They took the key, left the letters where they were, and ran home to ask their "
    "uncle, who had worked as a miller for forty years and remembered everything. "
)
COUNT = 200


def questions(count: int = COUNT) -> list[str]:
    """The first `count` of a list that never changes; ValueError above COUNT."""
    if count > COUNT:
        raise ValueError(f"asked for {count} questions, there are {COUNT}")
    draw = random.Random(20)
    found = [f"What is the capital of {place}?" for place in _PLACES]
    found += [f"Write two sentences about a {word}." for word in _WORDS]
    for subject in _SUBJECTS:
        found += [f"Explain {subject} to {someone}." for someone in draw.sample(_PEOPLE, 2)]
    for word in _WORDS:
        a, b = draw.sample(range(2, 60), 2)
        found.append(f"A {word} costs {a} coins. What do {b} of them cost? Think step by step.")
        found.append(f"List five things that one may find near a {word}, one per line.")
    for i in range(COUNT - len(found)):
        n = len(_PLACES)
        home, away = _PLACES[i % n], _PLACES[(i + i // n + 1) % n]
        # Of a few hundred tokens: more than one chunk of a small server.
        story = _STORY * draw.randrange(1, 5)
        found.append(
            f"{story}\nThe family moved from {home} to {away} later. Tell in three sentences what "
            "they found at the mill, and what they left there."
        )
    draw.shuffle(found)
    return found[:count]


def prompts(tokenizer: object, count: int = COUNT) -> list[list[int]]:
    """Token ids of the questions, each as the first message of a conversation."""
    return [chat_ids(tokenizer, question) for question in questions(count)]


def chat_ids(tokenizer: object, question: str) -> list[int]:
    """Token ids of one question with the model's own chat template."""
    template = getattr(tokenizer, "apply_chat_template")  # noqa: B009
    message = [{"role": "user", "content": question}]
    ids: list[int] = template(message, add_generation_prompt=True, return_dict=False)
    return ids
