// The table of live sessions: a page of them as the server found them, sorted here.

import { Rows, byId, el, tell, write } from './dom.js';
import * as words from './words.js';

const badge = (data, text) => ({ data, text });

/** Each column: its name, what it sorts by, and what stands in it. */
const COLUMNS = [
  { name: 'Session', by: (s) => s.sessionId },
  { name: 'Device', by: (s) => s.deviceId, text: (s) => s.deviceId },
  { name: 'App', by: (s) => s.appId, text: (s) => s.appId },
  { name: 'Region', by: (s) => s.region ?? '', text: (s) => s.region ?? '–' },
  { name: 'State', by: (s) => s.status, badge: (s) => badge({ state: s.status }, s.status) },
  { name: 'Path', by: (s) => s.path ?? '', badge: (s) => badge({ path: words.route(s.path) }, words.route(s.path)) },
  { name: 'Age', by: (s) => s.ageMs, text: (s) => words.age(s.ageMs), number: true },
  { name: 'Set-up', by: (s) => s.setupMs ?? -1, text: (s) => words.setup(s.setupMs), number: true },
  { name: 'Heard of', by: (s) => s.silentMs, text: (s) => `${words.age(s.silentMs)} ago`, number: true },
  { name: 'Relay', by: (s) => s.relay?.bitRate ?? (s.relay ? 0 : -1), text: (s) => (s.relay ? words.bits(s.relay.bitRate) : '–'), number: true },
];
const AGE = COLUMNS.findIndex(({ name }) => name === 'Age');

const compare = (a, b) => (typeof a === 'number' ? a - b : String(a).localeCompare(String(b)));

export class SessionsView {
  /** `onOpen(id)`; `onWanted()` when another page or other sessions are asked for. */
  constructor({ onOpen, onWanted }) {
    Object.assign(this, { onOpen, onWanted, sort: { column: AGE, down: false }, after: '', page: null });
    this.table = byId('sessions');
    this.heads = COLUMNS.map(({ name, number }, column) => {
      const button = el('button', { type: 'button', textContent: name });
      button.onclick = () => this.sortBy(column);
      return el('th', { scope: 'col', className: number ? 'number' : '' }, button);
    });
    this.table.tHead.rows[0].append(...this.heads);
    this.rows = new Rows(this.table.tBodies[0], (s) => this.make(s), (tr, s) => this.update(tr, s));
    let typing;
    const again = () => {
      this.after = '';
      this.onWanted();
    };
    byId('find').oninput = () => {
      clearTimeout(typing);
      typing = setTimeout(again, 150);
    };
    byId('wanted-state').onchange = again;
    byId('first').onclick = again;
    byId('next').onclick = () => {
      this.after = this.page.next;
      this.onWanted();
    };
  }

  /** What the server is to be asked for; `null` if no id can be so. */
  get wanted() {
    const q = byId('find').value.trim();
    if (!/^[\w-]*$/.test(q)) return null;
    return { q, state: byId('wanted-state').value, after: this.after };
  }

  sortBy(column) {
    const { sort } = this;
    this.sort = { column, down: sort.column === column && !sort.down };
    this.draw();
  }

  /** `page` is `null` where nothing can be found. */
  show(page) {
    this.page = page ?? { sessions: [], next: null, open: this.page?.open ?? 0, now: 0 };
    this.draw();
  }

  draw() {
    if (!this.page) return;
    const { column, down } = this.sort;
    this.heads.forEach((th, i) => {
      if (i === column) th.setAttribute('aria-sort', down ? 'descending' : 'ascending');
      else th.removeAttribute('aria-sort');
    });
    const { by } = COLUMNS[column];
    const { now, next, open } = this.page;
    const sessions = this.page.sessions.map((s) => ({ ...s, silentMs: Math.max(0, now - s.updatedAt) }));
    sessions.sort((a, b) => (down ? -1 : 1) * compare(by(a), by(b)) || compare(a.sessionId, b.sessionId));
    this.rows.show(sessions, (s) => s.sessionId);

    const isFiltered = byId('find').value.trim() || byId('wanted-state').value;
    const shown = words.count(sessions.length);
    const isPart = next || this.after || isFiltered;
    write(byId('count'), isPart ? `${shown} shown, ${words.count(open)} in all` : `${words.count(open)}`);
    this.table.hidden = !sessions.length;
    const nobody = isFiltered ? 'No live session is like this. One that has ended is found by its whole id.' : 'Nobody is watching.';
    tell(byId('nobody'), sessions.length ? '' : nobody);
    byId('pager').hidden = !next && !this.after;
    byId('first').disabled = !this.after;
    byId('next').disabled = !next;
  }

  make({ sessionId }) {
    const id = el('button', { type: 'button', className: 'link', textContent: sessionId.slice(0, 8), title: sessionId });
    id.setAttribute('aria-label', `Session ${sessionId}`);
    id.onclick = () => this.onOpen(sessionId);
    const cells = COLUMNS.map(({ name, number, badge: isBadge }, i) => el('td',
      { data: { label: name }, className: number ? 'number' : '' },
      i === 0 ? id : isBadge ? el('span', { className: 'badge' }) : ''));
    return el('tr', {}, ...cells);
  }

  update(tr, session) {
    COLUMNS.forEach((column, i) => {
      const cell = tr.cells[i];
      if (column.badge) {
        const { data, text } = column.badge(session);
        Object.assign(cell.firstChild.dataset, data);
        write(cell.firstChild, text);
      } else if (column.text) {
        write(cell, column.text(session));
      }
    });
  }
}
