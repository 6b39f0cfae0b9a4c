"""Writes the example files. Every sentence here is our own; run it again after a change and commit what it writes.

The texts are put together from parts by a fixed random source, so that the files come out the same each time. Nothing is
downloaded and nothing is quoted; the persons, firms and places are made up.
"""

# ruff: noqa: D103, ISC004  # names and lists of short texts, not an interface

import base64
import json
import random
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
Request = dict[str, Any]

MODERATION_SYSTEM = """You review comments that readers leave under articles of a regional newspaper's site.

Rules of the house:
1. Disagreement, sarcasm, bad spelling and strong words about ideas, firms or offices are allowed.
2. Insults aimed at a person or a group of people are removed; a borderline case goes to review.
3. Threats, calls to violence, and the home address or phone number of a private person are removed.
4. Advertising, chain messages and links that have nothing to do with the article are removed as spam.
5. Medical, legal or money advice that could hurt somebody who follows it goes to review.
6. A reader who seems to be in danger, or to be a child, always goes to review, however polite the words are.
7. Quoting an offence in order to object to it is not an offence. Read to the end before you judge.
8. Comments in other languages follow the same rules; say which language it is in the reason.

Weigh the comment by itself. Do not guess what the writer looks like or believes. If two rules apply, name the graver one.
Severity runs from 0 (harmless) to 3 (grave). Answer with JSON only, in this form:
{"label": "allow|review|remove", "rule": "none|insult|threat|private|spam|advice|welfare", "severity": 3, "reason": "one sentence"}"""

TOPICS = {
    "the new bus timetable": ("the 14 now stops at the hospital", "there is no bus back after nine"),
    "the swimming pool's closure": ("my kids learned to swim there", "the roof has leaked since spring"),
    "the council's parking fees": ("four euros an hour is steep", "the side streets are full now"),
    "the bakery on Mill Lane": ("their rye bread is worth the queue", "they stopped taking cash"),
    "the school's phone ban": ("my daughter reads at lunch again", "teachers should not be the police"),
    "the wind farm on the ridge": ("you can hear it with the window open", "it pays for the kindergarten"),
    "the dog park's opening": ("the fence is too low for my setter", "finally a tap with water"),
    "the theatre's summer play": ("the second act drags", "the lead saved the evening"),
    "the bridge repairs": ("eighteen months for one bridge", "the detour ruins my shop"),
    "the library's Sunday hours": ("the reading room was full by ten", "who pays the staff for it"),
}
COMMENTS = {
    "plain": [
        "About {topic}: {first}, and I am glad somebody finally wrote about it.",
        "I read this twice. {second}, that is the part nobody mentions when they talk about {topic}.",
        "Sorry but no. {second}. Otherwise a fair article on {topic}.",
        "We moved here because of things like {topic}. Please keep reporting, {first}!!",
        "does anyone know whom to write to about {topic}? {second} and the hotline just rings",
    ],
    "heated": [
        "What a ridiculous plan. {second}, and the people who voted for {topic} will not lose one minute of sleep.",
        "This paper has become a joke. One side on {topic}, as always, although {first}.",
        "Only a clown could write this about {topic}. {first}, you clown, ask anybody who lives here.",
        "I am so tired of the same six complainers under every article on {topic}. Get a hobby, all of you.",
    ],
    "insult": [
        "The woman who runs {topic} is as thick as a plank and everybody on her street knows it.",
        "People from across the river ruin everything, now {topic} as well. They should be kept on their side.",
        "He called me 'a useless cow' in the meeting about {topic}. Can we please stop talking to each other like that?",
    ],
    "threat": [
        "If they touch {topic} again I know where the mayor parks, and his tyres will not be the end of it.",
        "Somebody ought to burn the office down, then we would get an answer on {topic}. Just saying.",
    ],
    "private": [
        "The one behind {topic} is our neighbour at 12 Sample Row, ring the bell after six, he is always in.",
        "Call her yourselves about {topic}: 555 0147, ask for the manager's mother, she gossips.",
    ],
    "spam": [
        "Great read on {topic}! I earn 4,800 a week from my sofa, ask me how >> easy-tide-income.example",
        "Forward this to nine friends before midnight or {topic} will bring you bad luck. My cousin did not and lost a tooth.",
        "Roof tiles, gutters, solar. Free quotes for everyone who cares about {topic}. roofs.example/offer7",
    ],
    "advice": [
        "With a cough like that after {topic}, just double the dose of what you have at home. Worked for my uncle.",
        "Do not pay the fine about {topic}. Ignore three letters, then the court has to drop it, that is the law.",
    ],
    "welfare": [
        "I used to go for {topic}. Since then I mostly sit in the dark. I doubt anyone would notice if I were gone.",
        "im in year 5 and i walk past {topic} alone every day at six, mum works late, a man there says hello a lot",
    ],
    "other-language": [
        "Zu {topic}: endlich sagt es jemand. Aber wer bezahlt das am Ende?",
        "À propos de {topic} : bravo pour l'article, mais il manque l'avis des riverains.",
        "Sobre {topic}: me parece bien, aunque el ruido por la noche es insoportable.",
    ],
}

