"""The same as an ASGI application."""
from wsgi import echo, tell


async def application(scope, receive, send):
    if scope["type"] != "http":
        return
    peer = "%s:%s" % tuple(scope["client"])
    query = scope["query_string"]
    method, target = scope["method"], (scope["raw_path"] + (b"?" + query if query else b"")).decode("latin-1")
    tell("begin", peer, method, target)
    body = b""
    while True:
        event = await receive()
        if event["type"] == "http.disconnect":
            return tell("end", peer, method, target, body, False)
        body += event.get("body", b"")
        if not event.get("more_body"):
            break
    tell("end", peer, method, target, body, True)
    forwarded_for = dict(scope["headers"]).get(b"x-forwarded-for", b"").decode("latin-1")
    fields = [(name.lower().encode(), value.encode("latin-1")) for name, value in echo(method, target, body, forwarded_for)]
    await send({"type": "http.response.start", "status": 200, "headers": fields})
    await send({"type": "http.response.body", "body": b"" if method == "HEAD" else b"ok\n"})
