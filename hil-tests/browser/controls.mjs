// Presses what the viewer page has beside the picture, as a person would, and reports what came of it.

import { setTimeout as sleep } from 'node:timers/promises';
import { until } from './lib.mjs';

/** Sound on: {codec, packetsReceived, energy, concealedRatio} once something has been heard. */
export async function listen(page, withinMs) {
  await page.locator('#sound').click({ timeout: withinMs });
  const { inbound, codec } = await until(() => audioStats(page), ({ inbound }) => inbound?.totalAudioEnergy > 0,
    withinMs, 'nothing is heard');
  return {
    codec,
    packetsReceived: inbound.packetsReceived,
    packetsLost: inbound.packetsLost,
    energy: inbound.totalAudioEnergy,
    concealedRatio: inbound.concealedSamples / inbound.totalSamplesReceived,
  };
}

/** Talks for a while, into a microphone that beeps: {codec, packetsSent}. */
export async function talk(page, seconds, withinMs) {
  await page.locator('#talk').click({ timeout: withinMs });
  await until(() => page.evaluate(() => window.p2pcam.audio.talking), (talking) => talking === 'on', withinMs,
    'it does not talk');
  await sleep(seconds * 1000);
  const { outbound, codec } = await audioStats(page);
  await page.locator('#talk').click();
  return { codec, packetsSent: outbound?.packetsSent ?? 0 };
}

/** Sends a command to the camera, and waits for its first text: {reply}. */
export function command(page, text, withinMs) {
  return page.evaluate(async ([text, withinMs]) => {
    const { control } = window.p2pcam;
    const reply = new Promise((resolve, reject) => {
      control.addEventListener('message', ({ detail }) => resolve(detail.text), { once: true });
      setTimeout(() => reject(new Error(`no reply to “${text}”`)), withinMs);
    });
    reply.catch(() => {});
    await control.open();
    control.send(text);
    return { reply: await reply };
  }, [text, withinMs]);
}

/** Chooses another stream, and waits until the camera says that it sends it: {current, names}. */
export async function chooseStream(page, name, withinMs) {
  await page.locator('#quality').selectOption(name, { timeout: withinMs });
  const streams = () => page.evaluate(() => {
    const { current, names, problem } = window.p2pcam.streams;
    return { current, names, problem };
  });
  return until(streams, ({ current }) => current === name, withinMs, `the camera does not send “${name}”`);
}

const audioStats = (page) => page.evaluate(async () => {
  const report = [...(await window.p2pcam.pc.getStats()).values()];
  const of = (type) => report.find((s) => s.type === type && s.kind === 'audio');
  const [inbound, outbound] = [of('inbound-rtp'), of('outbound-rtp')];
  const codec = report.find((s) => s.id === (inbound ?? outbound)?.codecId)?.mimeType;
  return { inbound, outbound, codec };
});
