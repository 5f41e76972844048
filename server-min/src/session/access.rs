//! Who may sign in at the broker, and whose name may stand in a message.
//!
//! | What is presented | who it is | looked at |
//! |---|---|---|
//! | a certificate of `tls.client_ca` | the device of its common name | alone |
//! | a password made of a secret | that device or application | always |
//! | the administrator's password, one of the credentials file | what the file says | unless too many sign-ins from that address failed |
//!
//! What is made of a secret has 256 bits and is not guessed; so a neighbour's mistakes, behind the
//! same NAT or proxy, never shut out who has one.

use super::credentials::{self, AppRefusal, same_secret};
use super::credentials_file::{CredentialsFile, Found};
use super::failures::Failures;
use super::service::SERVER_ID;
use crate::clock;
use crate::config::{MqttConfig, Secret};
use crate::mqtt::{Authenticator, Identity, Login, Refusal, Role, Verdict};
use sdk_core::wire::signal::{SessionId, is_valid_id};
use serde::Deserialize;
use serde_json::Value;
use std::cell::RefCell;
use std::io;
use std::net::IpAddr;
use std::rc::Rc;

/// The user who may read and write every topic, if there is a password for it.
const ADMIN: &str = "admin";

/// Checks logins against secrets, certificates and the credentials file; nothing is kept about
/// devices or applications.
pub struct Access {
    /// Without it no device can sign in by a derived password.
    device_secret: Option<Secret>,
    app_secret: Secret,
    admin_password: Option<Secret>,
    file: Option<CredentialsFile>,
    require_device_certificate: bool,
    failures: Rc<RefCell<Failures>>,
}

impl Access {
    /// Reads the credentials file, where there is one. `app_secret` is the configured or a new one.
    pub fn new(config: &MqttConfig, app_secret: Secret) -> io::Result<Access> {
        let file = config.credentials_file.as_deref().map(CredentialsFile::open).transpose()?;
        Ok(Access {
            device_secret: config.device_secret.clone(),
            app_secret,
            admin_password: config.admin_password.clone(),
            file,
            require_device_certificate: config.require_device_certificate,
            failures: Rc::new(RefCell::new(Failures::new(config.limits.failed_logins_per_minute))),
        })
    }

    /// Reads the credentials file again. Where it is not good, what was read before stays in use.
    pub fn reload(&self) -> Result<(), String> {
        self.file.as_ref().map_or(Ok(()), CredentialsFile::reload)
    }

    fn check(&self, login: &Login<'_>, now_ms: u64) -> Verdict {
        if let Some(name) = login.certificate {
            return self.by_certificate(name, login).into();
        }
        let (Some(username), Some(password)) = (login.username, login.password) else {
            return self.failed(Refusal::BadCredentials, login, now_ms);
        };
        match self.by_derived(username, password, now_ms / 1000) {
            Ok(Some(identity)) if self.is_locked(&identity.id) => {
                return self.failed(Refusal::BadCredentials, login, now_ms);
            }
            Ok(Some(identity)) => return self.unless_certificate_is_missing(identity).into(),
            Ok(None) => {}
            Err(refusal) => return Err(refusal).into(),
        }
        if self.failures.borrow().is_over(login.peer.ip(), now_ms) {
            return Err(Refusal::TooManyFailures).into();
        }
        if username == ADMIN
            && let Some(expected) = &self.admin_password
            && same_secret(expected.expose().as_bytes(), password)
        {
            return Ok(Identity { role: Role::Admin, id: ADMIN.into() }).into();
        }
        self.by_file(username, password, login, now_ms)
    }

    /// The certificate says who it is; a user name, or a client id without one, may only agree.
    fn by_certificate(&self, name: &str, login: &Login<'_>) -> Result<Identity, Refusal> {
        let claimed = login.username.unwrap_or(login.client_id);
        let is_device = is_valid_id(name) && name != SERVER_ID;
        if is_device && claimed == name && !self.is_locked(name) {
            return Ok(Identity { role: Role::Device, id: name.into() });
        }
        let peer = login.peer;
        log::warn!("{peer} refused: its certificate is of {name:?}, and it says it is {claimed:?}");
        Err(Refusal::Certificate)
    }

