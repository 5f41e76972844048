/* A camera without a lens: plays H.264 and H.265 files (Annex B) in a loop through libp2pcam, as an encoder
 * would: one access unit a call, on time, and an IDR soon after it is asked for. Its sound is in audio.c.
 *
 *     cc -I include examples/c/camera.c examples/c/audio.c libp2pcam.a -Wl,--gc-sections \
 *         -lpthread -ldl -o camera
 *     ./camera --help
 */
#define _POSIX_C_SOURCE 200809L

#include "audio.h"
#include "p2pcam.h"
#include "ptz.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ---- A file, split into access units ---- */

typedef struct {
    const uint8_t *data;
    size_t size;
    int is_key; /* a viewer may start with it */
} unit_t;

typedef struct {
    uint8_t *bytes;
    unit_t *units;
    size_t count;
    int32_t codec;
} clip_t;

static uint8_t *read_file(const char *path, size_t *size) {
    FILE *file = fopen(path, "rb");
    uint8_t *bytes = NULL;
    long length;
    if (file == NULL) {
        fprintf(stderr, "camera: %s: %s\n", path, strerror(errno));
        return NULL;
    }
    if (fseek(file, 0, SEEK_END) == 0 && (length = ftell(file)) > 0 && fseek(file, 0, SEEK_SET) == 0) {
        bytes = malloc((size_t)length);
        if (bytes != NULL && fread(bytes, 1, (size_t)length, file) != (size_t)length) {
            free(bytes);
            bytes = NULL;
        }
        *size = (size_t)length;
    }
    fclose(file);
    if (bytes == NULL) fprintf(stderr, "camera: %s cannot be read, or is empty\n", path);
    return bytes;
}

/* Where the next start code 00 00 01 begins, from position at on; size if there is none. */
static size_t next_start(const uint8_t *bytes, size_t size, size_t at) {
    for (; at + 3 <= size; at++) {
        if (bytes[at] == 0 && bytes[at + 1] == 0 && bytes[at + 2] == 1) return at;
    }
    return size;
}

static int add_unit(clip_t *clip, const uint8_t *data, size_t size, int is_key) {
    /* Grows at each power of two. */
    if ((clip->count & (clip->count - 1)) == 0) {
        size_t room = clip->count == 0 ? 1 : 2 * clip->count;
        unit_t *more = realloc(clip->units, room * sizeof *more);
        if (more == NULL) return 0;
        clip->units = more;
    }
    clip->units[clip->count].data = data;
    clip->units[clip->count].size = size;
    clip->units[clip->count].is_key = is_key;
    clip->count++;
    return 1;
}

/* What the splitter needs to know of a NAL unit. */
typedef struct {
    int is_slice, is_key;
    int is_first; /* a slice that begins a picture */
    int is_head;  /* no slice, and a part of the picture that follows */
} nal_t;

/* ITU-T H.264, 7.3.1 and 7.4.1.2.3. */
static nal_t h264_nal(const uint8_t *nal, size_t size) {
    int type = nal[0] & 0x1f;
    nal_t is;
    is.is_slice = type >= 1 && type <= 5;
    is.is_key = type == 5;
    /* first_mb_in_slice is 0 if its Exp-Golomb code is the single bit 1. */
    is.is_first = is.is_slice && size > 1 && (nal[1] & 0x80) != 0;
    is.is_head = type >= 6 && type <= 9; /* SEI, SPS, PPS, delimiter */
    return is;
}

/* ITU-T H.265, 7.3.1.2 and 7.4.2.4.4. */
static nal_t h265_nal(const uint8_t *nal, size_t size) {
    int type = nal[0] >> 1 & 0x3f;
    nal_t is;
    is.is_slice = type <= 31;
    is.is_key = type >= 16 && type <= 21; /* BLA, IDR, CRA */
    /* first_slice_segment_in_pic_flag */
    is.is_first = is.is_slice && size > 2 && (nal[2] & 0x80) != 0;
    /* VPS, SPS, PPS, delimiter; SEI, but not the kind that follows its picture; reserved ones */
    is.is_head = (type >= 32 && type <= 35) || type == 39 || (type >= 41 && type <= 44) || (type >= 48 && type <= 55);
    return is;
}

