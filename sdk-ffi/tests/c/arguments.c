/* Every wrong argument gets a status and a text that names it; none crashes. */
#include "check.h"

static int released;

static void on_release(void *user, const uint8_t *data, size_t size) {
    (void)user;
    (void)data;
    (void)size;
    released++;
}

static p2p_status_t init_with(p2p_config_t config) {
    p2p_agent_t *agent = (p2p_agent_t *)&config;
    p2p_status_t status = p2p_init(&config, &agent);
    if (status == P2P_OK) {
        CHECK(agent != NULL);
        CHECK(p2p_deinit(agent) == P2P_OK);
    } else {
        CHECK(agent == NULL);
    }
    return status;
}

static void configs(void) {
    p2p_agent_t *agent = NULL;
    p2p_config_t config = test_config();
    size_t size;

    EXPECT(p2p_init(NULL, &agent), P2P_ERR_ARGUMENT, "config is NULL");
    EXPECT(p2p_init(&config, NULL), P2P_ERR_ARGUMENT, "agent is NULL");

    for (size = 0; size < sizeof config; size++) {
        config.struct_size = size;
        EXPECT(init_with(config), P2P_ERR_STRUCT_SIZE, "p2p_config_t");
    }
    config.struct_size = 0xdeadbeef;
    EXPECT(init_with(config), P2P_ERR_STRUCT_SIZE, "p2p_config_t");
    config.struct_size = (size_t)-1;
    EXPECT(init_with(config), P2P_ERR_STRUCT_SIZE, "p2p_config_t");

    config = test_config();
    config.device_id = NULL;
    EXPECT(init_with(config), P2P_ERR_ARGUMENT, "device_id");
    config.device_id = "";
    EXPECT(init_with(config), P2P_ERR_ARGUMENT, "device_id");
    config.device_id = "a/b";
    EXPECT(init_with(config), P2P_ERR_CONFIG, "device_id");
    config.device_id = "\xff\xfe";
    EXPECT(init_with(config), P2P_ERR_ARGUMENT, "device_id");

    config = test_config();
    config.broker_url = NULL;
    EXPECT(init_with(config), P2P_ERR_ARGUMENT, "broker_url");
    config.broker_url = "";
    EXPECT(init_with(config), P2P_ERR_ARGUMENT, "broker_url");
    config.broker_url = "http://127.0.0.1";
    EXPECT(init_with(config), P2P_ERR_CONFIG, "broker_url");
    config = test_config();
    config.broker_username = "\xc3";
    EXPECT(init_with(config), P2P_ERR_ARGUMENT, "broker_username");
    config = test_config();
    config.broker_password = "\xc3";
    EXPECT(init_with(config), P2P_ERR_ARGUMENT, "broker_password");

    config = test_config();
    config.broker_ca_file = "\xc3";
    EXPECT(init_with(config), P2P_ERR_ARGUMENT, "broker_ca_file");
    config = test_config();
    config.broker_cert_file = "device.pem";
    EXPECT(init_with(config), P2P_ERR_ARGUMENT, "broker_key_file is NULL");
    config.broker_key_file = "\xc3";
    EXPECT(init_with(config), P2P_ERR_ARGUMENT, "broker_key_file is not UTF-8");
    config.broker_key_file = "device.key";
    EXPECT(init_with(config), P2P_ERR_CONFIG, "expected mqtts://"); /* certificates are for TLS */
    config.broker_cert_file = "\xc3";
    EXPECT(init_with(config), P2P_ERR_ARGUMENT, "broker_cert_file is not UTF-8");
    config.broker_cert_file = NULL;
    EXPECT(init_with(config), P2P_ERR_ARGUMENT, "broker_cert_file is NULL");
    config = test_config();
    config.identity_file = "\xc3";
    EXPECT(init_with(config), P2P_ERR_ARGUMENT, "identity_file");
    config.identity_file = "/no/such/folder/identity.pem";
    EXPECT(init_with(config), P2P_ERR_IO, "");
    config = test_config();
    config.max_viewers = 4000000000u;
    EXPECT(init_with(config), P2P_ERR_CONFIG, "max_viewers");

    config = test_config();
    config.service_public_key = NULL;
    EXPECT(init_with(config), P2P_ERR_ARGUMENT, "service_public_key");
    config.service_public_key = "d75a98";
    EXPECT(init_with(config), P2P_ERR_CONFIG, "service_public_key");
    config.service_public_key = "not a key, and not 32 bytes either, in any way of writing!";
    EXPECT(init_with(config), P2P_ERR_CONFIG, "service_public_key");
    config.service_public_key = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
    EXPECT(init_with(config), P2P_OK, "");
    config.service_public_key = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
    EXPECT(init_with(config), P2P_OK, "");

    config = test_config();
    config.unset_clock = 7;
    EXPECT(init_with(config), P2P_ERR_ARGUMENT, "unset_clock");
    config.unset_clock = P2P_UNSET_CLOCK_ACCEPT_UNTIL_KNOWN;
    config.include_loopback = 2;
    EXPECT(init_with(config), P2P_ERR_ARGUMENT, "include_loopback");
    config.include_loopback = 1;
    config.relay_only = -1;
    EXPECT(init_with(config), P2P_ERR_ARGUMENT, "relay_only");
    config.relay_only = 1;
    config.log_level = 9;
    EXPECT(init_with(config), P2P_ERR_ARGUMENT, "log_level");
    config.log_level = P2P_LOG_TRACE;
    config.max_datagram = 100;
    EXPECT(init_with(config), P2P_ERR_CONFIG, "max_datagram");
    config.max_datagram = 9000;
    EXPECT(init_with(config), P2P_ERR_CONFIG, "max_datagram");
    config.max_datagram = 1400;
    EXPECT(init_with(config), P2P_OK, "");
}

