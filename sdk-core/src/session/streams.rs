//! The channels of the camera, by number and by name.

use super::stream::Stream;
use crate::event::StreamId;
use crate::media::{Sources, VideoStream};

/// See the module.
#[derive(Default)]
pub struct Streams {
    /// A handful at most.
    list: Vec<Stream>,
}

impl Streams {
    pub fn add(&mut self, stream: Stream) {
        self.list.push(stream);
    }

    pub fn remove(&mut self, id: StreamId) {
        self.list.retain(|stream| stream.id() != id);
    }

    pub fn get(&self, id: StreamId) -> Option<&Stream> {
        self.list.iter().find(|stream| stream.id() == id)
    }

    pub fn get_mut(&mut self, id: StreamId) -> Option<&mut Stream> {
        self.list.iter_mut().find(|stream| stream.id() == id)
    }

    pub fn named(&self, name: &str) -> Option<&Stream> {
        self.list.iter().find(|stream| stream.name() == name)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Stream> {
        self.list.iter()
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Stream> {
        self.list.iter_mut()
    }

    /// For viewers, in the order in which they were started.
    pub fn names(&self) -> Vec<String> {
        self.list.iter().map(|stream| stream.name().to_owned()).collect()
    }
}

impl Sources for Streams {
    fn video(&self, source: StreamId) -> Option<&VideoStream> {
        self.get(source).map(Stream::video)
    }
}
