"""The results of a batch that still runs, as they come about: of a Lowtide, which keeps their places in the file.

What has come so far is the beginning of the whole file: byte n stays byte n when the batch has ended. So a cut, or
another command later, goes on from the number of bytes that it has.
"""

from lowtide.client.api import Api, is_missing
from lowtide.client.download import Sink, download
from lowtide.client.errors import BrokenOff, Refused, Unreachable
from lowtide.client.pauses import pause_s
from lowtide.client.watching import Deadline, states

NEXT = "x-lowtide-next"
LOOK_S = 1.0
SO_FAR = '"so far"'
"""The tag of a part that was begun while its batch ran: it is no server's, so only following goes on with it."""


def follow(api: Api, batch_id: str, sink: Sink, deadline: Deadline) -> None:
    """Fill a sink until the batch has ended; of a server that has only whole results, wait for them."""
    tries = 0
    if sink.offset and sink.etag != SO_FAR:
        download(api, batch_id, sink)
        return
    sink.etag = SO_FAR
    while True:
        before = sink.offset
        try:
            more = _take(api, batch_id, sink)
            tries = 0
        except Refused as error:
            if sink.offset or not is_missing(error):
                raise
            _wait(api, batch_id, sink, deadline)
            return
        except (BrokenOff, Unreachable) as error:
            tries = 1 if sink.offset > before else tries + 1
            if tries > api.server.retries:
                raise
            api.pause(error, pause_s(tries))
            continue
        if not more:
            return
        deadline.sleep(0 if sink.offset > before else LOOK_S)


def _take(api: Api, batch_id: str, sink: Sink) -> bool:
    """Take what is there and tell whether more will come."""
    with api.results_so_far(batch_id, sink.offset) as answer:
        for block in answer.blocks():
            sink.write(block)
        return NEXT in answer.headers


def _wait(api: Api, batch_id: str, sink: Sink, deadline: Deadline) -> None:
    sink.etag = None
    for _ in states(api, batch_id, deadline):
        pass
    download(api, batch_id, sink)
