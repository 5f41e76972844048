//! What a broker that is not ours asks before it lets somebody in or does as told: the same checks
//! as our own broker's, answered in the form of EMQX 5 (HTTP authentication and authorization).

use crate::config::{MqttConfig, Secret};
use crate::mqtt::{
    Authenticator, Grant, Identity, Login, Role, Verdict, may_publish, may_subscribe,
};
use crate::session::credentials::same_secret;
use sdk_core::wire::signal::{SERVER_NAME, is_valid_id};
use serde::Deserialize;
use serde_json::{Value, json};
use std::net::IpAddr;
use std::rc::Rc;

/// Answers a broker that knows the secret.
pub struct Hook {
    secret: Secret,
    access: Rc<dyn Authenticator>,
    /// How the session service itself signs in at that broker.
    service: Option<(String, Secret)>,
}

/// Somebody wants to connect. Fields we do not know are ignored.
#[derive(Deserialize)]
pub struct Question {
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    password: Option<String>,
    #[serde(default)]
    clientid: String,
    /// The client's address.
    #[serde(default)]
    peerhost: String,
}

/// Somebody who was let in wants to publish or subscribe.
#[derive(Deserialize)]
pub struct Action {
    username: String,
    /// `publish` or `subscribe`.
    action: String,
    topic: String,
    /// `true` and `false` as a broker's template writes them; with `publish` it must be there.
    #[serde(default)]
    retain: Value,
    /// What the answer to the login said; without it, it is read off the user name.
    #[serde(default)]
    role: Option<String>,
    #[serde(default)]
    id: Option<String>,
}

impl Hook {
    /// `None` where no broker may ask.
    pub fn new(config: &MqttConfig, access: Rc<dyn Authenticator>) -> Option<Hook> {
        let secret = config.hook_secret.clone()?;
        let service = config.external_username.clone().zip(config.external_password.clone());
        Some(Hook { secret, access, service })
    }

    pub fn knows(&self, secret: &str) -> bool {
        same_secret(self.secret.expose().as_bytes(), secret.as_bytes())
    }

    /// `allow` says who it is (`client_attrs`), and that nothing needs to be asked about the service
    /// and the operator (`is_superuser`).
    pub async fn on_login(&self, question: &Question) -> Value {
        match self.identify(question).await {
            Some(who) => json!({
                "result": "allow",
                "is_superuser": matches!(who.role, Role::Service | Role::Admin),
                "client_attrs": {"role": name_of(who.role), "id": who.id},
            }),
            None => {
                let name = question.username.as_deref().unwrap_or("a client without a user name");
                log::info!(
                    "{name:?} refused at the external broker: its password is wrong or expired"
                );
                json!({"result": "deny"})
            }
        }
    }

    /// The error says what the question lacks.
    pub fn on_action(&self, action: &Action) -> Result<Value, &'static str> {
        let may = match self.identity_of(action) {
            None => false,
            Some(who) => match action.action.as_str() {
                "publish" => {
                    let retain = match &action.retain {
                        Value::Bool(retain) => *retain,
                        Value::String(text) if text == "true" => true,
                        Value::String(text) if text == "false" => false,
                        _ => return Err("retain: expected \"${retain}\" in the broker's template"),
                    };
                    may_publish(&who, &action.topic, retain)
                        || self.access.may_publish_too(&who, &action.topic)
                }
                "subscribe" => {
                    !matches!(may_subscribe(&who, &action.topic), Grant::No)
                        || self.access.may_subscribe_too(&who, &action.topic)
                }
                _ => return Err("action: expected publish or subscribe"),
            },
        };
        if !may {
            let Action { username, action, topic, .. } = action;
            log::info!("{username:?} refused at the external broker: {action} {topic:?}");
        }
        Ok(json!({"result": if may { "allow" } else { "deny" }}))
    }

    async fn identify(&self, question: &Question) -> Option<Identity> {
        let Question { username, password, clientid, peerhost } = question;
        let (username, password) = (username.as_deref()?, password.as_deref()?);
        if let Some((name, expected)) = &self.service
            && name == username
            && same_secret(expected.expose().as_bytes(), password.as_bytes())
        {
            return Some(Identity { role: Role::Service, id: SERVER_NAME.into() });
        }
        let login = Login {
            client_id: clientid,
            username: Some(username),
            password: Some(password.as_bytes()),
            certificate: None,
            peer: (peerhost.parse().unwrap_or(IpAddr::from([0, 0, 0, 0])), 0).into(),
        };
        let who = match self.access.authenticate(&login) {
            Verdict::Now(who) => who,
            Verdict::Later(pending) => pending.await,
        };
        let who = who.ok()?;
        // Its later questions would be an application's.
        (who.role != Role::Device || app_of(username).is_none()).then_some(who)
    }

    /// Who was let in under this name. Never the service or the operator: about them no broker asks.
    fn identity_of(&self, action: &Action) -> Option<Identity> {
        let said = |text: &Option<String>| {
            text.clone().filter(|text| !text.is_empty() && text != "undefined")
        };
        let (role, id) = match (said(&action.role), said(&action.id)) {
            (Some(role), Some(id)) if role == name_of(Role::Device) => (Role::Device, id),
            (Some(role), Some(id)) if role == name_of(Role::App) => (Role::App, id),
            (None, None) => match app_of(&action.username) {
                Some(app_id) => (Role::App, app_id.to_owned()),
                None => (Role::Device, action.username.clone()),
            },
            _ => return None,
        };
        (is_valid_id(&id) && id != SERVER_NAME).then_some(Identity { role, id })
    }
}

