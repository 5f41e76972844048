// One session: everything that is known of it, how to find it in the log, and its end.

import { Rows, byId, el, tell, write } from './dom.js';
import * as words from './words.js';

const yesNo = (value) => (value ?? null) === null ? 'not known' : value ? 'yes' : 'no';

/** Its lines, as [name, value]. */
function lines({ session, ended, deviceOnline, appOnline, now }) {
  const one = session ?? ended;
  const all = [
    ['Device', one.deviceId],
    ['App', one.appId],
    ['Region', one.region ?? '–'],
    ['State', session?.status ?? 'ended'],
    ['Path', words.routeInFull(one.path)],
    ['Set-up', words.setup(one.setupMs)],
  ];
  if (session) {
    all.push(
      ['Created', words.moment(session.createdAt)],
      ['Heard of', `${words.moment(session.updatedAt)}, ${words.age(Math.max(0, now - session.updatedAt))} ago`],
    );
  }
  if (session && session.status !== 'closed') {
    all.push(['Age', words.age(session.ageMs)], ['Device at the broker', yesNo(deviceOnline)], ['App at the broker', yesNo(appOnline)]);
  }
  if (session?.relay) {
    const { allocations, bytesToPeers, bytesToClients, bitRate, capBps } = session.relay;
    all.push(
      ['Relay', `${words.count(allocations)} allocations, ${words.bits(bitRate)}`],
      ['Relayed', `${words.bytes(bytesToPeers)} from its clients, ${words.bytes(bytesToClients)} to them`],
      ['Cap', capBps ? `${words.bits(capBps)} each way` : 'none'],
    );
  }
  if (session) all.push(['STUN server', session.stunServer || '–'], ['TURN user', session.turnAllocation ?? '–']);
  if (ended) {
    all.push(
      ['Ended', `${words.moment(ended.endedAt)}, ${words.age(ended.ageMs)} old`],
      ['Had connected', yesNo(ended.connected)],
      ['Reason', `${ended.reason}: ${words.reason(ended.reason)}`],
      ['In words', ended.words],
    );
  }
  return all;
}

export class Detail {
  /** `onChange()` after a session was closed; `onRefused(error)` may take an error. */
  constructor(api, { onChange, onRefused }) {
    Object.assign(this, { api, onChange, onRefused, id: null });
    this.dialog = byId('detail');
    this.lines = new Rows(byId('record'),
      () => el('div', {}, el('dt'), el('dd')),
      (div, [name, value]) => [name, value].forEach((text, i) => write(div.children[i], text)));
    byId('detail-close').onclick = () => this.dialog.close();
    this.dialog.onclose = () => (this.id = null);
    byId('copy').onclick = () => this.copy();
    byId('end').onclick = () => this.ask(true);
    byId('end-no').onclick = () => this.ask(false);
    byId('end-yes').onclick = () => this.end();
  }

  open(id) {
    this.id = id;
    this.lines.show([], () => '');
    write(byId('detail-title'), `Session ${id.slice(0, 8)}`);
    write(byId('grep'), `grep sessionId=${id} server.log`);
    write(byId('copy'), 'Copy');
    tell(byId('detail-problem'), '');
    byId('ending').hidden = true;
    this.ask(false, { focus: false });
    if (!this.dialog.open) this.dialog.showModal();
    return this.refresh();
  }

  /** Asks the server again, if it is open. */
  async refresh() {
    const { id } = this;
    if (!id) return;
    try {
      const found = await this.api.session(id);
      if (this.id !== id) return;
      tell(byId('detail-problem'), '');
      this.lines.show(lines(found), ([name]) => name);
      byId('ending').hidden = !found.session || found.session.status === 'closed';
    } catch (error) {
      if (this.id !== id || this.onRefused(error)) return;
      tell(byId('detail-problem'), error.message);
    }
  }

  /** The second question before the end; whoever answers no is where the first one was. */
  ask(sure, { focus = true } = {}) {
    byId('confirm').hidden = !sure;
    byId('end').hidden = sure;
    if (focus) byId(sure ? 'end-no' : 'end').focus();
  }

  async end() {
    const { id } = this;
    byId('end-yes').disabled = true;
    try {
      await this.api.close(id);
    } catch (error) {
      if (error.status !== 404 && !this.onRefused(error)) tell(byId('detail-problem'), error.message);
    } finally {
      byId('end-yes').disabled = false;
    }
    this.ask(false, { focus: false });
    byId('detail-close').focus();
    this.onChange();
  }

  async copy() {
    try {
      await navigator.clipboard.writeText(byId('grep').textContent);
      write(byId('copy'), 'Copied');
    } catch {
      // Without HTTPS there is no clipboard: what is marked can be copied by hand.
      getSelection().selectAllChildren(byId('grep'));
      write(byId('copy'), 'Marked');
    }
  }
}
