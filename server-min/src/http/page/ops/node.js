// This node: its numbers, its checks, its TURN nodes, and who ended lately.

import { Rows, byId, el, write } from './dom.js';
import * as words from './words.js';

const ENDS = ['When (UTC)', 'Session', 'Device', 'App', 'Path', 'Lasted', 'Reason'];
/** Times and ids stay in one line. */
const CLASSES = { 0: 'whole', 1: 'whole', 5: 'whole', 6: 'words' };
const MOST_FIRST = (a, b) => b.count - a.count;

/** Of sessions that have connected or failed, those that have connected. */
const success = ({ connected, failed }) => words.percent(connected, connected + failed);

const sinceStart = 'since this server was started';

function figures({ sessions, totals, turn, mqtt, now, startedAt }, open) {
  const relay = turn ?? {};
  const of = relay.maxAllocations ? `of at most ${words.count(relay.maxAllocations)}` : '';
  return [
    ['Live sessions', words.count(open), 'connecting or connected, in the store'],
    ['Connected', words.count(sessions?.connected), sessions ? '' : 'not known while the store is away'],
    ['Relayed', words.percent(totals.relayed, totals.relayed + totals.direct), `of connections ${sinceStart}`],
    ['Success', success(totals), `${words.count(totals.connected)} connected, ${words.count(totals.failed)} failed ${sinceStart}`],
    ['TURN allocations', words.count(relay.allocations), of],
    ['Relay', words.bits(relay.bitRate), turn ? `${words.bytes(turn.bytesRelayed)} ${sinceStart}` : 'no relay of its own'],
    ['MQTT clients', words.count(mqtt?.clients), mqtt ? `${words.count(mqtt.devices)} devices, ${words.count(mqtt.apps)} apps` : 'the broker is elsewhere'],
    ['Up', words.age(now - startedAt), words.moment(startedAt)],
  ];
}

export class NodeView {
  constructor({ onOpen }) {
    this.figures = new Rows(byId('figures'),
      () => el('div', {}, el('dt'), el('dd'), el('dd', { className: 'hint' })),
      (div, [name, value, hint]) => [name, value, hint].forEach((text, i) => write(div.children[i], text)));
    const check = () => el('li', {},
      el('span', { className: 'badge' }), el('span', { className: 'what' }), el('span', { className: 'hint' }));
    const show = (li, { name, ok, word, why }) => {
      li.dataset.ok = ok;
      [word, name, why].forEach((text, i) => write(li.children[i], text));
    };
    this.checks = new Rows(byId('checks'), check, show);
    this.nodes = new Rows(byId('nodes'), check, show);
    // What needs an operator is few beside what ends in order: each has its own scale.
    [this.failed, this.disconnected] = ['failed', 'disconnected'].map((id) => new Rows(byId(id),
      () => el('li', {}, el('span', { className: 'what' }), el('span', { className: 'bar', attributes: { 'aria-hidden': 'true' } }), el('b')),
      (li, { label, count, most }) => {
        li.title = label;
        write(li.children[0], words.reason(label));
        li.children[1].style.setProperty('--part', count / most);
        write(li.children[2], words.count(count));
      }));
    byId('ends').tHead.rows[0].append(...ENDS.map((name) => el('th', { scope: 'col', textContent: name })));
    this.ends = new Rows(byId('ends').tBodies[0], (end) => this.makeEnd(end, onOpen), () => {});
  }

  /** `open`: sessions in the store. */
  show(overview, open) {
    write(byId('node-name'), `${overview.region} · ${overview.version}`);
    this.figures.show(figures(overview, open), ([name]) => name);
    const checks = overview.checks.map(({ name, why }) => ({
      name, ok: !why, word: why ? 'not ready' : 'ready', why: why ?? '',
    }));
    if (overview.draining) checks.unshift({ name: 'draining', ok: false, word: 'stopping', why: 'it takes nobody new' });
    this.checks.show(checks, ({ name }) => name);
    const nodes = overview.nodes.map(({ name, region, own, alive, sessions }) => ({
      name, ok: alive, word: alive ? 'up' : 'down',
      why: `${own ? 'this one' : region}, given to ${words.count(sessions)} sessions`,
    }));
    this.nodes.show(nodes, ({ name }) => name);
    byId('nodes-title').hidden = !nodes.length;
    this.showEnds(overview.ends);
  }

  showEnds({ recent, of, failed, disconnected }) {
    for (const [rows, counts] of [[this.failed, failed], [this.disconnected, disconnected]]) {
      const most = Math.max(...Object.values(counts));
      const reasons = Object.entries(counts).map(([label, count]) => ({ label, count, most }));
      rows.show(reasons.sort(MOST_FIRST), ({ label }) => label);
      rows.parent.parentElement.hidden = !reasons.length;
    }
    const failures = Object.values(failed).reduce((sum, n) => sum + n, 0);
    write(byId('ends-count'), of ? `${words.count(failures)} of the last ${words.count(of)} never connected` : '');
    byId('no-ends').hidden = of > 0;
    byId('ends').hidden = byId('reasons').hidden = of === 0;
    this.ends.show(recent, ({ sessionId, endedAt }) => `${sessionId} ${endedAt}`);
  }

  makeEnd(end, onOpen) {
    const id = el('button', { type: 'button', className: 'link', textContent: end.sessionId.slice(0, 8), title: end.sessionId });
    id.setAttribute('aria-label', `Session ${end.sessionId}`);
    id.onclick = () => onOpen(end.sessionId);
    const cells = [
      words.clock(end.endedAt), id, end.deviceId, end.appId,
      el('span', { className: 'badge', data: { path: words.route(end.path) }, textContent: words.route(end.path) }),
      words.age(end.ageMs),
      el('span', { className: 'reason', data: { kind: end.connected ? 'ended' : 'failed' } },
        el('b', { textContent: end.reason }), ' ', el('span', { className: 'hint', textContent: end.words })),
    ];
    return el('tr', {}, ...cells.map((cell, i) => el('td', { data: { label: ENDS[i] }, className: CLASSES[i] ?? '' }, cell)));
  }
}
