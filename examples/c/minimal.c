/* The least a firmware does: start the agent and one stream, and push what the encoder makes. */
#include "p2pcam.h"
#include "encoder.h" /* yours: my_encoder_… */

#include <stdio.h>

static void on_keyframe_request(void *user, p2p_stream_t *stream, void *stream_user) {
    (void)user, (void)stream;
    my_encoder_force_idr(stream_user);
}

int main(void) {
    p2p_config_t config = P2P_CONFIG_INIT;
    config.device_id = "SN-0001";
    config.broker_url = "mqtt://broker.example.com:1883";
    config.broker_password = "device password";
    config.service_public_key = "64 hexadecimal digits from `server-min public-key`";
    config.on_keyframe_request = on_keyframe_request;

    my_encoder_t *encoder = my_encoder_open();
    p2p_stream_config_t video = P2P_STREAM_CONFIG_INIT;
    video.name = "main";
    video.codec = P2P_CODEC_H264;
    video.user = encoder;

    p2p_agent_t *agent;
    p2p_stream_t *stream;
    if (p2p_init(&config, &agent) != P2P_OK || p2p_start_stream(agent, &video, &stream) != P2P_OK) {
        fprintf(stderr, "p2pcam: %s\n", p2p_last_error());
        return 1;
    }
    p2p_frame_t frame = P2P_FRAME_INIT; /* release is NULL: frames are copied */
    while (my_encoder_next(encoder, &frame.data, &frame.size, &frame.timestamp_us))
        p2p_push_frame(stream, &frame);
    p2p_deinit(agent);
    return 0;
}
