// What the page says: states and failures in words. A failure has a kind, which decides the words,
// and a detail for whoever looks into it, which the page shows below them.

export class Failure extends Error {
  /** `code`: the number of a signaling error or of an HTTP answer, where there was one. */
  constructor(kind, detail = '', code = undefined) {
    super(detail);
    this.kind = kind;
    this.code = code;
  }

  /** As a number of docs/signaling.md; none where nothing is wrong with this side. */
  get number() {
    return this.code ?? NUMBERS[this.kind];
  }

  get title() {
    return (FAILURES[this.kind] ?? FAILURES.internal).title;
  }

  get advice() {
    return (FAILURES[this.kind] ?? FAILURES.internal).advice;
  }

  toJSON() {
    const { kind, code, title, advice, message: detail } = this;
    return { kind, code, title, advice, detail };
  }
}

const NUMBERS = { codec: 406, lost: 408, silent: 408, timeout: 408, internal: 500 };

/** The kind of failure a camera's or the session service's `error` message means. */
export function kindOfError(code) {
  return ERROR_KINDS[code] ?? 'internal';
}

export function stateInWords(state) {
  return state.name === 'connecting' ? STEPS[state.step] : STATES[state.name];
}

export function pathInWords(path) {
  if (!path) return '–';
  if (path.relayed) return `relayed${path.relayProtocol ? ` over ${path.relayProtocol.toUpperCase()}` : ''}`;
  return path.kind === 'host' ? 'direct, same network' : 'direct';
}

const STEPS = {
  session: 'Asking for a session…',
  signaling: 'Calling the camera…',
  answer: 'Finding a way to the camera…',
  media: 'Connected, waiting for the picture…',
};

const STATES = {
  idle: 'Ready',
  playing: 'Live',
  recovering: 'Connection lost, reconnecting…',
  failed: 'Not connected',
  closed: 'Closed',
};

const ERROR_KINDS = {
  400: 'request', 401: 'token', 403: 'token', 404: 'gone', 406: 'codec', 408: 'timeout',
  409: 'conflict', 413: 'request', 429: 'full', 500: 'internal', 503: 'stream',
};

const FAILURES = {
  offline: {
    title: 'The camera is offline',
    advice: 'Check its power and network. The picture starts by itself when it comes back.',
  },
  silent: {
    title: 'The camera does not answer',
    advice: 'It may be offline or starting up, or the device name may be wrong.',
  },
  key: {
    title: 'The key was refused',
    advice: 'Check the application key, the part of the address after “#key=”.',
  },
  device: {
    title: 'There is no such camera',
    advice: 'Check the device name in the address.',
  },
  token: {
    title: 'The camera refused access',
    advice: 'The permission for this session is missing, expired or not for this camera. Try again.',
  },
  full: {
    title: 'Too many viewers',
    advice: 'Close another viewer of this camera, then try again.',
  },
  stream: {
    title: 'No such stream',
    advice: 'The camera is not sending this stream at the moment. Try again, or choose another one.',
  },
  codec: {
    title: 'This browser cannot play the camera’s video',
    advice: 'Try another browser, or set the camera to H.264.',
  },
  timeout: {
    title: 'Nothing connected in time',
    advice: 'A firewall may block UDP between you, the camera and the relay. Try another network.',
  },
  black: {
    title: 'Connected, but no picture came',
    advice: 'The camera’s encoder may have stopped.',
  },
  lost: {
    title: 'The connection was lost',
    advice: 'Trying again by itself.',
  },
  ended: {
    title: 'The camera ended the session',
    advice: 'Try again to go on watching.',
  },
  gone: {
    title: 'The session has ended',
    advice: 'Try again to start a new one.',
  },
  conflict: {
    title: 'The session is in use elsewhere',
    advice: 'Try again to start a new one.',
  },
  server: {
    title: 'The server cannot be reached',
    advice: 'Check your network connection and the server’s address.',
  },
  signaling: {
    title: 'The signaling broker cannot be reached',
    advice: 'A firewall or proxy may block WebSocket connections to it.',
  },
  signalingRefused: {
    title: 'The signaling broker refused access',
    advice: 'Try again. If it stays so, the broker does not accept the session’s credentials.',
  },
  request: {
    title: 'The request was not understood',
    advice: 'Check the device name. The page and the camera may also be of different versions.',
  },
  microphone: {
    title: 'The microphone cannot be used',
    advice: 'Open the page by https, and allow it the microphone.',
  },
  mute: {
    title: 'The camera does not listen',
    advice: 'It has no loudspeaker, or it is switched off.',
  },
  control: {
    title: 'The camera takes no commands',
    advice: 'It has nothing to be moved, or another viewer is moving it.',
  },
  unsupported: {
    title: 'This browser has no WebRTC',
    advice: 'Use a current Chrome, Edge, Firefox or Safari.',
  },
  internal: {
    title: 'Something went wrong',
    advice: 'Try again. The session id helps support to find out what happened.',
  },
};
