//! Rust and C agree on every struct's size and fields, and no struct ends in padding: a field added
//! there later would be invisible to `struct_size`. Every published number is pinned.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use p2pcam::*;
use std::fmt::Write;
use std::fs;
use std::mem::{offset_of, size_of};
use std::process::Command;
use std::time::Duration;

/// A struct's name, size, and its fields with their offsets.
type Layout = (&'static str, usize, Vec<(&'static str, usize)>);

macro_rules! layout {
    ($name:ident: $($field:ident),+ $(,)?) => {
        (stringify!($name), size_of::<$name>(), vec![$((stringify!($field), offset_of!($name, $field))),+])
    };
}

fn layouts() -> Vec<Layout> {
    vec![
        layout!(p2p_config_t: struct_size, device_id, broker_url, broker_username, broker_password, broker_ca_file,
            broker_cert_file, broker_key_file, service_public_key, identity_file, max_viewers, max_datagram, unset_clock,
            include_loopback, relay_only, log_level, user, on_event, on_keyframe_request,
            on_target_bitrate, on_log, on_talkback, on_data_channel, on_data),
        layout!(p2p_data_channel_event_t: struct_size, agent, session_id, label, protocol, change,
            channel, reserved, unordered, reliability, reliability_value, max_message_size),
        layout!(p2p_data_t: struct_size, agent, session_id, data, size, channel, reserved, is_text),
        layout!(p2p_data_channel_config_t: struct_size, label, protocol, unordered, reliability,
            reliability_value, reserved),
        layout!(p2p_stream_config_t: struct_size, name, codec, bitrate, min_bitrate, max_bitrate, user,
            fallback, gop_cache),
        layout!(p2p_frame_t: struct_size, data, size, timestamp_us, release, release_user),
        layout!(p2p_audio_config_t: struct_size, codec, direction),
        layout!(p2p_audio_frame_t: struct_size, data, size, timestamp_us),
        layout!(p2p_talkback_t: struct_size, session_id, data, size, timestamp_us, duration_us, lost,
            codec, reserved),
        layout!(p2p_event_t: struct_size, agent, stream, session_id, app_id, text, kind, path,
            reason, code, setup_ms, reserved),
        layout!(p2p_stats_t: struct_size, uptime_ms, sends, datagrams, send_errors, memory_bytes,
            signaling_up, signaling_reconnects, viewers, streams, audio_frames, audio_refused,
            push_to_wire_p50_us, push_to_wire_p95_us, push_to_wire_p99_us, push_to_wire_max_us),
        layout!(p2p_viewer_stats_t: struct_size, offer_unix_ms, connected_unix_ms, frames, packets,
            media_bytes, wire_bytes, media_bps, wire_bps, target_bps, nacks, nacked_packets,
            resent_packets, resends_withheld, plis, firs, dropped_queue_full, dropped_no_route,
            dropped_awaiting_keyframe, dropped_too_old, dropped_too_large, dropped_key_worn_out,
            memory_bytes, lost_packets, loss_permille, round_trip_us, jitter_us, srtp_profile,
            answer_ms, ice_ms, dtls_ms, first_frame_ms, path, local_candidate, remote_candidate,
            reserved, session_id, app_id, stream, audio_packets, audio_bytes, audio_lost,
            talkback_packets, talkback_lost, talkback_late, talkback_delay_us, talkback_jitter_us,
            data_sent_messages, data_sent_bytes, data_received_messages, data_received_bytes,
            data_buffered_bytes, data_channels, data_reserved),
        layout!(p2p_stream_stats_t: struct_size, frames, bytes, keyframes, bitrate_bps,
            refused_queue_full, refused_awaiting_keyframe, refused_too_large,
            refused_no_parameter_sets, refused_malformed, keyframe_requests, memory_bytes,
            frame_rate_fps, viewers, codec, reserved, name),
    ]
}

#[test]
fn rust_and_c_agree_on_the_layout() {
    let mut source =
        String::from("#include \"p2pcam.h\"\n#include <stdio.h>\nint main(void) {\nsize_t end;\n");
    let mut expected = String::new();
    for (name, size, fields) in layouts() {
        for (field, offset) in &fields {
            writeln!(
                source,
                "printf(\"{name}.{field} %zu\\n\", offsetof({name}, {field}));\n\
                 end = offsetof({name}, {field}) + sizeof ((({name} *)0)->{field});"
            )
            .unwrap();
            writeln!(expected, "{name}.{field} {offset}").unwrap();
        }
        writeln!(source, "printf(\"{name} %zu, ends at %zu\\n\", sizeof({name}), end);").unwrap();
        writeln!(expected, "{name} {size}, ends at {size}").unwrap();
    }
    source.push_str("return 0;\n}\n");
    assert_eq!(run_c("layout", &source), expected);
}

