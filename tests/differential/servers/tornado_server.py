"""The same by Tornado's HTTPServer, below its routing. Argument: port."""
import asyncio
import sys

from tornado import httputil
from tornado.httpserver import HTTPServer
from wsgi import echo, tell


class Seen(httputil.HTTPMessageDelegate):
    def __init__(self, connection):
        self.connection = connection
        self.body = b""
        self.peer = "%s:%s" % connection.context.address[:2]

    def headers_received(self, start_line, headers):
        self.line, self.headers = start_line, headers
        tell("begin", self.peer, start_line.method, start_line.path)

    def data_received(self, chunk):
        self.body += chunk

    def on_connection_close(self):
        tell("end", self.peer, self.line.method, self.line.path, self.body, False)

    def finish(self):
        method, target = self.line.method, self.line.path
        tell("end", self.peer, method, target, self.body, True)
        fields = httputil.HTTPHeaders(dict(echo(method, target, self.body, self.headers.get("X-Forwarded-For"))))
        line = httputil.ResponseStartLine("HTTP/1.1", 200, "OK")
        self.connection.write_headers(line, fields, b"" if method == "HEAD" else b"ok\n")
        self.connection.finish()


class Server(HTTPServer):
    def start_request(self, server_conn, request_conn):
        return Seen(request_conn)


async def main():
    server = Server(lambda request: None, max_header_size=1 << 17)
    server.listen(int(sys.argv[1]), "127.0.0.1")
    await asyncio.Event().wait()


asyncio.run(main())
