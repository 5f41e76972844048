/* A device's own certificate. In a folder with ca.pem, and with CAM-TEST and CAM-OTHER, each a .pem and a
 * .key. A library without TLS refuses all of it alike. */
#define _POSIX_C_SOURCE 200809L

#include "check.h"

#include <pthread.h>
#include <sys/stat.h>
#include <time.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int warned;
static char key_line[128]; /* the first one inside CAM-TEST.key */

static void on_log(void *user, int32_t level, const char *line) {
    (void)user;
    CHECK(strstr(line, key_line) == NULL);
    if (level != P2P_LOG_WARN) return;
    CHECK(strstr(line, "CAM-TEST.key") != NULL && strstr(line, "chmod 0600") != NULL);
    pthread_mutex_lock(&lock);
    warned++;
    pthread_mutex_unlock(&lock);
}

static p2p_config_t with(const char *certificate, const char *key) {
    p2p_config_t config = test_config();
    config.broker_url = "mqtts://127.0.0.1:1";
    config.broker_ca_file = "ca.pem";
    config.broker_cert_file = certificate;
    config.broker_key_file = key;
    config.on_log = on_log;
    config.log_level = P2P_LOG_TRACE;
    return config;
}

/* Waits for so many warnings, 10 seconds at most. */
static void expect_warnings(int wanted) {
    struct timespec pause = {0, 10000000};
    int tries, came = 0;
    for (tries = 0; tries < 1000 && came < wanted; tries++) {
        nanosleep(&pause, NULL);
        pthread_mutex_lock(&lock);
        came = warned;
        pthread_mutex_unlock(&lock);
    }
    CHECK(came == wanted);
}

static void refuse(const char *certificate, const char *key, const char *words) {
    p2p_agent_t *agent = NULL;
    p2p_config_t config = with(certificate, key);
    EXPECT(p2p_init(&config, &agent), P2P_ERR_CONFIG, words);
    CHECK(agent == NULL && strstr(p2p_last_error(), key_line) == NULL);
}

int main(void) {
    p2p_agent_t *agent = NULL;
    p2p_config_t config = with("CAM-TEST.pem", "CAM-TEST.key");
    FILE *key = fopen("CAM-TEST.key", "r");
    const char *no_tls = NULL;

    CHECK(key != NULL && fgets(key_line, sizeof key_line, key) && fgets(key_line, sizeof key_line, key));
    fclose(key);
    key_line[strcspn(key_line, "\n")] = '\0';
    CHECK(strlen(key_line) > 40);

    if (p2p_init(&config, &agent) != P2P_OK) no_tls = "needs a build with TLS";
    refuse("CAM-TEST.pem", "CAM-OTHER.key", no_tls ? no_tls : "do not belong together");
    refuse("no.pem", "CAM-TEST.key", no_tls ? no_tls : "broker_cert_file no.pem: ");
    refuse("CAM-TEST.pem", "no.key", no_tls ? no_tls : "broker_key_file no.key: ");
    refuse("CAM-TEST.key", "CAM-TEST.key", no_tls ? no_tls : "there is no certificate in it");
    refuse("CAM-TEST.pem", "CAM-TEST.pem", no_tls ? no_tls : "there is no private key in it");
    if (no_tls == NULL) {
        EXPECT(p2p_deinit(agent), P2P_OK, "");
        CHECK(warned == 0);
        CHECK(chmod("CAM-TEST.key", 0644) == 0);
        EXPECT(p2p_init(&config, &agent), P2P_OK, "");
        expect_warnings(1);
        EXPECT(p2p_deinit(agent), P2P_OK, "");
    }
    puts("certificate: ok");
    return 0;
}
