//! What a stream is to be.

pub use crate::wire::codec::Codec;
use crate::wire::signal::is_valid_id;

/// One channel of the camera.
#[derive(Debug, Clone)]
pub struct StreamConfig {
    /// `main`, `sub`, …: what viewers ask for in their offer.
    pub name: String,
    pub codec: Codec,
    /// What the encoder makes as long as nothing else is asked of it, in bits per second.
    pub bitrate: u32,
    /// The encoder is never asked for less, in bits per second; a tenth of `bitrate` if `None`. A
    /// viewer with less than that misses frames, and the others do not suffer for it.
    pub min_bitrate: Option<u32>,
    /// The encoder is never asked for more, in bits per second; `bitrate` if `None`.
    pub max_bitrate: Option<u32>,
    /// The name of another stream of the same codec, for viewers whose network does not take
    /// `min_bitrate`. They come back when it does.
    pub fallback: Option<String>,
    /// A viewer starts with the pictures since the last keyframe if these are no more bytes than
    /// this, and with a keyframe that is asked for otherwise; 0 turns it off. See
    /// [`DEFAULT_GOP_CACHE`].
    pub gop_cache: usize,
}

/// A second of 2 Mbit/s, in bytes. They are a part of the history, so they cost no memory.
pub const DEFAULT_GOP_CACHE: usize = 256 << 10;

impl StreamConfig {
    /// An error names the field and what is expected.
    pub(crate) fn check(&self) -> Result<(), String> {
        if !is_valid_id(&self.name) {
            return Err(format!(
                "the stream's name is {:?}; expected 1 to 64 letters, digits, '-', '_', '.' or ':'",
                self.name
            ));
        }
        if let (Some(min), Some(max)) = (self.min_bitrate, self.max_bitrate)
            && min > max
        {
            return Err(format!(
                "min_bitrate is {min} and max_bitrate {max}; expected that min is not above max"
            ));
        }
        if self.fallback.as_ref() == Some(&self.name) {
            return Err(format!(
                "fallback is the stream's own name, {:?}; expected another stream's, or none",
                self.name
            ));
        }
        Ok(())
    }
}
