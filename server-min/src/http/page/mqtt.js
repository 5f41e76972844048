// A small MQTT 3.1.1 client over WebSocket. It keeps itself connected: what was subscribed is
// subscribed again, and what was published at QoS 1 is sent again until the broker has it.
//
// Four choices keep the first message early. The socket can be opened before the user name and
// password are known; SUBSCRIBE and PUBLISH follow CONNECT without waiting for CONNACK, as section
// 3.1.4 allows; what waits leaves with them in one frame; and the broker handles them in order, so an
// answer cannot come before its topic is subscribed.
//
// Events: `online`; `offline` {reason}; `refused` {code, reason}: the broker will not have us, and
// we stop asking; `message` {topic, payload, text, retain, dup}.

import {
  CONNACK_REASONS, PacketReader, PacketType, SUBSCRIBE_REFUSED, concat, connectPacket, disconnectPacket,
  pingPacket, pubackPacket, publishPacket, subscribePacket,
} from './mqtt-packet.js';

/** Most QoS 1 messages that wait for the broker; a further one is refused, not an old one lost. */
export const MAX_OUTBOX = 256;

/** Several packets go into one frame up to this size; every broker takes it. */
const MAX_FRAME_BYTES = 64 * 1024;
const KEEPALIVE_SECONDS = 60;
const PING_EVERY_MS = 20_000;
const PONG_WITHIN_MS = 10_000;
const CONNECT_WITHIN_MS = 8_000;
/** How long a socket is kept for a user name that has not come: a broker does not wait for ever. */
const KEEP_UNUSED_MS = 6_000;
const RESEND_AFTER_MS = 5_000;
const BACKOFF_FIRST_MS = 1_000;
const BACKOFF_MAX_MS = 30_000;
/** A connection that lived this long counts as a success: the back-off starts over. */
const STABLE_AFTER_MS = 10_000;
const CONNACK_UNAVAILABLE = 3;
const SOCKET_OPEN = 1; // WebSocket.OPEN, which an injected WebSocket need not name

const utf8 = new TextEncoder();

export class MqttClient extends EventTarget {
  #urls;
  #urlIndex = 0;
  #credentials = null;
  #WebSocket;
  #random;
  #connection = null; // {socket, reader, connectSent, online, onlineAt, timers}
  #reconnectTimer;
  #resendTimer;
  #failures = 0;
  #closed = false;
  #nextPacketId = 1;
  #subscriptions = new Map(); // topic → {qos, packetId, waiting: [{resolve, reject}]}
  #outbox = new Map(); // packetId → {topic, payload, retain, sentAt, dup, resolve, reject}

  /** `urls`: where to try, in turn. `WebSocket` and `random` can be put in by tests. */
  constructor({ urls, WebSocket = globalThis.WebSocket, random = Math.random }) {
    super();
    this.#urls = [...urls];
    this.#WebSocket = WebSocket;
    this.#random = random;
  }

  get online() {
    return this.#connection?.online ?? false;
  }

  /** Messages at QoS 1 that the broker has not confirmed yet. */
  get waiting() {
    return this.#outbox.size;
  }

