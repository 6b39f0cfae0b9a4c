"""The peers that our dispatch is measured against: bare loops that send requests and store nothing.

`bare_pycurl` is the peer of goal P3: a plain loop over one CurlMulti, reused handles, no event loop, no checks.
"""

import time
from collections.abc import Iterator, Sequence

import pycurl


def bare_pycurl(url: str, bodies: Sequence[bytes], in_flight: int) -> float:
    """POST every body with `in_flight` handles and return the seconds it took."""
    multi = pycurl.CurlMulti()
    multi.setopt(pycurl.M_MAXCONNECTS, in_flight)
    waiting = iter(bodies)
    replies: dict[pycurl.Curl, list[bytes]] = {}
    done = 0
    started = time.perf_counter()
    for _ in range(in_flight):
        curl = _handle(url)
        replies[curl] = []
        curl.setopt(pycurl.WRITEFUNCTION, replies[curl].append)
        _next(multi, curl, waiting)
    while done < len(bodies):
        multi.perform()
        queued = 1
        finished: list[pycurl.Curl] = []
        while queued:
            queued, succeeded, failed = multi.info_read()
            if failed:
                raise RuntimeError(failed)
            finished += succeeded
        if not finished:
            multi.select(1.0)
        for curl in finished:
            if curl.getinfo(pycurl.RESPONSE_CODE) != 200:
                raise RuntimeError("the server did not answer 200")
            replies[curl].clear()
            multi.remove_handle(curl)
            _next(multi, curl, waiting)
        done += len(finished)
    elapsed_s = time.perf_counter() - started
    multi.close()
    return elapsed_s


def _handle(url: str) -> pycurl.Curl:
    curl = pycurl.Curl()
    curl.setopt(pycurl.URL, url)
    curl.setopt(pycurl.POST, 1)
    curl.setopt(pycurl.PROXY, "")
    curl.setopt(pycurl.NOSIGNAL, 1)
    curl.setopt(pycurl.HTTPHEADER, ["content-type: application/json", "expect:"])
    return curl


def _next(multi: pycurl.CurlMulti, curl: pycurl.Curl, waiting: Iterator[bytes]) -> None:
    body = next(waiting, None)
    if body is not None:
        curl.setopt(pycurl.POSTFIELDS, body)
        multi.add_handle(curl)
