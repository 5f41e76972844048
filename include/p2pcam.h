/*
 * libp2pcam: brings a camera's encoded video to browsers and apps over direct, encrypted connections.
 *
 * Generated from sdk-ffi/src by cbindgen; do not edit, run `make header`.
 *
 * Order of calls
 *     p2p_init, p2p_start_stream, p2p_push_frame for every access unit, p2p_stop_stream, p2p_deinit.
 *     With sound: p2p_start_audio after p2p_init, then p2p_push_audio for every packet.
 *
 * Threads
 *   - Every function may be called from any thread, at the same time as any other.
 *   - No function but p2p_deinit blocks. Frames of one stream must come one after the other.
 *   - on_log and a frame's release run on the agent's own thread or on threads that are inside the
 *     library, all other callbacks on the agent's own thread, one at a time. Return soon: video
 *     waits.
 *   - Inside those others everything may be called but p2p_init and p2p_deinit, which answer
 *     P2P_ERR_IN_CALLBACK. Inside on_log and release call only p2p_strerror,
 *     p2p_last_error and p2p_version.
 *   - Callbacks may begin before p2p_init returns; none runs after p2p_deinit has returned. They must
 *     not throw, longjmp or fork.
 *   - Do not hold a lock that a callback takes while calling p2p_deinit.
 *
 * Memory
 *   - What is passed in is copied before the call returns, but for a lent frame (p2p_frame_t.release)
 *     and the user pointers. What comes out belongs to the library, or is written into the caller's
 *     own structs (p2p_get_stats): nothing has to be freed.
 *   - Handles are numbers in disguise: a stale or wrong one gets P2P_ERR_HANDLE, never a crash.
 *
 * Structs begin with struct_size, which their _INIT macro sets:
 *     p2p_config_t config = P2P_CONFIG_INIT;
 * The size of any version up to the library's is taken, and what that version lacked has its default.
 * A larger struct, from a newer header, is taken if its unknown part is all zero. Any other size, also
 * zero, is P2P_ERR_STRUCT_SIZE.
 *
 * Errors: zero is success, negative is an error; p2p_last_error() says in words what to do.
 */

#ifndef P2PCAM_H
#define P2PCAM_H

#include <stddef.h>
#include <stdint.h>

/* Initialisers: struct_size is set, everything else is zero, which is the default. */
#ifdef __cplusplus
template <typename T> inline T p2p_init_struct() {
  T value = T();
  value.struct_size = sizeof(T);
  return value;
}
#define P2P_CONFIG_INIT p2p_init_struct<p2p_config_t>()
#define P2P_STREAM_CONFIG_INIT p2p_init_struct<p2p_stream_config_t>()
#define P2P_FRAME_INIT p2p_init_struct<p2p_frame_t>()
#define P2P_AUDIO_CONFIG_INIT p2p_init_struct<p2p_audio_config_t>()
#define P2P_AUDIO_FRAME_INIT p2p_init_struct<p2p_audio_frame_t>()
#define P2P_STATS_INIT p2p_init_struct<p2p_stats_t>()
#define P2P_VIEWER_STATS_INIT p2p_init_struct<p2p_viewer_stats_t>()
#define P2P_STREAM_STATS_INIT p2p_init_struct<p2p_stream_stats_t>()
#define P2P_DATA_CHANNEL_CONFIG_INIT p2p_init_struct<p2p_data_channel_config_t>()
#else
#define P2P_CONFIG_INIT { .struct_size = sizeof(p2p_config_t) }
#define P2P_STREAM_CONFIG_INIT { .struct_size = sizeof(p2p_stream_config_t) }
#define P2P_FRAME_INIT { .struct_size = sizeof(p2p_frame_t) }
#define P2P_AUDIO_CONFIG_INIT { .struct_size = sizeof(p2p_audio_config_t) }
#define P2P_AUDIO_FRAME_INIT { .struct_size = sizeof(p2p_audio_frame_t) }
#define P2P_STATS_INIT { .struct_size = sizeof(p2p_stats_t) }
#define P2P_VIEWER_STATS_INIT { .struct_size = sizeof(p2p_viewer_stats_t) }
#define P2P_STREAM_STATS_INIT { .struct_size = sizeof(p2p_stream_stats_t) }
#define P2P_DATA_CHANNEL_CONFIG_INIT { .struct_size = sizeof(p2p_data_channel_config_t) }
#endif

/**
 * Opus (RFC 6716): one packet a frame, 2.5 to 120 ms of mono or stereo, without a container.
 */
#define P2P_AUDIO_OPUS 1

/**
 * G.711 A-law, 8000 samples a second, mono: a byte is a sample.
 */
#define P2P_AUDIO_PCMA 2

/**
 * G.711 u-law, 8000 samples a second, mono: a byte is a sample.
 */
#define P2P_AUDIO_PCMU 3

/**
 * The camera's microphone, and its loudspeaker if on_talkback is set.
 */
#define P2P_AUDIO_BOTH 0

/**
 * Its microphone alone.
 */
#define P2P_AUDIO_MICROPHONE 1

/**
 * Its loudspeaker alone.
 */
#define P2P_AUDIO_LOUDSPEAKER 2

/**
 * The largest frame that p2p_push_audio() takes, in bytes.
 */
#define P2P_MAX_AUDIO_FRAME_SIZE 1275

/**
 * What a token's expiry is worth while the device's clock is unset (before 2024). The default (0):
 * the time comes from the service's last keepalive; until there is one, viewers are refused with
 * error 401.
 */
#define P2P_UNSET_CLOCK_REFUSE 0

/**
 * Until the service has told the time, expiry is not checked; the signature always is.
 */
#define P2P_UNSET_CLOCK_ACCEPT_UNTIL_KNOWN 1

/**
 * Viewers at once where max_viewers is 0.
 */
#define P2P_DEFAULT_MAX_VIEWERS 8

/**
 * The largest UDP payload where max_datagram is 0, in bytes.
 */
#define P2P_DEFAULT_MAX_DATAGRAM 1200

/**
 * The longest message, in bytes. A viewer may take less: P2P_DATA_CHANNEL_READY says how much.
 */
#define P2P_MAX_MESSAGE_SIZE 65536

/**
 * What may wait to be sent to one viewer, in bytes. Each message counts for its own and 64 more.
 */