TOOL = {
    "name": "store_record",
    "description": "Stores what a short text says, as one record.",
    "input_schema": {
        "type": "object",
        "properties": {
            "kind": {"type": "string", "enum": ["invoice", "event", "job", "recipe"]},
            "title": {"type": "string", "maxLength": 120},
            "organisation": {"type": ["string", "null"]},
            "date": {"type": ["string", "null"], "format": "date"},
            "amount": {"type": ["number", "null"], "minimum": 0, "description": "Total, pay or price"},
            "currency": {"type": "string", "enum": ["EUR", "USD", "GBP", "CHF", "none"]},
            "items": {
                "type": "array",
                "maxItems": 12,
                "items": {
                    "type": "object",
                    "properties": {"name": {"type": "string"}, "quantity": {"type": "number", "minimum": 0}},
                    "required": ["name", "quantity"],
                },
            },
            "contact": {"type": ["string", "null"]},
        },
        "required": ["kind", "title", "date", "amount", "currency", "items"],
    },
    "cache_control": {"type": "ephemeral"},
}
EXTRACTION_SYSTEM = (
    "Read the text and store what it says with the tool. Take dates and amounts from the text alone; what it does not "
    "say is null, 'none' or an empty list. Never add up numbers that the text does not add up itself."
)
FIRMS = ["Haldane Paper Mill", "Orchard & Daughters", "Brightwater Cycles", "Kettle Row Catering", "Penrose Timber",
         "Lindqvist Optics", "Three Geese Farm", "Municipal Works Ost", "Studio Almanac", "Fenwick Piano Service"]  # fmt: skip
GOODS = ["reams of ledger paper", "brake cables", "lunch boxes", "oak planks", "lens cloths", "crates of pears",
         "hours of tuning", "street lamps", "sketchbooks", "inner tubes", "felt hammers", "folding chairs"]  # fmt: skip
MONTHS = ["January", "February", "March", "April", "May", "June", "July", "September", "October", "November"]
EVENTS = ["Lantern walk", "Repair café", "Choir rehearsal, open to all", "Talk on tidal mills", "Chess for beginners",
          "Seed swap", "Night of short films", "Harbour clean-up", "Bread oven day", "Reading of sea poems"]  # fmt: skip
PLACES = ["the old customs house", "Hall B of the market", "the boat shed", "room 4 of the library", "the green"]
JOBS = ["bicycle mechanic", "night baker", "gardener for public parks", "archive assistant", "piano tuner",
        "ferry steward", "bookkeeper", "stage carpenter", "school cook", "meter reader"]  # fmt: skip
