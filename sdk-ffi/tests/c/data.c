/* Data channels without a viewer: every wrong argument gets a status and a text that names it, and
 * there is no channel, from whatever thread, also inside callbacks and while the agent goes away. */
#define _POSIX_C_SOURCE 200809L

#include "check.h"

#include <pthread.h>
#include <time.h>

#define ID "550e8400-e29b-41d4-a716-446655440000"

enum { THREADS = 4 };

static const uint8_t TEXT[] = "ptz left";
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int in_callback;

static int was_in_callback(void) {
    int value;
    pthread_mutex_lock(&lock);
    value = in_callback;
    pthread_mutex_unlock(&lock);
    return value;
}

static void on_event(void *user, const p2p_event_t *event) {
    (void)user;
    if (event->kind != P2P_EVENT_SIGNALING_DOWN || was_in_callback()) return;
    EXPECT(p2p_send_data(event->agent, ID, 0, TEXT, 8, 1), P2P_ERR_NO_CHANNEL, "no such data channel");
    pthread_mutex_lock(&lock);
    in_callback = 1;
    pthread_mutex_unlock(&lock);
}

static void on_data(void *user, const p2p_data_t *data) {
    (void)user;
    (void)data;
    CHECK(0);
}

static void on_data_channel(void *user, const p2p_data_channel_event_t *event) {
    (void)user;
    (void)event;
    CHECK(0);
}

static void sends(p2p_agent_t *agent) {
    static uint8_t large[P2P_MAX_MESSAGE_SIZE + 1];

    EXPECT(p2p_send_data(NULL, ID, 0, TEXT, 8, 1), P2P_ERR_HANDLE, "p2p_init");
    EXPECT(p2p_send_data((p2p_agent_t *)&agent, ID, 0, TEXT, 8, 1), P2P_ERR_HANDLE, "never given out");
    EXPECT(p2p_send_data(agent, NULL, 0, TEXT, 8, 1), P2P_ERR_ARGUMENT, "session_id");
    EXPECT(p2p_send_data(agent, "7", 0, TEXT, 8, 1), P2P_ERR_ARGUMENT, "session_id");
    EXPECT(p2p_send_data(agent, "\xff", 0, TEXT, 8, 1), P2P_ERR_ARGUMENT, "session_id");
    EXPECT(p2p_send_data(agent, ID, 0, NULL, 8, 0), P2P_ERR_ARGUMENT, "data is NULL");
    EXPECT(p2p_send_data(agent, ID, 0, TEXT, 8, 2), P2P_ERR_ARGUMENT, "is_text");
    EXPECT(p2p_send_data(agent, ID, 0, (const uint8_t *)"\xff", 1, 1), P2P_ERR_ARGUMENT, "UTF-8");
    EXPECT(p2p_send_data(agent, ID, 0, large, sizeof large, 0), P2P_ERR_ARGUMENT, "65536");
    EXPECT(p2p_send_data(agent, ID, 0, TEXT, (size_t)-1, 0), P2P_ERR_ARGUMENT, "65536");
    EXPECT(p2p_send_data(agent, ID, 0, large, P2P_MAX_MESSAGE_SIZE, 0), P2P_ERR_NO_CHANNEL, "");
    EXPECT(p2p_send_data(agent, ID, 65535, TEXT, 8, 1), P2P_ERR_NO_CHANNEL, "no such data channel");
    EXPECT(p2p_send_data(agent, ID, 0, NULL, 0, 1), P2P_ERR_NO_CHANNEL, "no such data channel");
}

