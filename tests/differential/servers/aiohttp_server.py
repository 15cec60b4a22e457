"""The same by aiohttp's own server. Argument: port."""
import asyncio
import sys

from aiohttp import web
from wsgi import echo, tell


async def handle(request):
    peer = "%s:%s" % request.transport.get_extra_info("peername")[:2]
    method, target = request.method, request.raw_path
    tell("begin", peer, method, target)
    body, whole = b"", False
    try:
        async for data in request.content.iter_any():
            body += data
        whole = True
    finally:
        tell("end", peer, method, target, body, whole)
    return web.Response(text="ok\n", headers=dict(echo(method, target, body, request.headers.get("X-Forwarded-For"))[2:]))


async def main():
    runner = web.ServerRunner(web.Server(handle, max_line_size=1 << 17, max_field_size=1 << 17))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", int(sys.argv[1])).start()
    await asyncio.Event().wait()


asyncio.run(main())
