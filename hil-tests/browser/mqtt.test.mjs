// The viewer page's MQTT client against a real Mosquitto, with mosquitto_pub and mosquitto_sub as
// the other end; and its packet reader against frames cut anywhere.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { after, before, test } from 'node:test';
import WebSocket from 'ws';
import { MAX_OUTBOX, MqttClient } from '../../server-min/src/http/page/mqtt.js';
import {
  MAX_PACKET_BYTES, PacketReader, PacketType, ProtocolError, publishPacket,
} from '../../server-min/src/http/page/mqtt-packet.js';
import { Mosquitto } from './mosquitto.mjs';

const TIMEOUT = { timeout: 30_000 };
let broker;
before(async () => (broker = await Mosquitto.start()));
after(() => broker.stop());

/** A client that is closed when the test ends, however it ends. */
function client(t, options = {}) {
  const { url = broker.url, login = {}, ...rest } = options;
  const mqtt = new MqttClient({ urls: [url], WebSocket, random: () => 0.1, ...rest });
  t.after(() => mqtt.close());
  mqtt.connect({ clientId: `test_${Math.random().toString(16).slice(2)}`, ...login });
  return mqtt;
}

const detail = async (mqtt, event) => (await once(mqtt, event))[0].detail;

/** A WebSocket whose traffic a test can see and disturb. */
function tapped({ sent = () => true, received = (event) => [event] }) {
  return class extends WebSocket {
    send(bytes) {
      if (sent(bytes)) super.send(bytes);
    }
    addEventListener(type, listener) {
      super.addEventListener(type, type !== 'message' ? listener
        : (event) => received(event).forEach(listener));
    }
  };
}

/** The types of the packets in a frame. */
function packetTypes(frame) {
  const types = [];
  for (let at = 0; at < frame.length;) {
    types.push(frame[at++] >> 4);
    let length = 0;
    for (let shift = 0, more = true; more; shift += 7) {
      more = (frame[at] & 0x80) !== 0;
      length += (frame[at++] & 0x7f) << shift;
    }
    at += length;
  }
  return types;
}

test('messages go both ways at QoS 1', TIMEOUT, async (t) => {
  const mqtt = client(t);
  assert.equal(await mqtt.subscribe('p2p/signal/app/app_1'), 1);
  const heard = detail(mqtt, 'message');
  broker.publish('p2p/signal/app/app_1', '{"type":"answer"}');
  const message = await heard;
  assert.equal(message.topic, 'p2p/signal/app/app_1');
  assert.equal(message.text, '{"type":"answer"}');
  assert.equal(message.retain, false);

  const other = await broker.subscribe('p2p/signal/device/cam', 3);
  const done = ['a', 'b', 'grün'].map((text) => mqtt.publish('p2p/signal/device/cam', text));
  await Promise.all(done);
  assert.equal(mqtt.waiting, 0);
  assert.deepEqual(await other.messages(), ['a', 'b', 'grün']);
});

test('QoS 0 is delivered, and refused while offline', TIMEOUT, async (t) => {
  const mqtt = client(t);
  await assert.rejects(mqtt.publish('x', 'early', { qos: 0 }), /offline/);
  await mqtt.subscribe('zero', 0);
  const heard = detail(mqtt, 'message');
  await mqtt.publish('zero', 'now', { qos: 0 });
  assert.equal((await heard).text, 'now');
});

test('a retained message comes with the subscription, marked as such', TIMEOUT, async (t) => {
  broker.publish('p2p/status/device/cam', '{"online":true}', { retain: true });
  const mqtt = client(t);
  const heard = detail(mqtt, 'message');
  mqtt.subscribe('p2p/status/device/cam');
  const message = await heard;
  assert.deepEqual([message.text, message.retain], ['{"online":true}', true]);
});

