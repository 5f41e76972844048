/* Callbacks: from which thread, with which arguments, what may be called from them, and that none
 * comes after p2p_deinit. */
#define _POSIX_C_SOURCE 200809L

#include "check.h"

#include <pthread.h>
#include <time.h>

typedef struct {
    pthread_mutex_t lock;
    int events, lines, closed;
} seen_t;

static seen_t seen = {PTHREAD_MUTEX_INITIALIZER, 0, 0, 0};

static void on_event(void *user, const p2p_event_t *event) {
    p2p_config_t config = test_config();
    p2p_agent_t *another = NULL;
    p2p_stats_t stats = P2P_STATS_INIT;
    p2p_stream_stats_t streams[4] = {P2P_STREAM_STATS_INIT};
    size_t stream_count = 4;
    p2p_status_t status;

    CHECK(user == &seen);
    CHECK(event->struct_size >= sizeof *event);
    CHECK(event->agent != NULL);
    if (event->kind == P2P_EVENT_SIGNALING_DOWN) {
        CHECK(event->text != NULL && strlen(event->text) > 0);
        CHECK(event->session_id == NULL && event->stream == NULL);
    }
    EXPECT(p2p_deinit(event->agent), P2P_ERR_IN_CALLBACK, "p2p_deinit");
    EXPECT(p2p_init(&config, &another), P2P_ERR_IN_CALLBACK, "p2p_init");
    CHECK(another == NULL);
    EXPECT(p2p_deinit(NULL), P2P_OK, "");
    /* Statistics are of this very moment, and getting them waits for nobody. */
    status = p2p_get_stats(event->agent, &stats, NULL, NULL, streams, &stream_count);
    if (status == P2P_OK && event->kind == P2P_EVENT_SIGNALING_DOWN) {
        CHECK(stats.signaling_up == 0 && stats.viewers == 0 && stats.streams == stream_count);
    }
    CHECK(status == P2P_OK || status == P2P_ERR_HANDLE); /* while it is being de-initialised */
    /* The agent is known from its first event on, also before p2p_init has returned. */
    pthread_mutex_lock(&seen.lock);
    if (!seen.closed) {
        EXPECT(p2p_viewer_close(event->agent, "550e8400-e29b-41d4-a716-446655440000", NULL), P2P_OK, "");
    }
    seen.events++;
    pthread_mutex_unlock(&seen.lock);
}

static void on_log(void *user, int32_t level, const char *line) {
    CHECK(user == &seen);
    CHECK(level >= P2P_LOG_ERROR && level <= P2P_LOG_DEBUG);
    CHECK(strlen(line) > 0 && strchr(line, '\n') == NULL);
    pthread_mutex_lock(&seen.lock);
    seen.lines++;
    pthread_mutex_unlock(&seen.lock);
}

static void on_release(void *user, const uint8_t *data, size_t size) {
    p2p_agent_t **agent = user;
    (void)data;
    (void)size;
    EXPECT(p2p_deinit(*agent), P2P_ERR_IN_CALLBACK, "p2p_deinit");
    *agent = NULL;
}

static int count(const int *which) {
    int value;
    pthread_mutex_lock(&seen.lock);
    value = *which;
    pthread_mutex_unlock(&seen.lock);
    return value;
}

/* Each frame that is pushed is counted, within a second or so. */
static void statistics(p2p_agent_t *agent, p2p_stream_t *stream) {
    struct timespec a_moment = {0, 10000000};
    p2p_stats_t stats = P2P_STATS_INIT;
    p2p_stream_stats_t streams[2] = {P2P_STREAM_STATS_INIT};
    p2p_frame_t frame = P2P_FRAME_INIT;
    size_t room;
    int i;

    frame.data = TEST_FRAME;
    frame.size = sizeof TEST_FRAME;
    for (i = 0; i < 3; i++) {
        frame.timestamp_us = (uint64_t)i * 33000;
        EXPECT(p2p_push_frame(stream, &frame), P2P_OK, "");
    }
    frame.size = 8; /* an SPS without its end, and no picture */
    EXPECT(p2p_push_frame(stream, &frame), P2P_OK, "");
    frame.data = TEST_FRAME + 4; /* no start code */
    frame.size = 4;
    EXPECT(p2p_push_frame(stream, &frame), P2P_OK, "");
    for (i = 0; i < 1000; i++) {
        room = 2;
        EXPECT(p2p_get_stats(agent, &stats, NULL, NULL, streams, &room), P2P_OK, "");
        CHECK(room <= 1);
        if (room == 1 && streams[0].refused_malformed == 1) break;
        nanosleep(&a_moment, NULL);
    }
    CHECK(stats.streams == 1 && stats.viewers == 0 && stats.uptime_ms > 0);
    CHECK(strcmp(streams[0].name, "main") == 0 && streams[0].codec == P2P_CODEC_H264);
    CHECK(streams[0].frames == 3 && streams[0].keyframes == 3);
    CHECK(streams[0].bytes == 3 * sizeof TEST_FRAME);
    CHECK(streams[0].refused_malformed == 1 && streams[0].refused_queue_full == 0);
    CHECK(streams[0].memory_bytes >= 200000 && streams[0].viewers == 0);
}

int main(void) {
    struct timespec a_moment = {0, 10000000};
    p2p_config_t config = test_config();
    p2p_stream_config_t stream_config = test_stream("main");
    p2p_frame_t frame = P2P_FRAME_INIT;
    p2p_agent_t *agent = NULL;
    p2p_agent_t *for_release = NULL;
    p2p_stream_t *stream = NULL;
    int i, events, lines;

    config.user = &seen;
    config.on_event = on_event;
    config.on_log = on_log;
    config.log_level = P2P_LOG_DEBUG;
    EXPECT(p2p_init(&config, &agent), P2P_OK, "");
    EXPECT(p2p_start_stream(agent, &stream_config, &stream), P2P_OK, "");

    /* Nobody listens at the broker's address, which is an event and at least one line. */
    for (i = 0; i < 1000 && (count(&seen.events) == 0 || count(&seen.lines) == 0); i++) {
        nanosleep(&a_moment, NULL);
    }
    CHECK(count(&seen.events) > 0);
    CHECK(count(&seen.lines) > 0);

    for_release = agent;
    frame.data = TEST_FRAME;
    frame.release = on_release;
    frame.release_user = &for_release;
    EXPECT(p2p_push_frame(stream, &frame), P2P_ERR_FRAME_SIZE, "size is 0");
    CHECK(for_release == NULL);

    statistics(agent, stream);

    pthread_mutex_lock(&seen.lock);
    seen.closed = 1;
    pthread_mutex_unlock(&seen.lock);
    EXPECT(p2p_deinit(agent), P2P_OK, "");
    events = count(&seen.events);
    lines = count(&seen.lines);
    for (i = 0; i < 10; i++) {
        nanosleep(&a_moment, NULL);
    }
    CHECK(count(&seen.events) == events && count(&seen.lines) == lines);
    puts("callbacks: ok");
    return 0;
}
