"""libcurl's multi interface on an asyncio loop: many transfers at once, without threads and without a task each.

Owns the sockets' readiness and libcurl's timers; never touches what a transfer carries. Transfers run in lanes: a lane
is a multi of a few handles that is stepped as a whole whenever one of its sockets has news. All sockets stand, edge
triggered, in one epoll of ours from the moment they are made; the kernel drops what libcurl closes. So nothing calls back
into Python for sockets and timers, and a request costs no system call but its own. The lane's size bounds what a
step wastes on its other transfers. Why not libcurl's socket interface: `docs/decisions/http-client.md`.
"""

import asyncio
import contextlib
import select
from collections.abc import Callable
from typing import Final

import pycurl

Done = Callable[[pycurl.Curl, int, str], None]
"""Called with the handle, libcurl's error code (0 for success) and its text, once the handle has left its lane."""

LANE_TRANSFERS_MAX: Final = 16
_EVENTS_MAX: Final = 512
_ONE_STEP_BYTES: Final = 32 * 1024
"""Bodies up to this size leave in one step; libcurl's upload buffer holds twice as much."""
_WATCHED: Final = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET


class Lane:
    """A few transfers that are stepped together. Their connections are theirs alone."""

    __slots__ = ("due", "members", "multi", "running", "watch")

    def __init__(self, watch: Callable[[int, "Lane"], None]) -> None:
        self.multi = pycurl.CurlMulti()
        self.multi.setopt(pycurl.M_MAXCONNECTS, LANE_TRANSFERS_MAX)
        self.watch = watch
        self.members = 0
        self.running = 0
        self.due = False

    def on_connect(self, fd: int, _purpose: int) -> int:
        """Take note of a new socket (`SOCKOPTFUNCTION` of each of the lane's handles)."""
        self.watch(fd, self)
        return int(pycurl.SOCKOPT_OK)


class Multi:
    """The transfers of one upstream. Belongs to the loop in which it was made."""

    def __init__(self, done: Done) -> None:
        self._done = done
        self.loop = asyncio.get_running_loop()
        self._epoll = select.epoll()
        self._lanes: list[Lane] = []
        self._lane_of: dict[int, Lane] = {}
        self._due: list[Lane] = []
        self._uploads: dict[pycurl.Curl, tuple[Lane, int]] = {}
        """Long bodies on their way, with the bytes sent at the last look."""
        self._soon: asyncio.Handle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.loop.add_reader(self._epoll.fileno(), self._on_events)

    def join(self) -> Lane:
        """Return a lane with room for one more handle, which is its member until it leaves."""
        lane = next((lane for lane in self._lanes if lane.members < LANE_TRANSFERS_MAX), None)
        if lane is None:
            lane = Lane(self._watch)
            self._lanes.append(lane)
        lane.members += 1
        return lane

    def start(self, lane: Lane, curl: pycurl.Curl, body_length: int) -> None:
        """Begin the transfer of a member."""
        lane.multi.add_handle(curl)
        lane.running += 1
        if body_length > _ONE_STEP_BYTES:
            self._uploads[curl] = (lane, 0)
        self.step_soon(lane)

    def stop(self, lane: Lane, curl: pycurl.Curl) -> None:
        """Give a transfer up; its connection is closed, and `done` is not called for it."""
        lane.multi.remove_handle(curl)
        lane.running -= 1
        self._uploads.pop(curl, None)

    def step_soon(self, lane: Lane) -> None:
        """Step a lane in the loop's next turn, once for all that is begun or resumed in this one."""
        if not lane.due:
            lane.due = True
            self._due.append(lane)
        if self._soon is None:
            self._soon = self.loop.call_soon(self._step)

    def step_all(self) -> None:
        """Step every lane that has work, whatever the sockets say."""
        for lane in self._lanes:
            if lane.running:
                self.step_soon(lane)

    def close(self) -> None:
        """Close every connection. No transfer may be under way."""
        self.loop.remove_reader(self._epoll.fileno())
        for handle in (self._timer, self._soon):
            if handle is not None:
                handle.cancel()
        for lane in self._lanes:
            lane.multi.close()
        self._epoll.close()

    def _watch(self, fd: int, lane: Lane) -> None:
        self._lane_of[fd] = lane
        with contextlib.suppress(FileExistsError):
            self._epoll.register(fd, _WATCHED)

    def _on_events(self) -> None:
        due, lane_of = self._due, self._lane_of
        for fd, _ in self._epoll.poll(0, _EVENTS_MAX):
            lane = lane_of[fd]
            if not lane.due:
                lane.due = True
                due.append(lane)
        self._step()

    def _step(self) -> None:
        """Let libcurl act on every lane that is due, and take what is finished out of it."""
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None
        due, self._due = self._due, []
        for lane in due:
            lane.due = False
            _, running = lane.multi.perform()
            if running < lane.running:
                self._collect(lane)
            timeout_ms = lane.multi.timeout()
            if timeout_ms == 0:
                self.step_soon(lane)
            elif timeout_ms > 0:
                self._arm(timeout_ms / 1000)
        if self._uploads:
            self._push()

    def _push(self) -> None:
        """Step again where a long body moved on: libcurl sends one buffer in each step, and an edge comes only once
        the socket was full. What did not move waits for that edge.
        """
        for curl, (lane, before) in self._uploads.items():
            sent = int(curl.getinfo(pycurl.SIZE_UPLOAD_T))
            if sent > before:
                self._uploads[curl] = (lane, sent)
                self.step_soon(lane)

    def _collect(self, lane: Lane) -> None:
        queued = 1
        while queued:
            queued, succeeded, failed = lane.multi.info_read()
            for curl in succeeded:
                self.stop(lane, curl)
                self._done(curl, 0, "")
            for curl, code, text in failed:
                self.stop(lane, curl)
                self._done(curl, code, text)

    def _arm(self, delay_s: float) -> None:
        """Step all lanes in `delay_s` at the latest. An earlier timer stays: a step too early does no harm."""
        when = self.loop.time() + delay_s
        if self._timer is not None:
            if self._timer.when() <= when:
                return
            self._timer.cancel()
        self._timer = self.loop.call_at(when, self._on_time)

    def _on_time(self) -> None:
        self._timer = None
        self.step_all()