/* An access unit ends where the next begins: at a delimiter, at SEI or parameter sets that follow a
 * picture, or at a slice that is the first of its picture. */
static int split(clip_t *clip, size_t size) {
    const uint8_t *bytes = clip->bytes;
    size_t at = next_start(bytes, size, 0);
    size_t begin = at;
    int has_slice = 0, is_key = 0;

    while (at + 3 < size) {
        const uint8_t *start = bytes + at + 3;
        size_t left = size - at - 3;
        nal_t nal = clip->codec == P2P_CODEC_H265 ? h265_nal(start, left) : h264_nal(start, left);
        if (has_slice && (nal.is_first || nal.is_head)) {
            /* The zero of a 4-byte start code belongs to the new unit. */
            size_t end = bytes[at - 1] == 0 ? at - 1 : at;
            if (!add_unit(clip, bytes + begin, end - begin, is_key)) return 0;
            begin = end;
            has_slice = is_key = 0;
        }
        has_slice |= nal.is_slice;
        is_key |= nal.is_key;
        at = next_start(bytes, size, at + 3);
    }
    return !has_slice || add_unit(clip, bytes + begin, size - begin, is_key);
}

static int clip_load(clip_t *clip, const char *path, int32_t codec) {
    size_t size = 0;
    memset(clip, 0, sizeof *clip);
    clip->codec = codec;
    clip->bytes = read_file(path, &size);
    if (clip->bytes == NULL) return 0;
    if (!split(clip, size)) {
        fprintf(stderr, "camera: no memory for %s\n", path);
        return 0;
    }
    if (clip->count == 0 || !clip->units[0].is_key) {
        fprintf(stderr, "camera: %s: expected an %s Annex-B stream that begins with an IDR\n", path,
                codec == P2P_CODEC_H265 ? "H.265" : "H.264");
        return 0;
    }
    return 1;
}

/* ---- An encoder, played from a clip ---- */

typedef struct {
    clip_t clip;
    const char *name;
    p2p_stream_t *stream;
    size_t next;
    uint64_t period_us;   /* from picture to picture */
    int recorded;         /* see push_recorded */
    uint64_t pause_until;
    uint64_t pushed, dropped;
    pthread_mutex_t lock; /* of the two below, which the library's callbacks change */
    int idr_wanted;
    uint64_t released;
} encoder_t;

/* The library is done with a lent frame. The clip stays in memory, so there is nothing to free. */
static void on_release(void *user, const uint8_t *data, size_t size) {
    encoder_t *encoder = user;
    (void)data, (void)size;
    pthread_mutex_lock(&encoder->lock);
    encoder->released++;
    pthread_mutex_unlock(&encoder->lock);
}

/* An encoder would make an IDR at once; a clip has to go on to its next one. */
static const unit_t *next_unit(encoder_t *encoder) {
    const unit_t *unit;
    int skip;
    pthread_mutex_lock(&encoder->lock);
    skip = encoder->idr_wanted;
    encoder->idr_wanted = 0;
    pthread_mutex_unlock(&encoder->lock);
    while (skip && !encoder->clip.units[encoder->next].is_key) {
        encoder->next = (encoder->next + 1) % encoder->clip.count;
    }
    unit = &encoder->clip.units[encoder->next];
    encoder->next = (encoder->next + 1) % encoder->clip.count;
    return unit;
}

static p2p_status_t push_next(encoder_t *encoder, uint64_t timestamp_us, int lend) {
    const unit_t *unit = next_unit(encoder);
    p2p_frame_t frame = P2P_FRAME_INIT;
    p2p_status_t status;
    frame.data = unit->data;
    frame.size = unit->size;
    frame.timestamp_us = timestamp_us;
    if (lend) {
        frame.release = on_release;
        frame.release_user = encoder;
    }
    status = p2p_push_frame(encoder->stream, &frame);
    encoder->pushed++;
    if (status == P2P_ERR_QUEUE_FULL) {
        encoder->dropped++;
        return P2P_OK;
    }
    return status;
}

/* Plays the clip as a recording: with its own times, which begin anew with each round, and a pause of
 * a second between two rounds. */
static p2p_status_t push_recorded(encoder_t *encoder, uint64_t now, int lend) {
    size_t at = encoder->next;
    if (now < encoder->pause_until) return P2P_OK;
    if (at + 1 == encoder->clip.count) encoder->pause_until = now + 1000000;
    return push_next(encoder, at * encoder->period_us, lend);
}