#define P2P_MAX_BUFFERED_DATA 262144

/**
 * What is lost is sent again until it arrives.
 */
#define P2P_DATA_RELIABLE 0

/**
 * What is lost is sent again so many times at most.
 */
#define P2P_DATA_MAX_RETRANSMITS 1

/**
 * What is lost is sent again for so many milliseconds at most.
 */
#define P2P_DATA_MAX_LIFETIME 2

/**
 * Something is broken that needs someone.
 */
#define P2P_LOG_ERROR 1

/**
 * Something went wrong and was dealt with.
 */
#define P2P_LOG_WARN 2

/**
 * Viewers and signaling come and go.
 */
#define P2P_LOG_INFO 3

/**
 * How it came to that.
 */
#define P2P_LOG_DEBUG 4

/**
 * Every message.
 */
#define P2P_LOG_TRACE 5

/**
 * Room for an app's id or a stream's name with its zero byte, in bytes.
 */
#define P2P_NAME_SIZE 72

/**
 * Room for a session id with its zero byte, in bytes.
 */
#define P2P_SESSION_ID_SIZE 40

/**
 * What srtp_profile may be; the numbers are those of IANA's registry of DTLS-SRTP protection
 * profiles.
 */
#define P2P_SRTP_AES128_CM_HMAC_SHA1_80 1

#define P2P_SRTP_AEAD_AES_128_GCM 7

/**
 * H.264 (ITU-T H.264), Annex-B byte stream. No B-frames.
 */
#define P2P_CODEC_H264 1

/**
 * No viewer starts with pictures of the past.
 */
#define P2P_GOP_CACHE_OFF 1

/**
 * H.265 (ITU-T H.265, HEVC), Annex-B byte stream. No B-frames. A viewer that does not offer it gets
 * error 406, so a camera that has it should have a stream in H.264 too.
 */
#define P2P_CODEC_H265 2

/**
 * The largest frame that p2p_push_frame() takes, in bytes.
 */
#define P2P_MAX_FRAME_SIZE 4194304

/**
 * The version of this header. It only grows: p2p_version() tells the library's own.
 */
#define P2P_VERSION_MAJOR 0

#define P2P_VERSION_MINOR 1

#define P2P_VERSION_PATCH 0

/**
 * What every call answers. Zero is success, everything else is negative. The numbers are
 * published: none is ever given another meaning. A later version may add numbers.
 */
enum p2p_status_t
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * Done.
   */
  P2P_OK = 0,
  /**
   * An argument or a field is NULL, empty, not UTF-8 or out of its range; p2p_last_error()
   * names it.
   */
  P2P_ERR_ARGUMENT = -1,
  /**
   * struct_size is not the size of this struct in any version, or the part this library does not
   * know is not zero. Start from the _INIT macro.
   */
  P2P_ERR_STRUCT_SIZE = -2,
  /**
   * Not a living handle of the right kind: NULL, stopped, de-initialised, or never one.
   */
  P2P_ERR_HANDLE = -3,
  /**
   * The codec is not known to this version.
   */
  P2P_ERR_CODEC = -4,
  /**
   * The configuration cannot be used; p2p_last_error() names the field and what is expected.
   */
  P2P_ERR_CONFIG = -5,
  /**
   * The frame is empty or larger than P2P_MAX_FRAME_SIZE; or, of audio, than
   * P2P_MAX_AUDIO_FRAME_SIZE, or no packet of the codec.
   */
  P2P_ERR_FRAME_SIZE = -6,
  /**
   * Of a frame: the agent is behind by a full queue. The frame was dropped; a stream goes on at the
   * next keyframe, which is asked for, and audio with the next frame. Of a message:
   * P2P_MAX_BUFFERED_DATA bytes wait for this viewer. It was not taken;
   * P2P_DATA_CHANNEL_WRITABLE tells when there is room.
   */
  P2P_ERR_QUEUE_FULL = -7,
  /**
   * A stream of that name runs already, or there are too many; or the agent's audio runs already.
   */
  P2P_ERR_BUSY = -8,
  /**
   * The call cannot be made from inside a callback.
   */
  P2P_ERR_IN_CALLBACK = -9,
  /**
   * The agent is being de-initialised by another thread.
   */
  P2P_ERR_CLOSED = -10,
  /**
   * The operating system refused a thread, a socket or a file.
   */
  P2P_ERR_IO = -11,
  /**
   * Not enough memory to copy the frame.
   */
  P2P_ERR_MEMORY = -12,
  /**
   * A fault inside the library. It was contained; please report the text.
   */
  P2P_ERR_INTERNAL = -13,
  /**
   * No such data channel is open: it was closed, or the viewer is gone or takes none.
   */
  P2P_ERR_NO_CHANNEL = -14,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum p2p_status_t p2p_status_t;
#else
typedef int32_t p2p_status_t;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What happened. A later version may add kinds: ignore those you do not know.
 */
enum p2p_event_kind_t
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * The link to the broker is up: viewers can find the camera.
   */
  P2P_EVENT_SIGNALING_UP = 1,
  /**
   * The link to the broker is down, text says why; it is tried again for ever.
   */
  P2P_EVENT_SIGNALING_DOWN = 2,
  /**
   * A viewer was admitted and is being connected: session_id, app_id, stream.
   */
  P2P_EVENT_VIEWER_NEW = 3,
  /**
   * The viewer's media flows: session_id, path, setup_ms.
   */
  P2P_EVENT_VIEWER_CONNECTED = 4,
  /**
   * The viewer is gone, or was not admitted: session_id, reason, code, text.
   */
  P2P_EVENT_VIEWER_CLOSED = 5,
  /**
   * The viewer is sent another stream from now on: session_id, stream.
   */
  P2P_EVENT_VIEWER_STREAM = 6,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum p2p_event_kind_t p2p_event_kind_t;
#else
typedef int32_t p2p_event_kind_t;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * How media travels.
 */
enum p2p_path_t
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * Not known, or not what the event is about.
   */
  P2P_PATH_NONE = 0,
  /**
   * Directly, within one network.
   */
  P2P_PATH_HOST = 1,
  /**
   * Directly, through a NAT whose public address STUN told.
   */
  P2P_PATH_SRFLX = 2,
  /**
   * Directly, through a NAT whose address the other side saw.
   */
  P2P_PATH_PRFLX = 3,
  /**
   * Through a TURN relay.
   */
  P2P_PATH_RELAY = 4,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum p2p_path_t p2p_path_t;