/* A struct of a newer header: taken if what we do not know is zero. */
static void newer_structs(void) {
    struct {
        p2p_config_t config;
        uint64_t newer[4];
    } large;
    p2p_agent_t *agent = NULL;

    memset(&large, 0, sizeof large);
    large.config = test_config();
    large.config.struct_size = sizeof large;
    EXPECT(p2p_init(&large.config, &agent), P2P_OK, "");
    EXPECT(p2p_deinit(agent), P2P_OK, "");
    large.newer[3] = 1;
    EXPECT(p2p_init(&large.config, &agent), P2P_ERR_STRUCT_SIZE, "not zero");
    CHECK(agent == NULL);
}

static void streams(p2p_agent_t *agent) {
    p2p_stream_t *stream = NULL;
    p2p_stream_t *second = NULL;
    p2p_stream_config_t config = test_stream("main");
    size_t size;

    EXPECT(p2p_start_stream(NULL, &config, &stream), P2P_ERR_HANDLE, "p2p_init");
    EXPECT(p2p_start_stream(agent, NULL, &stream), P2P_ERR_ARGUMENT, "config");
    EXPECT(p2p_start_stream(agent, &config, NULL), P2P_ERR_ARGUMENT, "stream");
    for (size = 0; size < sizeof config; size++) {
        config.struct_size = size;
        EXPECT(p2p_start_stream(agent, &config, &stream), P2P_ERR_STRUCT_SIZE, "p2p_stream_config_t");
    }
    config = test_stream(NULL);
    EXPECT(p2p_start_stream(agent, &config, &stream), P2P_ERR_ARGUMENT, "name");
    config = test_stream("");
    EXPECT(p2p_start_stream(agent, &config, &stream), P2P_ERR_ARGUMENT, "name");
    config = test_stream("ma/in");
    EXPECT(p2p_start_stream(agent, &config, &stream), P2P_ERR_CONFIG, "name");
    config = test_stream("main");
    config.codec = 0;
    EXPECT(p2p_start_stream(agent, &config, &stream), P2P_ERR_CODEC, "P2P_CODEC_H264");
    config.codec = 99;
    EXPECT(p2p_start_stream(agent, &config, &stream), P2P_ERR_CODEC, "99");
    CHECK(stream == NULL);

    config = test_stream("main");
    EXPECT(p2p_start_stream(agent, &config, &stream), P2P_OK, "");
    CHECK(stream != NULL);
    EXPECT(p2p_start_stream(agent, &config, &second), P2P_ERR_BUSY, "main");
    CHECK(second == NULL);

    EXPECT(p2p_stop_stream(NULL), P2P_ERR_HANDLE, "NULL");
    EXPECT(p2p_stop_stream((p2p_stream_t *)agent), P2P_ERR_HANDLE, "came a p2p_agent_t");
    EXPECT(p2p_stop_stream((p2p_stream_t *)&config), P2P_ERR_HANDLE, "never given out");
    EXPECT(p2p_stop_stream(stream), P2P_OK, "");
    EXPECT(p2p_stop_stream(stream), P2P_ERR_HANDLE, "stale");
    EXPECT(p2p_start_stream(agent, &config, &second), P2P_OK, "");
    CHECK(second != stream);
    EXPECT(p2p_stop_stream(stream), P2P_ERR_HANDLE, "stale");
    EXPECT(p2p_stop_stream(second), P2P_OK, "");
}