/* ---- What the library tells ---- */

static const char *path_name(p2p_path_t path) {
    static const char *const names[] = {"?", "host", "srflx", "prflx", "relay"};
    return names[path <= P2P_PATH_RELAY ? path : 0];
}

static const char *stream_label(const p2p_stream_t *stream);

static void on_event(void *user, const p2p_event_t *event) {
    (void)user;
    switch (event->kind) {
    case P2P_EVENT_SIGNALING_UP:
        printf("signaling up\n");
        break;
    case P2P_EVENT_SIGNALING_DOWN:
        printf("signaling down: %s\n", event->text);
        break;
    case P2P_EVENT_VIEWER_NEW:
        printf("viewer new: %s app=%s\n", event->session_id, event->app_id);
        break;
    case P2P_EVENT_VIEWER_CONNECTED:
        printf("viewer connected: %s path=%s setup_ms=%u\n", event->session_id,
               path_name(event->path), (unsigned)event->setup_ms);
        break;
    case P2P_EVENT_VIEWER_CLOSED:
        printf("viewer closed: %s reason=%d code=%d: %s\n", event->session_id, (int)event->reason,
               (int)event->code, event->text);
        break;
    case P2P_EVENT_VIEWER_STREAM:
        printf("viewer stream: %s %s\n", event->session_id, stream_label(event->stream));
        break;
    default: /* of a newer library */
        break;
    }
}

static void on_keyframe_request(void *user, p2p_stream_t *stream, void *stream_user) {
    encoder_t *encoder = stream_user;
    (void)user, (void)stream;
    pthread_mutex_lock(&encoder->lock);
    encoder->idr_wanted = 1;
    pthread_mutex_unlock(&encoder->lock);
    printf("keyframe requested: %s\n", encoder->name);
}

/* A file has the bit rate it has; an encoder would be told. */
static void on_target_bitrate(void *user, p2p_stream_t *stream, uint32_t bits_per_second, void *stream_user) {
    const encoder_t *encoder = stream_user;
    (void)user, (void)stream;
    printf("target bit rate: %s %u bit/s\n", encoder->name, (unsigned)bits_per_second);
}

static void on_log(void *user, int32_t level, const char *line) {
    (void)user;
    fprintf(stderr, "%c %s\n", "?EWIDT"[level <= P2P_LOG_TRACE ? level : 0], line);
}

/* ---- Options ---- */

typedef struct {
    const char *name, *variable, *help; /* of more names for one option, only the first has help */
    const char **text;                  /* exactly one of the two is set */
    int *flag;
} option_t;

static const char *device, *broker = "mqtt://127.0.0.1:1883", *user, *password, *broker_ca, *broker_cert, *broker_key,
    *service_key, *file, *sub_file, *audio_file, *talkback_file, *stream_name = "main", *codec_text = "", *identity,
    *fps_text = "30", *max_viewers = "0", *duration = "0", *log_level = "3", *stats_text = "0", *min_bitrate = "0";
static int recorded, fall_back, no_gop_cache, loopback, relay_only, accept_unset_clock, copy_frames, lend_frames;

