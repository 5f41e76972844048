// The viewer's end of the signaling: topics and the messages' envelope, nothing about their order.
//
// Events: `signal` {type, payload, fromCamera}: a message of this session; `status` {online}: what
// the camera says of itself, retained; `status-known-by-now`: had there been one, it would be here;
// `online`: the broker has us; `refused` {reason}: it will not have us, or not on our own topic.

import { brokerUrls, ownBrokerUrl } from './api.js';
import { MqttClient } from './mqtt.js';

const SERVER_TOPIC = 'p2p/signal/server';

export class SignalLink extends EventTarget {
  #mqtt;
  #server;
  #device;
  #appId;
  #sessionId = null;

  constructor({ server, device, appId }) {
    super();
    this.#server = server;
    this.#device = device;
    this.#appId = appId;
    this.#mqtt = new MqttClient({ urls: [ownBrokerUrl(server)] });
    this.#mqtt.addEventListener('online', () => this.#emit('online', {}));
    this.#mqtt.addEventListener('refused', ({ detail }) => this.#emit('refused', detail));
    this.#mqtt.addEventListener('message', ({ detail }) => this.#onMessage(detail));
  }

  get online() {
    return this.#mqtt.online;
  }

  /** Opens the connection; what it needs to be used comes with the session's grant. */
  open() {
    this.#mqtt.open();
  }

  /** What is said from now on is of this session; it waits until `enter`. */
  join(sessionId) {
    this.#sessionId = sessionId;
  }

  /** Tells the broker who we are, and in one go with that what there is to say already. */
  enter({ username, password, wsUrl }) {
    this.#mqtt.subscribe(`p2p/signal/app/${this.#appId}`).catch((error) => {
      if (this.online) this.#emit('refused', { reason: error.message });
    });
    this.#mqtt.subscribe(`p2p/status/device/${this.#device}`).then(
      () => this.#emit('status-known-by-now', {}),
      () => {}); // not allowed to see it: then the camera's answer alone decides
    const urls = brokerUrls(wsUrl, this.#server);
    this.#mqtt.connect({ clientId: this.#appId, username, password, urls });
  }

  toCamera(type, payload) {
    this.#publish(`p2p/signal/device/${this.#device}`, type, this.#device, payload);
  }

  /** The session's state, for the service's record of it. */
  toServer(payload) {
    this.#publish(SERVER_TOPIC, 'keepalive', 'server', payload);
  }

  hurry() {
    this.#mqtt.hurry();
  }

  close() {
    this.#mqtt.close();
  }

  #publish(topic, type, to, payload) {
    const text = JSON.stringify({
      type, sessionId: this.#sessionId, from: this.#appId, to, payload, timestamp: Date.now(),
    });
    // Lost only with the client itself: closed, refused, or with a full outbox.
    this.#mqtt.publish(topic, text).catch(() => {});
  }

  #onMessage({ topic, text }) {
    let message;
    try {
      message = JSON.parse(text);
    } catch {
      return console.warn('p2pcam: a message that is not JSON on', topic);
    }
    if (topic.startsWith('p2p/status/')) {
      this.#emit('status', { online: message?.online === true });
    } else if (message?.sessionId?.toLowerCase?.() === this.#sessionId) {
      const { type, payload, from } = message;
      this.#emit('signal', { type, payload: payload ?? {}, fromCamera: from === this.#device });
    }
  }

  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
