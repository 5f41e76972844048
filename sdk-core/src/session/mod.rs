//! Sessions: one viewer from hello to goodbye.

pub mod admission;
mod offer;
mod outputs;
mod states;
mod stream;
pub mod table;
mod target;
mod viewer;

pub use outputs::{Outputs, Want};
pub use states::{ChannelRequest, Session};
pub use stream::Stream;
