//! Sessions: one viewer from hello to goodbye.

mod adapt;
pub mod admission;
mod offer;
mod outputs;
mod states;
mod stream;
mod streams;
pub mod table;
mod target;
mod viewer;

pub use outputs::{Outputs, Want};
pub use states::{ChannelRequest, Session};
pub use stream::Stream;
pub use streams::Streams;
