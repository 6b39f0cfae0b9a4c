"""The text of a key: its shape, its checksum, and that it shows itself to nobody."""

import pickle
import random
import re
import zlib

import pytest

from lowtide.domain.keys import Secret, allows, digest_of, new_key, parse_key

SHAPE = re.compile(r"lt_[0-9A-Za-z]{43}_[0-9A-Za-z]{6}")


def test_a_key_has_its_shape_and_is_read_again() -> None:
    for _ in range(200):
        text = new_key().reveal()
        assert SHAPE.fullmatch(text)
        found = parse_key(text)
        assert found is not None
        assert (found.reveal(), found.digest) == (text, digest_of(text))


def test_keys_differ_in_every_place() -> None:
    texts = [new_key().reveal() for _ in range(400)]
    assert len(set(texts)) == len(texts)
    assert all(len({text[place] for text in texts}) > 1 for place in range(4, 46))


def test_a_mistyped_key_is_told_without_a_look_at_the_database() -> None:
    pick = random.Random(1)
    alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    for _ in range(300):
        text = new_key().reveal()
        place = pick.randrange(3, len(text))
        wrong = pick.choice([letter for letter in alphabet if letter != text[place]])
        assert parse_key(text[:place] + wrong + text[place + 1 :]) is None
        swapped = text[:10] + text[11] + text[10] + text[12:]
        assert swapped == text or parse_key(swapped) is None


@pytest.mark.parametrize("text", ["", "any", "sk-ant-api03-x", "lt_", "lt_" + "0" * 43 + "_000000", "é" * 53])
def test_what_is_no_key_is_told(text: str) -> None:
    assert parse_key(text) is None


def test_a_cut_key_a_longer_one_and_one_with_white_space_are_told() -> None:
    text = new_key().reveal()
    for wrong in (text[:-1], text + "0", f" {text}", f"{text}\n", text.lower(), text.replace("_", "-")):
        assert parse_key(wrong) is None


def test_the_tail_is_the_crc32_of_what_stands_before_it() -> None:
    text = new_key().reveal()
    body, _, tail = text.rpartition("_")
    number = 0
    for letter in tail:
        number = number * 62 + "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz".index(letter)
    assert number == zlib.crc32(body.encode())


def test_a_key_prints_nothing_of_itself() -> None:
    secret = Secret("lt_canary")
    for shown in (repr(secret), str(secret), f"{secret}", f"{secret!r:>40}", str([secret]), repr({"key": secret})):
        assert "canary" not in shown
    with pytest.raises(TypeError):
        vars(secret)
    assert not hasattr(secret, "__dict__")
    assert b"canary" not in pickle.dumps(repr(secret))


@pytest.mark.parametrize(
    ("patterns", "model", "may"),
    [
        ((), "anything", True),
        (("claude-*",), "claude-opus-9", True),
        (("claude-*",), "Claude-opus-9", False),
        (("claude-*",), "qwen3-8b", False),
        (("a", "b?"), "bc", True),
        (("a",), "a\n", False),
    ],
)
def test_patterns_let_models_through(patterns: tuple[str, ...], model: str, *, may: bool) -> None:
    assert allows(patterns, model) is may
