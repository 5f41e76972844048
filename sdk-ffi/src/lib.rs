//! The C API of libp2pcam: a thin skin over [`sdk_core::driver::Camera`].
//!
//! Each function enters the panic boundary, converts its arguments, makes one call into the core and
//! converts the result. `include/p2pcam.h` is generated from this crate; what is said in `///` here is
//! what a firmware engineer reads there.

// The types carry their C names, so that Rust, the header and the docs say the same word.
#![allow(non_camel_case_types)]

mod audio;
mod boundary;
mod callbacks;
mod camera;
mod config;
mod data;
mod handle;
mod layout;
mod log;
mod stats;
mod status;
mod stream;
mod version;

pub use audio::*;
pub use callbacks::*;
pub use camera::*;
pub use config::*;
pub use data::*;
pub use handle::{p2p_agent_t, p2p_audio_t, p2p_stream_t};
pub use log::*;
pub use stats::*;
pub use status::*;
pub use stream::*;
pub use version::*;
