/* The C API with nothing behind it: the benchmark links the example with this to see what the SDK
 * itself adds. */
#include "p2pcam.h"

#include <stddef.h>

p2p_status_t p2p_init(const struct p2p_config_t *config, struct p2p_agent_t **agent) {
    (void)config, (void)agent;
    return P2P_ERR_INTERNAL;
}

p2p_status_t p2p_deinit(struct p2p_agent_t *agent) {
    (void)agent;
    return P2P_OK;
}

p2p_status_t p2p_start_stream(struct p2p_agent_t *agent, const struct p2p_stream_config_t *config,
                              struct p2p_stream_t **stream) {
    (void)agent, (void)config, (void)stream;
    return P2P_ERR_INTERNAL;
}

p2p_status_t p2p_push_frame(struct p2p_stream_t *stream, const struct p2p_frame_t *frame) {
    (void)stream, (void)frame;
    return P2P_ERR_INTERNAL;
}

p2p_status_t p2p_stop_stream(struct p2p_stream_t *stream) {
    (void)stream;
    return P2P_OK;
}

p2p_status_t p2p_viewer_close(struct p2p_agent_t *agent, const char *session_id, const char *reason) {
    (void)agent, (void)session_id, (void)reason;
    return P2P_ERR_INTERNAL;
}

p2p_status_t p2p_viewer_switch(struct p2p_agent_t *agent, const char *session_id, struct p2p_stream_t *stream) {
    (void)agent, (void)session_id, (void)stream;
    return P2P_ERR_INTERNAL;
}

p2p_status_t p2p_send_data(struct p2p_agent_t *agent, const char *session_id, uint16_t channel,
                           const uint8_t *data, size_t size, int32_t is_text) {
    (void)agent, (void)session_id, (void)channel, (void)data, (void)size, (void)is_text;
    return P2P_ERR_INTERNAL;
}

p2p_status_t p2p_open_data_channel(struct p2p_agent_t *agent, const char *session_id,
                                   const struct p2p_data_channel_config_t *config, uint16_t *channel) {
    (void)agent, (void)session_id, (void)config, (void)channel;
    return P2P_ERR_INTERNAL;
}

const char *p2p_strerror(int32_t status) {
    (void)status;
    return "";
}

const char *p2p_last_error(void) { return ""; }

const char *p2p_version(void) { return ""; }

p2p_status_t p2p_get_stats(struct p2p_agent_t *agent, struct p2p_stats_t *stats,
                           struct p2p_viewer_stats_t *viewers, size_t *viewer_count,
                           struct p2p_stream_stats_t *streams, size_t *stream_count) {
    (void)agent, (void)stats, (void)viewers, (void)viewer_count, (void)streams, (void)stream_count;
    return P2P_ERR_INTERNAL;
}

p2p_status_t p2p_start_audio(struct p2p_agent_t *agent, const struct p2p_audio_config_t *config,
                             struct p2p_audio_t **audio) {
    (void)agent, (void)config, (void)audio;
    return P2P_ERR_INTERNAL;
}

p2p_status_t p2p_push_audio(struct p2p_audio_t *audio, const struct p2p_audio_frame_t *frame) {
    (void)audio, (void)frame;
    return P2P_ERR_INTERNAL;
}

p2p_status_t p2p_stop_audio(struct p2p_audio_t *audio) {
    (void)audio;
    return P2P_OK;
}