static void frames(p2p_agent_t *agent) {
    p2p_stream_t *stream = NULL;
    p2p_stream_config_t config = test_stream("main");
    p2p_frame_t frame = P2P_FRAME_INIT;
    size_t size;

    frame.data = TEST_FRAME;
    frame.size = sizeof TEST_FRAME;
    frame.release = on_release;

    /* Before the stream is started: no handle, and the buffer comes back. */
    EXPECT(p2p_push_frame(NULL, &frame), P2P_ERR_HANDLE, "p2p_start_stream");
    CHECK(released == 1);
    EXPECT(p2p_push_frame((p2p_stream_t *)agent, &frame), P2P_ERR_HANDLE, "came a p2p_agent_t");
    CHECK(released == 2);

    EXPECT(p2p_start_stream(agent, &config, &stream), P2P_OK, "");
    EXPECT(p2p_push_frame(stream, NULL), P2P_ERR_ARGUMENT, "frame is NULL");
    for (size = 0; size < sizeof frame; size++) {
        frame.struct_size = size;
        EXPECT(p2p_push_frame(stream, &frame), P2P_ERR_STRUCT_SIZE, "p2p_frame_t");
    }
    frame.struct_size = sizeof frame;
    CHECK(released == 2); /* those frames could not be read: they are still ours */

    frame.data = NULL;
    EXPECT(p2p_push_frame(stream, &frame), P2P_ERR_ARGUMENT, "data is NULL");
    CHECK(released == 3);
    frame.data = TEST_FRAME;
    frame.size = 0;
    EXPECT(p2p_push_frame(stream, &frame), P2P_ERR_FRAME_SIZE, "size is 0");
    CHECK(released == 4);
    frame.size = P2P_MAX_FRAME_SIZE + 1;
    EXPECT(p2p_push_frame(stream, &frame), P2P_ERR_FRAME_SIZE, "4194305");
    CHECK(released == 5);
    frame.size = (size_t)-1;
    EXPECT(p2p_push_frame(stream, &frame), P2P_ERR_FRAME_SIZE, "size is");
    CHECK(released == 6);
    frame.release = NULL;
    EXPECT(p2p_push_frame(stream, &frame), P2P_ERR_FRAME_SIZE, "size is");

    frame.size = sizeof TEST_FRAME;
    EXPECT(p2p_push_frame(stream, &frame), P2P_OK, "");
    EXPECT(p2p_stop_stream(stream), P2P_OK, "");
    EXPECT(p2p_push_frame(stream, &frame), P2P_ERR_HANDLE, "stale");
    frame.release = on_release;
    EXPECT(p2p_push_frame(stream, &frame), P2P_ERR_HANDLE, "stale");
    CHECK(released == 7);
}

static void on_talkback(void *user, const p2p_talkback_t *talkback) {
    (void)user;
    (void)talkback;
}

