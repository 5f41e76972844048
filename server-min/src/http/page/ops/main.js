// The operators' page: signs in, asks the server every two seconds while somebody can see it, and hands out
// what it says.

import { Api } from './api.js';
import { Detail } from './detail.js';
import { byId, tell, write } from './dom.js';
import { NodeView } from './node.js';
import { SessionsView } from './sessions.js';
import { clock } from './words.js';

const EVERY_MS = 2_000;

const api = new Api();
const detail = new Detail(api, { onChange: () => refresh(), onRefused: signedOut });
const onOpen = (id) => detail.open(id);
const node = new NodeView({ onOpen });
const sessions = new SessionsView({ onOpen, onWanted: () => refresh() });
let timer = 0;
/** The latest question: the answers to those before it come too late. */
let asked = 0;
let open = null;

function state(name, text) {
  document.body.dataset.state = name;
  write(byId('state'), text);
}

function showLogin(problem = '') {
  clearTimeout(timer);
  asked += 1;
  api.token = '';
  if (byId('detail').open) byId('detail').close();
  byId('desk').hidden = byId('sign-out').hidden = true;
  byId('login').hidden = false;
  tell(byId('login-error'), problem);
  state('idle', '');
  byId('token').focus();
}

/** Whether an error means that the token is no longer good. */
function signedOut(error) {
  if (error.status !== 401) return false;
  showLogin(error.message);
  return true;
}

byId('login').onsubmit = async (event) => {
  event.preventDefault();
  const button = byId('login').querySelector('button');
  button.disabled = true;
  api.token = byId('token').value.trim();
  try {
    const overview = await api.overview();
    byId('token').value = '';
    enter(overview);
  } catch (error) {
    const message = error.status === 404 ? 'this server has no operators’ page: ops.token is not set' : error.message;
    showLogin(message);
  } finally {
    button.disabled = false;
  }
};

byId('sign-out').onclick = () => showLogin();

function enter() {
  byId('login').hidden = true;
  byId('desk').hidden = byId('sign-out').hidden = false;
  refresh();
}

/** Asks now, and again in two seconds. Nothing is asked for a page that nobody sees. */
async function refresh() {
  clearTimeout(timer);
  asked += 1;
  if (document.hidden || !api.token) return;
  const mine = asked;
  const { wanted } = sessions;
  const outcomes = await Promise.allSettled([
    api.overview(), wanted ? api.sessions(wanted) : null, detail.refresh(),
  ]);
  if (mine !== asked) return;
  const [overview, page] = outcomes;
  const errors = outcomes.filter(({ reason }) => reason).map(({ reason }) => reason);
  if (errors.some(signedOut)) return;
  if (page.value) open = page.value.open;
  if (overview.value) {
    node.show(overview.value, open);
    state(page.reason ? 'failed' : 'live', page.reason ? 'sessions cannot be listed' : `${clock(overview.value.now)} UTC`);
  } else {
    state('failed', overview.reason.message);
  }
  if (!page.reason) sessions.show(page.value);
  tell(byId('notice'), errors[0]?.message);
  const waitS = Math.max(...errors.map(({ retryAfterS }) => retryAfterS), 0);
  timer = setTimeout(refresh, Math.max(EVERY_MS, waitS * 1000));
}

document.addEventListener('visibilitychange', () => {
  if (document.hidden) state('idle', 'paused');
  refresh();
});

if (api.token) enter();
else showLogin();
