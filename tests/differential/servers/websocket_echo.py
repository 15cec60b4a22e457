"""WebSocket echo servers of three makes. Arguments: make, port. No limit on a message; compression as they do it by default."""
import asyncio
import sys


async def by_websockets(port):
    from websockets.asyncio.server import serve

    async def echo(socket):
        async for message in socket:
            await socket.send(message)

    async with serve(echo, "127.0.0.1", port, max_size=None):
        await asyncio.Event().wait()


async def by_aiohttp(port):
    from aiohttp import WSMsgType, web

    async def echo(request):
        socket = web.WebSocketResponse(max_msg_size=0)
        await socket.prepare(request)
        async for message in socket:
            if message.type == WSMsgType.TEXT:
                await socket.send_str(message.data)
            elif message.type == WSMsgType.BINARY:
                await socket.send_bytes(message.data)
        return socket

    app = web.Application()
    app.router.add_get("/{any:.*}", echo)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


async def by_tornado(port):
    import tornado.web
    import tornado.websocket

    class Echo(tornado.websocket.WebSocketHandler):
        def check_origin(self, origin):
            return True

        def get_compression_options(self):
            return {}

        async def on_message(self, message):
            try:
                await self.write_message(message, binary=isinstance(message, bytes))
            except tornado.websocket.WebSocketClosedError:
                pass

    tornado.web.Application([(r"/.*", Echo)], websocket_max_message_size=1 << 30).listen(port, "127.0.0.1")
    await asyncio.Event().wait()


asyncio.run({"websockets": by_websockets, "aiohttp": by_aiohttp, "tornado": by_tornado}[sys.argv[1]](int(sys.argv[2])))
