/* See audio.h. A real camera would have its sound driver here: the microphone's thread hands over each packet with
 * the time of its first sample, on the clock of the pictures; the loudspeaker decodes what comes, and lets its
 * decoder conceal what is missing. */
#define _POSIX_C_SOURCE 200809L

#include "audio.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { PACKET_MS = 20, G711_BYTES = 8 * PACKET_MS };

static int32_t codec;

/* ---- The microphone ---- */

static struct {
    uint8_t *bytes;
    size_t size, at;
    p2p_audio_t *audio;
    pthread_t thread;
    int runs, stops; /* stops is guarded by lock, and wake says that it was changed */
    pthread_mutex_t lock;
    pthread_cond_t wake;
    uint64_t pushed, dropped;
} microphone;

int32_t audio_codec_of(const char *path) {
    const char *ending = strrchr(path, '.');
    if (ending != NULL && strcmp(ending, ".opus-packets") == 0) return P2P_AUDIO_OPUS;
    if (ending != NULL && strcmp(ending, ".pcma") == 0) return P2P_AUDIO_PCMA;
    if (ending != NULL && strcmp(ending, ".pcmu") == 0) return P2P_AUDIO_PCMU;
    fprintf(stderr, "camera: %s: expected a file that ends with .opus-packets, .pcma or .pcmu\n", path);
    return 0;
}

static int read_clip(const char *path) {
    FILE *file = fopen(path, "rb");
    long length = 0;
    if (file != NULL && fseek(file, 0, SEEK_END) == 0 && (length = ftell(file)) > 0 && fseek(file, 0, SEEK_SET) == 0) {
        microphone.size = (size_t)length;
        microphone.bytes = malloc(microphone.size);
    }
    if (microphone.bytes == NULL || fread(microphone.bytes, 1, microphone.size, file) != microphone.size) {
        fprintf(stderr, "camera: %s: %s\n", path, length == 0 && file != NULL ? "is empty" : strerror(errno));
        length = 0;
    }
    if (file != NULL) fclose(file);
    return length > 0;
}

/* The clip's next packet; from its beginning again where it ends. */
static const uint8_t *next_packet(size_t *size) {
    const uint8_t *packet;
    size_t head = codec == P2P_AUDIO_OPUS ? 2 : 0;
    if (microphone.at + head >= microphone.size) microphone.at = 0;
    packet = microphone.bytes + microphone.at;
    *size = head == 0 ? G711_BYTES : (size_t)packet[0] << 8 | packet[1];
    /* A packet that is cut off ends the clip, too. */
    if (*size > microphone.size - microphone.at - head) *size = microphone.size - microphone.at - head;
    microphone.at += head + *size;
    return packet + head;
}

static void *run_microphone(void *unused) {
    struct timespec due;
    (void)unused;
    clock_gettime(CLOCK_MONOTONIC, &due);
    pthread_mutex_lock(&microphone.lock);
    while (!microphone.stops) {
        p2p_audio_frame_t frame = P2P_AUDIO_FRAME_INIT;
        p2p_status_t status;
        frame.data = next_packet(&frame.size);
        frame.timestamp_us = (uint64_t)due.tv_sec * 1000000 + (uint64_t)due.tv_nsec / 1000;
        status = p2p_push_audio(microphone.audio, &frame);
        microphone.pushed++;
        microphone.dropped += status == P2P_ERR_QUEUE_FULL;
        if (status != P2P_OK && status != P2P_ERR_QUEUE_FULL) {
            if (status != P2P_ERR_HANDLE && status != P2P_ERR_CLOSED) fprintf(stderr, "camera: audio: %s\n", p2p_last_error());
            break;
        }
        due.tv_nsec += PACKET_MS * 1000000;
        if (due.tv_nsec >= 1000000000) due.tv_sec++, due.tv_nsec -= 1000000000;
        while (!microphone.stops && pthread_cond_timedwait(&microphone.wake, &microphone.lock, &due) == 0) continue;
    }
    pthread_mutex_unlock(&microphone.lock);
    return NULL;
}

/* ---- The loudspeaker ---- */

