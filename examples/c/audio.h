/* The example camera's sound: a file for a microphone, and a file for a loudspeaker. */
#ifndef CAMERA_AUDIO_H
#define CAMERA_AUDIO_H

#include "p2pcam.h"

/* The kind of a file by its ending: P2P_AUDIO_OPUS (.opus-packets, each packet behind its length in two
 * bytes), P2P_AUDIO_PCMA (.pcma) or P2P_AUDIO_PCMU (.pcmu); 0 and a word about it if it is none. */
int32_t audio_codec_of(const char *path);

/* Plays `microphone` in a loop from now on, and writes what viewers say to `loudspeaker`; either may be NULL.
 * Zero and a word about it if that is not possible. */
int audio_start(p2p_agent_t *agent, const char *microphone, const char *loudspeaker);

/* For p2p_config_t: what viewers say. */
void audio_on_talkback(void *user, const p2p_talkback_t *talkback);

/* Ends it all. Call it after p2p_deinit, when nobody talks any more. */
void audio_stop(void);

#endif