#else
typedef int32_t p2p_path_t;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Why a viewer's session ended.
 */
enum p2p_close_reason_t
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * Not what the event is about.
   */
  P2P_CLOSE_NONE = 0,
  /**
   * The viewer said goodbye.
   */
  P2P_CLOSE_VIEWER_LEFT = 1,
  /**
   * p2p_viewer_close(), p2p_stop_stream() or p2p_deinit().
   */
  P2P_CLOSE_BY_DEVICE = 2,
  /**
   * The session service closed it.
   */
  P2P_CLOSE_BY_SERVICE = 3,
  /**
   * It was refused or failed; code is the number the viewer was told.
   */
  P2P_CLOSE_FAILED = 4,
  /**
   * Nothing was heard from the viewer any more.
   */
  P2P_CLOSE_LOST = 5,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum p2p_close_reason_t p2p_close_reason_t;
#else
typedef int32_t p2p_close_reason_t;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What happened to a viewer's data channels. A later version may add kinds: ignore those you do not
 * know.
 */
enum p2p_data_channel_change_t
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * The viewer takes data channels: p2p_open_data_channel() works from now on. max_message_size.
   */
  P2P_DATA_CHANNEL_READY = 1,
  /**
   * The viewer has opened a channel, or answered to p2p_open_data_channel(): channel and what it
   * is opened as.
   */
  P2P_DATA_CHANNEL_OPENED = 2,
  /**
   * Nothing more comes or goes on it: channel. All channels of a viewer are closed before the
   * viewer is.
   */
  P2P_DATA_CHANNEL_CLOSED = 3,
  /**
   * p2p_send_data() said P2P_ERR_QUEUE_FULL on it, and half of the room is free again: channel.
   */
  P2P_DATA_CHANNEL_WRITABLE = 4,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum p2p_data_channel_change_t p2p_data_channel_change_t;
#else
typedef int32_t p2p_data_channel_change_t;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * A running camera agent: made by p2p_init(), ended by p2p_deinit(). The pointer is a number in
 * disguise: never dereference it.
 */
typedef struct p2p_agent_t p2p_agent_t;

/**
 * The microphone and loudspeaker of an agent: made by p2p_start_audio(), ended by p2p_stop_audio() or by
 * its agent's p2p_deinit(). The pointer is a number in disguise: never dereference it.
 */
typedef struct p2p_audio_t p2p_audio_t;

/**
 * One running stream of an agent: made by p2p_start_stream(), ended by p2p_stop_stream() or by its
 * agent's p2p_deinit(). The pointer is a number in disguise: never dereference it.
 */
typedef struct p2p_stream_t p2p_stream_t;

/**
 * An agent's sound. Start from P2P_AUDIO_CONFIG_INIT.
 */
typedef struct p2p_audio_config_t {
  /**
   * sizeof(p2p_audio_config_t), set by P2P_AUDIO_CONFIG_INIT.
   */
  size_t struct_size;
  /**
   * Required. One of P2P_AUDIO_OPUS, P2P_AUDIO_PCMA and P2P_AUDIO_PCMU: of both directions.
   * Every browser has all three.
   */
  int32_t codec;
  /**
   * Which ways: P2P_AUDIO_BOTH, P2P_AUDIO_MICROPHONE or P2P_AUDIO_LOUDSPEAKER.
   */
  int32_t direction;
} p2p_audio_config_t;

/**
 * One frame of the microphone's encoder. Start from P2P_AUDIO_FRAME_INIT.
 */
typedef struct p2p_audio_frame_t {
  /**
   * sizeof(p2p_audio_frame_t), set by P2P_AUDIO_FRAME_INIT.
   */
  size_t struct_size;
  /**
   * One packet of the codec: 20 ms are usual, which is 160 bytes of G.711. It is copied.
   */
  const uint8_t *data;
  /**
   * In bytes, 1 to P2P_MAX_AUDIO_FRAME_SIZE.
   */
  size_t size;
  /**
   * When the first sample was captured, in microseconds, on the same clock as the timestamps of
   * the video's frames: that is how viewers play both in time. A clock that is apart from the
   * video's by more than a second counts as another one, and then both are taken to be captured
   * when they are pushed. Where nothing is pushed there is silence.
   */
  uint64_t timestamp_us;
} p2p_audio_frame_t;

/**
 * One event. It and all it points to live only until the callback returns. A newer library may give
 * a larger struct, whose beginning is this one.
 */
typedef struct p2p_event_t {
  /**
   * In bytes, as the library knows it.
   */
  size_t struct_size;
  /**
   * The agent it is about.
   */
  struct p2p_agent_t *agent;
  /**
   * The stream the viewer watches; NULL if it was stopped meanwhile, or where there is none.
   */
  struct p2p_stream_t *stream;
  /**
   * The viewer's session id, a UUID of 36 characters, as in the logs of the service; or NULL.
   */
  const char *session_id;
  /**
   * The app the viewer belongs to, or NULL.
   */
  const char *app_id;
  /**
   * The reason in words; or NULL.
   */
  const char *text;
  p2p_event_kind_t kind;
  p2p_path_t path;
  p2p_close_reason_t reason;
  /**
   * The number the viewer was told (400 to 599, see docs/signaling.md), or 0.
   */
  int32_t code;
  /**
   * From the viewer's offer to the connection, in milliseconds.
   */
  uint32_t setup_ms;
  /**
   * Always 0.
   */
  uint32_t reserved;
} p2p_event_t;

/**
 * Tells what happens. Runs on the agent's thread: return soon.
 */
typedef void (*p2p_event_fn)(void *user, const struct p2p_event_t *event);

/**
 * The next frame of this stream should be a keyframe: a viewer joined or lost packets. Runs on the
 * agent's thread: return soon. stream_user is p2p_stream_config_t.user.
 */
typedef void (*p2p_keyframe_fn)(void *user, struct p2p_stream_t *stream, void *stream_user);

/**
 * The encoder of this stream should make bits_per_second from now on: what the viewer with the
 * poorest network can take, within the stream's min_bitrate and max_bitrate. Comes at once when it
 * is less, and at most once a second when it is more. Runs on the agent's thread: return soon.
 * stream_user is p2p_stream_config_t.user.
 */