static FILE *loudspeaker;
static uint64_t heard, lost;

/* A packet for a decoder: G.711 as it is, Opus behind its length, of which 0 is a packet to be concealed. */
static void write_packet(const uint8_t *data, size_t size) {
    if (codec == P2P_AUDIO_OPUS) fputc((int)(size >> 8), loudspeaker), fputc((int)(size & 0xff), loudspeaker);
    if (size > 0) fwrite(data, 1, size, loudspeaker);
}

void audio_on_talkback(void *user, const p2p_talkback_t *talkback) {
    static char talker[40];
    (void)user;
    if (loudspeaker == NULL) return;
    if (strncmp(talker, talkback->session_id, sizeof talker - 1) != 0) {
        strncpy(talker, talkback->session_id, sizeof talker - 1);
        printf("talkback: %s\n", talker);
    }
    if (talkback->lost == 0) {
        heard++;
        write_packet(talkback->data, talkback->size);
    } else {
        uint32_t samples = codec == P2P_AUDIO_OPUS ? 0 : talkback->duration_us / 125, i;
        lost += talkback->lost;
        for (i = 0; i < samples; i++) fputc(codec == P2P_AUDIO_PCMA ? 0xd5 : 0xff, loudspeaker); /* silence */
        for (i = 0; codec == P2P_AUDIO_OPUS && i < talkback->lost; i++) write_packet(NULL, 0);
    }
    fflush(loudspeaker);
}

/* ---- Both ---- */

int audio_start(p2p_agent_t *agent, const char *microphone_file, const char *loudspeaker_file) {
    p2p_audio_config_t config = P2P_AUDIO_CONFIG_INIT;
    pthread_condattr_t monotonic;
    if (microphone_file == NULL && loudspeaker_file == NULL) return 1;
    codec = audio_codec_of(microphone_file != NULL ? microphone_file : loudspeaker_file);
    if (codec == 0 || (loudspeaker_file != NULL && audio_codec_of(loudspeaker_file) == 0)) return 0;
    if (loudspeaker_file != NULL && audio_codec_of(loudspeaker_file) != codec) {
        fprintf(stderr, "camera: %s: expected the same ending as that of %s\n", loudspeaker_file, microphone_file);
        return 0;
    }
    if (microphone_file != NULL && !read_clip(microphone_file)) return 0;
    if (loudspeaker_file != NULL && (loudspeaker = fopen(loudspeaker_file, "wb")) == NULL) {
        fprintf(stderr, "camera: %s: %s\n", loudspeaker_file, strerror(errno));
        return 0;
    }
    config.codec = codec;
    config.direction = loudspeaker == NULL     ? P2P_AUDIO_MICROPHONE
                       : microphone_file == NULL ? P2P_AUDIO_LOUDSPEAKER
                                                 : P2P_AUDIO_BOTH;
    if (p2p_start_audio(agent, &config, &microphone.audio) != P2P_OK) {
        fprintf(stderr, "camera: audio: %s\n", p2p_last_error());
        return 0;
    }
    if (microphone_file == NULL) return 1;
    pthread_mutex_init(&microphone.lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&microphone.wake, &monotonic);
    pthread_condattr_destroy(&monotonic);
    microphone.runs = pthread_create(&microphone.thread, NULL, run_microphone, NULL) == 0;
    return microphone.runs;
}

void audio_stop(void) {
    if (microphone.runs) {
        pthread_mutex_lock(&microphone.lock);
        microphone.stops = 1;
        pthread_cond_signal(&microphone.wake);
        pthread_mutex_unlock(&microphone.lock);
        pthread_join(microphone.thread, NULL);
        pthread_cond_destroy(&microphone.wake);
        pthread_mutex_destroy(&microphone.lock);
        printf("audio: %llu packets pushed, %llu dropped\n", (unsigned long long)microphone.pushed,
               (unsigned long long)microphone.dropped);
    }
    if (loudspeaker != NULL) {
        printf("talkback: %llu packets heard, %llu lost\n", (unsigned long long)heard, (unsigned long long)lost);
        fclose(loudspeaker);
    }
    free(microphone.bytes);
}
