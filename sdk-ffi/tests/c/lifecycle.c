/* Agents come and go two hundred times, and while threads push frames; every lent frame comes back
 * exactly once. */
#define _POSIX_C_SOURCE 200809L

#include "check.h"

#include <pthread.h>
#include <time.h>

/* Less under Valgrind, which is some fifty times slower. */
#ifndef ROUNDS
#define ROUNDS 200
#endif
#ifndef STOPS
#define STOPS 20
#endif
#define THREADS 4

/* One lent frame. */
typedef struct {
    uint8_t data[sizeof TEST_FRAME];
    int released;
} lent_t;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned long lent, back;

static void on_release(void *user, const uint8_t *data, size_t size) {
    lent_t *frame = user;
    pthread_mutex_lock(&lock);
    CHECK(data == frame->data && size == sizeof frame->data);
    CHECK(frame->released == 0);
    frame->released = 1;
    back++;
    pthread_mutex_unlock(&lock);
    /* Whoever touches the frame from now on is caught by ASAN or Valgrind. */
    free(frame);
}

static p2p_status_t lend(p2p_stream_t *stream, uint64_t timestamp_us) {
    p2p_frame_t frame = P2P_FRAME_INIT;
    lent_t *own = calloc(1, sizeof *own);
    CHECK(own != NULL);
    memcpy(own->data, TEST_FRAME, sizeof TEST_FRAME);
    pthread_mutex_lock(&lock);
    lent++;
    pthread_mutex_unlock(&lock);
    frame.data = own->data;
    frame.size = sizeof own->data;
    frame.timestamp_us = timestamp_us;
    frame.release = on_release;
    frame.release_user = own;
    return p2p_push_frame(stream, &frame);
}

static p2p_status_t copy(p2p_stream_t *stream, uint64_t timestamp_us) {
    /* On the stack and overwritten at once: the library must have its own copy. */
    uint8_t data[sizeof TEST_FRAME];
    p2p_frame_t frame = P2P_FRAME_INIT;
    p2p_status_t status;
    memcpy(data, TEST_FRAME, sizeof data);
    frame.data = data;
    frame.size = sizeof data;
    frame.timestamp_us = timestamp_us;
    status = p2p_push_frame(stream, &frame);
    memset(data, 0xee, sizeof data);
    return status;
}

static void check_all_back(void) {
    pthread_mutex_lock(&lock);
    CHECK(lent == back);
    pthread_mutex_unlock(&lock);
}

static void come_and_go(void) {
    int round;
    for (round = 0; round < ROUNDS; round++) {
        p2p_config_t config = test_config();
        p2p_stream_config_t main_config = test_stream("main");
        p2p_stream_config_t sub_config = test_stream("sub");
        p2p_agent_t *agent = NULL;
        p2p_stream_t *main_stream = NULL;
        p2p_stream_t *sub_stream = NULL;

        EXPECT(p2p_init(&config, &agent), P2P_OK, "");
        EXPECT(p2p_start_stream(agent, &main_config, &main_stream), P2P_OK, "");
        EXPECT(p2p_start_stream(agent, &sub_config, &sub_stream), P2P_OK, "");
        EXPECT(lend(main_stream, 0), P2P_OK, "");
        EXPECT(copy(sub_stream, 0), P2P_OK, "");
        if (round % 2 == 0) {
            EXPECT(p2p_stop_stream(main_stream), P2P_OK, "");
        }
        EXPECT(p2p_deinit(agent), P2P_OK, "");
        EXPECT(lend(main_stream, 1), P2P_ERR_HANDLE, "stale");
        check_all_back();
    }
}

static volatile int stopping;

static int is_stopping(void) {
    int value;
    pthread_mutex_lock(&lock);
    value = stopping;
    pthread_mutex_unlock(&lock);
    return value;
}

static void *pusher(void *argument) {
    p2p_stream_t *stream = argument;
    uint64_t timestamp_us = 0;
    while (!is_stopping()) {
        p2p_status_t status = timestamp_us % 2 ? copy(stream, timestamp_us) : lend(stream, timestamp_us);
        timestamp_us++;
        if (status == P2P_ERR_HANDLE || status == P2P_ERR_CLOSED) {
            CHECK(strlen(p2p_last_error()) > 0);
        } else {
            CHECK(status == P2P_OK || status == P2P_ERR_QUEUE_FULL);
        }
    }
    return NULL;
}