#[test]
fn published_numbers_stay() {
    let mut source = String::from("#include \"p2pcam.h\"\n#include <stdio.h>\nint main(void) {\n");
    let mut expected = String::new();
    for (name, number) in NUMBERS {
        writeln!(source, "printf(\"{name} %ld\\n\", (long)({name}));").unwrap();
        writeln!(expected, "{name} {number}").unwrap();
    }
    source.push_str("return 0;\n}\n");
    assert_eq!(run_c("numbers", &source), expected);
}

fn run_c(name: &str, text: &str) -> String {
    let dir = common::scratch(name);
    let (source, program) = (dir.join("main.c"), dir.join("main"));
    fs::write(&source, text).unwrap();
    common::build_c(&source, &program, &[]);
    let output = common::output_within(&mut Command::new(program), Duration::from_secs(30));
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

/// Written here a second time on purpose: none of them may ever change.
const NUMBERS: &[(&str, i64)] = &[
    ("P2P_OK", 0),
    ("P2P_ERR_ARGUMENT", -1),
    ("P2P_ERR_STRUCT_SIZE", -2),
    ("P2P_ERR_HANDLE", -3),
    ("P2P_ERR_CODEC", -4),
    ("P2P_ERR_CONFIG", -5),
    ("P2P_ERR_FRAME_SIZE", -6),
    ("P2P_ERR_QUEUE_FULL", -7),
    ("P2P_ERR_BUSY", -8),
    ("P2P_ERR_IN_CALLBACK", -9),
    ("P2P_ERR_CLOSED", -10),
    ("P2P_ERR_IO", -11),
    ("P2P_ERR_MEMORY", -12),
    ("P2P_ERR_INTERNAL", -13),
    ("P2P_ERR_NO_CHANNEL", -14),
    ("P2P_EVENT_SIGNALING_UP", 1),
    ("P2P_EVENT_SIGNALING_DOWN", 2),
    ("P2P_EVENT_VIEWER_NEW", 3),
    ("P2P_EVENT_VIEWER_CONNECTED", 4),
    ("P2P_EVENT_VIEWER_CLOSED", 5),
    ("P2P_EVENT_VIEWER_STREAM", 6),
    ("P2P_PATH_NONE", 0),
    ("P2P_PATH_HOST", 1),
    ("P2P_PATH_SRFLX", 2),
    ("P2P_PATH_PRFLX", 3),
    ("P2P_PATH_RELAY", 4),
    ("P2P_CLOSE_NONE", 0),
    ("P2P_CLOSE_VIEWER_LEFT", 1),
    ("P2P_CLOSE_BY_DEVICE", 2),
    ("P2P_CLOSE_BY_SERVICE", 3),
    ("P2P_CLOSE_FAILED", 4),
    ("P2P_CLOSE_LOST", 5),
    ("P2P_LOG_ERROR", 1),
    ("P2P_LOG_WARN", 2),
    ("P2P_LOG_INFO", 3),
    ("P2P_LOG_DEBUG", 4),
    ("P2P_LOG_TRACE", 5),
    ("P2P_CODEC_H264", 1),
    ("P2P_CODEC_H265", 2),
    ("P2P_AUDIO_OPUS", 1),
    ("P2P_AUDIO_PCMA", 2),
    ("P2P_AUDIO_PCMU", 3),
    ("P2P_AUDIO_BOTH", 0),
    ("P2P_AUDIO_MICROPHONE", 1),
    ("P2P_AUDIO_LOUDSPEAKER", 2),
    ("P2P_MAX_AUDIO_FRAME_SIZE", 1275),
    ("P2P_UNSET_CLOCK_REFUSE", 0),
    ("P2P_UNSET_CLOCK_ACCEPT_UNTIL_KNOWN", 1),
    ("P2P_MAX_FRAME_SIZE", 4_194_304),
    ("P2P_DEFAULT_MAX_VIEWERS", 8),
    ("P2P_DEFAULT_MAX_DATAGRAM", 1200),
    ("P2P_NAME_SIZE", 72),
    ("P2P_SESSION_ID_SIZE", 40),
    ("P2P_SRTP_AES128_CM_HMAC_SHA1_80", 1),
    ("P2P_SRTP_AEAD_AES_128_GCM", 7),
    ("P2P_DATA_CHANNEL_READY", 1),
    ("P2P_DATA_CHANNEL_OPENED", 2),
    ("P2P_DATA_CHANNEL_CLOSED", 3),
    ("P2P_DATA_CHANNEL_WRITABLE", 4),
    ("P2P_DATA_RELIABLE", 0),
    ("P2P_DATA_MAX_RETRANSMITS", 1),
    ("P2P_DATA_MAX_LIFETIME", 2),
    ("P2P_MAX_MESSAGE_SIZE", 65_536),
    ("P2P_MAX_BUFFERED_DATA", 262_144),
];