typedef void (*p2p_bitrate_fn)(void *user,
                               struct p2p_stream_t *stream,
                               uint32_t bits_per_second,
                               void *stream_user);

/**
 * One log line without a newline; what belongs to a session carries its id. It lives only until the
 * callback returns. Comes from any thread that is inside the library, also inside p2p_init() and
 * p2p_deinit(), and possibly from several at once. What the callback itself makes the library log is
 * dropped. Lines are the process's: with several agents, each on_log gets those of all.
 */
typedef void (*p2p_log_fn)(void *user, int32_t level, const char *line);

/**
 * What a viewer says: a packet, or packets that did not come. It and all it points to live only until
 * the callback returns. A newer library may give a larger struct, whose beginning is this one.
 */
typedef struct p2p_talkback_t {
  /**
   * In bytes, as the library knows it.
   */
  size_t struct_size;
  /**
   * Who: the session id of the events. Several viewers may talk at once.
   */
  const char *session_id;
  /**
   * One packet of the codec, to be decoded and played now; NULL where packets are missing.
   */
  const uint8_t *data;
  /**
   * In bytes; 0 where packets are missing.
   */
  size_t size;
  /**
   * Where it belongs, in microseconds since the viewer began to talk. Between the end of one packet
   * and the next one there may be silence.
   */
  uint64_t timestamp_us;
  /**
   * How much sound it is, or would have been, in microseconds.
   */
  uint32_t duration_us;
  /**
   * 0: data is a packet. Otherwise how many packets are missing here: let the decoder conceal them.
   */
  uint32_t lost;
  /**
   * P2P_AUDIO_OPUS, P2P_AUDIO_PCMA or P2P_AUDIO_PCMU, as the audio was started.
   */
  int32_t codec;
  /**
   * Always 0.
   */
  uint32_t reserved;
} p2p_talkback_t;

/**
 * Plays what a viewer says: in order and in time, as far as a buffer that follows the network's jitter
 * can make it so. Runs on the agent's thread: hand it on and return soon.
 */
typedef void (*p2p_talkback_fn)(void *user, const struct p2p_talkback_t *talkback);

/**
 * Something that happened to a viewer's data channels. It and all it points to live only until the
 * callback returns. A newer library may give a larger struct, whose beginning is this one.
 */
typedef struct p2p_data_channel_event_t {
  /**
   * In bytes, as the library knows it.
   */
  size_t struct_size;
  /**
   * The agent it is about.
   */
  struct p2p_agent_t *agent;
  /**
   * The viewer's session id, as in p2p_event_t.
   */
  const char *session_id;
  /**
   * The channel's name, or NULL where it is not opened. The viewer's words: do not trust them.
   */
  const char *label;
  /**
   * What is spoken on it, often empty; NULL where it is not opened. As above.
   */
  const char *protocol;
  p2p_data_channel_change_t change;
  /**
   * Its number within the session.
   */
  uint16_t channel;
  /**
   * Always 0.
   */
  uint16_t reserved;
  /**
   * 1: messages may arrive in another order than they were sent in. Otherwise 0.
   */
  int32_t unordered;
  /**
   * One of P2P_DATA_…
   */
  int32_t reliability;
  /**
   * Times or milliseconds, as reliability says.
   */
  uint32_t reliability_value;
  /**
   * The longest message the viewer takes, in bytes; 0 where it is not told.
   */
  uint32_t max_message_size;
} p2p_data_channel_event_t;

/**
 * Tells what happens to data channels. Runs on the agent's thread: return soon.
 */
typedef void (*p2p_data_channel_fn)(void *user, const struct p2p_data_channel_event_t *event);

/**
 * A message of a viewer. It and all it points to live only until the callback returns. A newer
 * library may give a larger struct, whose beginning is this one.
 */
typedef struct p2p_data_t {
  /**
   * In bytes, as the library knows it.
   */
  size_t struct_size;
  /**
   * The agent it is about.
   */
  struct p2p_agent_t *agent;
  /**
   * The viewer's session id, as in p2p_event_t.
   */
  const char *session_id;
  /**
   * The message, not ended by a zero byte. Never NULL. The viewer's words: do not trust them.
   */
  const uint8_t *data;
  /**
   * In bytes, 0 to P2P_MAX_MESSAGE_SIZE.
   */
  size_t size;
  /**
   * Its number within the session.
   */
  uint16_t channel;
  /**
   * Always 0.
   */
  uint16_t reserved;
  /**
   * 1: the viewer sent it as text, which should be UTF-8. Otherwise 0.
   */
  int32_t is_text;
} p2p_data_t;

/**
 * Hands over a message of a viewer. Runs on the agent's thread: return soon. It may be answered with
 * p2p_send_data() at once.
 */
typedef void (*p2p_data_fn)(void *user, const struct p2p_data_t *data);

/**
 * How the camera reaches the service, and what it allows. Start from P2P_CONFIG_INIT: what stays
 * zero is the default. Texts are UTF-8 and end with a zero byte; everything is copied by
 * p2p_init(), only the callbacks and their user pointer must stay valid until p2p_deinit().
 */
