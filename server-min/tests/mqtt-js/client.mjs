// mqtt.js over WebSocket against the broker whose address is the first argument. Ends with status 0
// if everything arrived as it should.

import assert from "node:assert/strict";
import mqtt from "mqtt";

const url = process.argv[2];
// A whole server has users without a role in their names, and looks at who signs a device's message.
const bareNames = process.argv[3] === "bare-names";
const PATIENCE_MS = 10_000;

function connect(username, version, more = {}) {
  return mqtt.connectAsync(url, {
    username: bareNames ? username.split(":")[1] : username,
    password: "right",
    protocolVersion: version,
    reconnectPeriod: 0,
    connectTimeout: PATIENCE_MS,
    ...more,
  });
}

const fromDevice = (text) => JSON.stringify({ from: "cam1", text });

// Messages in the order they came; `next()` waits for one.
function inbox(client) {
  const waiting = [];
  const readers = [];
  client.on("message", (topic, payload, packet) => {
    const message = { topic, payload, packet };
    const reader = readers.shift();
    if (reader) reader(message);
    else waiting.push(message);
  });
  return {
    next: () =>
      waiting.length > 0
        ? Promise.resolve(waiting.shift())
        : new Promise((resolve, reject) => {
            const timer = setTimeout(() => reject(new Error("no message in time")), PATIENCE_MS);
            readers.push((message) => {
              clearTimeout(timer);
              resolve(message);
            });
          }),
  };
}

for (const version of [4, 5]) {
  const app = await connect("app:a1", version);
  const device = await connect("device:cam1", version, {
    will: { topic: "p2p/status/device/cam1", payload: "offline", qos: 1, retain: true },
  });
  const toApp = inbox(app);
  const toDevice = inbox(device);
  const granted = await device.subscribeAsync("p2p/signal/device/cam1", { qos: 2 });
  assert.equal(granted[0].qos, 1);
  await app.subscribeAsync(["p2p/signal/app/a1", "p2p/status/device/cam1"], { qos: 1 });

  for (const qos of [0, 1, 2]) {
    await app.publishAsync("p2p/signal/device/cam1", `offer ${qos}`, { qos });
    const message = await toDevice.next();
    assert.equal(message.payload.toString(), `offer ${qos}`);
    assert.equal(message.packet.qos, Math.min(qos, 1));
  }

  const large = Buffer.from(fromDevice("x".repeat(64 * 1024 - fromDevice("").length)));
  await device.publishAsync("p2p/signal/app/a1", large, { qos: 1 });
  assert.ok((await toApp.next()).payload.equals(large));

  for (let n = 0; n < 200; n++) device.publish("p2p/signal/app/a1", fromDevice(n), { qos: 1 });
  for (let n = 0; n < 200; n++) assert.equal((await toApp.next()).payload.toString(), fromDevice(n));

  await assert.rejects(app.subscribeAsync("p2p/#", { qos: 1 }), "a wildcard is refused");
  if (version === 5) {
    await assert.rejects(app.publishAsync("p2p/signal/app/a2", "x", { qos: 1 }), /Not authorized/);
    await app.publishAsync("p2p/signal/device/cam1", "x", {
      qos: 1,
      properties: { userProperties: { k: "v" }, responseTopic: "back", correlationData: Buffer.from("c0") },
    });
    const { properties } = (await toDevice.next()).packet;
    assert.equal(properties.userProperties.k, "v");
    assert.equal(properties.responseTopic, "back");
    assert.equal(properties.correlationData.toString(), "c0");
  }

  device.stream.destroy();
  const will = await toApp.next();
  assert.equal(will.topic, "p2p/status/device/cam1");
  assert.equal(will.payload.toString(), "offline");
  await app.endAsync();
  await device.endAsync(true);

  const late = await connect("app:a2", version);
  const toLate = inbox(late);
  await late.subscribeAsync("p2p/status/device/cam1", { qos: 1 });
  assert.equal((await toLate.next()).packet.retain, true);
  await late.endAsync();
  const again = await connect("device:cam1", version);
  await again.publishAsync("p2p/status/device/cam1", "", { qos: 1, retain: true });
  await again.endAsync();

  await assert.rejects(connect("app:a1", version, { password: "wrong" }), /Bad User|Bad user|Not authorized/i);
}
console.log("all arrived");
process.exit(0);