    /// By a password that follows from a secret; `None` where it does not.
    fn by_derived(
        &self,
        username: &str,
        password: &[u8],
        now_s: u64,
    ) -> Result<Option<Identity>, Refusal> {
        if let Some(secret) = &self.device_secret
            && is_valid_id(username)
            && username != SERVER_ID
        {
            let expected = credentials::device_password(secret.expose(), username);
            if same_secret(expected.as_bytes(), password) {
                return Ok(Some(Identity { role: Role::Device, id: username.into() }));
            }
        }
        match credentials::check_mqtt_app(self.app_secret.expose(), username, password, now_s) {
            Ok(id) if is_valid_id(id) => Ok(Some(Identity { role: Role::App, id: id.into() })),
            Err(AppRefusal::Expired) => {
                log::info!(
                    "{username} refused: its credentials have expired; a new session brings new ones"
                );
                Err(Refusal::Expired)
            }
            _ => Ok(None),
        }
    }

    fn by_file(&self, username: &str, password: &[u8], login: &Login<'_>, now_ms: u64) -> Verdict {
        let Some(file) = &self.file else {
            return self.failed(Refusal::BadCredentials, login, now_ms);
        };
        let identity = |role| Identity { role, id: username.into() };
        match file.check(username, password) {
            Found::Known { role, is_right: true } => {
                self.unless_certificate_is_missing(identity(role)).into()
            }
            Found::Nobody | Found::Known { .. } => {
                self.failed(Refusal::BadCredentials, login, now_ms)
            }
            Found::Busy => Err(Refusal::Unavailable).into(),
            Found::Later(pending) => {
                let identity = self.unless_certificate_is_missing(identity(pending.role));
                let (failures, ip) = (self.failures.clone(), login.peer.ip());
                Verdict::Later(Box::pin(async move {
                    match pending.outcome().await {
                        Some(true) => identity,
                        Some(false) => {
                            failures.borrow_mut().note(ip, now_ms);
                            Err(Refusal::BadCredentials)
                        }
                        None => Err(Refusal::Unavailable),
                    }
                }))
            }
        }
    }

    fn unless_certificate_is_missing(&self, identity: Identity) -> Result<Identity, Refusal> {
        if self.require_device_certificate && identity.role == Role::Device {
            return Err(Refusal::Certificate);
        }
        Ok(identity)
    }

    fn is_locked(&self, name: &str) -> bool {
        self.file.as_ref().is_some_and(|file| file.is_locked(name))
    }

    fn failed(&self, refusal: Refusal, login: &Login<'_>, now_ms: u64) -> Verdict {
        let ip: IpAddr = login.peer.ip();
        self.failures.borrow_mut().note(ip, now_ms);
        Err(refusal).into()
    }
}

impl Authenticator for Access {
    fn authenticate(&self, login: &Login<'_>) -> Verdict {
        self.check(login, clock::now_ms())
    }

    fn may_publish_too(&self, who: &Identity, topic: &str) -> bool {
        self.file.as_ref().is_some_and(|file| file.may_write(who, topic))
    }