/* Beside the pictures, and as unaware of what happens to the agent. */
static void *talker(void *argument) {
    static const uint8_t packet[160] = {0xff};
    p2p_audio_t *audio = argument;
    p2p_audio_frame_t frame = P2P_AUDIO_FRAME_INIT;
    frame.data = packet;
    frame.size = sizeof packet;
    while (!is_stopping()) {
        p2p_status_t status = p2p_push_audio(audio, &frame);
        frame.timestamp_us += 20000;
        if (status == P2P_ERR_HANDLE || status == P2P_ERR_CLOSED) {
            CHECK(strlen(p2p_last_error()) > 0);
        } else {
            CHECK(status == P2P_OK || status == P2P_ERR_QUEUE_FULL);
        }
    }
    return NULL;
}

static void push_while_stopping(int round) {
    p2p_config_t config = test_config();
    p2p_agent_t *agent = NULL;
    p2p_stream_t *streams[THREADS];
    p2p_audio_config_t audio_config = P2P_AUDIO_CONFIG_INIT;
    p2p_audio_t *audio = NULL;
    pthread_t threads[THREADS], talks;
    struct timespec a_moment = {0, 3000000};
    int i;

    stopping = 0;
    EXPECT(p2p_init(&config, &agent), P2P_OK, "");
    audio_config.codec = P2P_AUDIO_PCMU;
    EXPECT(p2p_start_audio(agent, &audio_config, &audio), P2P_OK, "");
    CHECK(pthread_create(&talks, NULL, talker, audio) == 0);
    for (i = 0; i < THREADS; i++) {
        /* Two threads to a stream. */
        p2p_stream_config_t stream_config = test_stream(i < 2 ? "main" : "sub");
        if (i % 2 == 0) {
            EXPECT(p2p_start_stream(agent, &stream_config, &streams[i]), P2P_OK, "");
        } else {
            streams[i] = streams[i - 1];
        }
    }
    for (i = 0; i < THREADS; i++) {
        CHECK(pthread_create(&threads[i], NULL, pusher, streams[i]) == 0);
    }
    nanosleep(&a_moment, NULL);
    if (round % 2 == 0) {
        EXPECT(p2p_stop_stream(streams[0]), P2P_OK, "");
        nanosleep(&a_moment, NULL);
    } else {
        EXPECT(p2p_stop_audio(audio), P2P_OK, "");
        EXPECT(p2p_start_audio(agent, &audio_config, &audio), P2P_OK, "");
    }
    EXPECT(p2p_deinit(agent), P2P_OK, "");
    nanosleep(&a_moment, NULL);
    pthread_mutex_lock(&lock);
    stopping = 1;
    pthread_mutex_unlock(&lock);
    for (i = 0; i < THREADS; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
    }
    CHECK(pthread_join(talks, NULL) == 0);
    check_all_back();
}

static void *deinit(void *agent) {
    p2p_status_t status = p2p_deinit(agent);
    CHECK(status == P2P_OK || status == P2P_ERR_HANDLE);
    return status == P2P_OK ? agent : NULL;
}

/* Of threads that end the same agent at once, exactly one is told that it did. */
static void deinit_race(void) {
    p2p_config_t config = test_config();
    p2p_agent_t *agent = NULL;
    pthread_t threads[THREADS];
    int i, ended = 0;

    EXPECT(p2p_init(&config, &agent), P2P_OK, "");
    for (i = 0; i < THREADS; i++) {
        CHECK(pthread_create(&threads[i], NULL, deinit, agent) == 0);
    }
    for (i = 0; i < THREADS; i++) {
        void *result = NULL;
        CHECK(pthread_join(threads[i], &result) == 0);
        ended += result != NULL;
    }
    CHECK(ended == 1);
}

int main(void) {
    int round;
    come_and_go();
    for (round = 0; round < STOPS; round++) {
        push_while_stopping(round);
        deinit_race();
    }
    printf("lifecycle: ok, %lu frames lent, %lu back\n", lent, back);
    return 0;
}
