"""libcurl's multi interface on an asyncio loop: many transfers at once, without threads and without a task each.

Owns the sockets' readiness and the timer. libcurl tells which sockets it watches; they stand in an epoll of our own, whose
one descriptor the loop watches. That makes it safe to leave an idle connection's socket in the epoll between two
requests (the kernel drops what libcurl closes, and no other user of the loop ever meets a stale watcher), which saves
a system call for each request. Never touches what a transfer carries.
"""

import asyncio
import contextlib
import select
from collections.abc import Callable
from typing import Final

import pycurl

Done = Callable[[pycurl.Curl, int, str], None]
"""Called with the handle, libcurl's error code (0 for success) and its text, once the handle has left the multi."""

_EVENTS_MAX: Final = 512
_ERRORS: Final = select.EPOLLERR | select.EPOLLHUP
_INTERESTS: Final = {
    pycurl.POLL_IN: select.EPOLLIN,
    pycurl.POLL_OUT: select.EPOLLOUT,
    pycurl.POLL_INOUT: select.EPOLLIN | select.EPOLLOUT,
}


class Multi:
    """The transfers of one upstream. Belongs to the loop in which it was made."""

    def __init__(self, done: Done, connections_max: int) -> None:
        self._done = done
        self.loop = asyncio.get_running_loop()
        self._epoll = select.epoll()
        self._interests: dict[int, int] = {}
        """What the epoll was last told to watch each socket for."""
        self._idle: set[int] = set()
        """Sockets that libcurl takes no interest in now, still in the epoll unless they were closed since."""
        self._running = 0
        self._kick_soon: asyncio.Handle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._on_socket)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._on_timer)
        self._multi.setopt(pycurl.M_MAXCONNECTS, connections_max)
        self.loop.add_reader(self._epoll.fileno(), self._on_events)

    def start(self, curl: pycurl.Curl) -> None:
        """Begin a transfer."""
        self._multi.add_handle(curl)
        self._running += 1

    def stop(self, curl: pycurl.Curl) -> None:
        """Give a transfer up; its connection is closed, and `done` is not called for it."""
        self._multi.remove_handle(curl)
        self._running -= 1

    def close(self) -> None:
        """Close every connection. No transfer may be under way."""
        self.loop.remove_reader(self._epoll.fileno())
        for handle in (self._timer, self._kick_soon):
            if handle is not None:
                handle.cancel()
        self._multi.close()
        self._epoll.close()

    def _on_socket(self, what: int, fd: int, _multi: pycurl.CurlMulti, _data: object) -> None:
        interest = _INTERESTS.get(what)
        if interest is None:
            self._idle.add(fd)
            return
        if fd not in self._idle and self._interests.get(fd) == interest:
            return
        # While idle the socket may have been closed and its number given to a new one: the epoll itself knows.
        try:
            self._epoll.modify(fd, interest)
        except FileNotFoundError:
            self._epoll.register(fd, interest)
        self._interests[fd] = interest
        self._idle.discard(fd)

    def _on_events(self) -> None:
        act = self._multi.socket_action
        for fd, events in self._epoll.poll(0, _EVENTS_MAX):
            if fd in self._idle:
                self._forget(fd)
                continue
            mask = (
                (pycurl.CSELECT_IN if events & select.EPOLLIN else 0)
                | (pycurl.CSELECT_OUT if events & select.EPOLLOUT else 0)
                | (pycurl.CSELECT_ERR if events & _ERRORS else 0)
            )
            _, running = act(fd, mask)
            if running < self._running:
                self._collect()

    def _forget(self, fd: int) -> None:
        """Stop watching an idle connection that its server closed: libcurl finds out when it would use it again."""
        self._interests.pop(fd, None)
        with contextlib.suppress(OSError):
            self._epoll.unregister(fd)

    def _on_timer(self, timeout_ms: int) -> None:
        if timeout_ms == 0:
            if self._kick_soon is None:
                self._kick_soon = self.loop.call_soon(self._kick)
        elif timeout_ms > 0:
            self._arm(timeout_ms / 1000)

    def _arm(self, delay_s: float) -> None:
        """Wake libcurl in `delay_s` at the latest. An earlier timer stays: waking too early does no harm."""
        when = self.loop.time() + delay_s
        if self._timer is not None:
            if self._timer.when() <= when:
                return
            self._timer.cancel()
        self._timer = self.loop.call_at(when, self._on_time)

    def _on_time(self) -> None:
        self._timer = None
        self._kick()
        if self._timer is None:
            remaining_ms = self._multi.timeout()
            if remaining_ms >= 0:
                self._arm(max(remaining_ms, 1) / 1000)

    def _kick(self) -> None:
        self._kick_soon = None
        _, running = self._multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)
        if running < self._running:
            self._collect()

    def _collect(self) -> None:
        """Take finished transfers out of the multi and say so."""
        queued = 1
        while queued:
            queued, succeeded, failed = self._multi.info_read()
            for curl in succeeded:
                self.stop(curl)
                self._done(curl, 0, "")
            for curl, code, text in failed:
                self.stop(curl)
                self._done(curl, code, text)