static const option_t options[] = {
    {"--device", "P2PCAM_DEVICE", "serial number of this camera", &device, NULL},
    {"--broker", "P2PCAM_BROKER", "mqtt://host[:port], or mqtts:// if the library has TLS", &broker, NULL},
    {"--broker-ca", "P2PCAM_BROKER_CA", "PEM file: who may have signed the broker's certificate", &broker_ca, NULL},
    {"--broker-cert", "P2PCAM_BROKER_CERT", "PEM file: this camera's own certificate", &broker_cert, NULL},
    {"--broker-key", "P2PCAM_BROKER_KEY", "PEM file: its private key", &broker_key, NULL},
    {"--user", "P2PCAM_USER", "MQTT user name; the device if not set", &user, NULL},
    {"--password", "P2PCAM_PASSWORD", "MQTT password", &password, NULL},
    {"--service-key", "P2PCAM_SERVICE_KEY", "public key of the session service", &service_key, NULL},
    {"--public-key", NULL, NULL, &service_key, NULL},
    {"--file", "P2PCAM_FILE", "H.264 or H.265 file of the stream", &file, NULL},
    {"--clip", NULL, NULL, &file, NULL},
    {"--sub", "P2PCAM_SUB_FILE", "file of a second stream, \"sub\"", &sub_file, NULL},
    {"--audio", "P2PCAM_AUDIO", "sound: .opus-packets, .pcma or .pcmu", &audio_file, NULL},
    {"--talkback", "P2PCAM_TALKBACK", "write what viewers say to this file", &talkback_file, NULL},
    {"--codec", "P2PCAM_CODEC", "h264 or h265; by each file's ending if not set", &codec_text, NULL},
    {"--stream", "P2PCAM_STREAM", "name of the stream (main)", &stream_name, NULL},
    {"--fps", "P2PCAM_FPS", "frames a second (30)", &fps_text, NULL},
    {"--recorded", "P2PCAM_RECORDED", "play the file as a recording: own times, a pause after each round", NULL, &recorded},
    {"--fall-back", "P2PCAM_FALL_BACK", "viewers with a slow network get the second stream", NULL, &fall_back},
    {"--no-gop-cache", "P2PCAM_NO_GOP_CACHE", "viewers start with a keyframe of their own", NULL, &no_gop_cache},
    {"--min-bitrate", "P2PCAM_MIN_BITRATE", "the least of the first stream, in bit/s; see p2pcam.h", &min_bitrate, NULL},
    {"--identity", "P2PCAM_IDENTITY", "file for the DTLS key and certificate", &identity, NULL},
    {"--max-viewers", "P2PCAM_MAX_VIEWERS", "viewers at once (8)", &max_viewers, NULL},
    {"--duration", "P2PCAM_DURATION", "end after so many seconds", &duration, NULL},
    {"--stats", "P2PCAM_STATS", "print statistics every so many seconds", &stats_text, NULL},
    {"--log-level", "P2PCAM_LOG_LEVEL", "1 errors to 5 everything (3)", &log_level, NULL},
    {"--loopback", "P2PCAM_LOOPBACK", "offer 127.0.0.1 as well", NULL, &loopback},
    {"--include-loopback", NULL, NULL, NULL, &loopback},
    {"--relay-only", "P2PCAM_RELAY_ONLY", "use relays only", NULL, &relay_only},
    {"--accept-unset-clock", "P2PCAM_ACCEPT_UNSET_CLOCK", "see unset_clock in p2pcam.h", NULL, &accept_unset_clock},
    {"--lend", "P2PCAM_LEND", "lend frames to the library (the default)", NULL, &lend_frames},
    {"--copy", "P2PCAM_COPY", "let the library copy frames", NULL, &copy_frames},
};

enum { OPTION_COUNT = sizeof options / sizeof options[0] };

static void help(void) {
    size_t i;
    printf("camera: plays H.264 and H.265 files through libp2pcam %s, as a camera would\n\n", p2p_version());
    for (i = 0; i < OPTION_COUNT; i++) {
        if (options[i].help == NULL) continue;
        printf("  %-20s %s  %s  [%s]\n", options[i].name, options[i].text != NULL ? "X" : " ", options[i].help,
               options[i].variable);
    }
}

/* The environment first, then the command line over it. Zero if something is wrong. */
static int read_options(int argc, char **argv) {
    int arg;
    size_t i;
    for (i = 0; i < OPTION_COUNT; i++) {
        const char *value = options[i].variable != NULL ? getenv(options[i].variable) : NULL;
        if (value == NULL || *value == '\0') continue;
        if (options[i].text != NULL) *options[i].text = value;
        else *options[i].flag = strcmp(value, "0") != 0;
    }
    for (arg = 1; arg < argc; arg++) {
        for (i = 0; i < OPTION_COUNT && strcmp(argv[arg], options[i].name) != 0; i++) continue;
        if (i == OPTION_COUNT || (options[i].text != NULL && arg + 1 == argc)) {
            fprintf(stderr, "camera: %s: %s (see --help)\n", argv[arg],
                    i == OPTION_COUNT ? "unknown option" : "needs a value");
            return 0;
        }
        if (options[i].text != NULL) *options[i].text = argv[++arg];
        else *options[i].flag = 1;
    }
    if (device == NULL || service_key == NULL || file == NULL) {
        fprintf(stderr, "camera: --device, --service-key and --file are required (see --help)\n");
        return 0;
    }
    return 1;
}