static void opens(p2p_agent_t *agent) {
    p2p_data_channel_config_t config = P2P_DATA_CHANNEL_CONFIG_INIT;
    char long_label[257];
    uint16_t channel = 77;
    size_t size;

    EXPECT(p2p_open_data_channel(NULL, ID, &config, &channel), P2P_ERR_HANDLE, "p2p_init");
    EXPECT(p2p_open_data_channel(agent, NULL, &config, &channel), P2P_ERR_ARGUMENT, "session_id");
    EXPECT(p2p_open_data_channel(agent, ID, NULL, &channel), P2P_ERR_ARGUMENT, "config is NULL");
    EXPECT(p2p_open_data_channel(agent, ID, &config, NULL), P2P_ERR_ARGUMENT, "channel is NULL");
    EXPECT(p2p_open_data_channel(agent, ID, &config, &channel), P2P_ERR_ARGUMENT, "label");
    for (size = 0; size < sizeof config; size++) {
        config.struct_size = size;
        EXPECT(p2p_open_data_channel(agent, ID, &config, &channel), P2P_ERR_STRUCT_SIZE,
               "p2p_data_channel_config_t");
    }
    config.struct_size = sizeof config;
    config.label = "\xff";
    EXPECT(p2p_open_data_channel(agent, ID, &config, &channel), P2P_ERR_ARGUMENT, "label");
    config.label = "events";
    config.protocol = "\xff";
    EXPECT(p2p_open_data_channel(agent, ID, &config, &channel), P2P_ERR_ARGUMENT, "protocol");
    config.protocol = "json";
    config.unordered = 2;
    EXPECT(p2p_open_data_channel(agent, ID, &config, &channel), P2P_ERR_ARGUMENT, "unordered");
    config.unordered = 1;
    config.reliability = 3;
    EXPECT(p2p_open_data_channel(agent, ID, &config, &channel), P2P_ERR_ARGUMENT, "reliability");
    config.reliability = P2P_DATA_MAX_LIFETIME;
    memset(long_label, 'x', sizeof long_label - 1);
    long_label[sizeof long_label - 1] = '\0';
    config.label = long_label;
    EXPECT(p2p_open_data_channel(agent, ID, &config, &channel), P2P_ERR_ARGUMENT, "255");
    config.label = "events";
    EXPECT(p2p_open_data_channel(agent, ID, &config, &channel), P2P_ERR_NO_CHANNEL, "takes none");
    CHECK(channel == 77);

    EXPECT(p2p_close_data_channel(NULL, ID, 1), P2P_ERR_HANDLE, "p2p_init");
    EXPECT(p2p_close_data_channel(agent, NULL, 1), P2P_ERR_ARGUMENT, "session_id");
    EXPECT(p2p_close_data_channel(agent, ID, 1), P2P_ERR_NO_CHANNEL, "no such data channel");
}

/* Until the agent is gone. */
static void *hammer(void *agent) {
    p2p_data_channel_config_t config = P2P_DATA_CHANNEL_CONFIG_INIT;
    p2p_status_t status = P2P_ERR_NO_CHANNEL;
    uint16_t channel;
    config.label = "events";
    while (status == P2P_ERR_NO_CHANNEL) {
        CHECK(p2p_open_data_channel(agent, ID, &config, &channel) != P2P_OK);
        CHECK(p2p_close_data_channel(agent, ID, 1) != P2P_OK);
        status = p2p_send_data(agent, ID, 0, TEXT, 8, 1);
    }
    CHECK(status == P2P_ERR_CLOSED || status == P2P_ERR_HANDLE);
    return NULL;
}

int main(void) {
    struct timespec a_moment = {0, 50000000};
    p2p_config_t config = test_config();
    p2p_agent_t *agent = NULL;
    pthread_t threads[THREADS];
    int i;

    config.on_event = on_event;
    config.on_data = on_data;
    config.on_data_channel = on_data_channel;
    EXPECT(p2p_init(&config, &agent), P2P_OK, "");
    sends(agent);
    opens(agent);
    /* Nobody listens at the broker's address, which the agent finds out in its own time. */
    for (i = 0; i < 1000 && !was_in_callback(); i++) nanosleep(&a_moment, NULL);
    CHECK(was_in_callback());
    for (i = 0; i < THREADS; i++) CHECK(pthread_create(&threads[i], NULL, hammer, agent) == 0);
    nanosleep(&a_moment, NULL);
    EXPECT(p2p_deinit(agent), P2P_OK, "");
    for (i = 0; i < THREADS; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    EXPECT(p2p_send_data(agent, ID, 0, TEXT, 8, 1), P2P_ERR_HANDLE, "stale");
    puts("data: ok");
    return 0;
}