DISHES = {
    "barley soup": ("pearl barley", "carrots", "leek"),
    "pear tart": ("pears", "butter", "flour"),
    "herring salad": ("herrings", "beetroot", "apples"),
    "lentil stew": ("brown lentils", "onions", "bay leaves"),
    "potato pancakes": ("potatoes", "eggs", "nutmeg"),
    "poppy rolls": ("poppy seed", "yeast", "milk"),
    "cabbage pie": ("white cabbage", "caraway", "dough"),
    "plum jam": ("plums", "sugar", "lemon"),
}

TALKS = [
    (
        "You help guests of a small harbour museum by chat. Be brief and kind; if you do not know, say whom to ask.",
        ["When do you open on {day}?", "And is there a way in without steps?", "We are {n} people, do we need to book?",
         "One of us is deaf. Is there a tour in sign language?"],
        ["On {day} from ten to five, the last entry is at half past four.", "Yes: through the rope yard, the bell is at hip height.",
         "From ten people on, please: we open a second desk for you."],
    ),
    (
        "You tutor pupils in arithmetic. Never give the result at once: ask for the next step, praise what is right.",
        ["I must split {n} marbles among 7 children.", "Is it {n} divided by 7?", "I get something with a rest.",
         "So what do I do with the marbles that are left?"],
        ["Good start. Which operation shares things out equally?", "Right! What is the largest multiple of 7 you can take out?",
         "A remainder is fine. How large may it be at most?"],
    ),
    (
        "You answer for a bicycle workshop. Ask for what you need to quote a price; never promise a day without stock.",
        ["My gears slip since {day}.", "A city bike, {n} gears, about six years old.", "How much would that be, roughly?",
         "Can I wait while you do it?"],
        ["Annoying! What bike is it, and how many gears has it?", "Thank you. Chain and cassette wear together at that age.",
         "Between 40 and 90, depending on the cassette. We look first, for free."],
    ),
    (
        "You are a patient editor. Suggest one improvement at a time and show the sentence before and after.",
        ["My letter begins: 'I am writing you because of the matter of {day}.'", "Better. Next: 'There was {n} of us who has waited.'",
         "And the end: 'Hoping for answer soon.'", "Please show me the whole letter now."],
        ["Name the matter at once: 'I am writing about the delayed ferry of {day}.'", "'{n} of us waited': the verb stands with the people.",
         "'I look forward to your answer.' A full sentence closes politely."],
    ),
    (
        "You plan meals for a crew of a sailing ship. Mind allergies, the size of the galley and what keeps for days.",
        ["We are {n} on board from {day} on, for three days.", "One cannot eat nuts, one no gluten.", "The second day will be rough.",
         "Write me the list for the shop, please."],
        ["Noted. Does anybody have allergies, and is there an oven?", "Then oats go; rice, potatoes and eggs carry us far.",
         "For rough weather: soup in flasks and cold potatoes, no knives needed."],
    ),
]  # fmt: skip
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"]


def moderation() -> Iterator[Request]:
    source = random.Random(1)
    system = [{"type": "text", "text": MODERATION_SYSTEM, "cache_control": {"type": "ephemeral", "ttl": "1h"}}]
    for kind, templates in COMMENTS.items():
        for number, template in enumerate(templates):
            for topic, (first, second) in source.sample(list(TOPICS.items()), 10 if kind in ("plain", "heated") else 6):
                text = template.format(topic=topic, first=first, second=second)
                messages = [{"role": "user", "content": f"Comment:\n<comment>{text}</comment>"}]
                yield request(
                    f"moderation-{kind}-{number}-{TOPIC_NUMBERS[topic]}",
                    {"model": "claude-haiku-4-5", "max_tokens": 200, "system": system, "messages": messages},
                )


TOPIC_NUMBERS = {topic: number for number, topic in enumerate(TOPICS)}


def extraction() -> Iterator[Request]:
    source = random.Random(2)
    seen: set[str] = set()
    for number in range(112):
        kind = ("invoice", "event", "job", "recipe")[number % 4]
        write = {"invoice": invoice, "event": event, "job": job, "recipe": recipe}[kind]
        while (text := write(source)) in seen:
            continue
        seen.add(text)
        yield request(
            f"extraction-{kind}-{number:03}",
            {
                "model": "claude-sonnet-5",
                "max_tokens": 500,
                "system": EXTRACTION_SYSTEM,
                "tools": [TOOL],
                "tool_choice": {"type": "tool", "name": "store_record"},
                "messages": [{"role": "user", "content": text}],
            },
        )