static void sound(p2p_agent_t *agent) {
    p2p_agent_t *with_loudspeaker = NULL;
    p2p_stream_t *stream = NULL;
    p2p_stream_config_t stream_config = test_stream("main");
    p2p_audio_t *audio = NULL, *second = NULL;
    p2p_config_t agent_config = test_config();
    p2p_audio_config_t config = P2P_AUDIO_CONFIG_INIT;
    p2p_audio_frame_t frame = P2P_AUDIO_FRAME_INIT;
    uint8_t opus[P2P_MAX_AUDIO_FRAME_SIZE + 1] = {1 << 3};
    size_t size;

    config.codec = P2P_AUDIO_OPUS;
    EXPECT(p2p_start_audio(NULL, &config, &audio), P2P_ERR_HANDLE, "p2p_init");
    EXPECT(p2p_start_audio(agent, NULL, &audio), P2P_ERR_ARGUMENT, "config");
    EXPECT(p2p_start_audio(agent, &config, NULL), P2P_ERR_ARGUMENT, "audio is NULL");
    for (size = 0; size < sizeof config; size++) {
        config.struct_size = size;
        EXPECT(p2p_start_audio(agent, &config, &audio), P2P_ERR_STRUCT_SIZE, "p2p_audio_config_t");
    }
    config.struct_size = sizeof config;
    for (config.codec = -1; config.codec < 6; config.codec++) {
        if (config.codec >= P2P_AUDIO_OPUS && config.codec <= P2P_AUDIO_PCMU) continue;
        EXPECT(p2p_start_audio(agent, &config, &audio), P2P_ERR_CODEC, "P2P_AUDIO_OPUS");
    }
    config.codec = P2P_AUDIO_OPUS;
    config.direction = 3;
    EXPECT(p2p_start_audio(agent, &config, &audio), P2P_ERR_ARGUMENT, "direction");
    config.direction = P2P_AUDIO_LOUDSPEAKER;
    EXPECT(p2p_start_audio(agent, &config, &audio), P2P_ERR_ARGUMENT, "on_talkback");
    CHECK(audio == NULL);

    frame.data = opus;
    frame.size = 60;
    EXPECT(p2p_push_audio(NULL, &frame), P2P_ERR_HANDLE, "p2p_start_audio");
    EXPECT(p2p_push_audio((p2p_audio_t *)agent, &frame), P2P_ERR_HANDLE, "came a p2p_agent_t");
    config.direction = P2P_AUDIO_BOTH;
    EXPECT(p2p_start_audio(agent, &config, &audio), P2P_OK, "");
    CHECK(audio != NULL);
    EXPECT(p2p_start_audio(agent, &config, &second), P2P_ERR_BUSY, "runs already");
    CHECK(second == NULL);
    EXPECT(p2p_start_stream(agent, &stream_config, &stream), P2P_OK, "");
    EXPECT(p2p_push_audio((p2p_audio_t *)stream, &frame), P2P_ERR_HANDLE, "came a p2p_stream_t");
    EXPECT(p2p_stop_audio((p2p_audio_t *)stream), P2P_ERR_HANDLE, "came a p2p_stream_t");
    EXPECT(p2p_stop_stream((p2p_stream_t *)audio), P2P_ERR_HANDLE, "came a p2p_audio_t");
    EXPECT(p2p_stop_stream(stream), P2P_OK, "");

    EXPECT(p2p_push_audio(audio, NULL), P2P_ERR_ARGUMENT, "frame is NULL");
    for (size = 0; size < sizeof frame; size++) {
        frame.struct_size = size;
        EXPECT(p2p_push_audio(audio, &frame), P2P_ERR_STRUCT_SIZE, "p2p_audio_frame_t");
    }
    frame.struct_size = sizeof frame;
    frame.data = NULL;
    EXPECT(p2p_push_audio(audio, &frame), P2P_ERR_ARGUMENT, "data is NULL");
    frame.data = opus;
    frame.size = 0;
    EXPECT(p2p_push_audio(audio, &frame), P2P_ERR_FRAME_SIZE, "size is 0");
    frame.size = P2P_MAX_AUDIO_FRAME_SIZE + 1;
    EXPECT(p2p_push_audio(audio, &frame), P2P_ERR_FRAME_SIZE, "1276");
    frame.size = (size_t)-1;
    EXPECT(p2p_push_audio(audio, &frame), P2P_ERR_FRAME_SIZE, "size is");
    frame.data = (const uint8_t *)"OggS";
    frame.size = 4;
    EXPECT(p2p_push_audio(audio, &frame), P2P_ERR_FRAME_SIZE, "container");
    frame.data = opus;
    for (size = 1; size <= P2P_MAX_AUDIO_FRAME_SIZE; size *= 5) {
        frame.size = size;
        EXPECT(p2p_push_audio(audio, &frame), P2P_OK, "");
    }
    EXPECT(p2p_stop_audio(audio), P2P_OK, "");
    EXPECT(p2p_stop_audio(audio), P2P_ERR_HANDLE, "stale");
    EXPECT(p2p_push_audio(audio, &frame), P2P_ERR_HANDLE, "stale");
    EXPECT(p2p_stop_audio(NULL), P2P_ERR_HANDLE, "NULL");

    /* A loudspeaker alone takes no frames. */
    agent_config.on_talkback = on_talkback;
    EXPECT(p2p_init(&agent_config, &with_loudspeaker), P2P_OK, "");
    config.direction = P2P_AUDIO_LOUDSPEAKER;
    EXPECT(p2p_start_audio(with_loudspeaker, &config, &audio), P2P_OK, "");
    frame.size = 60;
    EXPECT(p2p_push_audio(audio, &frame), P2P_ERR_HANDLE, "microphone");
    EXPECT(p2p_deinit(with_loudspeaker), P2P_OK, "");
    EXPECT(p2p_push_audio(audio, &frame), P2P_ERR_HANDLE, "stale");
}

