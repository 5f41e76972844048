/*
 * libp2pcam: brings a camera's encoded video to browsers and apps over direct, encrypted connections.
 *
 * Generated from sdk-ffi/src by cbindgen; do not edit, run `make header`.
 *
 * Order of calls
 *     p2p_init, p2p_start_stream, p2p_push_frame for every access unit, p2p_stop_stream, p2p_deinit.
 *
 * Threads
 *   - Every function may be called from any thread, at the same time as any other.
 *   - No function but p2p_deinit blocks. Frames of one stream must come one after the other.
 *   - on_event and on_keyframe_request run on the agent's own thread, one at a time; on_log and a
 *     frame's release also on threads that are inside the library. Return soon: video waits.
 *   - Inside on_event and on_keyframe_request everything may be called but p2p_init and p2p_deinit,
 *     which answer P2P_ERR_IN_CALLBACK. Inside on_log and release call only p2p_strerror,
 *     p2p_last_error and p2p_version.
 *   - Callbacks may begin before p2p_init returns; none runs after p2p_deinit has returned. They must
 *     not throw, longjmp or fork.
 *   - Do not hold a lock that a callback takes while calling p2p_deinit.
 *
 * Memory
 *   - What is passed in is copied before the call returns, but for a lent frame (p2p_frame_t.release)
 *     and the user pointers. What comes out belongs to the library.
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
#else
#define P2P_CONFIG_INIT { .struct_size = sizeof(p2p_config_t) }
#define P2P_STREAM_CONFIG_INIT { .struct_size = sizeof(p2p_stream_config_t) }
#define P2P_FRAME_INIT { .struct_size = sizeof(p2p_frame_t) }
#endif

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
 * H.264 (ITU-T H.264), Annex-B byte stream. No B-frames.
 */
#define P2P_CODEC_H264 1

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
   * The frame is empty or larger than P2P_MAX_FRAME_SIZE.
   */
  P2P_ERR_FRAME_SIZE = -6,
  /**
   * The agent is behind by a full queue. The frame was dropped; the stream goes on at the next
   * keyframe, which is asked for.
   */
  P2P_ERR_QUEUE_FULL = -7,
  /**
   * A stream of that name runs already, or there are too many.
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
 * A running camera agent: made by p2p_init(), ended by p2p_deinit(). The pointer is a number in
 * disguise: never dereference it.
 */
typedef struct p2p_agent_t p2p_agent_t;

/**
 * One running stream of an agent: made by p2p_start_stream(), ended by p2p_stop_stream() or by its
 * agent's p2p_deinit(). The pointer is a number in disguise: never dereference it.
 */
typedef struct p2p_stream_t p2p_stream_t;

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
 * One log line without a newline; what belongs to a session carries its id. It lives only until the
 * callback returns. Comes from any thread that is inside the library, also inside p2p_init() and
 * p2p_deinit(), and possibly from several at once. What the callback itself makes the library log is
 * dropped. Lines are the process's: with several agents, each on_log gets those of all.
 */
typedef void (*p2p_log_fn)(void *user, int32_t level, const char *line);

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
   */
  const char *broker_ca_file;
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
   * Log lines. May be NULL.
   */
  p2p_log_fn on_log;
} p2p_config_t;

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
   * Given to on_keyframe_request as stream_user; for instance the encoder's own handle.
   */
  void *user;
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
   * When the picture was taken, in microseconds on the encoder's own clock. It may start anywhere
   * and must not go backwards within a stream.
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
