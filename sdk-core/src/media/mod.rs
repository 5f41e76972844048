//! The hot path: from an encoder's access unit to sealed packets for each viewer.

pub mod srtp;
