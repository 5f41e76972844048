// MQTT 3.1.1 control packets as bytes: only those a client needs that publishes and subscribes at
// QoS 0 and 1. Stateless, except for PacketReader, which puts packets together again from
// WebSocket frames cut anywhere (section 6 of the specification allows any cut).

export const PacketType = Object.freeze({
  CONNECT: 1, CONNACK: 2, PUBLISH: 3, PUBACK: 4, SUBSCRIBE: 8, SUBACK: 9,
  PINGREQ: 12, PINGRESP: 13, DISCONNECT: 14,
});

/** The largest packet we take. Signals have at most 64 KiB; a broker that sends more is broken. */
export const MAX_PACKET_BYTES = 256 * 1024;

/** What the broker answers to CONNECT (section 3.2.2.3), in words. */
export const CONNACK_REASONS = Object.freeze({
  1: 'the broker does not speak MQTT 3.1.1',
  2: 'the broker refused the client id',
  3: 'the broker is not available at the moment',
  4: 'wrong user name or password',
  5: 'not authorized',
});

/** SUBACK's return code for a refused topic. */
export const SUBSCRIBE_REFUSED = 0x80;

const PROTOCOL_LEVEL = 4; // 3.1.1
const FLAG_USER_NAME = 0x80, FLAG_PASSWORD = 0x40, FLAG_CLEAN_SESSION = 0x02;
const FLAG_DUP = 0x08, FLAG_RETAIN = 0x01;
const MAX_STRING_BYTES = 0xffff;

const utf8 = new TextEncoder();

export function connectPacket({ clientId, username, password, keepaliveSeconds }) {
  let flags = FLAG_CLEAN_SESSION;
  const fields = [string(clientId)];
  if (username !== undefined) {
    flags |= FLAG_USER_NAME;
    fields.push(string(username));
    // A password without a user name is not allowed (section 3.1.2.9).
    if (password !== undefined) {
      flags |= FLAG_PASSWORD;
      fields.push(string(password));
    }
  }
  return packet(PacketType.CONNECT, 0,
    string('MQTT'), [PROTOCOL_LEVEL, flags], u16(keepaliveSeconds), ...fields);
}

export function publishPacket({ topic, payload, qos, dup = false, retain = false, packetId }) {
  const flags = (dup ? FLAG_DUP : 0) | (qos << 1) | (retain ? FLAG_RETAIN : 0);
  return packet(PacketType.PUBLISH, flags, string(topic), qos > 0 ? u16(packetId) : [], payload);
}

export function subscribePacket(packetId, topic, qos) {
  return packet(PacketType.SUBSCRIBE, 0b0010, u16(packetId), string(topic), [qos]);
}

export const pubackPacket = (packetId) => packet(PacketType.PUBACK, 0, u16(packetId));
export const pingPacket = () => packet(PacketType.PINGREQ, 0);
export const disconnectPacket = () => packet(PacketType.DISCONNECT, 0);

/** Reads the packets a broker sends. Throws ProtocolError on what no broker may send. */
export class PacketReader {
  #pending = new Uint8Array(0);

  /** Takes the bytes of one WebSocket frame; returns the packets that are now complete. */
  push(bytes) {
    this.#pending = this.#pending.length === 0 ? bytes : concat([this.#pending, bytes]);
    const packets = [];
    for (;;) {
      const header = fixedHeader(this.#pending);
      if (!header || this.#pending.length < header.end) break;
      packets.push(parse(header, this.#pending.subarray(header.start, header.end)));
      this.#pending = this.#pending.subarray(header.end);
    }
    return packets;
  }
}

export class ProtocolError extends Error {}

function fixedHeader(bytes) {
  let length = 0;
  for (let i = 1; i <= 4; i++) {
    if (i >= bytes.length) return null;
    length += (bytes[i] & 0x7f) * 128 ** (i - 1);
    if ((bytes[i] & 0x80) === 0) {
      const start = i + 1, end = start + length;
      if (end > MAX_PACKET_BYTES) {
        throw new ProtocolError(`a packet of ${end} bytes; at most ${MAX_PACKET_BYTES} are taken`);
      }
      return { type: bytes[0] >> 4, flags: bytes[0] & 0x0f, start, end };
    }
  }
  throw new ProtocolError('a packet length of more than four bytes');
}

function parse({ type, flags }, body) {
  const need = (bytes) => {
    if (body.length < bytes) throw new ProtocolError(`packet type ${type} is cut short`);
  };
  switch (type) {
    case PacketType.CONNACK:
      need(2);
      return { type, code: body[1] };
    case PacketType.PUBACK:
      need(2);
      return { type, packetId: readU16(body, 0) };
    case PacketType.SUBACK:
      need(3);
      return { type, packetId: readU16(body, 0), code: body[2] };
    case PacketType.PINGRESP:
      return { type };
    case PacketType.PUBLISH: {
      need(2);
      const qos = (flags >> 1) & 3;
      // We never ask for QoS 2, so a broker may not use it (section 3.8.4).
      if (qos > 1) throw new ProtocolError(`a message with QoS ${qos}`);
      const topicEnd = 2 + readU16(body, 0);
      const start = topicEnd + (qos > 0 ? 2 : 0);
      need(start);
      return {
        type, qos,
        dup: (flags & FLAG_DUP) !== 0,
        retain: (flags & FLAG_RETAIN) !== 0,
        topic: new TextDecoder().decode(body.subarray(2, topicEnd)),
        packetId: qos > 0 ? readU16(body, topicEnd) : undefined,
        payload: body.slice(start),
      };
    }
    default:
      throw new ProtocolError(`packet type ${type}, which no broker sends to us`);
  }
}

function packet(type, flags, ...parts) {
  const length = parts.reduce((sum, part) => sum + part.length, 0);
  return concat([[(type << 4) | flags], remainingLength(length), ...parts]);
}

function remainingLength(length) {
  const bytes = [];
  do {
    const rest = Math.floor(length / 128);
    bytes.push((length % 128) | (rest > 0 ? 0x80 : 0));
    length = rest;
  } while (length > 0);
  return bytes;
}

function string(text) {
  const bytes = utf8.encode(text);
  if (bytes.length > MAX_STRING_BYTES) {
    throw new RangeError(`a string of ${bytes.length} bytes; MQTT takes ${MAX_STRING_BYTES}`);
  }
  return concat([u16(bytes.length), bytes]);
}

/** One behind the other; a WebSocket frame may hold several packets. */
export function concat(parts) {
  const out = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

const u16 = (n) => [n >> 8, n & 0xff];
const readU16 = (bytes, at) => (bytes[at] << 8) | bytes[at + 1];
