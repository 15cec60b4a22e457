"""A second reading of HTTP/1.1 messages, as strict as RFC 9112 can be read, for what Ringway sends. Nothing here is lenient.

What a proxy sends on must be of the plainest form: one framing field at most, no folding, no bare CR or LF, `chunked` alone. Whatever
else is a fault of the proxy, even where all servers would take it.
"""
import dataclasses
import hashlib
import re

TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
REQUEST_LINE = re.compile(TOKEN + rb" [!-~\x80-\xff]+ HTTP/1\.1")
STATUS_LINE = re.compile(rb"HTTP/1\.1 ([1-9]\d\d) [\t -~\x80-\xff]*")
FIELD = re.compile(rb"(" + TOKEN + rb"):[ \t]*([\t -~\x80-\xff]*?)[ \t]*")


class Unclean(Exception):
    """What no proxy may send."""


@dataclasses.dataclass
class Message:
    first: bytes
    fields: list
    body: bytes = b""
    whole: bool = False

    def all(self, name):
        return [value for field, value in self.fields if field == name]

    @property
    def hash(self):
        return hashlib.sha256(self.body).hexdigest()[:16]

    @property
    def method(self):
        return self.first.split(b" ")[0].decode("latin-1")

    @property
    def target(self):
        return self.first.split(b" ")[1].decode("latin-1")

    @property
    def status(self):
        return int(self.first.split(b" ")[1])


def head(data, at, line):
    """(message, offset behind its head), or None if the head is not all there."""
    end = data.find(b"\r\n\r\n", at)
    if end < 0:
        return None
    first, *lines = bytes(data[at:end]).split(b"\r\n")
    if not line.fullmatch(first):
        raise Unclean(f"first line {first[:80]!r}")
    fields = []
    for text in lines:
        found = FIELD.fullmatch(text)
        if not found:
            raise Unclean(f"field line {text[:80]!r}")
        fields.append((found[1].lower(), found[2]))
    return Message(first, fields), end + 4


def body(message, data, at):
    """Offset behind the body; `message.whole` tells whether all of it is there. Responses must not be read until the end by this."""
    lengths, codings = message.all(b"content-length"), message.all(b"transfer-encoding")
    if len(lengths) + len(codings) > 1:
        raise Unclean(f"framing fields {lengths} {codings}")
    if codings:
        if codings != [b"chunked"]:
            raise Unclean(f"coding {codings}")
        return chunked(message, data, at)
    length = 0
    if lengths:
        if not re.fullmatch(rb"\d{1,19}", lengths[0]):
            raise Unclean(f"length {lengths}")
        length = int(lengths[0])
    message.body = bytes(data[at:at + length])
    message.whole = len(message.body) == length
    return at + len(message.body)


def chunked(message, data, at):
    while True:
        end = data.find(b"\r\n", at)
        if end < 0:
            return at
        if not re.fullmatch(rb"[0-9A-Fa-f]{1,16}", data[at:end]):
            raise Unclean(f"chunk line {bytes(data[at:end])[:80]!r}")
        size = int(data[at:end], 16)
        if size == 0:
            break
        at = end + 2
        if len(data) < at + size + 2:
            message.body += bytes(data[at:at + size])
            return len(data)
        if data[at + size:at + size + 2] != b"\r\n":
            raise Unclean("bytes behind a chunk")
        message.body += bytes(data[at:at + size])
        at += size + 2
    at = end + 2
    while True:
        end = data.find(b"\r\n", at)
        if end < 0:
            return at
        if end == at:
            message.whole = True
            return at + 2
        found = FIELD.fullmatch(bytes(data[at:end]))
        if not found or found[1].lower() in (b"content-length", b"transfer-encoding", b"host"):
            raise Unclean(f"trailer {bytes(data[at:end])[:80]!r}")
        at = end + 2


def requests(data):
    """All requests in the bytes; the last may be cut. A head that is not all there is none."""
    found, at = [], 0
    while at < len(data):
        read = head(data, at, REQUEST_LINE)
        if read is None:
            break
        message, at = read
        if len(message.all(b"host")) != 1:
            raise Unclean("not one Host")
        found.append(message)
        at = body(message, data, at)
        if not message.whole:
            break
    return found, at


def responses(data):
    """All final responses in what a client got. A response to HEAD must say so by its echo (`HEAD ...`)."""
    found, at = [], 0
    while at < len(data):
        read = head(data, at, STATUS_LINE)
        if read is None:
            raise Unclean(f"cut response {bytes(data[at:])[:80]!r}")
        message, at = read
        if message.status < 200:
            continue
        found.append(message)
        echo = message.all(b"x-echo")
        if echo and echo[0].startswith(b"HEAD ") or message.status in (204, 304):
            continue
        at = body(message, data, at)
        # Of an own answer to HEAD there is only the head; nothing comes behind it.
        if not message.whole and (echo or message.body or message.all(b"connection") != [b"close"]):
            raise Unclean(f"cut body behind {message.first!r}")
    return found