typedef struct p2p_config_t {
  /**
   * sizeof(p2p_config_t), set by P2P_CONFIG_INIT.
   */
  size_t struct_size;
  /**
   * Required. The device's serial number, its id in topics and tokens: 1 to 64 letters, digits,
   * '-', '_', '.' or ':'.
   */
  const char *device_id;
  /**
   * Required. "mqtt://host[:port]"; "mqtts://" where the library was built with TLS.
   */
  const char *broker_url;
  /**
   * NULL: device_id if there is a password, else none.
   */
  const char *broker_username;
  /**
   * NULL to send none.
   */
  const char *broker_password;
  /**
   * PEM file with the certificates that a mqtts:// broker may be signed by. NULL: the system's.
   * This file and the next two are read again for each connection, so they can be replaced while
   * the agent runs; where they cannot be used then, what was read before stays in use.
   */
  const char *broker_ca_file;
  /**
   * PEM file with this device's own certificate, followed by those that lead to an authority which
   * the broker knows, for a mqtts:// broker that wants one. Then broker_password may stay NULL.
   * NULL: none.
   */
  const char *broker_cert_file;
  /**
   * PEM file with the private key of broker_cert_file, not encrypted: ECDSA P-256 or P-384, Ed25519,
   * or RSA of 2048 to 4096 bits. Keep it at mode 0600. Set both of these files, or neither.
   */
  const char *broker_key_file;
  /**
   * Required. The session service's Ed25519 public key, 32 bytes as 64 hexadecimal digits or as
   * base64 (either alphabet, with or without padding).
   */
  const char *service_public_key;
  /**
   * A file for the DTLS key and certificate (made with mode 0600), so that they need not be made
   * at each start. NULL: in memory only.
   */
  const char *identity_file;
  /**
   * Viewers at once, at most 128; further ones are told "too many" (429).
   * 0: P2P_DEFAULT_MAX_VIEWERS.
   */
  uint32_t max_viewers;
  /**
   * Largest UDP payload to send, in bytes, 548 to 1472. 0: P2P_DEFAULT_MAX_DATAGRAM.
   */
  uint32_t max_datagram;
  /**
   * One of P2P_UNSET_CLOCK_…
   */
  int32_t unset_clock;
  /**
   * 1: offers addresses on 127.0.0.1 as well, for demos and tests on one machine. Otherwise 0.
   */
  int32_t include_loopback;
  /**
   * 1: hides the camera's own addresses, so that only relays are used. Otherwise 0.
   */
  int32_t relay_only;
  /**
   * The most talkative P2P_LOG_ level that on_log gets. 0: P2P_LOG_INFO.
   */
  int32_t log_level;
  /**
   * Given to each callback of this struct.
   */
  void *user;
  /**
   * What happens: signaling and viewers. May be NULL.
   */
  p2p_event_fn on_event;
  /**
   * Asks for a keyframe. May be NULL, but then a viewer waits for the encoder's next one by
   * itself.
   */
  p2p_keyframe_fn on_keyframe_request;
  /**
   * Says what the viewers of a stream can take. May be NULL for an encoder of a fixed rate; a
   * viewer with less then misses frames.
   */
  p2p_bitrate_fn on_target_bitrate;
  /**
   * Log lines. May be NULL.
   */
  p2p_log_fn on_log;
  /**
   * What viewers say, for the loudspeaker; see p2p_start_audio(). NULL: they cannot talk.
   */
  p2p_talkback_fn on_talkback;
  /**
   * What happens to viewers' data channels. May be NULL.
   */
  p2p_data_channel_fn on_data_channel;
  /**
   * Messages of viewers. May be NULL.
   */
  p2p_data_fn on_data;
} p2p_config_t;

/**
 * What a data channel is opened as. Start from P2P_DATA_CHANNEL_CONFIG_INIT: what stays zero is the
 * default, a reliable channel whose messages arrive in order.
 */
typedef struct p2p_data_channel_config_t {
  /**
   * sizeof(p2p_data_channel_config_t), set by P2P_DATA_CHANNEL_CONFIG_INIT.
   */
  size_t struct_size;
  /**
   * Required. The channel's name: up to 255 bytes of UTF-8.
   */
  const char *label;
  /**
   * What is spoken on it: likewise. NULL: nothing is said.
   */
  const char *protocol;
  /**
   * 1: messages may arrive in another order than they were sent in. Otherwise 0.
   */
  int32_t unordered;
  /**
   * One of P2P_DATA_…
   */
  int32_t reliability;
  /**
   * Times or milliseconds, as reliability says.
   */
  uint32_t reliability_value;
  /**
   * Always 0.
   */
  uint32_t reserved;
} p2p_data_channel_config_t;

/**
 * The agent as a whole. Start from P2P_STATS_INIT. A later version may add fields at the end.
 */
typedef struct p2p_stats_t {
  /**
   * sizeof(p2p_stats_t), set by P2P_STATS_INIT.
   */
  size_t struct_size;
  /**
   * Since p2p_init(). 0 if the agent has not counted anything yet.
   */
  uint64_t uptime_ms;
  /**
   * System calls that were to send something to viewers or to their STUN and TURN servers.
   */
  uint64_t sends;
  /**
   * Datagrams that were sent with them.
   */
  uint64_t datagrams;
  /**
   * Datagrams that the system had no room for, or refused; also when ICE tries what cannot be
   * reached.
   */
  uint64_t send_errors;
  /**
   * Memory held beside that of viewers and streams: by capacity.
   */
  uint64_t memory_bytes;
  /**
   * 1: the link to the broker is up. Otherwise 0.
   */
  uint32_t signaling_up;
  /**
   * How often that link came up again after the first time.
   */
  uint32_t signaling_reconnects;
  /**
   * Viewers there are, also beyond the array's room. Those that are being connected count.
   */
  uint32_t viewers;
  /**
   * Streams there are, also beyond the array's room.
   */
  uint32_t streams;
  /**
   * Frames of the microphone that were taken, and those that were not: P2P_ERR_QUEUE_FULL.
   */
  uint64_t audio_frames;
  uint64_t audio_refused;
  /**
   * From p2p_push_frame() to when the frame's last packet was handed to the system, for each frame
   * and viewer, in microseconds: half of them took no longer than this, likewise 95 % and 99 %, and
   * the longest. With the time that a large frame is spread over so that the viewer's network is
   * not flooded. Of the last half minute to minute; 0: nothing was sent.
   */
  uint32_t push_to_wire_p50_us;
  uint32_t push_to_wire_p95_us;
  uint32_t push_to_wire_p99_us;
  uint32_t push_to_wire_max_us;
} p2p_stats_t;

/**
 * One viewer, from its offer until it is gone. Start the array's first element from
 * P2P_VIEWER_STATS_INIT. A later version may add fields at the end.
 *
 * Times are in milliseconds since the viewer's offer; -1: not yet.
 */
