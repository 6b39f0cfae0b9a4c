"""The engine's memory: blocks of tokens, some of them remembered as a prefix cache.

A prompt's full blocks are known by the hash of themselves and all before them, so equal prefixes share blocks. A block
that nobody uses any more stays until its room is needed, the least recently used first, and of one sequence the last
blocks first: a prefix outlives its ends. Invariant: used + remembered blocks never pass the capacity.
"""

from collections import OrderedDict
from collections.abc import Sequence

from xxhash import xxh3_64_intdigest


def block_hashes(prompt: bytes, block_bytes: int) -> tuple[int, ...]:
    """Return the chained hash of each full block of `prompt`."""
    hashes = []
    before = 0
    for start in range(0, len(prompt) - block_bytes + 1, block_bytes):
        before = xxh3_64_intdigest(prompt[start : start + block_bytes], before)
        hashes.append(before)
    return tuple(hashes)


class BlockPool:
    """A fixed number of blocks, shared by reference count where their hashes are equal."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._users: dict[int, int] = {}
        self._idle: OrderedDict[int, None] = OrderedDict()
        self._unnamed = 0

    @property
    def used(self) -> int:
        """Blocks that a running sequence holds."""
        return len(self._users) + self._unnamed

    @property
    def remembered(self) -> int:
        """Blocks that nobody holds and that a later prompt may find."""
        return len(self._idle)

    def matching(self, hashes: Sequence[int]) -> int:
        """Return how many blocks from the start are in memory."""
        for index, block in enumerate(hashes):
            if block not in self._users and block not in self._idle:
                return index
        return len(hashes)

    def take(self, hashes: Sequence[int], unnamed: int) -> bool:
        """Hold the blocks of `hashes` and `unnamed` more; False, and nothing changed, if there is no room."""
        gained = sum(block not in self._users for block in hashes) + unnamed
        if self.used + gained > self.capacity:
            return False
        for block in hashes:
            count = self._users.get(block, 0)
            if not count:
                self._idle.pop(block, None)
            self._users[block] = count + 1
        self._unnamed += unnamed
        while self.used + len(self._idle) > self.capacity:
            self._idle.popitem(last=False)
        return True

    def give_back(self, hashes: Sequence[int], unnamed: int) -> None:
        """Let go of what `take` held; the named blocks are remembered."""
        for block in reversed(hashes):
            count = self._users.pop(block) - 1
            if count:
                self._users[block] = count
            else:
                self._idle[block] = None
        self._unnamed -= unnamed
