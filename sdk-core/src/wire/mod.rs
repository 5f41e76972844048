//! Bytes ⇄ values. Stateless: nothing here keeps a clock, a socket or a memory of what came before,
//! and no input makes it panic.

pub mod annexb;
pub mod audio;
pub mod codec;
mod crc32;
pub mod dcep;
pub mod h264;
pub mod h265;
pub mod rtcp;
pub mod rtp;
pub mod sctp;
pub mod sdp;
pub mod signal;
pub mod stun;
pub mod token;