typedef struct p2p_viewer_stats_t {
  /**
   * sizeof(p2p_viewer_stats_t), set by P2P_VIEWER_STATS_INIT.
   */
  size_t struct_size;
  /**
   * When the offer was taken, by this device's clock, in milliseconds since 1970.
   */
  uint64_t offer_unix_ms;
  /**
   * When it was connected, likewise. 0: not yet.
   */
  uint64_t connected_unix_ms;
  /**
   * Frames sent, without those sent again; likewise the next three.
   */
  uint64_t frames;
  uint64_t packets;
  /**
   * RTP payloads.
   */
  uint64_t media_bytes;
  /**
   * UDP payloads of all that carried media: with headers, tags, reports and what was sent again.
   */
  uint64_t wire_bytes;
  /**
   * Bit rate of the media over the last second.
   */
  uint64_t media_bps;
  /**
   * Bit rate of wire_bytes over the last second.
   */
  uint64_t wire_bps;
  /**
   * What the encoder may make for this viewer alone, by congestion control, in bits per second.
   * 0: not known.
   */
  uint64_t target_bps;
  /**
   * Requests of the viewer for lost packets (NACK), and the packets they named.
   */
  uint64_t nacks;
  uint64_t nacked_packets;
  /**
   * Packets that were sent again.
   */
  uint64_t resent_packets;
  /**
   * Packets that were not sent again, since congestion control had no room for them.
   */
  uint64_t resends_withheld;
  /**
   * Requests of the viewer for a keyframe: a picture was lost (PLI), or it starts (FIR).
   */
  uint64_t plis;
  uint64_t firs;
  /**
   * Frames it was not sent, by reason. More waited than its network takes in time:
   */
  uint64_t dropped_queue_full;
  /**
   * Too many waited for a path, or for the relay to open a channel.
   */
  uint64_t dropped_no_route;
  /**
   * They refer to a picture that this viewer does not have.
   */
  uint64_t dropped_awaiting_keyframe;
  /**
   * The stream's history did not hold them any more.
   */
  uint64_t dropped_too_old;
  /**
   * A slice was too long for a viewer that takes packetization-mode 0 only.
   */
  uint64_t dropped_too_large;
  /**
   * The session's key was used for all packets it is good for.
   */
  uint64_t dropped_key_worn_out;
  /**
   * Memory held for this viewer: by capacity, without what ICE and DTLS keep to themselves.
   */
  uint64_t memory_bytes;
  /**
   * Packets lost, as the viewer counts. Negative when there were more duplicates than losses.
   */
  int64_t lost_packets;
  /**
   * Lost between the viewer's last two reports, of 1000.
   */
  uint32_t loss_permille;
  /**
   * 0: not known yet.
   */
  uint32_t round_trip_us;
  /**
   * By the viewer's last report (RFC 3550 6.4.1).
   */
  uint32_t jitter_us;
  /**
   * One of P2P_SRTP_… 0: not agreed on yet.
   */
  uint32_t srtp_profile;
  /**
   * When the answer was handed to the broker's link.
   */
  int32_t answer_ms;
  /**
   * When a check found a path (ICE).
   */
  int32_t ice_ms;
  /**
   * When the handshake was done (DTLS): the viewer is connected.
   */
  int32_t dtls_ms;
  /**
   * When the last packet of its first frame was sent.
   */
  int32_t first_frame_ms;
  /**
   * P2P_PATH_NONE: not connected yet.
   */
  p2p_path_t path;
  /**
   * The path's two ends, as kinds of candidates: the camera's and the viewer's.
   */
  p2p_path_t local_candidate;
  p2p_path_t remote_candidate;
  /**
   * Always 0.
   */
  uint32_t reserved;
  /**
   * As in the events.
   */
  char session_id[P2P_SESSION_ID_SIZE];
  char app_id[P2P_NAME_SIZE];
  /**
   * The name of the stream it watches.
   */
  char stream[P2P_NAME_SIZE];
  /**
   * Packets of the microphone that it was sent, and their RTP payloads.
   */
  uint64_t audio_packets;
  uint64_t audio_bytes;
  /**
   * Of these, lost, as the viewer counts; see lost_packets.
   */
  int64_t audio_lost;
  /**
   * Packets that came of what it says.
   */
  uint64_t talkback_packets;
  /**
   * Of these, missing when they should have been heard: on_talkback said so.
   */
  uint64_t talkback_lost;
  /**
   * Of those that came, too late to be heard.
   */
  uint64_t talkback_late;
  /**
   * How long the jitter buffer holds a packet that comes quickly, and how unevenly packets come
   * (RFC 3550 A.8).
   */
  uint32_t talkback_delay_us;
  uint32_t talkback_jitter_us;
  /**
   * Messages taken for sending on its data channels, and their bytes; likewise those that came.
   */
  uint64_t data_sent_messages;
  uint64_t data_sent_bytes;
  uint64_t data_received_messages;
  uint64_t data_received_bytes;
  /**
   * What waits to be sent to it, of P2P_MAX_BUFFERED_DATA.
   */
  uint64_t data_buffered_bytes;
  /**
   * Data channels that are open or being opened.
   */
  uint32_t data_channels;
  /**
   * Always 0.
   */
  uint32_t data_reserved;
} p2p_viewer_stats_t;

/**
 * One stream. Start the array's first element from P2P_STREAM_STATS_INIT. A later version may add
 * fields at the end.
 */
typedef struct p2p_stream_stats_t {
  /**
   * sizeof(p2p_stream_stats_t), set by P2P_STREAM_STATS_INIT.
   */
  size_t struct_size;
  /**
   * Frames that were pushed and taken, and their bytes.
   */
  uint64_t frames;
  uint64_t bytes;
  /**
   * Keyframes among them.
   */
  uint64_t keyframes;
  /**
   * Bit rate over the last second.
   */
  uint64_t bitrate_bps;
  /**
   * Frames not taken, by reason. P2P_ERR_QUEUE_FULL:
   */
  uint64_t refused_queue_full;
  /**
   * They refer to a frame that was not taken.
   */
  uint64_t refused_awaiting_keyframe;
  /**
   * Larger than the stream's history: its bitrate is set too low.
   */
  uint64_t refused_too_large;
  /**
   * A keyframe without SPS and PPS, and none came before it.
   */
  uint64_t refused_no_parameter_sets;
  /**
   * Not Annex-B, or of too many NAL units.
   */
  uint64_t refused_malformed;
  /**
   * How often on_keyframe_request was called, or would have been.
   */
  uint64_t keyframe_requests;
  /**
   * Memory of the history, which all its viewers share.
   */
  uint64_t memory_bytes;
  /**
   * Frames taken in the last second.
   */
  uint32_t frame_rate_fps;
  /**
   * Viewers that watch it or are being connected.
   */
  uint32_t viewers;
  /**
   * One of P2P_CODEC_…
   */
  int32_t codec;
  /**
   * Always 0.
   */
  uint32_t reserved;
  char name[P2P_NAME_SIZE];
} p2p_stream_stats_t;

