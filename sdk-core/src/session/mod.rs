//! Sessions: one viewer from hello to goodbye.

mod adapt;
pub mod admission;
mod audio;
mod offer;
mod outputs;
mod roster;
mod sound;
mod states;
mod stream;
mod streams;
pub mod table;
mod target;
mod viewer;

pub use audio::{AudioSource, MediaTimes};
pub use outputs::{Outputs, Want};
pub use states::{ChannelRequest, Session};
pub use stream::Stream;
pub use streams::Streams;
