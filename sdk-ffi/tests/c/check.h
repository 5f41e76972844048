/* What the C test programs share: checks that say where they failed and what the library said. */
#ifndef P2PCAM_TEST_CHECK_H
#define P2PCAM_TEST_CHECK_H

#include "p2pcam.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Nobody listens there: the agent runs, and tries again and again. */
#define TEST_BROKER "mqtt://127.0.0.1:1"
#define TEST_KEY "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"

#define CHECK(condition)                                                                          \
    do {                                                                                          \
        if (!(condition)) {                                                                       \
            fprintf(stderr, "%s:%d: not so: %s (last error: %s)\n", __FILE__, __LINE__,           \
                    #condition, p2p_last_error());                                                \
            exit(1);                                                                              \
        }                                                                                         \
    } while (0)

/* The call must give this status, and for an error a text that contains these words. */
#define EXPECT(call, expected, words) expect(__FILE__, __LINE__, #call, (call), (expected), (words))

static inline void expect(const char *file, int line, const char *call, p2p_status_t came,
                          p2p_status_t expected, const char *words) {
    if (came != expected) {
        fprintf(stderr, "%s:%d: %s gave %d (%s: %s), expected %d (%s)\n", file, line, call, (int)came,
                p2p_strerror(came), p2p_last_error(), (int)expected, p2p_strerror(expected));
        exit(1);
    }
    if (came != P2P_OK && strstr(p2p_last_error(), words) == NULL) {
        fprintf(stderr, "%s:%d: %s said \"%s\", expected something with \"%s\"\n", file, line, call,
                p2p_last_error(), words);
        exit(1);
    }
}

static inline p2p_config_t test_config(void) {
    p2p_config_t config = P2P_CONFIG_INIT;
    config.device_id = "CAM-TEST";
    config.broker_url = TEST_BROKER;
    config.service_public_key = TEST_KEY;
    return config;
}

static inline p2p_stream_config_t test_stream(const char *name) {
    p2p_stream_config_t config = P2P_STREAM_CONFIG_INIT;
    config.name = name;
    config.codec = P2P_CODEC_H264;
    return config;
}

/* SPS, PPS and an IDR slice of a 16x16 picture: small, and a keyframe. */
static const uint8_t TEST_FRAME[] = {
    0, 0, 0, 1, 0x67, 0x42, 0xc0, 0x0a, 0xda, 0x7b, 0x96, /* SPS */
    0, 0, 0, 1, 0x68, 0xce, 0x3c, 0x80,                   /* PPS */
    0, 0, 1, 0x65, 0x88, 0x84, 0x0a, 0xf1, 0x18, 0xa0,    /* IDR slice */
};

#endif