/**
 * One channel of the camera. Start from P2P_STREAM_CONFIG_INIT.
 */
typedef struct p2p_stream_config_t {
  /**
   * sizeof(p2p_stream_config_t), set by P2P_STREAM_CONFIG_INIT.
   */
  size_t struct_size;
  /**
   * Required. "main", "sub", …: what viewers ask for.
   */
  const char *name;
  /**
   * Required. One of P2P_CODEC_…
   */
  int32_t codec;
  /**
   * The bit rate that is expected, for sizing queues; in bits per second. 0: 2,000,000.
   */
  uint32_t bitrate;
  /**
   * on_target_bitrate never asks for less, in bits per second. 0: a tenth of bitrate.
   */
  uint32_t min_bitrate;
  /**
   * on_target_bitrate never asks for more, in bits per second. 0: bitrate.
   */
  uint32_t max_bitrate;
  /**
   * Given to this stream's callbacks as stream_user; for instance the encoder's own handle.
   */
  void *user;
  /**
   * The name of another stream of the same codec, for viewers whose network does not take
   * min_bitrate: they are sent that one until it does. NULL: they miss frames instead.
   */
  const char *fallback;
  /**
   * Whether a viewer starts with the pictures since the last keyframe, which are kept anyhow: its
   * first picture is there at once then. 0: if they have at most 256 KiB. P2P_GOP_CACHE_OFF: never,
   * it waits for the keyframe that on_keyframe_request asks for. Otherwise the most, in bytes.
   */
  size_t gop_cache;
} p2p_stream_config_t;

/**
 * Gives a lent frame back: data and size are those of the frame, user its release_user.
 */
typedef void (*p2p_release_fn)(void *user, const uint8_t *data, size_t size);

/**
 * One access unit, as the encoder made it. Start from P2P_FRAME_INIT.
 */
typedef struct p2p_frame_t {
  /**
   * sizeof(p2p_frame_t), set by P2P_FRAME_INIT.
   */
  size_t struct_size;
  /**
   * Annex-B: NAL units, each behind a 3- or 4-byte start code, in decoding order. All units of one
   * picture in one call. Parameter sets (SPS and PPS, with H.265 VPS too) come before the first IDR
   * (with H.265 any IRAP picture); they need not be repeated.
   */
  const uint8_t *data;
  /**
   * In bytes, 1 to P2P_MAX_FRAME_SIZE.
   */
  size_t size;
  /**
   * When the picture was taken, in microseconds on the encoder's own clock. It may start anywhere.
   * A recording keeps its own times: where they go back, or on by a second and more than it took,
   * the recording was wound, and its next picture for viewers is a keyframe; while nothing is
   * pushed, it is paused.
   */
  uint64_t timestamp_us;
  /**
   * NULL: the frame is copied, and data may be reused as soon as p2p_push_frame() returns.
   * Otherwise the frame is lent: data must stay unchanged until release is called.
   */
  p2p_release_fn release;
  /**
   * Given to release.
   */
  void *release_user;
} p2p_frame_t;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * Starts the agent's sound: one microphone and one loudspeaker, which all viewers share. On success
 * *audio is its handle; on failure it is NULL. P2P_ERR_BUSY if it runs already.
 *
 * A viewer decides in its offer whether it listens, talks, or both, and may change that while it
 * watches. One without the codec sees the pictures without sound; the log says why. Viewers that watch
 * when this is called get sound only when they offer again, so call it before the first frame.
 *
 * # Safety
 * `config` points to a p2p_audio_config_t whose struct_size is true; `audio` points to writable memory
 * for a pointer. Either may be NULL, which is an error.
 */
p2p_status_t p2p_start_audio(struct p2p_agent_t *agent,
                             const struct p2p_audio_config_t *config,
                             struct p2p_audio_t **audio);

/**
 * Hands over one frame of the microphone's encoder, which is copied and goes out at once to all viewers
 * that listen. Never blocks: if the agent is behind by a full queue (of 32 frames, beside that of the
 * video), the frame is dropped with P2P_ERR_QUEUE_FULL.
 *
 * # Safety
 * `frame` is NULL or points to a p2p_audio_frame_t whose struct_size is true; its data points to size
 * readable bytes.
 */
p2p_status_t p2p_push_audio(struct p2p_audio_t *audio,
                            const struct p2p_audio_frame_t *frame);

/**
 * Ends the agent's sound; viewers go on without it. The handle is stale afterwards. A call of
 * on_talkback that has begun may still be running on the agent's thread.
 */
p2p_status_t p2p_stop_audio(struct p2p_audio_t *audio);

/**
 * Starts a camera agent: its thread, and the connection to the broker, which is tried again for ever.
 * Does not wait for the network. Callbacks may come before this returns.
 *
 * On success *agent is the handle for all further calls; on failure it is NULL. Not allowed inside a
 * callback.
 *
 * # Safety
 * `config` points to a p2p_config_t whose struct_size is true and whose texts end with a zero byte;
 * `agent` points to writable memory for a pointer. Either may be NULL, which is an error.
 */
p2p_status_t p2p_init(const struct p2p_config_t *config,
                      struct p2p_agent_t **agent);

/**
 * Ends an agent: says goodbye to its viewers and the broker, stops its streams, releases the frames
 * that are still queued and joins its thread. Takes at most two seconds, and then as long as other
 * threads are inside calls on this agent. When it returns, none of the agent's callbacks runs or
 * will run, and its handles and those of its streams are stale.
 *
 * NULL is fine and does nothing. Not allowed inside a callback. Do not hold a lock that one of your
 * callbacks takes.
 */
p2p_status_t p2p_deinit(struct p2p_agent_t *agent);

/**
 * Says goodbye to one viewer, which is told the reason; on_event then reports it as closed. A viewer
 * that is gone already is no error.
 *
 * session_id is the text that the events carry. reason may be NULL. Up to 80 bytes of it reach the
 * viewer, and up to 32 different reasons in a process's life; beyond that it is a general one.
 *
 * # Safety
 * `session_id` and `reason` are NULL or end with a zero byte.
 */
