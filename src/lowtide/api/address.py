"""The address under which a client knows us, for `results_url`.

`public_url` where the operator gave one, else the scheme, host and path prefix of the call. Forwarded headers count
only when the peer is a trusted proxy; each value is checked before it becomes part of a URL, since a wrong host breaks
every client and would send its key elsewhere.
"""

import re
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address

from starlette.requests import Request

Networks = Sequence[IPv4Network | IPv6Network]
_HOST = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]{0,252})|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_PREFIX = re.compile(r"(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+")
_SCHEMES = ("http", "https")


def base_url(request: Request, public_url: str | None, proxies: Networks) -> str:
    """Return the scheme, host and path prefix of our paths, as this client sees them."""
    if public_url:
        return public_url.rstrip("/")
    trusted = request.client is not None and is_trusted(request.client.host, proxies)
    scheme = (_forwarded(request, "x-forwarded-proto") if trusted else None) or request.url.scheme
    host = (_forwarded(request, "x-forwarded-host") if trusted else None) or request.headers.get("host", "")
    prefix = (_forwarded(request, "x-forwarded-prefix") if trusted else None) or request.scope.get("root_path", "")
    return f"{_scheme(scheme)}://{_host(host, request)}{_prefix(prefix)}"


def is_trusted(peer: str, proxies: Networks) -> bool:
    """Tell whether the forwarded headers of this peer count."""
    try:
        address = ip_address(peer)
    except ValueError:
        return False
    return any(address in network for network in proxies)


def _forwarded(request: Request, name: str) -> str | None:
    """Return the last value of a forwarded header: the one that the trusted peer itself wrote."""
    lines = request.headers.getlist(name)
    return lines[-1].rpartition(",")[2].strip() if lines else None


def _scheme(scheme: str) -> str:
    return scheme.lower() if scheme.lower() in _SCHEMES else _SCHEMES[0]


def _host(host: str, request: Request) -> str:
    """Return a host that is one, or the address on which the call arrived."""
    if _HOST.fullmatch(host):
        return host
    name, port = request.scope.get("server") or ("localhost", None)
    name = f"[{name}]" if ":" in name else name
    return name if port is None else f"{name}:{port}"


def _prefix(prefix: str) -> str:
    prefix = prefix.rstrip("/")
    return prefix if _PREFIX.fullmatch(prefix) else ""
