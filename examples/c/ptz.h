/* What a viewer may ask of the example camera on a data channel, in texts:
 *
 *     ptz left, right, up, down, home   turns the camera: "ok pan=-10 tilt=0"
 *     watch                             each new position is told on a channel of the camera's own, which
 *                                       would rather lose one than be late
 *     log                               a text of 2 MB, as fast as the viewer takes it
 *
 * Anything else comes back as it is. All of this runs on the agent's thread, so it needs no locks. */
#ifndef CAMERA_PTZ_H
#define CAMERA_PTZ_H

#include "p2pcam.h"

#include <stdio.h>
#include <string.h>

enum { PTZ_WATCHERS = 8, PTZ_STEP = 10, PTZ_LOG_PARTS = 128, PTZ_LOG_PART = 16384 };

/* A viewer's channel, while it is open. */
typedef struct {
    char session_id[40];
    uint16_t channel;
    int is_used;
    int parts; /* of the log, that were sent */
} ptz_channel_t;

static struct {
    int pan, tilt;
    ptz_channel_t watchers[PTZ_WATCHERS];
    ptz_channel_t log; /* one at a time */
} ptz;

static int ptz_is(const ptz_channel_t *c, const char *session_id, uint16_t channel) {
    return c->is_used && c->channel == channel && strcmp(c->session_id, session_id) == 0;
}

static void ptz_set(ptz_channel_t *c, const char *session_id, uint16_t channel) {
    memset(c, 0, sizeof *c);
    snprintf(c->session_id, sizeof c->session_id, "%s", session_id);
    c->channel = channel;
    c->is_used = 1;
}

static void ptz_say(p2p_agent_t *agent, const char *session_id, uint16_t channel, const char *text) {
    if (p2p_send_data(agent, session_id, channel, (const uint8_t *)text, strlen(text), 1) != P2P_OK) {
        fprintf(stderr, "camera: %s: %s\n", session_id, p2p_last_error());
    }
}

/* Zero if it is not a move. */
static int ptz_move(const char *text, size_t size) {
    static const struct {
        const char *text;
        int pan, tilt;
    } moves[] = {{"ptz left", -1, 0}, {"ptz right", 1, 0}, {"ptz up", 0, 1}, {"ptz down", 0, -1}, {"ptz home", 0, 0}};
    size_t i;
    for (i = 0; i < sizeof moves / sizeof moves[0]; i++) {
        if (size != strlen(moves[i].text) || memcmp(text, moves[i].text, size) != 0) continue;
        ptz.pan = moves[i].pan == 0 && moves[i].tilt == 0 ? 0 : ptz.pan + PTZ_STEP * moves[i].pan;
        ptz.tilt = moves[i].pan == 0 && moves[i].tilt == 0 ? 0 : ptz.tilt + PTZ_STEP * moves[i].tilt;
        return 1;
    }
    return 0;
}

static void ptz_tell_watchers(p2p_agent_t *agent) {
    char text[64];
    size_t i;
    snprintf(text, sizeof text, "pan=%d tilt=%d", ptz.pan, ptz.tilt);
    for (i = 0; i < PTZ_WATCHERS; i++) {
        const ptz_channel_t *watcher = &ptz.watchers[i];
        if (watcher->is_used) ptz_say(agent, watcher->session_id, watcher->channel, text);
    }
}

static void ptz_watch(p2p_agent_t *agent, const char *session_id) {
    p2p_data_channel_config_t config = P2P_DATA_CHANNEL_CONFIG_INIT;
    uint16_t channel;
    size_t i;
    config.label = "position";
    config.unordered = 1;
    config.reliability = P2P_DATA_MAX_RETRANSMITS;
    config.reliability_value = 0;
    for (i = 0; i < PTZ_WATCHERS && ptz.watchers[i].is_used; i++) continue;
    if (i == PTZ_WATCHERS || p2p_open_data_channel(agent, session_id, &config, &channel) != P2P_OK) {
        fprintf(stderr, "camera: %s does not get to watch\n", session_id);
        return;
    }
    ptz_set(&ptz.watchers[i], session_id, channel);
    ptz_tell_watchers(agent);
}

/* Sends until there is no room any more; on_data_channel says when there is. */
static void ptz_send_log(p2p_agent_t *agent) {
    char part[PTZ_LOG_PART + 1];
    while (ptz.log.is_used && ptz.log.parts < PTZ_LOG_PARTS) {
        p2p_status_t status;
        memset(part, '.', PTZ_LOG_PART);
        snprintf(part, sizeof part, "log %d of %d", ptz.log.parts + 1, PTZ_LOG_PARTS);
        part[strlen(part)] = '\n';
        status = p2p_send_data(agent, ptz.log.session_id, ptz.log.channel, (const uint8_t *)part, PTZ_LOG_PART, 1);
        if (status == P2P_ERR_QUEUE_FULL) return;
        if (status != P2P_OK) break;
        ptz.log.parts++;
    }
    ptz.log.is_used = 0;
}

static void ptz_on_data(void *user, const p2p_data_t *data) {
    const char *text = (const char *)data->data;
    (void)user;
    if (data->is_text && ptz_move(text, data->size)) {
        char answer[64];
        printf("ptz: pan=%d tilt=%d\n", ptz.pan, ptz.tilt);
        snprintf(answer, sizeof answer, "ok pan=%d tilt=%d", ptz.pan, ptz.tilt);
        ptz_say(data->agent, data->session_id, data->channel, answer);
        ptz_tell_watchers(data->agent);
    } else if (data->is_text && data->size == 5 && memcmp(text, "watch", 5) == 0) {
        ptz_watch(data->agent, data->session_id);
    } else if (data->is_text && data->size == 3 && memcmp(text, "log", 3) == 0 && !ptz.log.is_used) {
        ptz_set(&ptz.log, data->session_id, data->channel);
        ptz_send_log(data->agent);
    } else if (p2p_send_data(data->agent, data->session_id, data->channel, data->data, data->size, data->is_text) !=
               P2P_OK) {
        fprintf(stderr, "camera: %s: %s\n", data->session_id, p2p_last_error());
    }
}

static void ptz_on_data_channel(void *user, const p2p_data_channel_event_t *event) {
    size_t i;
    (void)user;
    switch (event->change) {
    case P2P_DATA_CHANNEL_OPENED:
        printf("data channel %s/%u: open, %s, reliability %d %u\n", event->session_id, (unsigned)event->channel,
               event->unordered ? "unordered" : "ordered", (int)event->reliability,
               (unsigned)event->reliability_value);
        break;
    case P2P_DATA_CHANNEL_CLOSED:
        printf("data channel %s/%u: closed\n", event->session_id, (unsigned)event->channel);
        for (i = 0; i < PTZ_WATCHERS; i++) {
            if (ptz_is(&ptz.watchers[i], event->session_id, event->channel)) ptz.watchers[i].is_used = 0;
        }
        if (ptz_is(&ptz.log, event->session_id, event->channel)) ptz.log.is_used = 0;
        break;
    case P2P_DATA_CHANNEL_WRITABLE:
        printf("data channel %s/%u: writable\n", event->session_id, (unsigned)event->channel);
        if (ptz_is(&ptz.log, event->session_id, event->channel)) ptz_send_log(event->agent);
        break;
    default:
        break;
    }
}

#endif