p2p_status_t p2p_viewer_close(struct p2p_agent_t *agent,
                              const char *session_id,
                              const char *reason);

/**
 * Sends a viewer another stream of the same agent from that stream's next keyframe on, which is asked
 * for; on_event then reports P2P_EVENT_VIEWER_STREAM. The viewer's session goes on. Viewers may ask
 * for this themselves (docs/signaling.md); this call is for what only the firmware knows.
 *
 * A viewer that is gone, or a stream of another codec than the viewer agreed on, changes nothing and
 * is told in the log.
 *
 * # Safety
 * `session_id` is NULL or ends with a zero byte.
 */
p2p_status_t p2p_viewer_switch(struct p2p_agent_t *agent,
                               const char *session_id,
                               struct p2p_stream_t *stream);

/**
 * Sends a message on a viewer's data channel. Returns at once, from any thread, also from inside a
 * callback; the message is copied.
 *
 * P2P_ERR_NO_CHANNEL: the channel was closed, or the viewer is gone. P2P_ERR_QUEUE_FULL: more than
 * P2P_MAX_BUFFERED_DATA would wait for this viewer; on_data_channel tells P2P_DATA_CHANNEL_WRITABLE
 * once there is room again. A message that was taken is sent as the channel says: a reliable one
 * arrives unless the channel is closed before that.
 *
 * session_id and channel are those of on_data_channel. data may be NULL if size is 0. is_text: 1 for
 * text, which must be UTF-8; 0 for bytes.
 *
 * # Safety
 * `session_id` is NULL or ends with a zero byte; `data` is NULL or points to `size` readable bytes.
 */
p2p_status_t p2p_send_data(struct p2p_agent_t *agent,
                           const char *session_id,
                           uint16_t channel,
                           const uint8_t *data,
                           size_t size,
                           int32_t is_text);

/**
 * Opens a data channel to a viewer that takes them, which P2P_DATA_CHANNEL_READY tells. Its number
 * goes to *channel, and messages may be sent at once; P2P_DATA_CHANNEL_OPENED follows when the viewer
 * has answered. P2P_ERR_BUSY: the viewer has 16 channels.
 *
 * # Safety
 * `session_id` is NULL or ends with a zero byte; `config` points to a p2p_data_channel_config_t whose
 * struct_size is true and whose texts end with a zero byte; `channel` points to writable memory for
 * a uint16_t. Each may be NULL, which is an error.
 */
p2p_status_t p2p_open_data_channel(struct p2p_agent_t *agent,
                                   const char *session_id,
                                   const struct p2p_data_channel_config_t *config,
                                   uint16_t *channel);

/**
 * Closes a data channel behind what was sent on it. P2P_DATA_CHANNEL_CLOSED follows when the viewer
 * has closed it too; nothing can be sent on it meanwhile.
 *
 * # Safety
 * `session_id` is NULL or ends with a zero byte.
 */
p2p_status_t p2p_close_data_channel(struct p2p_agent_t *agent,
                                    const char *session_id,
                                    uint16_t channel);

/**
 * What the agent counted, all of one moment: at most a second old, and inside on_event that of the
 * event. Never waits for the agent; may be called as often as you like, also inside on_event and
 * on_keyframe_request. Nothing has to be freed. A viewer that is gone is not in it any more.
 *
 * stats, viewers and streams may each be NULL; an array's count is then NULL or 0. Before the call a
 * count is the array's room in elements, afterwards how many were filled: the first ones, if there
 * are more than fit. struct_size is read from stats and from the first element of each array with
 * room, and set in each element that is filled. On an error nothing was written.
 *
 * # Safety
 * `stats` is NULL or points to a p2p_stats_t whose struct_size is true; `viewers` and `streams` are
 * NULL or point to as many elements as their count says, of the size that the first one's struct_size
 * says; the counts are NULL or point to a readable and writable size_t.
 */
p2p_status_t p2p_get_stats(struct p2p_agent_t *agent,
                           struct p2p_stats_t *stats,
                           struct p2p_viewer_stats_t *viewers,
                           size_t *viewer_count,
                           struct p2p_stream_stats_t *streams,
                           size_t *stream_count);

/**
 * The meaning of a status in a few words. Never NULL, also for a number that is not a status; the
 * text is constant and stays valid for ever.
 */
const char *p2p_strerror(int32_t status);

/**
 * What went wrong in the last call on this thread that failed: what was expected, what came, and
 * what to do. Never NULL; empty if none failed yet. Valid on this thread until its next p2p_ call.
 */
const char *p2p_last_error(void);

/**
 * Starts a stream that viewers can ask for by its name. On success *stream is its handle; on failure
 * it is NULL.
 *
 * # Safety
 * `config` points to a p2p_stream_config_t whose struct_size is true and whose name ends with a zero
 * byte; `stream` points to writable memory for a pointer. Either may be NULL, which is an error.
 */
p2p_status_t p2p_start_stream(struct p2p_agent_t *agent,
                              const struct p2p_stream_config_t *config,
                              struct p2p_stream_t **stream);

/**
 * Hands over one access unit. Never blocks: if the agent is behind by a full queue, the frame is
 * dropped with P2P_ERR_QUEUE_FULL.
 *
 * A lent frame's release is called exactly once, whatever this returns, on this thread before it
 * returns or on the agent's thread later, at the latest when p2p_deinit() returns. The one exception:
 * where frame is NULL or its struct_size is refused (P2P_ERR_STRUCT_SIZE), the library cannot know
 * release, and the buffer stays the caller's.
 *
 * # Safety
 * `frame` is NULL or points to a p2p_frame_t whose struct_size is true; its data points to size
 * readable bytes, which stay unchanged until release is called, if there is one.
 */
p2p_status_t p2p_push_frame(struct p2p_stream_t *stream,
                            const struct p2p_frame_t *frame);

/**
 * Ends a stream; its viewers are told. The handle is stale afterwards. Frames of it that are still
 * queued are released soon, on the agent's thread.
 */
p2p_status_t p2p_stop_stream(struct p2p_stream_t *stream);

/**
 * The version of the library that is linked, as "major.minor.patch". Constant, never NULL.
 */
const char *p2p_version(void);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* P2PCAM_H */