static void viewers(p2p_agent_t *agent) {
    const char *unknown = "550e8400-e29b-41d4-a716-446655440000";
    EXPECT(p2p_viewer_close(NULL, unknown, NULL), P2P_ERR_HANDLE, "p2p_init");
    EXPECT(p2p_viewer_close(agent, NULL, NULL), P2P_ERR_ARGUMENT, "session_id");
    EXPECT(p2p_viewer_close(agent, "", NULL), P2P_ERR_ARGUMENT, "UUID");
    EXPECT(p2p_viewer_close(agent, "viewer 1", NULL), P2P_ERR_ARGUMENT, "UUID");
    EXPECT(p2p_viewer_close(agent, "\xff", NULL), P2P_ERR_ARGUMENT, "UTF-8");
    EXPECT(p2p_viewer_close(agent, unknown, "\xff"), P2P_ERR_ARGUMENT, "reason");
    /* It may just have left: no error. */
    EXPECT(p2p_viewer_close(agent, unknown, NULL), P2P_OK, "");
    EXPECT(p2p_viewer_switch(NULL, unknown, NULL), P2P_ERR_HANDLE, "p2p_init");
    EXPECT(p2p_viewer_switch(agent, NULL, NULL), P2P_ERR_ARGUMENT, "session_id");
    EXPECT(p2p_viewer_switch(agent, unknown, NULL), P2P_ERR_HANDLE, "p2p_start_stream");
    EXPECT(p2p_viewer_close(agent, unknown, "privacy"), P2P_OK, "");
}

static void statistics(p2p_agent_t *agent) {
    p2p_stats_t stats = P2P_STATS_INIT;
    p2p_viewer_stats_t viewers[3] = {P2P_VIEWER_STATS_INIT};
    p2p_stream_stats_t streams[3] = {P2P_STREAM_STATS_INIT};
    struct {
        p2p_stats_t stats;
        uint64_t newer[2];
    } large;
    size_t viewer_count = 3, stream_count = 3, size;

    EXPECT(p2p_get_stats(NULL, &stats, NULL, NULL, NULL, NULL), P2P_ERR_HANDLE, "p2p_init");
    EXPECT(p2p_get_stats(agent, NULL, viewers, NULL, NULL, NULL), P2P_ERR_ARGUMENT, "viewer_count is NULL");
    EXPECT(p2p_get_stats(agent, NULL, NULL, NULL, streams, NULL), P2P_ERR_ARGUMENT, "stream_count is NULL");
    EXPECT(p2p_get_stats(agent, NULL, NULL, &viewer_count, NULL, NULL), P2P_ERR_ARGUMENT, "viewers is NULL");
    EXPECT(p2p_get_stats(agent, NULL, NULL, NULL, NULL, &stream_count), P2P_ERR_ARGUMENT, "streams is NULL");
    viewer_count = (size_t)-1;
    EXPECT(p2p_get_stats(agent, NULL, viewers, &viewer_count, NULL, NULL), P2P_ERR_ARGUMENT, "viewers cannot");
    viewer_count = 3;
    for (size = 0; size < sizeof stats; size++) {
        stats.struct_size = size;
        EXPECT(p2p_get_stats(agent, &stats, NULL, NULL, NULL, NULL), P2P_ERR_STRUCT_SIZE, "p2p_stats_t");
    }
    for (size = 0; size < sizeof viewers[0]; size++) {
        viewers[0].struct_size = size;
        EXPECT(p2p_get_stats(agent, NULL, viewers, &viewer_count, NULL, NULL), P2P_ERR_STRUCT_SIZE,
               "p2p_viewer_stats_t");
    }
    for (size = 0; size < sizeof streams[0]; size++) {
        streams[0].struct_size = size;
        EXPECT(p2p_get_stats(agent, NULL, NULL, NULL, streams, &stream_count), P2P_ERR_STRUCT_SIZE,
               "p2p_stream_stats_t");
    }
    viewers[0].struct_size = (size_t)-1;
    EXPECT(p2p_get_stats(agent, NULL, viewers, &viewer_count, NULL, NULL), P2P_ERR_STRUCT_SIZE,
           "p2p_viewer_stats_t");
    viewers[0].struct_size = sizeof viewers[0];
    streams[0].struct_size = 7;
    stats.struct_size = sizeof stats;
    stats.viewers = 77;
    EXPECT(p2p_get_stats(agent, &stats, viewers, &viewer_count, streams, &stream_count), P2P_ERR_STRUCT_SIZE,
           "p2p_stream_stats_t");
    CHECK(stats.viewers == 77 && viewer_count == 3 && stream_count == 3); /* nothing was written */
    streams[0].struct_size = sizeof streams[0];

    EXPECT(p2p_get_stats(agent, NULL, NULL, NULL, NULL, NULL), P2P_OK, "");
    EXPECT(p2p_get_stats(agent, &stats, viewers, &viewer_count, streams, &stream_count), P2P_OK, "");
    CHECK(stats.struct_size == sizeof stats && stats.viewers == 0 && viewer_count == 0);
    CHECK(stats.signaling_up == 0 && stats.sends == 0);
    /* Without room, struct_size is not read, and the totals say how many there are. */
    viewers[0].struct_size = 0;
    viewer_count = stream_count = 0;
    EXPECT(p2p_get_stats(agent, &stats, viewers, &viewer_count, NULL, &stream_count), P2P_OK, "");
    CHECK(viewer_count == 0 && stream_count == 0);

    /* Of a newer header: what this library does not know becomes zero. */
    memset(&large, 0xff, sizeof large);
    large.stats.struct_size = sizeof large;
    EXPECT(p2p_get_stats(agent, &large.stats, NULL, NULL, NULL, NULL), P2P_OK, "");
    CHECK(large.stats.struct_size == sizeof large && large.stats.viewers == 0);
    CHECK(large.newer[0] == 0 && large.newer[1] == 0);
}

