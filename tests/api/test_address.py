from ipaddress import ip_network

import pytest
from starlette.requests import Request

from lowtide.api.address import base_url, is_trusted

PROXIES = [ip_network("10.0.0.0/8"), ip_network("::1/128")]


def call(headers: dict[str, str], *, peer: str = "192.0.2.1", root_path: str = "") -> Request:
    return Request(
        {
            "type": "http",
            "method": "GET",
            "scheme": "http",
            "path": f"{root_path}/v1/messages/batches",
            "root_path": root_path,
            "query_string": b"",
            "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers.items()],
            "client": (peer, 40000),
            "server": ("127.0.0.1", 8787),
        }
    )


FORWARDED = {
    "host": "inner:8787",
    "x-forwarded-proto": "https",
    "x-forwarded-host": "batches.example",
    "x-forwarded-prefix": "/tide",
}


def test_a_public_url_wins_over_everything() -> None:
    request = call(FORWARDED, peer="10.1.2.3")
    assert base_url(request, "https://public.example/llm/", PROXIES) == "https://public.example/llm"


@pytest.mark.parametrize(
    "host", ["localhost:8787", "example.org", "127.0.0.1:1", "[::1]:8787", "a-b.example", "my_host", "example.org."]
)
def test_the_host_of_the_call_is_used(host: str) -> None:
    assert base_url(call({"host": host}), None, []) == f"http://{host}"


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example/path",
        "user@evil.example",
        "a b",
        'x"y',
        "x\\y",
        "{x}",
        "x?y",
        "x#y",
        "x:port",
        "x:123456",
        "..",
        "é.example",
        "a\nb",
        "x" * 300,
    ],
)
def test_a_host_that_is_none_never_reaches_a_url(host: str) -> None:
    assert base_url(call({"host": host}), None, []) == "http://127.0.0.1:8787"


def test_a_call_without_a_host_gets_the_address_it_arrived_at() -> None:
    assert base_url(call({}), None, []) == "http://127.0.0.1:8787"


def test_forwarded_headers_count_from_a_trusted_proxy() -> None:
    assert base_url(call(FORWARDED, peer="10.1.2.3"), None, PROXIES) == "https://batches.example/tide"


def test_forwarded_headers_count_from_nobody_else() -> None:
    assert base_url(call(FORWARDED), None, PROXIES) == "http://inner:8787"
    assert base_url(call(FORWARDED, peer="10.1.2.3"), None, []) == "http://inner:8787"


def test_of_several_forwarded_values_the_proxys_own_counts() -> None:
    headers = {**FORWARDED, "x-forwarded-host": "evil.example, batches.example"}
    assert base_url(call(headers, peer="10.1.2.3"), None, PROXIES) == "https://batches.example/tide"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("x-forwarded-proto", "javascript", "http://batches.example/tide"),
        ("x-forwarded-proto", "HTTPS", "https://batches.example/tide"),
        ("x-forwarded-host", "evil.example/x?", "https://127.0.0.1:8787/tide"),
        ("x-forwarded-prefix", "/../x", "https://batches.example"),
        ("x-forwarded-prefix", "/a b", "https://batches.example"),
        ("x-forwarded-prefix", "/", "https://batches.example"),
        ("x-forwarded-prefix", "/a/b/", "https://batches.example/a/b"),
    ],
)
def test_a_forwarded_value_that_is_none_never_reaches_a_url(name: str, value: str, expected: str) -> None:
    assert base_url(call({**FORWARDED, name: value}, peer="10.1.2.3"), None, PROXIES) == expected


def test_the_path_prefix_of_the_server_is_kept() -> None:
    assert base_url(call({"host": "h"}, root_path="/prefix"), None, []) == "http://h/prefix"


@pytest.mark.parametrize(
    ("peer", "trusted"), [("10.0.0.1", True), ("::1", True), ("11.0.0.1", False), ("unix", False), ("", False)]
)
def test_only_addresses_within_a_named_network_are_trusted(peer: str, trusted: bool) -> None:  # noqa: FBT001 a table of cases
    assert is_trusted(peer, PROXIES) is trusted
