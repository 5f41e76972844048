// The peer connection of a viewer: one video to receive, live, and one sound.

import { Failure } from './words.js';

/** What a camera may send, best first. Leaving out the rest makes the offer a third as long. */
const VIDEO_CODECS = ['video/h264', 'video/h265', 'video/rtx'];
const AUDIO_CODECS = ['audio/opus', 'audio/pcmu', 'audio/pcma'];

/** {pc, video, audio}, the latter two its transceivers. Without ICE servers yet: see `useIceServers`. */
export function createPeer({ relayOnly }) {
  const pc = new RTCPeerConnection({
    iceTransportPolicy: relayOnly ? 'relay' : 'all', bundlePolicy: 'max-bundle',
    // Gathers ahead of setLocalDescription, first on this machine alone, and anew with the ICE servers.
    // The second time is the quick one: by then the browser knows its addresses.
    iceCandidatePoolSize: 1,
  });
  const video = pc.addTransceiver('video', { direction: 'recvonly' });
  if (!prefer(video, 'video', VIDEO_CODECS)) throw new Failure('codec', 'it has neither H.264 nor H.265');
  // A camera is watched live: show each frame as soon as it can be decoded.
  video.receiver.jitterBufferTarget = 0;
  video.receiver.playoutDelayHint = 0;
  const audio = pc.addTransceiver('audio', { direction: 'recvonly' });
  prefer(audio, 'audio', AUDIO_CODECS);
  return { pc, video, audio };
}

/** Before setLocalDescription. One entry that this browser does not take must not cost the others. */
export function useIceServers(pc, iceServers) {
  const configuration = pc.getConfiguration();
  try {
    pc.setConfiguration({ ...configuration, iceServers });
    return;
  } catch {
    // Which of them it was is found out one by one.
  }
  const taken = [];
  for (const server of iceServers) {
    try {
      pc.setConfiguration({ ...configuration, iceServers: [...taken, server] });
      taken.push(server);
    } catch (error) {
      console.warn('p2pcam: ICE server not taken:', server.urls, error.message);
    }
  }
}

/** Whether the browser has any of them. One that cannot be asked offers what it likes. */
function prefer(transceiver, kind, wanted) {
  const known = RTCRtpReceiver.getCapabilities?.(kind)?.codecs;
  if (!known || !transceiver.setCodecPreferences) return true;
  const place = ({ mimeType }) => wanted.indexOf(mimeType.toLowerCase());
  const codecs = known.filter((codec) => place(codec) >= 0).sort((a, b) => place(a) - place(b));
  if (!codecs.some(({ mimeType }) => !/\/rtx$/i.test(mimeType))) return false;
  transceiver.setCodecPreferences(codecs);
  return true;
}