/* A number within its bounds, or -1 and a word about it. */
static double number(const char *name, const char *text, double least, double most) {
    char *end = NULL;
    double value = strtod(text, &end);
    if (end != text && *end == '\0' && value >= least && value <= most) return value;
    fprintf(stderr, "camera: %s is \"%s\": expected %g to %g\n", name, text, least, most);
    return -1;
}

/* By --codec, else by the file's ending; 0 and a word about it if --codec is neither. */
static int32_t codec_of(const char *path) {
    const char *name = *codec_text != '\0' ? codec_text : strrchr(path, '.');
    if (name != NULL && *name == '.') name++;
    if (name != NULL && (strcmp(name, "h265") == 0 || strcmp(name, "265") == 0 || strcmp(name, "hevc") == 0)) {
        return P2P_CODEC_H265;
    }
    if (*codec_text == '\0' || strcmp(codec_text, "h264") == 0) return P2P_CODEC_H264;
    fprintf(stderr, "camera: --codec is \"%s\": expected h264 or h265\n", codec_text);
    return 0;
}

/* ---- Time, and the loop ---- */

static volatile sig_atomic_t stop_signal;

static void on_signal(int signal_number) { stop_signal = signal_number; }

static uint64_t now_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static void sleep_until(uint64_t time_us) {
    struct timespec until;
    until.tv_sec = (time_t)(time_us / 1000000);
    until.tv_nsec = (long)(time_us % 1000000) * 1000;
    /* A signal ends the sleep early; the loop looks at it. */
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
}

/* One line for the agent, one for each stream and one for each viewer. */
static void print_stats(p2p_agent_t *agent) {
    enum { MOST_VIEWERS = 128, MOST_STREAMS = 4 };
    static p2p_viewer_stats_t viewers[MOST_VIEWERS] = {P2P_VIEWER_STATS_INIT};
    static p2p_stream_stats_t streams[MOST_STREAMS] = {P2P_STREAM_STATS_INIT};
    p2p_stats_t stats = P2P_STATS_INIT;
    size_t viewer_count = MOST_VIEWERS, stream_count = MOST_STREAMS, i;

    if (p2p_get_stats(agent, &stats, viewers, &viewer_count, streams, &stream_count) != P2P_OK) {
        fprintf(stderr, "camera: %s\n", p2p_last_error());
        return;
    }
    printf("stats agent: up=%u reconnects=%u sends=%llu datagrams=%llu errors=%llu memory=%llu"
           " push_to_wire_us=%u/%u/%u/%u\n",
           (unsigned)stats.signaling_up, (unsigned)stats.signaling_reconnects, (unsigned long long)stats.sends,
           (unsigned long long)stats.datagrams, (unsigned long long)stats.send_errors,
           (unsigned long long)stats.memory_bytes, (unsigned)stats.push_to_wire_p50_us,
           (unsigned)stats.push_to_wire_p95_us, (unsigned)stats.push_to_wire_p99_us,
           (unsigned)stats.push_to_wire_max_us);
    for (i = 0; i < stream_count; i++) {
        const p2p_stream_stats_t *s = &streams[i];
        printf("stats stream %s: viewers=%u frames=%llu keyframes=%llu bytes=%llu fps=%u bps=%llu refused=%llu"
               " requests=%llu memory=%llu\n",
               s->name, (unsigned)s->viewers, (unsigned long long)s->frames, (unsigned long long)s->keyframes,
               (unsigned long long)s->bytes, (unsigned)s->frame_rate_fps, (unsigned long long)s->bitrate_bps,
               (unsigned long long)(s->refused_queue_full + s->refused_awaiting_keyframe + s->refused_too_large +
                                    s->refused_no_parameter_sets + s->refused_malformed),
               (unsigned long long)s->keyframe_requests, (unsigned long long)s->memory_bytes);
    }
    for (i = 0; i < viewer_count; i++) {
        const p2p_viewer_stats_t *v = &viewers[i];
        printf("stats viewer %s: path=%s local=%s remote=%s srtp=%u frames=%llu packets=%llu bytes=%llu wire=%llu"
               " media_bps=%llu wire_bps=%llu target_bps=%llu rtt_us=%u loss_permille=%u nacked=%llu resent=%llu"
               " pli=%llu fir=%llu dropped=%llu memory=%llu answer_ms=%d ice_ms=%d dtls_ms=%d first_frame_ms=%d"
               " audio=%llu talkback=%llu talkback_lost=%llu talkback_delay_us=%u"
               " channels=%u data_in=%llu data_out=%llu data_in_bytes=%llu data_out_bytes=%llu data_waiting=%llu\n",
               v->session_id, path_name(v->path), path_name(v->local_candidate), path_name(v->remote_candidate),
               (unsigned)v->srtp_profile, (unsigned long long)v->frames, (unsigned long long)v->packets,
               (unsigned long long)v->media_bytes, (unsigned long long)v->wire_bytes,
               (unsigned long long)v->media_bps, (unsigned long long)v->wire_bps, (unsigned long long)v->target_bps,
               (unsigned)v->round_trip_us, (unsigned)v->loss_permille, (unsigned long long)v->nacked_packets,
               (unsigned long long)v->resent_packets, (unsigned long long)v->plis, (unsigned long long)v->firs,
               (unsigned long long)(v->dropped_queue_full + v->dropped_no_route + v->dropped_awaiting_keyframe +
                                    v->dropped_too_old + v->dropped_too_large + v->dropped_key_worn_out),
               (unsigned long long)v->memory_bytes, (int)v->answer_ms, (int)v->ice_ms, (int)v->dtls_ms,
               (int)v->first_frame_ms, (unsigned long long)v->audio_packets, (unsigned long long)v->talkback_packets,
               (unsigned long long)v->talkback_lost, (unsigned)v->talkback_delay_us, (unsigned)v->data_channels,
               (unsigned long long)v->data_received_messages, (unsigned long long)v->data_sent_messages,
               (unsigned long long)v->data_received_bytes, (unsigned long long)v->data_sent_bytes,
               (unsigned long long)v->data_buffered_bytes);
    }
}

