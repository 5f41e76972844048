//! The send buffer: how much of it is in use, and what of it is free again.

#[derive(Default)]
pub(super) struct Room {
    in_use: usize,
    /// By stream, not yet told.
    released: Vec<(u16, usize)>,
}

impl Room {
    pub(super) fn take(&mut self, bytes: usize) {
        self.in_use += bytes;
    }

    pub(super) fn free(&mut self, stream: u16, bytes: usize) {
        self.in_use = self.in_use.saturating_sub(bytes);
        if bytes == 0 {
            return;
        }
        match self.released.iter_mut().find(|(id, _)| *id == stream) {
            Some((_, sum)) => *sum += bytes,
            None => self.released.push((stream, bytes)),
        }
    }

    /// In bytes.
    pub(super) fn in_use(&self) -> usize {
        self.in_use
    }

    /// A stream, and what of it is free again.
    pub(super) fn poll_released(&mut self) -> Option<(u16, usize)> {
        self.released.pop()
    }
}
