// A real server-min on free ports of this machine, and a camera that speaks only the signaling.

import { execFileSync, spawn } from 'node:child_process';
import dgram from 'node:dgram';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import WebSocket from 'ws';
import { servePageFolder } from './page-folder.mjs';
import { MqttClient } from '../../server-min/src/http/page/mqtt.js';

const START_WITHIN_MS = 15_000;
const here = path.dirname(fileURLToPath(import.meta.url));

/** The binary to test: P2PCAM_SERVER_MIN, or what cargo has built last in the dev profile. */
export function serverBinary() {
  const bin = process.env.P2PCAM_SERVER_MIN ?? path.join(here, '../../target/debug/server-min');
  if (!existsSync(bin)) {
    throw new Error(`there is no ${bin}: run "cargo build -p server-min", or set P2PCAM_SERVER_MIN`);
  }
  return bin;
}

/** Without what the machine sets for another server. */
const environment = () => Object.fromEntries(Object.entries(process.env)
  .filter(([name]) => !name.startsWith('SERVER_MIN_') && name !== 'P2PCAM_APP_KEY'));

export class ServerMin {
  static async start(...flags) {
    const server = new ServerMin();
    server.key = 'page-test-key';
    server.flags = [
      '--http.listen', '127.0.0.1:0', '--mqtt.listen', '127.0.0.1:0',
      '--turn.listen', `127.0.0.1:${await freePort()}`,
      '--turn.allow_loopback_peers', 'true', '--turn.allow_private_peers', 'true', '--app_key', server.key,
      '--mqtt.device_secret', 'page-test-devices', '--log', 'warn', ...flags,
    ];
    server.log = '';
    const http = await server.launch(server.flags);
    server.address = http;
    server.folder = process.env.P2PCAM_PAGE_DIR && await servePageFolder(process.env.P2PCAM_PAGE_DIR, http);
    server.host = server.folder?.host ?? http;
    server.url = `http://${server.host}/`;
    return server;
  }

  /** Resolves to the HTTP address once everything listens. */
  launch(flags) {
    this.process = spawn(serverBinary(), flags, { stdio: ['ignore', 'pipe', 'pipe'], env: environment() });
    this.process.stderr.on('data', (text) => (this.log += text));
    return new Promise((resolve, reject) => {
      const failed = (what) => reject(new Error(`server-min ${what}: ${this.log}`));
      let said = '';
      this.process.stdout.on('data', (text) => {
        said += text;
        const http = said.match(/^ready:.* http=(\S+)/m);
        if (http) resolve(http[1]);
      });
      this.process.once('error', reject);
      this.process.once('exit', (code) => failed(`ended with ${code}`));
      setTimeout(() => failed('was not ready in time'), START_WITHIN_MS).unref();
    });
  }

  /** Ends it and starts it again where it was. */
  async restart() {
    await this.halt();
    await this.launch([...this.flags, '--http.listen', this.address]);
  }

  viewer(device, { key = this.key, query = '' } = {}) {
    return `${this.url}?device=${device}${query}#key=${key}`;
  }

  devicePassword(sn) {
    return execFileSync(serverBinary(), [...this.flags, 'device-password', sn], {
      encoding: 'utf8', env: environment(),
    }).trim();
  }

  async stop() {
    this.folder?.stop();
    await this.halt();
  }

  async halt() {
    if (this.process.exitCode !== null || this.process.signalCode !== null) return;
    const gone = once(this.process, 'exit');
    this.process.kill('SIGTERM');
    await gone;
  }
}

/** The signaling side of a camera: `onSignal(message, camera)` says what it does. */
export class SignalingCamera {
  static async start(server, sn, onSignal = () => {}) {
    const camera = new SignalingCamera();
    camera.sn = sn;
    camera.heard = [];
    camera.link = new MqttClient({ urls: [`ws://${server.host}/mqtt`], WebSocket });
    camera.link.addEventListener('message', ({ detail }) => {
      const message = JSON.parse(detail.text);
      camera.heard.push(message);
      onSignal(message, camera);
    });
    camera.link.connect({ clientId: sn, username: sn, password: server.devicePassword(sn) });
    await camera.link.subscribe(`p2p/signal/device/${sn}`);
    return camera;
  }

  answer({ sessionId, from }, type, payload) {
    return this.link.publish(`p2p/signal/app/${from}`, JSON.stringify({
      type, sessionId, from: this.sn, to: from, payload, timestamp: Date.now(),
    }));
  }

  status(online) {
    return this.link.publish(`p2p/status/device/${this.sn}`,
      JSON.stringify({ online, timestamp: Date.now() }), { retain: true });
  }

  stop() {
    this.link.close();
  }
}

/** One that is free by UDP and by TCP. */
async function freePort() {
  for (;;) {
    const udp = dgram.createSocket('udp4').bind(0, '127.0.0.1');
    await once(udp, 'listening');
    const { port } = udp.address();
    const tcp = net.createServer().listen(port, '127.0.0.1');
    // Rejects if there is an error instead.
    const free = await once(tcp, 'listening').then(() => true, () => false);
    udp.close();
    if (!free) continue;
    tcp.close();
    await once(tcp, 'close');
    return port;
  }
}
