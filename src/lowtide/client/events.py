"""Server-sent events: the data of each, one after the other (HTML standard, section 9.2; what we need of it)."""

from collections.abc import Iterable, Iterator


def event_data(lines: Iterable[bytes]) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the data of each event that is whole; comments, ids and retry times are passed over."""
    name = "message"
    data: list[bytes] = []
    for line in lines:
        text = line.rstrip(b"\r\n")
        if not text:
            if data:
                yield name, b"\n".join(data)
            name, data = "message", []
            continue
        key, _, value = text.partition(b":")
        value = value.removeprefix(b" ")
        if key == b"data":
            data.append(value)
        elif key == b"event":
            name = value.decode(errors="replace")