/// `{expiry}:{app}`, as [`credentials::mqtt_app`](crate::session::credentials::mqtt_app) makes them.
fn app_of(username: &str) -> Option<&str> {
    let (expiry, app_id) = username.split_once(':')?;
    expiry.parse::<u64>().ok().map(|_| app_id)
}

fn name_of(role: Role) -> &'static str {
    match role {
        Role::Device => "device",
        Role::App => "app",
        Role::Service => "service",
        Role::Admin => "admin",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::Access;
    use crate::session::credentials::{device_password, mqtt_app};

    fn hook() -> Hook {
        let config = MqttConfig {
            device_secret: Some(Secret::new("devices")),
            admin_password: Some(Secret::new("root")),
            ..MqttConfig::default()
        };
        let access = Access::new(&config, Secret::new("apps")).unwrap();
        let service = Some(("service".to_owned(), Secret::new("pw")));
        Hook { secret: Secret::new("hook"), access: Rc::new(access), service }
    }

    fn login(username: &str, password: &str) -> Value {
        let body = json!({"username": username, "password": password, "clientid": "c",
                          "peerhost": "192.0.2.1"});
        on_login(&serde_json::from_value(body).unwrap())
    }

    fn on_login(question: &Question) -> Value {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(hook().on_login(question))
    }

    fn action(body: Value) -> String {
        let answer = hook().on_action(&serde_json::from_value(body).unwrap());
        answer.map_or_else(str::to_owned, |answer| answer["result"].as_str().unwrap().to_owned())
    }

    #[test]
    fn whoever_has_our_kind_of_password_is_let_in_as_what_it_is() {
        let device = login("cam_1", &device_password("devices", "cam_1"));
        assert_eq!(
            device,
            json!({"result": "allow", "is_superuser": false,
                   "client_attrs": {"role": "device", "id": "cam_1"}})
        );
        let app = mqtt_app("apps", "app_1", u64::MAX);
        let app_in = login(&app.username, &app.password);
        assert_eq!(app_in["client_attrs"], json!({"role": "app", "id": "app_1"}));
        let service = login("service", "pw");
        assert_eq!((&service["result"], &service["is_superuser"]), (&json!("allow"), &json!(true)));
        assert_eq!(login("admin", "root")["is_superuser"], true);
        let expired = mqtt_app("apps", "app_1", 1);
        for (user, password) in [
            ("cam_1", "wrong"),
            ("service", "wrong"),
            ("service", ""),
            (&expired.username, &expired.password),
            // A device by that name would be taken for an application.
            ("1:app_1", &device_password("devices", "1:app_1")),
        ] {
            assert_eq!(login(user, password), json!({"result": "deny"}), "{user}");
        }
        let nobody = serde_json::from_value(json!({"clientid": "c"})).unwrap();
        assert_eq!(on_login(&nobody)["result"], "deny");
    }

    #[test]
    fn the_rules_are_those_of_our_own_broker() {
        for (user, does, topic, retain, expected) in [
            ("cam_1", "subscribe", "p2p/signal/device/cam_1", "", "allow"),
            ("cam_1", "subscribe", "p2p/signal/device/cam_2", "", "deny"),
            ("cam_1", "subscribe", "#", "", "deny"),
            ("cam_1", "publish", "p2p/status/device/cam_1", "true", "allow"),
            ("cam_1", "publish", "p2p/signal/app/app_1", "false", "allow"),
            ("cam_1", "publish", "p2p/signal/app/app_1", "true", "deny"),
            ("9:app_1", "subscribe", "p2p/signal/app/app_1", "", "allow"),
            ("9:app_1", "subscribe", "p2p/signal/app/app_2", "", "deny"),
            ("9:app_1", "subscribe", "p2p/status/device/cam_1", "", "allow"),
            ("9:app_1", "subscribe", "p2p/status/device/+", "", "deny"),
            ("9:app_1", "subscribe", "$share/g/p2p/signal/server", "", "deny"),
            ("9:app_1", "publish", "p2p/signal/device/cam_1", "false", "allow"),
            ("9:app_1", "publish", "p2p/signal/server", "false", "allow"),
            ("9:app_1", "publish", "p2p/signal/app/app_1", "false", "deny"),
            ("server", "subscribe", "p2p/signal/device/server", "", "deny"),
        ] {
            let body = json!({"username": user, "action": does, "topic": topic, "retain": retain,
                              "role": "undefined", "id": ""});
            assert_eq!(action(body), expected, "{user} {does} {topic} {retain}");
        }
    }

    #[test]
    fn what_the_login_said_goes_before_the_name() {
        let body = |role: &str| {
            json!({"username": "cam_1", "action": "subscribe", "topic": "p2p/signal/app/x",
                   "role": role, "id": "x"})
        };
        assert_eq!(action(body("app")), "allow");
        for role in ["device", "service", "admin", "App", ""] {
            assert_eq!(action(body(role)), "deny", "{role}");
        }
    }

    #[test]
    fn a_question_that_lacks_something_is_not_answered() {
        let body = json!({"username": "cam_1", "action": "publish", "topic": "p2p/signal/server"});
        assert!(action(body).contains("retain"));
        let body = json!({"username": "cam_1", "action": "read", "topic": "x"});
        assert!(action(body).contains("action"));
    }
}
