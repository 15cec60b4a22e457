// The same by node's own HTTP server. Argument: port.
'use strict';
const crypto = require('crypto');
const fs = require('fs');
const http = require('http');

const seen = fs.openSync(process.env.SEEN, 'a');
const hash = (body) => crypto.createHash('sha256').update(body).digest('hex').slice(0, 16);

const server = http.createServer({ maxHeaderSize: 1 << 17 }, (request, response) => {
  const peer = `${request.socket.remoteAddress}:${request.socket.remotePort}`;
  const { method, url: target } = request;
  const parts = [];
  let over = false;
  const tell = (event, body, whole) =>
    fs.writeSync(seen, JSON.stringify({ event, peer, method, target, length: body.length, hash: hash(body), whole }) + '\n');
  tell('begin', Buffer.alloc(0), false);
  request.on('data', (data) => parts.push(data));
  request.on('end', () => {
    over = true;
    const body = Buffer.concat(parts);
    tell('end', body, true);
    response.writeHead(200, {
      'Content-Type': 'text/plain',
      'Content-Length': 3,
      'X-Echo': `${method} ${Buffer.from(target).toString('base64')} ${body.length} ${hash(body)}`,
      'X-Client': request.headers['x-forwarded-for'] || '-',
    });
    response.end(method === 'HEAD' ? '' : 'ok\n');
  });
  request.on('error', () => {});
  request.on('close', () => {
    if (!over) tell('end', Buffer.concat(parts), false);
  });
});
server.listen(Number(process.argv[2]), '127.0.0.1');