  /**
   * Opens the socket already; CONNECT follows once `connect` has been called. One that stays unused
   * is closed again after a while, without an event; calling again opens another.
   */
  open() {
    if (this.#connection || this.#closed) return;
    this.#stopReconnecting();
    this.#openSocket();
  }

  /** Says who we are; `urls`, if given, replaces the constructor's. */
  connect({ clientId, username, password, urls }) {
    this.#credentials = { clientId, username, password, keepaliveSeconds: KEEPALIVE_SECONDS };
    if (urls) {
      const used = this.#connection?.socket.url;
      this.#urls = [...urls];
      this.#urlIndex = 0;
      if (used && !sameUrl(used, urls[0])) this.#dropConnection();
    }
    this.open();
    if (!this.online) this.#awaitConnack(this.#connection);
    this.#sendFirstFlight();
  }

  /** Resolves once the broker has granted the topic; rejects if it refuses it. */
  subscribe(topic, qos = 1) {
    return new Promise((resolve, reject) => {
      const entry = this.#subscriptions.get(topic) ?? { waiting: [] };
      entry.qos = qos;
      entry.waiting.push({ resolve, reject });
      this.#subscriptions.set(topic, entry);
      if (this.#connection?.connectSent) this.#send(this.#subscribePacket(topic, entry));
    });
  }

  /** Resolves once the broker has the message (QoS 1) or it has been handed over (QoS 0). */
  publish(topic, payload, { qos = 1, retain = false } = {}) {
    const bytes = typeof payload === 'string' ? utf8.encode(payload) : payload;
    if (qos === 0) {
      if (!this.online) return Promise.reject(new Error('not sent: the broker is offline'));
      this.#send(publishPacket({ topic, payload: bytes, qos, retain }));
      return Promise.resolve();
    }
    if (this.#closed) return Promise.reject(new Error('not sent: this client is closed'));
    if (this.#outbox.size >= MAX_OUTBOX) {
      return Promise.reject(new Error(`not sent: ${MAX_OUTBOX} messages already wait`));
    }
    return new Promise((resolve, reject) => {
      const packetId = this.#freePacketId();
      const entry = { topic, payload: bytes, retain, sentAt: 0, dup: false, resolve, reject };
      this.#outbox.set(packetId, entry);
      if (this.#connection?.connectSent) this.#send(this.#publishPacket(packetId, entry));
      this.#resendTimer ??= setInterval(() => this.#resendOverdue(), RESEND_AFTER_MS / 5);
    });
  }

  /** Tries again now instead of at the end of the back-off: the network has come back. */
  hurry() {
    if (this.#reconnectTimer !== undefined) this.open();
  }

  /** Says goodbye. What is still unconfirmed has been sent once if we were online. */
  close() {
    if (this.#closed) return;
    this.#closed = true;
    this.#stopReconnecting();
    if (this.#connection?.connectSent) this.#send(disconnectPacket());
    this.#dropConnection();
    this.#abandon(new Error('this client is closed'));
  }

  #openSocket() {
    const url = this.#urls[this.#urlIndex % this.#urls.length];
    const connection = {
      socket: null, reader: new PacketReader(), connectSent: false, online: false, onlineAt: 0,
      connectTimer: undefined, pingTimer: undefined, pongTimer: undefined,
    };
    this.#connection = connection;
    const ended = (reason) => {
      if (this.#connection === connection) this.#onConnectionLost(reason);
    };
    this.#awaitConnack(connection);
    try {
      connection.socket = new this.#WebSocket(url, 'mqtt');
    } catch (error) {
      // A URL the browser does not allow, such as ws: from an https: page.
      queueMicrotask(() => ended(error.message));
      return;
    }
    const { socket } = connection;
    socket.binaryType = 'arraybuffer';
    socket.addEventListener('open', () => {
      if (this.#connection === connection) this.#sendFirstFlight();
    });
    // `error` says nothing that `close`, which follows, does not; unheard, `ws` would throw.
    socket.addEventListener('error', () => {});
    socket.addEventListener('close', (event) =>
      ended(`${url} closed the connection (${event.code}${event.reason ? `, ${event.reason}` : ''})`));
    socket.addEventListener('message', (event) => {
      if (this.#connection !== connection) return;
      try {
        for (const packet of connection.reader.push(new Uint8Array(event.data))) {
          this.#onPacket(connection, packet);
          if (this.#connection !== connection) return;
        }
      } catch (error) {
        ended(`the broker sent ${error.message}`);
      }
    });
  }

  /** Gives a connection its time: for the broker's word, or for ours. */
  #awaitConnack(connection) {
    clearTimeout(connection.connectTimer);
    const url = this.#urls[this.#urlIndex % this.#urls.length];
    const limitMs = this.#credentials ? CONNECT_WITHIN_MS : KEEP_UNUSED_MS;
    connection.connectTimer = setTimeout(() => {
      if (this.#connection !== connection) return;
      this.#onConnectionLost(`no answer from ${url} within ${limitMs / 1000} s`);
    }, limitMs);
  }

  /** CONNECT, and behind it at once everything that is subscribed and that waits to be sent. */
  #sendFirstFlight() {
    const connection = this.#connection;
    if (!connection || connection.connectSent || !this.#credentials) return;
    if (connection.socket?.readyState !== SOCKET_OPEN) return;
    connection.connectSent = true;
    this.#sendTogether([
      connectPacket(this.#credentials),
      ...[...this.#subscriptions].map(([topic, entry]) => this.#subscribePacket(topic, entry)),
      ...[...this.#outbox].map(([packetId, entry]) => this.#publishPacket(packetId, entry)),
    ]);
  }

  #onPacket(connection, packet) {
    clearTimeout(connection.pongTimer);
    connection.pongTimer = undefined;
    switch (packet.type) {
      case PacketType.CONNACK:
        this.#onConnack(connection, packet.code);
        break;
      case PacketType.PUBLISH:
        if (packet.qos === 1) this.#send(pubackPacket(packet.packetId));
        this.#emit('message', {
          topic: packet.topic, payload: packet.payload, retain: packet.retain, dup: packet.dup,
          get text() {
            return new TextDecoder().decode(packet.payload);
          },
        });
        break;
      case PacketType.PUBACK: {
        const entry = this.#outbox.get(packet.packetId);
        this.#outbox.delete(packet.packetId);
        entry?.resolve();
        break;
      }
      case PacketType.SUBACK:
        this.#onSuback(packet);
        break;
    }
  }

  #onConnack(connection, code) {
    clearTimeout(connection.connectTimer);
    if (code === 0) {
      connection.online = true;
      connection.onlineAt = performance.now();
      connection.pingTimer = setInterval(() => this.#ping(connection), PING_EVERY_MS);
      this.#emit('online', {});
      return;
    }
    const reason = CONNACK_REASONS[code] ?? `code ${code}`;
    if (code === CONNACK_UNAVAILABLE) {
      this.#onConnectionLost(reason);
      return;
    }
    // The same words would be refused again and again: stop, and let the owner bring new ones.
    this.#credentials = null;
    this.#dropConnection();
    this.#stopReconnecting();
    this.#abandon(new Error(`the broker refused us: ${reason}`));
    this.#emit('refused', { code, reason });
  }

  #onSuback({ packetId, code }) {
    for (const [topic, entry] of this.#subscriptions) {
      if (entry.packetId !== packetId) continue;
      const waiting = entry.waiting.splice(0);
      if (code === SUBSCRIBE_REFUSED) {
        this.#subscriptions.delete(topic);
        waiting.forEach((w) => w.reject(new Error(`the broker refused the topic ${topic}`)));
      } else {
        waiting.forEach((w) => w.resolve(code));
      }
      return;
    }
  }

  #onConnectionLost(reason) {
    const connection = this.#connection;
    // Nobody has missed it yet; `connect` opens another one.
    if (!this.#credentials) return this.#dropConnection();
    const wasStable = connection.online && performance.now() - connection.onlineAt > STABLE_AFTER_MS;
    if (!connection.online) this.#urlIndex += 1;
    this.#failures = wasStable ? 0 : this.#failures + 1;
    this.#dropConnection();
    if (this.#closed) return;
    // Full jitter, also on the first try: after a broker's restart all its clients come at once.
    const limit = Math.min(BACKOFF_MAX_MS, BACKOFF_FIRST_MS * 2 ** Math.max(0, this.#failures - 1));
    this.#reconnectTimer = setTimeout(() => this.hurry(), this.#random() * limit);
    this.#emit('offline', { reason });
  }

  #dropConnection() {
    const connection = this.#connection;
    this.#connection = null;
    if (!connection) return;
    clearTimeout(connection.connectTimer);
    clearInterval(connection.pingTimer);
    clearTimeout(connection.pongTimer);
    try {
      connection.socket?.close();
    } catch {
      // It was never open.
    }
  }

  #stopReconnecting() {
    clearTimeout(this.#reconnectTimer);
    this.#reconnectTimer = undefined;
  }

  /** Gives up what waits, so that no promise is left open. */
  #abandon(error) {
    clearInterval(this.#resendTimer);
    this.#resendTimer = undefined;
    for (const entry of this.#outbox.values()) entry.reject(error);
    this.#outbox.clear();
    for (const { waiting } of this.#subscriptions.values()) {
      waiting.splice(0).forEach((w) => w.reject(error));
    }
  }

  #ping(connection) {
    this.#send(pingPacket());
    connection.pongTimer ??= setTimeout(() => {
      if (this.#connection === connection) this.#onConnectionLost('the broker does not answer pings');
    }, PONG_WITHIN_MS);
  }

  #resendOverdue() {
    if (this.#outbox.size === 0) {
      clearInterval(this.#resendTimer);
      this.#resendTimer = undefined;
    }
    if (!this.online) return;
    for (const [packetId, entry] of this.#outbox) {
      if (performance.now() - entry.sentAt > RESEND_AFTER_MS) this.#send(this.#publishPacket(packetId, entry));
    }
  }

  #subscribePacket(topic, entry) {
    entry.packetId = this.#freePacketId();
    return subscribePacket(entry.packetId, topic, entry.qos);
  }

  #publishPacket(packetId, entry) {
    const packet = publishPacket({ ...entry, qos: 1, packetId });
    entry.sentAt = performance.now();
    entry.dup = true; // from the second time on
    return packet;
  }

  /** In as few frames as may be: for each, a browser's processes call one another, and answers come back. */
  #sendTogether(packets) {
    let frame = [], length = 0;
    for (const packet of packets) {
      if (length > 0 && length + packet.length > MAX_FRAME_BYTES) {
        this.#send(concat(frame));
        frame = [];
        length = 0;
      }
      frame.push(packet);
      length += packet.length;
    }
    this.#send(concat(frame));
  }

  #send(bytes) {
    const socket = this.#connection?.socket;
    if (socket?.readyState === SOCKET_OPEN) socket.send(bytes);
  }

  #freePacketId() {
    do {
      this.#nextPacketId = (this.#nextPacketId % 0xffff) + 1;
    } while (this.#outbox.has(this.#nextPacketId));
    return this.#nextPacketId;
  }

  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

function sameUrl(a, b) {
  try {
    return new URL(a).href === new URL(b).href;
  } catch {
    return false;
  }
}
