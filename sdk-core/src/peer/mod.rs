//! One viewer's transport: ICE, DTLS and relays.

pub mod turn;
