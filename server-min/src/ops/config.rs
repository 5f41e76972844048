//! `[ops]`: who may look at the sessions of this server.

use crate::config::Secret;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct OpsConfig {
    /// Opens the operators' page, `/ops`, and what it reads. Neither is there unless it is set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<Secret>,
}

/// With ten guesses a minute from an address, nobody finds one of so many characters.
const MIN_TOKEN_LEN: usize = 16;

impl OpsConfig {
    /// What would not work, in words for the person who wrote it.
    pub fn check(&self) -> Result<(), String> {
        let Some(token) = &self.token else { return Ok(()) };
        let visible = token.expose().bytes().all(|c| c.is_ascii_graphic());
        if !visible || token.expose().len() < MIN_TOKEN_LEN {
            return Err(format!(
                "token: expected at least {MIN_TOKEN_LEN} visible ASCII characters; take what \
                 `openssl rand -hex 32` prints"
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_long_and_fits_into_a_header() {
        let check = |token: Option<&str>| OpsConfig { token: token.map(Secret::new) }.check();
        assert_eq!(check(None), Ok(()));
        assert_eq!(check(Some("0123456789abcdef")), Ok(()));
        for bad in ["", "0123456789abcde", "0123456789 abcdef", "0123456789äbcdef"] {
            let error = check(Some(bad)).unwrap_err();
            assert!(error.contains("openssl rand") && (bad.is_empty() || !error.contains(bad)));
        }
    }
}
