//! `include/p2pcam.h` is what this crate generates, and C and C++ compilers take it without a warning.

mod common;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

#[test]
fn the_committed_header_is_what_the_crate_generates() {
    let crate_dir = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(crate_dir.join("cbindgen.toml")).unwrap();
    let mut generated = Vec::new();
    cbindgen::Builder::new()
        .with_crate(&crate_dir)
        .with_config(config)
        .generate()
        .unwrap()
        .write(&mut generated);
    let generated = String::from_utf8(generated).unwrap();
    let path = common::root().join("include/p2pcam.h");
    if std::env::var_os("P2PCAM_BLESS").is_some() {
        fs::write(&path, &generated).unwrap();
        return;
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == generated,
        "include/p2pcam.h is not what sdk-ffi/src generates: run `make header` and commit the result"
    );
}

#[test]
fn c99_c11_and_cpp17_compile_it_without_a_warning() {
    let dir = common::scratch("header");
    let source = r#"
        #include "p2pcam.h"
        #include "p2pcam.h"
        int use(void);
        int use(void) {
            p2p_config_t config = P2P_CONFIG_INIT;
            p2p_stream_config_t stream = P2P_STREAM_CONFIG_INIT;
            p2p_frame_t frame = P2P_FRAME_INIT;
            p2p_audio_config_t audio_config = P2P_AUDIO_CONFIG_INIT;
            p2p_audio_frame_t sound = P2P_AUDIO_FRAME_INIT;
            p2p_audio_t *audio = 0;
            p2p_stats_t stats = P2P_STATS_INIT;
            p2p_viewer_stats_t viewers[2] = { P2P_VIEWER_STATS_INIT };
            p2p_stream_stats_t streams[2] = { P2P_STREAM_STATS_INIT };
            size_t viewer_count = 2, stream_count = 2;
            p2p_agent_t *agent = 0;
            p2p_stream_t *handle = 0;
            p2p_status_t status = p2p_init(&config, &agent);
            if (status != P2P_OK) return status;
            stream.codec = P2P_CODEC_H264;
            status = p2p_start_stream(agent, &stream, &handle);
            if (status == P2P_OK) status = p2p_push_frame(handle, &frame);
            if (status == P2P_OK) {
                status = p2p_get_stats(agent, &stats, viewers, &viewer_count, streams, &stream_count);
            }
            audio_config.codec = P2P_AUDIO_OPUS;
            if (status == P2P_OK) status = p2p_start_audio(agent, &audio_config, &audio);
            if (status == P2P_OK) status = p2p_push_audio(audio, &sound);
            p2p_stop_audio(audio);
            if (status == P2P_OK) {
                p2p_data_channel_config_t control = P2P_DATA_CHANNEL_CONFIG_INIT;
                uint16_t channel;
                status = p2p_open_data_channel(agent, "id", &control, &channel);
                if (status == P2P_OK) status = p2p_send_data(agent, "id", channel, 0, 0, 0);
                if (status == P2P_OK) status = p2p_close_data_channel(agent, "id", channel);
            }
            if (p2p_strerror(status) == 0) return 1;
            p2p_stop_stream(handle);
            return p2p_deinit(agent);
        }
    "#;
    for (compiler, standard, file) in
        [("cc", "-std=c99", "use.c"), ("cc", "-std=c11", "use.c"), ("c++", "-std=c++17", "use.cpp")]
    {
        let path = dir.join(file);
        fs::write(&path, source).unwrap();
        let output = Command::new(compiler)
            .args([standard, "-Wall", "-Wextra", "-Werror", "-pedantic", "-Wshadow", "-c"])
            .arg("-I")
            .arg(common::root().join("include"))
            .arg(&path)
            .arg("-o")
            .arg(dir.join("use.o"))
            .output()
            .unwrap_or_else(|e| panic!("{compiler} is missing ({e}): apt-get install gcc g++"));
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{compiler} {standard}:\n{errors}");
    }
}
