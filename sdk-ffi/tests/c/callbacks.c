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