static int play(encoder_t *encoders, size_t count, p2p_agent_t *agent, double fps, double seconds, double stats_every,
                int lend) {
    uint64_t start = now_us(), frame = 0, stats_due = start;
    while (!stop_signal) {
        uint64_t due = start + (uint64_t)((double)frame * 1e6 / fps);
        uint64_t now = now_us();
        size_t i;
        if (seconds > 0 && due - start >= (uint64_t)(seconds * 1e6)) return 1;
        if (now > due + 1000000) {
            /* The process was held up: a camera's sensor does not make up for lost time. */
            frame = (uint64_t)((double)(now - start) * fps / 1e6) + 1;
            continue;
        }
        if (now < due) {
            sleep_until(due);
            if (now_us() < due) continue;
        }
        if (stats_every > 0 && due >= stats_due + (uint64_t)(stats_every * 1e6)) {
            stats_due = due;
            print_stats(agent);
        }
        for (i = 0; i < count; i++) {
            encoder_t *encoder = &encoders[i];
            p2p_status_t status = encoder->recorded ? push_recorded(encoder, due, lend) : push_next(encoder, due, lend);
            if (status != P2P_OK) {
                fprintf(stderr, "camera: frame %llu of %s: %s\n", (unsigned long long)frame, encoder->name,
                        p2p_last_error());
                return 0;
            }
        }
        frame++;
    }
    return 1;
}

static int start_encoder(encoder_t *encoder, p2p_agent_t *agent, const char *name, const char *path, double fps,
                         const char *fallback, uint32_t least) {
    p2p_stream_config_t config = P2P_STREAM_CONFIG_INIT;
    uint64_t bytes = 0;
    size_t i;
    config.codec = codec_of(path);
    encoder->name = name;
    if (config.codec == 0 || !clip_load(&encoder->clip, path, config.codec)) return 0;
    for (i = 0; i < encoder->clip.count; i++) bytes += encoder->clip.units[i].size;
    encoder->recorded = recorded;
    encoder->period_us = (uint64_t)(1e6 / fps);
    config.name = name;
    if (no_gop_cache) config.gop_cache = P2P_GOP_CACHE_OFF;
    if (fallback != NULL) {
        config.fallback = fallback;
        config.min_bitrate = least;
    }
    config.bitrate = (uint32_t)((double)bytes * 8 * fps / (double)encoder->clip.count);
    config.user = encoder;
    printf("stream %s: %lu frames, %u bit/s, %s\n", name, (unsigned long)encoder->clip.count,
           (unsigned)config.bitrate, path);
    if (p2p_start_stream(agent, &config, &encoder->stream) == P2P_OK) return 1;
    fprintf(stderr, "camera: stream %s: %s\n", name, p2p_last_error());
    return 0;
}

