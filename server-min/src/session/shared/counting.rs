//! How many sessions there are, by their state: what every node can say of all of them.
//!
//! No number is kept that could go wrong. The open ones are those in the sorted set, and the connected ones
//! have an entry in a set of their own, which each report puts there again and each closing takes out. The
//! closed ones are counted by the quarter of an hour in which Redis forgets the last of them.

use super::Inner;
use super::link::read;
use crate::session::store::{Counts, StoreError};

/// Entries of the connected looked at in one step.
const MENDED_AT_ONCE: usize = 1000;

impl Inner {
    /// Asks Redis, so that whoever wants to know need not.
    pub(super) async fn count(&self) -> Result<(), StoreError> {
        let mut call = self.scripts.count.key(&self.keys.open);
        call.key(&self.keys.connected).key(&self.keys.closed);
        let (open, connected, closed): (usize, usize, usize) = read(self.link.call(&call).await?)?;
        let connecting = open.saturating_sub(connected);
        self.counts.set(Some(Counts { connecting, connected, closed }));
        Ok(())
    }

    /// Takes out of the connected what is not open any more: closed by a node that does not know the set, or
    /// taken out of Redis by hand. An entry that is not open never will be again, so this may run beside
    /// everything else.
    pub(super) async fn mend_counts(&self) -> Result<(), StoreError> {
        let mut cursor = "0".to_owned();
        loop {
            let mut call = self.scripts.mend.key(&self.keys.connected);
            call.key(&self.keys.open).arg(&cursor).arg(MENDED_AT_ONCE);
            cursor = read(self.link.call(&call).await?)?;
            if cursor == "0" {
                return Ok(());
            }
        }
    }
}