def invoice(source: random.Random) -> str:
    firm, (one, other) = source.choice(FIRMS), source.sample(GOODS, 2)
    amount, day, month = source.randrange(2_000, 90_000) / 100, source.randint(1, 28), source.choice(MONTHS)
    return source.choice([
        f"{firm}\nInvoice {source.randint(100, 9999)} of {day} {month} 2026\n{source.randint(2, 40)} {one}\n"
        f"{source.randint(1, 9)} {other}\nTotal due within 14 days: EUR {amount:.2f}",
        f"Dear customer, for the {source.randint(2, 40)} {one} delivered on {day} {month} we ask you kindly for "
        f"CHF {amount:.2f}. The {other} follow next week and are billed then. Yours, {firm}",
        f"REMINDER (second!) - {firm} - open amount GBP {amount:.2f} since {day} {month} - {source.randint(2, 12)} x {one} - "
        "if you have paid in the meantime please ignore this note",
    ])  # fmt: skip


def event(source: random.Random) -> str:
    name, place, day, month = source.choice(EVENTS), source.choice(PLACES), source.randint(1, 28), source.choice(MONTHS)
    return source.choice([
        f"{name}, {day} {month} 2026, {source.randint(5, 8)} pm at {place}. Free entry, bring a cup.",
        f"Moved! The {name.lower()} announced for the {day}th is now on {min(28, day + 7)} {month}, same time, {place}. "
        f"Tickets at {source.randint(3, 18)} EUR stay valid. Questions: evenings@harbour.example",
        f"We need {source.randint(3, 12)} helpers and {source.randint(2, 9)} {source.choice(GOODS)} for the {name.lower()} "
        f"({day} {month}, {place}). Soup for everybody afterwards.",
    ])  # fmt: skip


def job(source: random.Random) -> str:
    name, firm, pay = source.choice(JOBS), source.choice(FIRMS), source.randint(14, 39)
    return source.choice([
        f"{firm} seeks a {name}, {source.randint(16, 40)} hours a week, from {source.choice(MONTHS)}. {pay} EUR an hour. "
        "Write two paragraphs about yourself to work@firm.example, no photograph please.",
        f"Wanted at once: {name} (any age). You bring good hands, we bring patience and {pay * 160} a month. {firm}, "
        f"ask for the yard office. Start on {source.randint(1, 28)} {source.choice(MONTHS)} 2026.",
        f"Are you a {name} who likes early mornings? Four days, thirty days of leave, a bicycle. {firm}. Pay is by agreement.",
    ])  # fmt: skip


def recipe(source: random.Random) -> str:
    dish, parts = source.choice(list(DISHES.items()))
    first, second, third = source.sample(parts, 3)
    amounts = [source.randint(1, 9) * 50 for _ in range(2)]
    return source.choice([
        f"My aunt's {dish}: {amounts[0]} g of {first}, {amounts[1]} g of {second}, some {third}. "
        f"Slowly, {source.randint(20, 90)} minutes, lid half open. Serves {source.randint(2, 8)}.",
        f"{dish.capitalize()} for {source.randint(10, 60)} people (fair of {source.choice(MONTHS)}): {amounts[0] // 10} kg {first}, "
        f"{amounts[1] // 10} kg {second}, {third} to taste. Costs came to about {amounts[0] // 5} EUR.",
        f"Forgot half of it, but {dish} begins with {first} and ends with {third}; in between, {amounts[1]} g of {second}. Good luck.",
    ])  # fmt: skip


