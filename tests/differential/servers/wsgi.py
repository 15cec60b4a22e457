"""A WSGI application that tells of each request what the server made of it: two lines in SEEN, and its echo in the response."""
import base64
import hashlib
import json
import os

SEEN = os.open(os.environ["SEEN"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def tell(event, peer, method, target, body=b"", whole=False):
    line = {"event": event, "peer": peer, "method": method, "target": target, "length": len(body),
            "hash": hashlib.sha256(body).hexdigest()[:16], "whole": whole}
    os.write(SEEN, json.dumps(line).encode() + b"\n")


def echo(method, target, body, forwarded_for):
    """Fields of the response."""
    return [("Content-Type", "text/plain"), ("Content-Length", "3"),
            ("X-Echo", f"{method} {base64.b64encode(target.encode('utf-8', 'replace')).decode()} "
                       f"{len(body)} {hashlib.sha256(body).hexdigest()[:16]}"),
            ("X-Client", forwarded_for or "-")]


def application(environ, start_response):
    peer = f"{environ['REMOTE_ADDR']}:{environ['REMOTE_PORT']}"
    method, target = environ["REQUEST_METHOD"], environ["RAW_URI"]
    tell("begin", peer, method, target)
    body = environ["wsgi.input"].read()
    tell("end", peer, method, target, body, True)
    start_response("200 OK", echo(method, target, body, environ.get("HTTP_X_FORWARDED_FOR")))
    return [] if method == "HEAD" else [b"ok\n"]