test('what is published before the socket opens follows CONNECT without waiting', TIMEOUT, async (t) => {
  const frames = [];
  let connackAfter;
  const mqtt = client(t, {
    WebSocket: tapped({
      sent: (bytes) => frames.push(packetTypes(bytes)),
      received: (event) => {
        connackAfter ??= frames.length;
        return [event];
      },
    }),
  });
  const subscribed = mqtt.subscribe('own/topic');
  const heard = detail(mqtt, 'message');
  await Promise.all([subscribed, mqtt.publish('own/topic', 'first flight')]);
  assert.equal((await heard).text, 'first flight');
  assert.deepEqual(frames[0], [PacketType.CONNECT, PacketType.SUBSCRIBE, PacketType.PUBLISH], 'in one frame');
  assert.equal(connackAfter, 1, 'which had left before the broker said anything');
});

test('what waits for the broker is sent in frames that it takes', TIMEOUT, async (t) => {
  const lengths = [];
  const mqtt = client(t, { WebSocket: tapped({ sent: (bytes) => lengths.push(bytes.length) }) });
  const large = 'x'.repeat(40_000);
  await Promise.all([1, 2, 3].map(() => mqtt.publish('large', large)));
  assert.equal(lengths.length, 3);
  assert.ok(lengths.every((length) => length <= 64 * 1024), `${lengths}`);
});

test('after the broker restarts, topics and messages are there again', TIMEOUT, async (t) => {
  const own = await Mosquitto.start();
  t.after(() => own.stop());
  const mqtt = client(t, { url: own.url });
  await mqtt.subscribe('p2p/signal/app/again');
  const offline = detail(mqtt, 'offline');
  await own.halt();
  assert.match((await offline).reason, /closed the connection/);
  assert.equal(mqtt.online, false);

  // Published while nobody listens: kept, and delivered to the broker's next life.
  const kept = mqtt.publish('p2p/signal/app/again', 'kept');
  const heard = detail(mqtt, 'message');
  const online = once(mqtt, 'online');
  await own.launch();
  await online;
  await kept;
  assert.equal((await heard).text, 'kept');
});

test('a lost PUBLISH is sent again, marked as a duplicate', TIMEOUT, async (t) => {
  const publishes = [];
  const mqtt = client(t, {
    WebSocket: tapped({
      sent: (bytes) => {
        if (bytes[0] >> 4 !== PacketType.PUBLISH) return true;
        publishes.push(bytes[0]);
        return publishes.length > 1; // the first one is lost
      },
    }),
  });
  await once(mqtt, 'online');
  const other = await broker.subscribe('lossy', 1);
  await mqtt.publish('lossy', 'twice sent');
  assert.deepEqual(await other.messages(), ['twice sent']);
  assert.deepEqual(publishes, [0x32, 0x3a]); // QoS 1; QoS 1 and DUP
});

test('a wrong password is refused in words and not tried again', TIMEOUT, async (t) => {
  const guarded = await Mosquitto.start({ user: { name: 'app_1', password: 'right' } });
  t.after(() => guarded.stop());
  let sockets = 0;
  const Counting = class extends WebSocket {
    constructor(...args) {
      super(...args);
      sockets += 1;
    }
  };
  const login = { username: 'app_1', password: 'wrong' };
  const mqtt = client(t, { url: guarded.url, login, WebSocket: Counting });
  const lost = assert.rejects(mqtt.publish('x', 'y'), /refused us/);
  const refused = await detail(mqtt, 'refused');
  assert.ok([4, 5].includes(refused.code), `${refused.code}`);
  assert.match(refused.reason, /wrong user name or password|not authorized/);
  await lost;
  await new Promise((resolve) => setTimeout(resolve, 1_500));
  assert.equal(sockets, 1);

  mqtt.connect({ clientId: 'again', username: 'app_1', password: 'right' });
  await once(mqtt, 'online');
});

test('a large message arrives whole, both ways', TIMEOUT, async (t) => {
  const mqtt = client(t);
  const text = Array.from({ length: 64 * 1024 }, (_, i) => 'abcdefghij'[i % 10]).join('');
  await mqtt.subscribe('large');
  let heard = detail(mqtt, 'message');
  broker.publish('large', text);
  assert.equal((await heard).text, text);
  heard = detail(mqtt, 'message');
  await mqtt.publish('large', text);
  assert.equal((await heard).text, text);
});

