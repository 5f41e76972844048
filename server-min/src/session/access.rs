//! Who may sign in at the broker, and whose name may stand in a message.

use super::credentials::{self, AppRefusal, same_secret};
use super::service::SERVER_ID;
use crate::clock;
use crate::config::Secret;
use crate::mqtt::{Authenticator, Identity, Login, Refusal, Role};
use sdk_core::wire::signal::{SessionId, is_valid_id};
use serde::Deserialize;
use serde_json::Value;

/// The user who may read and write every topic, if there is a password for it.
const ADMIN: &str = "admin";

/// Checks logins against secrets alone; nothing is kept about devices or applications.
pub struct Access {
    /// Without it no device can sign in.
    pub device_secret: Option<Secret>,
    pub app_secret: Secret,
    pub admin_password: Option<Secret>,
}

impl Access {
    fn check(&self, username: &str, password: &[u8], now_s: u64) -> Result<Identity, Refusal> {
        let identity = |role, id: &str| Identity { role, id: id.into() };
        if username == ADMIN
            && let Some(expected) = &self.admin_password
            && same_secret(expected.expose().as_bytes(), password)
        {
            return Ok(identity(Role::Admin, ADMIN));
        }
        if let Some(secret) = &self.device_secret
            && is_valid_id(username)
            && username != SERVER_ID
        {
            let expected = credentials::device_password(secret.expose(), username);
            if same_secret(expected.as_bytes(), password) {
                return Ok(identity(Role::Device, username));
            }
        }
        match credentials::check_mqtt_app(self.app_secret.expose(), username, password, now_s) {
            Ok(app_id) if is_valid_id(app_id) => Ok(identity(Role::App, app_id)),
            Err(AppRefusal::Expired) => {
                log::info!(
                    "{username} refused: its credentials have expired; a new session brings new ones"
                );
                Err(Refusal::BadCredentials)
            }
            _ => Err(Refusal::BadCredentials),
        }
    }
}

impl Authenticator for Access {
    fn authenticate(&self, login: &Login<'_>) -> Result<Identity, Refusal> {
        let (Some(username), Some(password)) = (login.username, login.password) else {
            return Err(Refusal::BadCredentials);
        };
        self.check(username, password, clock::now_ms() / 1000)
    }

    /// A signal's `from` is the one who sends it: devices and applications may rely on it.
    ///
    /// What cannot be read passes to devices, which read as strictly as we do and answer what is
    /// wrong. To applications it does not: where we stop at a key that stands there twice or at
    /// half a character, a browser reads on, and might find another's name.
    fn may_publish(&self, who: &Identity, topic: &str, payload: &[u8]) -> bool {
        #[derive(Deserialize)]
        struct Envelope {
            from: String,
            #[serde(default, rename = "sessionId")]
            session_id: Value,
        }
        if !matches!(who.role, Role::Device | Role::App) || !topic.starts_with("p2p/signal/") {
            return true;
        }
        match serde_json::from_slice::<Envelope>(payload) {
            Ok(envelope) if envelope.from == who.id => true,
            Ok(Envelope { session_id, .. }) => {
                let session = session_id.as_str().and_then(SessionId::parse);
                let session = session.map_or("-".to_owned(), |id| id.to_string());
                let name = &who.id;
                log::warn!("sessionId={session} {name} refused: another's name on {topic:?}");
                false
            }
            Err(_) if who.role == Role::App => true,
            Err(e) => {
                log::warn!("sessionId=- {} refused: no signal on {topic:?}: {e}", who.id);
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access() -> Access {
        Access {
            device_secret: Some(Secret::new("devices")),
            app_secret: Secret::new("apps"),
            admin_password: Some(Secret::new("root")),
        }
    }

    fn check(access: &Access, user: &str, password: &str, now_s: u64) -> Option<(Role, String)> {
        access
            .check(user, password.as_bytes(), now_s)
            .ok()
            .map(|who| (who.role, who.id.to_string()))
    }

    #[test]
    fn each_role_signs_in_with_its_own_kind_of_password() {
        let access = access();
        let device = credentials::device_password("devices", "cam_1");
        assert_eq!(check(&access, "cam_1", &device, 0), Some((Role::Device, "cam_1".into())));
        assert_eq!(check(&access, "cam_2", &device, 0), None);
        let app = credentials::mqtt_app("apps", "app_1", 100);
        let signed_in = Some((Role::App, "app_1".into()));
        assert_eq!(check(&access, &app.username, &app.password, 99), signed_in);
        assert_eq!(check(&access, &app.username, &app.password, 100), None);
        assert_eq!(check(&access, "admin", "root", 0), Some((Role::Admin, "admin".into())));
        assert_eq!(check(&access, "admin", "toor", 0), None);
        assert_eq!(check(&access, "", "", 0), None);
    }

    #[test]
    fn what_is_not_set_lets_nobody_in() {
        let access = Access { device_secret: None, admin_password: None, ..access() };
        let device = credentials::device_password("", "cam_1");
        assert_eq!(check(&access, "cam_1", &device, 0), None);
        assert_eq!(check(&access, "admin", "", 0), None);
    }

    #[test]
    fn nobody_writes_in_another_s_name() {
        let access = access();
        let who = |role, id: &str| Identity { role, id: id.into() };
        let may = |who: &Identity, payload: &str| {
            access.may_publish(who, "p2p/signal/device/cam_1", payload.as_bytes())
        };
        let app = who(Role::App, "app_1");
        assert!(may(&app, r#"{"from":"app_1","payload":{"from":"app_2"}}"#));
        assert!(!may(&app, r#"{"from":"app_2"}"#));
        assert!(!may(&app, r#"{"from":"server"}"#));
        assert!(may(&app, "not JSON"));
        // What a camera says to browsers must be read the same way by all.
        let camera = who(Role::Device, "cam_1");
        assert!(may(&camera, r#"{"from":"cam_1","sessionId":7}"#));
        for payload in [
            r#"{"from":"cam_2"}"#,
            r#"{"from":"cam_1","from":"server"}"#,
            r#"{"from":"server","\ud800":1}"#,
            r#"{"from":["server"]}"#,
            "not JSON",
        ] {
            assert!(!may(&camera, payload), "{payload}");
        }
        assert!(may(&who(Role::Service, "server"), r#"{"from":"app_2"}"#));
    }
}