    fn may_subscribe_too(&self, who: &Identity, filter: &str) -> bool {
        self.file.as_ref().is_some_and(|file| file.may_read(who, filter))
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

    const NOW_MS: u64 = 99_000;

    fn config() -> MqttConfig {
        MqttConfig {
            device_secret: Some(Secret::new("devices")),
            admin_password: Some(Secret::new("root")),
            ..MqttConfig::default()
        }
    }

    fn access_with(config: &MqttConfig) -> Access {
        Access::new(config, Secret::new("apps")).unwrap()
    }

    fn access() -> Access {
        access_with(&config())
    }

    fn login<'a>(username: &'a str, password: &'a str) -> Login<'a> {
        Login {
            client_id: "any",
            username: Some(username),
            password: Some(password.as_bytes()),
            certificate: None,
            peer: ([192, 0, 2, 1], 9).into(),
        }
    }

    fn said(verdict: Verdict) -> Result<(Role, String), Refusal> {
        match verdict {
            Verdict::Now(result) => result.map(|who| (who.role, who.id)),
            Verdict::Later(_) => panic!("expected a verdict at once"),
        }
    }

    fn check(
        access: &Access,
        user: &str,
        password: &str,
        now_s: u64,
    ) -> Result<(Role, String), Refusal> {
        said(access.check(&login(user, password), now_s * 1000))
    }

    const WRONG: Result<(Role, String), Refusal> = Err(Refusal::BadCredentials);

    #[test]
    fn each_role_signs_in_with_its_own_kind_of_password() {
        let access = access();
        let device = credentials::device_password("devices", "cam_1");
        assert_eq!(check(&access, "cam_1", &device, 0), Ok((Role::Device, "cam_1".into())));
        assert_eq!(check(&access, "cam_2", &device, 0), WRONG);
        let server = credentials::device_password("devices", "server");
        assert_eq!(check(&access, "server", &server, 0), WRONG);
        let app = credentials::mqtt_app("apps", "app_1", 100);
        let signed_in = Ok((Role::App, "app_1".into()));
        assert_eq!(check(&access, &app.username, &app.password, 99), signed_in);
        assert_eq!(check(&access, &app.username, &app.password, 100), Err(Refusal::Expired));
        assert_eq!(check(&access, "admin", "root", 0), Ok((Role::Admin, "admin".into())));
        assert_eq!(check(&access, "admin", "toor", 0), WRONG);
        assert_eq!(check(&access, "", "", 0), WRONG);
    }

    #[test]
    fn what_is_not_set_lets_nobody_in() {
        let access = access_with(&MqttConfig::default());
        let device = credentials::device_password("", "cam_1");
        assert_eq!(check(&access, "cam_1", &device, 0), WRONG);
        assert_eq!(check(&access, "admin", "", 0), WRONG);
    }

    #[test]
    fn a_certificate_s_name_is_the_device_and_no_other() {
        let access = access();
        let with = |certificate, username: Option<&'static str>, client_id| {
            let login = Login {
                client_id,
                username,
                password: None,
                certificate: Some(certificate),
                peer: ([192, 0, 2, 1], 9).into(),
            };
            said(access.check(&login, NOW_MS))
        };
        let cam = Ok((Role::Device, "cam_1".to_owned()));
        assert_eq!(with("cam_1", Some("cam_1"), "any"), cam);
        assert_eq!(with("cam_1", None, "cam_1"), cam);
        for (certificate, username, client_id) in [
            ("cam_1", Some("cam_2"), "cam_1"),
            ("cam_1", None, "cam_2"),
            ("cam_1", Some("admin"), "cam_1"),
            ("server", Some("server"), "server"),
            ("", Some(""), ""),
            ("", None, "cam_1"),
            ("cam/1", Some("cam/1"), "cam/1"),
        ] {
            let refused = Err(Refusal::Certificate);
            assert_eq!(with(certificate, username, client_id), refused, "{certificate}");
        }
        // The right password of another does not help.
        let password = credentials::device_password("devices", "cam_2");
        let foreign = Login { certificate: Some("cam_1"), ..login("cam_2", &password) };
        assert_eq!(said(access.check(&foreign, NOW_MS)), Err(Refusal::Certificate));
    }

    #[test]
    fn where_certificates_are_required_devices_have_no_password_and_others_do() {
        let config = MqttConfig { require_device_certificate: true, ..config() };
        let access = access_with(&config);
        let device = credentials::device_password("devices", "cam_1");
        assert_eq!(check(&access, "cam_1", &device, 0), Err(Refusal::Certificate));
        let app = credentials::mqtt_app("apps", "app_1", 100);
        assert!(check(&access, &app.username, &app.password, 99).is_ok());
        assert!(check(&access, "admin", "root", 99).is_ok());
    }

    #[test]
    fn who_guesses_is_not_listened_to_and_shuts_out_nobody_with_a_secret() {
        let access = access();
        for _ in 0..20 {
            assert_eq!(check(&access, "admin", "toor", 99), WRONG);
        }
        assert_eq!(check(&access, "admin", "root", 99), Err(Refusal::TooManyFailures));
        let device = credentials::device_password("devices", "cam_1");
        assert!(check(&access, "cam_1", &device, 99).is_ok());
        let elsewhere = Login { peer: ([192, 0, 2, 2], 9).into(), ..login("admin", "root") };
        assert!(said(access.check(&elsewhere, NOW_MS)).is_ok());
        assert!(check(&access, "admin", "root", 99 + 60).is_ok());
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
