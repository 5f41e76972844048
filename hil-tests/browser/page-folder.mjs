// For work on the page: its files as they are in a folder now, and a real server-min behind them
// for everything else, so that a change needs no build.

import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import path from 'node:path';

const TYPES = { html: 'text/html', css: 'text/css', js: 'text/javascript', svg: 'image/svg+xml' };

/** Serves `folder` in front of the server at `target` (host:port). */
export async function servePageFolder(folder, target) {
  const [hostname, port] = target.split(':');
  const server = http.createServer((request, response) => {
    const { pathname } = new URL(request.url, 'http://page');
    const file = path.join(folder, pathname === '/' ? 'index.html' : path.basename(pathname));
    if (request.method === 'GET' && existsSync(file)) {
      response.writeHead(200, {
        'content-type': TYPES[path.extname(file).slice(1)] ?? 'text/plain',
        'content-security-policy': "default-src 'self'; connect-src 'self' ws: wss: http: https:",
        'cache-control': 'no-cache',
      });
      return response.end(readFileSync(file));
    }
    const { method, url, headers } = request;
    const onward = http.request({ hostname, port, method, path: url, headers }, (answer) => {
      response.writeHead(answer.statusCode, answer.headers);
      answer.pipe(response);
    });
    onward.on('error', () => response.destroy());
    request.pipe(onward);
  });
  server.on('upgrade', (request, socket, head) => {
    const onward = net.connect(port, hostname, () => {
      const lines = request.rawHeaders.map((text, i) => text + (i % 2 ? '\r\n' : ': ')).join('');
      onward.write(`GET ${request.url} HTTP/1.1\r\n${lines}\r\n`);
      onward.write(head);
      onward.pipe(socket).pipe(onward);
    });
    for (const [one, other] of [[onward, socket], [socket, onward]]) {
      one.on('error', () => other.destroy()).on('close', () => other.destroy());
    }
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const stop = () => {
    server.close();
    server.closeAllConnections();
  };
  return { host: `127.0.0.1:${server.address().port}`, stop };
}
