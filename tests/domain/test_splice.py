import json
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lowtide.domain.splice import NoSuchMember, NotAnObject, add_member, duplicate_member, replace_member, top_level

names = st.sampled_from(["model", "x", "a b", 'q"', "\u00e9", "\\", "model\n"]) | st.text(max_size=5)
scalars = st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(max_size=12) | st.just('"model": "x"')
values = st.recursive(
    scalars | st.just({"model": "inner"}),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=8,
)
spellings = st.sampled_from([{"separators": (",", ":")}, {}, {"indent": 2}, {"ensure_ascii": False}])


@given(st.dictionaries(names, values), scalars, st.integers(0, 5), spellings)
def test_replacing_changes_the_value_of_that_member_and_no_other_byte(
    others: dict[str, Any], value: Any, position: int, spelling: dict[str, Any]
) -> None:
    items = [(key, inner) for key, inner in others.items() if key != "model"]
    items.insert(position, ("model", value))
    text = json.dumps(dict(items), **spelling)
    spliced = replace_member(text.encode(), "model", b'"new"').decode()
    assert json.loads(spliced) == dict(items) | {"model": "new"}
    old = json.dumps(value, **{key: given for key, given in spelling.items() if key == "ensure_ascii"})
    assert len(spliced) == len(text) - len(old) + len('"new"')


@given(st.dictionaries(names, values), spellings)
def test_adding_puts_the_member_first_and_changes_no_other_byte(
    others: dict[str, Any], spelling: dict[str, Any]
) -> None:
    assume("priority" not in others)
    text = json.dumps(others, **spelling)
    added = add_member(text.encode(), "priority", b"10").decode()
    assert json.loads(added) == others | {"priority": 10}
    assert added.replace('"priority":10,', "", 1).replace('"priority":10', "", 1) == text


@given(st.lists(st.tuples(names, values), max_size=6), spellings)
def test_a_duplicate_is_found_exactly_when_there_is_one(items: list[tuple[str, Any]], spelling: dict[str, Any]) -> None:
    text = ",".join(f"{json.dumps(key, **spelling)}:{json.dumps(value, **spelling)}" for key, value in items)
    body = f"{{{text}}}".encode()
    keys = [key for key, _ in items]
    found = duplicate_member(body, top_level(body))
    assert (found is None) == (len(set(keys)) == len(keys))
    assert found is None or keys.count(found) > 1


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"])
def test_what_is_no_object_is_refused(text: bytes) -> None:
    for act in (top_level, lambda text: replace_member(text, "a", b"1"), lambda text: add_member(text, "a", b"1")):
        with pytest.raises(NotAnObject):
            act(text)


@pytest.mark.parametrize("text", [b"{}", b'{"model":[1]}', b'{"x":{"model":"y"}}', b'{"m\\u006fdel":"y"}'])
def test_a_member_that_cannot_be_replaced_is_said_so(text: bytes) -> None:
    with pytest.raises(NoSuchMember):
        replace_member(text, "model", b'"z"')


def test_a_member_is_found_whatever_its_neighbours_repeat_inside_themselves() -> None:
    inner = b'{"model":"a"},' * 100_000
    text = b'{"messages":[%b{}],"model" : "a" ,"x":"\\"model\\":"}' % inner
    expected = b'{"messages":[%b{}],"model" : "b" ,"x":"\\"model\\":"}' % inner
    assert replace_member(text, "model", b'"b"') == expected


def test_of_members_with_the_same_name_the_last_is_replaced() -> None:
    assert replace_member(b'{"m":1,"m":[2],"m": 3}', "m", b"4") == b'{"m":1,"m":[2],"m": 4}'
