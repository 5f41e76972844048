// A real Mosquitto for tests: one listener for WebSocket, one for TCP (mosquitto_pub and _sub).

import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

const START_WITHIN_MS = 10_000;
// Debian keeps daemons in sbin, which a user's PATH may not name.
const ENV = { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/usr/local/sbin` };

export class Mosquitto {
  /** `user`: {name, password}; without it everyone may enter. */
  static async start({ user } = {}) {
    const broker = new Mosquitto();
    broker.children = [];
    broker.dir = mkdtempSync(path.join(tmpdir(), 'p2pcam-mosquitto-'));
    broker.wsPort = await freePort();
    broker.tcpPort = await freePort();
    broker.url = `ws://127.0.0.1:${broker.wsPort}/mqtt`;
    broker.user = user;
    const lines = [
      'per_listener_settings false',
      'persistence false',
      `listener ${broker.tcpPort} 127.0.0.1`,
      `listener ${broker.wsPort} 127.0.0.1`,
      'protocol websockets',
    ];
    if (user) {
      const passwords = path.join(broker.dir, 'passwords');
      execFileSync('mosquitto_passwd', ['-b', '-c', passwords, user.name, user.password], { env: ENV });
      lines.push('allow_anonymous false', `password_file ${passwords}`);
    } else {
      lines.push('allow_anonymous true');
    }
    // Started by root, Mosquitto would change to a user that cannot read our folder.
    if (process.getuid() === 0) lines.push('user root');
    broker.config = path.join(broker.dir, 'mosquitto.conf');
    writeFileSync(broker.config, lines.join('\n') + '\n');
    await broker.launch();
    return broker;
  }

  async launch() {
    this.process = spawn('mosquitto', ['-c', this.config], { stdio: 'ignore', env: ENV });
    const failed = once(this.process, 'error').then(([e]) => {
      throw new Error(`mosquitto does not start (${e.message}); install Debian's "mosquitto"`);
    });
    failed.catch(() => {});
    await Promise.race([failed, Promise.all([accepts(this.wsPort), accepts(this.tcpPort)])]);
  }

  async halt() {
    if (this.process.exitCode !== null || this.process.signalCode !== null) return;
    const gone = once(this.process, 'exit');
    this.process.kill('SIGTERM');
    await gone;
  }

  async stop() {
    for (const child of this.children) child.kill();
    await this.halt();
    rmSync(this.dir, { recursive: true, force: true });
  }

  publish(topic, text, { qos = 1, retain = false } = {}) {
    execFileSync('mosquitto_pub', [...this.#client(), '-t', topic, '-q', `${qos}`, '-s',
      ...(retain ? ['-r'] : [])], { input: text });
  }

  /** Starts mosquitto_sub; resolves, once it is subscribed, to {messages(): Promise<string[]>}. */
  async subscribe(topic, count) {
    // Into a pipe it would keep what it says until it ends; stdbuf has it say each line at once.
    const child = spawn('stdbuf', ['-oL', 'mosquitto_sub',
      ...this.#client(), '-t', topic, '-q', '1', '-C', `${count}`, '-d', '-F', 'payload:%p']);
    this.children.push(child);
    let output = '';
    child.stdout.on('data', (data) => (output += data));
    const until = async (found) => {
      for (const end = Date.now() + START_WITHIN_MS; Date.now() < end; await sleep(20)) {
        const result = found();
        if (result) return result;
      }
      child.kill();
      throw new Error(`mosquitto_sub said only: ${output}`);
    };
    await until(() => output.includes('SUBACK') || output.includes('Subscribed'));
    return {
      messages: () => until(() => {
        const lines = output.split('\n').filter((line) => line.startsWith('payload:'));
        return lines.length >= count && lines.map((line) => line.slice('payload:'.length));
      }),
    };
  }

  #client() {
    const login = this.user ? ['-u', this.user.name, '-P', this.user.password] : [];
    return ['-h', '127.0.0.1', '-p', `${this.tcpPort}`, ...login];
  }
}

export async function freePort() {
  const server = net.createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  await once(server, 'close');
  return port;
}

/** Resolves once something listens on the port. */
export async function accepts(port, withinMs = START_WITHIN_MS) {
  for (const end = Date.now() + withinMs; Date.now() < end; await sleep(20)) {
    const socket = net.connect(port, '127.0.0.1');
    const open = await once(socket, 'connect').then(() => true, () => false);
    socket.destroy();
    if (open) return;
  }
  throw new Error(`nothing listens on port ${port} after ${withinMs} ms`);
}