def conversations() -> Iterator[Request]:
    source = random.Random(3)
    seen: list[list[Request]] = []
    for number in range(40):
        system, asks, answers = TALKS[number % len(TALKS)]
        turns = 1 + number // 5 % 3
        while (messages := talk(asks[: turns + 1], answers[:turns], source)) in seen:
            continue
        seen.append(messages)
        model = ("claude-haiku-4-5", "claude-sonnet-5", "claude-opus-5")[number % 3]
        params = {"model": model, "max_tokens": 300, "system": system, "messages": messages}
        yield request(f"conversation-{number:02}", params)


def talk(asks: list[str], answers: list[str], source: random.Random) -> list[Request]:
    words = {"day": source.choice(DAYS), "n": source.randint(9, 58)}
    texts = [text for pair in zip(asks, [*answers, ""], strict=True) for text in pair][:-1]
    roles = ("user", "assistant")
    return [{"role": roles[place % 2], "content": text.format(**words)} for place, text in enumerate(texts)]


def images() -> Iterator[Request]:
    """Small pictures that this script draws: a gauge of the tide, a flag, a bar chart, and so on."""
    questions = {
        "describe": "Describe this picture for somebody who cannot see it, in two sentences.",
        "classify": 'What is it? Answer with JSON only: {"kind": "gauge|flag|chart|map|noise", "colours": 4, "sure": 1.0}',
        "count": "How many separate coloured areas do you see? Say how you counted.",
    }
    for number, (name, picture) in enumerate(PICTURES.items()):
        source = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(png(picture)).decode()}
        for task, question in questions.items():
            content = [{"type": "image", "source": source}, {"type": "text", "text": question}]
            params = {"model": "claude-sonnet-5", "max_tokens": 250, "messages": [{"role": "user", "content": content}]}
            yield request(f"image-{number}-{name}-{task}", params)


SIDE = 96
PALETTE = [(18, 52, 86), (240, 244, 248), (214, 69, 65), (244, 179, 80), (38, 166, 91), (155, 89, 182)]


def _gauge(x: int, y: int) -> int:
    return 0 if 40 <= x < 56 and y > 30 else 2 if 36 <= x < 60 and y % 12 == 0 else 1


def _flag(x: int, y: int) -> int:
    return 2 if abs(x - 36) < 8 or abs(y - 48) < 8 else 1


def _chart(x: int, y: int) -> int:
    return 2 + x // 16 % 4 if y > 90 - (x // 16 * 37 + 20) % 80 and x % 16 < 12 else 1


def _shore(x: int, y: int) -> int:
    return 0 if y > 40 + (x * x // 97) % 23 else 3 if y > 34 else 4


def _checks(x: int, y: int) -> int:
    return (x // 12 + y // 12) % 2


def _buoys(x: int, y: int) -> int:
    near = min((x - cx) ** 2 + (y - cy) ** 2 for cx, cy in ((24, 30), (66, 28), (48, 70)))
    return 2 if near < 90 else 1 if near < 140 else 0


PICTURES = {"gauge": _gauge, "flag": _flag, "chart": _chart, "shore": _shore, "checks": _checks, "buoys": _buoys}


def png(picture: Any) -> bytes:
    """Return a small PNG with a palette: the signature, header, palette, one data chunk and the end."""
    rows = b"".join(b"\0" + bytes(picture(x, y) for x in range(SIDE)) for y in range(SIDE))
    parts = {
        b"IHDR": struct.pack(">IIBBBBB", SIDE, SIDE, 8, 3, 0, 0, 0),
        b"PLTE": b"".join(bytes(colour) for colour in PALETTE),
        b"IDAT": zlib.compress(rows, 9),
        b"IEND": b"",
    }
    chunks = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts.items()
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def request(custom_id: str, params: Request) -> Request:
    return {"custom_id": custom_id, "params": params}


def main() -> None:
    for make in (moderation, extraction, conversations, images):
        lines = [json.dumps(made, ensure_ascii=False, separators=(",", ":")) + "\n" for made in make()]
        path = HERE / f"{make.__name__}.jsonl"
        path.write_text("".join(lines), encoding="utf-8")
        print(f"{path.name}: {len(lines)} requests, {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