/* Everything after p2p_deinit, also on an agent that is started later at the same place. */
static void stale_handles(p2p_agent_t *agent) {
    p2p_stream_t *stream = NULL;
    p2p_agent_t *next = NULL;
    p2p_stream_config_t stream_config = test_stream("main");
    p2p_config_t config = test_config();
    p2p_frame_t frame = P2P_FRAME_INIT;
    int round;

    frame.data = TEST_FRAME;
    frame.size = sizeof TEST_FRAME;
    EXPECT(p2p_start_stream(agent, &stream_config, &stream), P2P_OK, "");
    EXPECT(p2p_deinit((p2p_agent_t *)stream), P2P_ERR_HANDLE, "came a p2p_stream_t");
    EXPECT(p2p_deinit((p2p_agent_t *)&config), P2P_ERR_HANDLE, "never given out");
    EXPECT(p2p_deinit(agent), P2P_OK, "");
    for (round = 0; round < 2; round++) {
        p2p_stream_t *none = NULL;
        EXPECT(p2p_deinit(agent), P2P_ERR_HANDLE, "stale");
        EXPECT(p2p_start_stream(agent, &stream_config, &none), P2P_ERR_HANDLE, "stale");
        EXPECT(p2p_push_frame(stream, &frame), P2P_ERR_HANDLE, "stale");
        EXPECT(p2p_stop_stream(stream), P2P_ERR_HANDLE, "stale");
        EXPECT(p2p_get_stats(agent, NULL, NULL, NULL, NULL, NULL), P2P_ERR_HANDLE, "stale");
        EXPECT(p2p_viewer_close(agent, "550e8400-e29b-41d4-a716-446655440000", NULL),
               P2P_ERR_HANDLE, "stale");
        if (round == 0) {
            EXPECT(p2p_init(&config, &next), P2P_OK, "");
            CHECK(next != agent);
        }
    }
    EXPECT(p2p_deinit(next), P2P_OK, "");
    EXPECT(p2p_deinit(NULL), P2P_OK, "");
}

int main(void) {
    p2p_agent_t *agent = NULL;
    p2p_config_t config = test_config();

    CHECK(strcmp(p2p_last_error(), "") == 0);
    CHECK(strcmp(p2p_version(), "0.1.0") == 0);
    CHECK(strlen(p2p_strerror(12345)) > 0);

    configs();
    newer_structs();
    EXPECT(p2p_init(&config, &agent), P2P_OK, "");
    streams(agent);
    frames(agent);
    sound(agent);
    viewers(agent);
    statistics(agent);
    stale_handles(agent);
    puts("arguments: ok");
    return 0;
}