static encoder_t encoders[2];

static const char *stream_label(const p2p_stream_t *stream) {
    size_t i;
    for (i = 0; i < 2; i++) {
        if (stream != NULL && encoders[i].stream == stream) return encoders[i].name;
    }
    return "?";
}

int main(int argc, char **argv) {
    p2p_config_t config = P2P_CONFIG_INIT;
    p2p_agent_t *agent = NULL;
    struct sigaction action;
    double fps, seconds, viewers, level, stats_every, least;
    size_t count, i;
    int ok;

    if (argc == 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) return help(), 0;
    if (!read_options(argc, argv)) return 2;
    fps = number("--fps", fps_text, 1, 240);
    seconds = number("--duration", duration, 0, 1e9);
    viewers = number("--max-viewers", max_viewers, 0, 1000);
    level = number("--log-level", log_level, P2P_LOG_ERROR, P2P_LOG_TRACE);
    stats_every = number("--stats", stats_text, 0, 1e9);
    least = number("--min-bitrate", min_bitrate, 0, 1e9);
    if (least < 0 || fps < 0 || seconds < 0 || viewers < 0 || level < 0 || stats_every < 0) return 2;
    setvbuf(stdout, NULL, _IOLBF, 0);
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);

    config.device_id = device;
    config.broker_url = broker;
    config.broker_username = user;
    config.broker_password = password;
    config.broker_ca_file = broker_ca;
    config.broker_cert_file = broker_cert;
    config.broker_key_file = broker_key;
    config.service_public_key = service_key;
    config.identity_file = identity;
    config.max_viewers = (uint32_t)viewers;
    config.include_loopback = loopback;
    config.relay_only = relay_only;
    config.unset_clock = accept_unset_clock ? P2P_UNSET_CLOCK_ACCEPT_UNTIL_KNOWN : P2P_UNSET_CLOCK_REFUSE;
    config.log_level = (int32_t)level;
    config.on_event = on_event;
    config.on_keyframe_request = on_keyframe_request;
    config.on_target_bitrate = on_target_bitrate;
    config.on_log = on_log;
    config.on_talkback = audio_on_talkback;
    config.on_data_channel = ptz_on_data_channel;
    config.on_data = ptz_on_data;
    if (p2p_init(&config, &agent) != P2P_OK) {
        fprintf(stderr, "camera: %s\n", p2p_last_error());
        return 1;
    }

    count = sub_file != NULL ? 2 : 1;
    for (i = 0; i < count; i++) pthread_mutex_init(&encoders[i].lock, NULL);
    ok = audio_start(agent, audio_file, talkback_file) &&
         start_encoder(&encoders[0], agent, stream_name, file, fps, fall_back ? "sub" : NULL, (uint32_t)least) &&
         (count == 1 || start_encoder(&encoders[1], agent, "sub", sub_file, fps, NULL, 0)) &&
         play(encoders, count, agent, fps, seconds, stats_every, lend_frames || !copy_frames);

    /* From here on no callback runs, and every lent frame is back. */
    if (p2p_deinit(agent) != P2P_OK) {
        fprintf(stderr, "camera: %s\n", p2p_last_error());
        ok = 0;
    }
    audio_stop();
    for (i = 0; i < count; i++) {
        if (encoders[i].stream != NULL) {
            printf("stream %s: %llu frames pushed, %llu dropped, %llu released\n", encoders[i].name,
                   (unsigned long long)encoders[i].pushed, (unsigned long long)encoders[i].dropped,
                   (unsigned long long)encoders[i].released);
        }
        free(encoders[i].clip.units);
        free(encoders[i].clip.bytes);
        pthread_mutex_destroy(&encoders[i].lock);
    }
    return ok ? 0 : 1;
}