test('frames cut anywhere and frames run together are put right', TIMEOUT, async (t) => {
  const cut = (event) => Array.from(new Uint8Array(event.data), (byte) => ({ data: Uint8Array.of(byte).buffer }));
  const mqtt = client(t, { WebSocket: tapped({ received: cut }) });
  await mqtt.subscribe('cut');
  const heard = detail(mqtt, 'message');
  await mqtt.publish('cut', 'x'.repeat(300));
  assert.equal((await heard).text, 'x'.repeat(300));

  const one = publishPacket({ topic: 't', payload: new Uint8Array(200).fill(7), qos: 1, packetId: 9 });
  const stream = Buffer.concat([one, one, one]);
  for (let first = 1; first < stream.length; first++) {
    const reader = new PacketReader();
    const packets = [...reader.push(stream.subarray(0, first)), ...reader.push(stream.subarray(first))];
    assert.equal(packets.length, 3);
    for (const p of packets) assert.deepEqual([p.topic, p.packetId, p.payload.length], ['t', 9, 200]);
  }
});

test('what no broker may send is refused, not believed', () => {
  const bad = {
    'a length of five bytes': [0x30, 0xff, 0xff, 0xff, 0xff, 0x01],
    'a packet beyond the limit': [0x30, 0x80, 0x80, 0x80, 0x01],
    'a PUBLISH whose topic runs past its end': [0x30, 3, 0, 9, 65],
    'a PUBLISH without its packet id': [0x32, 3, 0, 1, 65],
    'QoS 3': [0x36, 5, 0, 1, 65, 0, 1],
    'an empty CONNACK': [0x20, 0],
    'a CONNECT from the broker': [0x10, 0],
  };
  for (const [name, bytes] of Object.entries(bad)) {
    assert.throws(() => new PacketReader().push(Uint8Array.from(bytes)), ProtocolError, name);
  }
  assert.ok(MAX_PACKET_BYTES < 128 ** 3);
});

test('the outbox is bounded and keeps the older messages', TIMEOUT, async (t) => {
  const mqtt = client(t, { url: 'ws://127.0.0.1:9/mqtt' });
  const kept = Array.from({ length: MAX_OUTBOX }, () => mqtt.publish('x', 'y'));
  await assert.rejects(mqtt.publish('x', 'one too many'), /already wait/);
  assert.equal(mqtt.waiting, MAX_OUTBOX);
  mqtt.close();
  const results = await Promise.allSettled(kept);
  assert.ok(results.every((r) => r.status === 'rejected' && /closed/.test(r.reason.message)));
});

test('an unreachable address is left for the next one', TIMEOUT, async (t) => {
  const mqtt = new MqttClient({ urls: ['ws://127.0.0.1:9/mqtt', broker.url], WebSocket, random: () => 0 });
  t.after(() => mqtt.close());
  const offline = detail(mqtt, 'offline');
  mqtt.connect({ clientId: 'second_choice' });
  assert.match((await offline).reason, /127\.0\.0\.1:9/);
  await once(mqtt, 'online');
});

test('a socket opened early says nothing until it is told who we are', TIMEOUT, async (t) => {
  let sent = 0;
  const mqtt = new MqttClient({ urls: [broker.url], WebSocket: tapped({ sent: () => ++sent }) });
  t.after(() => mqtt.close());
  mqtt.open();
  await new Promise((resolve) => setTimeout(resolve, 300));
  assert.equal(sent, 0);
  mqtt.connect({ clientId: 'early', urls: [broker.url] });
  await once(mqtt, 'online');
});

test('a socket that was opened early and lost is missed by nobody before it is needed', TIMEOUT, async (t) => {
  const own = await Mosquitto.start();
  t.after(() => own.stop());
  const mqtt = new MqttClient({ urls: [own.url], WebSocket, random: () => 0.1 });
  t.after(() => mqtt.close());
  const events = [];
  for (const type of ['online', 'offline', 'refused']) mqtt.addEventListener(type, () => events.push(type));
  mqtt.open();
  await new Promise((resolve) => setTimeout(resolve, 200));
  await own.halt();
  await new Promise((resolve) => setTimeout(resolve, 200));
  assert.deepEqual(events, []);
  await own.launch();
  mqtt.connect({ clientId: 'late' });
  await once(mqtt, 'online');
});
