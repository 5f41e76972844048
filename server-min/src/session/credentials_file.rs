//! Users in a file: one a line, as `role id hash`, and topics beyond those of the role behind it.
//!
//! ```text
//! # role  id        password                      more topics
//! admin   anna      $pbkdf2-sha256$i=100000$…
//! app     wall      $pbkdf2-sha256$i=100000$…     read:p2p/status/device/+
//! device  cam_9     !
//! ```
//!
//! `!` in the place of a hash locks the name: nobody signs in under it, by whatever means. That is
//! how one camera is shut out while all share a secret or an authority.
//!
//! A hash is slow to check, so that is done on a thread of its own, and once: whoever has proved a
//! password is known by a fast MAC of it from then on, until the file is read again.

use super::passwords::PasswordHash;
use crate::mqtt::{Identity, Role, topic};
use ring::hmac;
use ring::rand::SystemRandom;
use sdk_core::wire::signal::is_valid_id;
use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use tokio::sync::oneshot;

/// Checks that may wait. Past that, sign-ins are refused as "try again", until some are done.
const CHECKS_WAITING: usize = 256;
const LOCKED: &str = "!";

/// The file as it was last read, and who has proved a password since.
pub struct CredentialsFile {
    path: PathBuf,
    known: Rc<RefCell<Known>>,
    checks: SyncSender<Check>,
}

struct Known {
    users: HashMap<Box<str>, User>,
    proven: HashMap<Box<str>, hmac::Tag>,
    /// Of this process alone; what is signed with it is written nowhere.
    key: hmac::Key,
    /// How often the file was read: what was checked against an older one proves nothing.
    edition: u64,
}

struct User {
    role: Role,
    hash: Option<Arc<PasswordHash>>,
    reads: Vec<Box<str>>,
    writes: Vec<Box<str>>,
}

struct Check {
    hash: Arc<PasswordHash>,
    password: Vec<u8>,
    answer: oneshot::Sender<bool>,
}

/// What the file says of a name and a password.
pub enum Found {
    Nobody,
    Known {
        role: Role,
        is_right: bool,
    },
    /// To be told by [`Pending::outcome`].
    Later(Pending),
    /// Too many checks wait already.
    Busy,
}

/// A check on its way.
pub struct Pending {
    pub role: Role,
    user: Box<str>,
    tag: hmac::Tag,
    edition: u64,
    known: Rc<RefCell<Known>>,
    answer: oneshot::Receiver<bool>,
}

impl CredentialsFile {
    /// Reads the file and starts the thread that checks. Errors name the line.
    pub fn open(path: &Path) -> io::Result<CredentialsFile> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())
            .map_err(|_| io::Error::other("the system gives no randomness"))?;
        let users = read(path).map_err(io::Error::other)?;
        let (checks, waiting) = sync_channel(CHECKS_WAITING);
        // It ends when the sender is dropped.
        std::thread::Builder::new().name("passwords".into()).spawn(move || check_all(&waiting))?;
        let known = Known { users, proven: HashMap::new(), key, edition: 0 };
        Ok(CredentialsFile { path: path.to_owned(), known: Rc::new(RefCell::new(known)), checks })
    }

    /// Reads the file again. Where it is not good, what was read before stays in use. Who is
    /// connected stays so.
    pub fn reload(&self) -> Result<(), String> {
        let users = read(&self.path)?;
        let mut known = self.known.borrow_mut();
        known.users = users;
        known.proven.clear();
        known.edition += 1;
        Ok(())
    }

    pub fn is_locked(&self, name: &str) -> bool {
        self.known.borrow().users.get(name).is_some_and(|user| user.hash.is_none())
    }

    pub fn check(&self, name: &str, password: &[u8]) -> Found {
        let known = self.known.borrow();
        let Some((name, User { role, hash: Some(hash), .. })) = known.users.get_key_value(name)
        else {
            return Found::Nobody;
        };
        let role = *role;
        if let Some(proven) = known.proven.get(name) {
            let is_right = hmac::verify(&known.key, password, proven.as_ref()).is_ok();
            return Found::Known { role, is_right };
        }
        let (answer, told) = oneshot::channel();
        let check = Check { hash: hash.clone(), password: password.to_vec(), answer };
        if self.checks.try_send(check).is_err() {
            return Found::Busy;
        }
        Found::Later(Pending {
            role,
            user: name.clone(),
            tag: hmac::sign(&known.key, password),
            edition: known.edition,
            known: self.known.clone(),
            answer: told,
        })
    }

    /// Whether the file lets `who` subscribe to `filter`, beyond what its role may.
    pub fn may_read(&self, who: &Identity, filter: &str) -> bool {
        self.grants(who, filter, |user| &user.reads)
    }

    /// Whether the file lets `who` publish to `topic`, beyond what its role may.
    pub fn may_write(&self, who: &Identity, topic: &str) -> bool {
        self.grants(who, topic, |user| &user.writes)
    }

    fn grants(&self, who: &Identity, asked: &str, which: impl Fn(&User) -> &Vec<Box<str>>) -> bool {
        let known = self.known.borrow();
        let user = known.users.get(who.id.as_str()).filter(|user| user.role == who.role);
        user.is_some_and(|user| which(user).iter().any(|granted| topic::covers(granted, asked)))
    }
}

impl Pending {
    /// Whether the password is right; `None` where nobody could say.
    pub async fn outcome(self) -> Option<bool> {
        let is_right = self.answer.await.ok()?;
        let mut known = self.known.borrow_mut();
        if is_right && known.edition == self.edition {
            known.proven.insert(self.user, self.tag);
        }
        Some(is_right)
    }
}

fn check_all(waiting: &Receiver<Check>) {
    while let Ok(Check { hash, password, answer }) = waiting.recv() {
        // Whoever has hung up meanwhile need not be checked.
        if !answer.is_closed() {
            let _ = answer.send(hash.matches(&password));
        }
    }
}

fn read(path: &Path) -> Result<HashMap<Box<str>, User>, String> {
    let text = std::fs::read_to_string(path)
        .map_err(|e| format!("mqtt.credentials_file {}: {e}", path.display()))?;
    let mut users = HashMap::new();
    for (index, line) in text.lines().enumerate() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if words.first().is_none_or(|word| word.starts_with('#')) {
            continue;
        }
        let added = user(&words).and_then(|(id, user)| match users.insert(id.into(), user) {
            None => Ok(()),
            Some(_) => Err(format!("{id} stands here for the second time")),
        });
        added.map_err(|e| {
            format!("mqtt.credentials_file {} line {}: {e}", path.display(), index + 1)
        })?;
    }
    Ok(users)
}

/// What is wrong with one line, if anything.
pub fn check_line(line: &str) -> Result<(), String> {
    user(&line.split_whitespace().collect::<Vec<_>>()).map(drop)
}

fn user<'a>(words: &[&'a str]) -> Result<(&'a str, User), String> {
    let [role, id, hash, topics @ ..] = words else {
        return Err("expected: role id hash".into());
    };
    let role = Role::from_name(role)
        .ok_or_else(|| format!("{role:?} is no role; expected device, app, service or admin"))?;
    if !is_valid_id(id) {
        return Err(format!("{id:?}: expected 1 to 64 letters, digits or -_.:"));
    }
    let hash = match *hash {
        LOCKED => None,
        hash => Some(Arc::new(PasswordHash::parse(hash)?)),
    };
    let mut user = User { role, hash, reads: Vec::new(), writes: Vec::new() };
    for grant in topics {
        let (list, filter) = match grant.split_once(':') {
            Some(("read", filter)) => (&mut user.reads, filter),
            Some(("write", filter)) => (&mut user.writes, filter),
            _ => return Err(format!("{grant:?}: expected read:TOPIC or write:TOPIC")),
        };
        if !topic::is_valid_filter(filter) {
            return Err(format!("{grant:?}: not a topic filter as MQTT has them"));
        }
        list.push(filter.into());
    }
    Ok((id, user))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str =
        "$pbkdf2-sha256$i=1000$MDEyMzQ1Njc4OWFiY2RlZg$raqTeJSO55miHkKDFVsJ6UsGdazOV76yFUX5PzpHPNA";

    struct File(PathBuf);

    impl File {
        fn new(name: &str, text: &str) -> File {
            let name = format!("p2pcam-credentials-{}-{name}", std::process::id());
            let file = File(std::env::temp_dir().join(name));
            file.write(text);
            file
        }

        fn write(&self, text: &str) {
            std::fs::write(&self.0, text.replace("HASH", HASH)).unwrap();
        }
    }

    impl Drop for File {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    async fn later(found: Found) -> Option<bool> {
        match found {
            Found::Later(pending) => pending.outcome().await,
            _ => panic!("expected a check on the thread"),
        }
    }

    fn is_known(found: &Found, expected: bool) -> bool {
        matches!(found, Found::Known { role: Role::Device, is_right } if *is_right == expected)
    }

    #[tokio::test]
    async fn a_password_is_proved_once_and_again_after_the_file_was_read_again() {
        let file = File::new("prove", "# users\n\ndevice cam_1 HASH\ndevice cam_9 !\n");
        let users = CredentialsFile::open(&file.0).unwrap();
        assert_eq!(later(users.check("cam_1", b"wrong")).await, Some(false));
        assert_eq!(later(users.check("cam_1", b"north")).await, Some(true));
        assert!(is_known(&users.check("cam_1", b"north"), true));
        assert!(is_known(&users.check("cam_1", b"wrong"), false));
        assert!(matches!(users.check("cam_2", b"north"), Found::Nobody));
        assert!(matches!(users.check("cam_9", b"north"), Found::Nobody));
        assert!(users.is_locked("cam_9") && !users.is_locked("cam_1") && !users.is_locked("cam_2"));

        // What began before the file was read again proves nothing after it.
        let begun = users.check("cam_1", b"north");
        assert!(is_known(&begun, true));
        users.known.borrow_mut().proven.clear();
        let begun = users.check("cam_1", b"north");
        file.write("device cam_1 !\n");
        users.reload().unwrap();
        assert_eq!(later(begun).await, Some(true));
        assert!(users.known.borrow().proven.is_empty());
        assert!(matches!(users.check("cam_1", b"north"), Found::Nobody));
        file.write("nonsense\n");
        assert!(users.reload().unwrap_err().contains("line 1: expected: role id hash"));
        assert!(users.is_locked("cam_1"));
    }

    #[tokio::test]
    async fn checks_that_wait_are_bounded() {
        let slow = HASH.replace("i=1000", "i=2000000");
        let file = File::new("busy", &format!("device cam_1 {slow}\n"));
        let users = CredentialsFile::open(&file.0).unwrap();
        let mut waiting = Vec::new();
        let busy = (0..2 * CHECKS_WAITING).any(|_| match users.check("cam_1", b"north") {
            Found::Busy => true,
            found => {
                waiting.push(found);
                false
            }
        });
        assert!(busy && waiting.len() >= CHECKS_WAITING);
    }

    #[test]
    fn topics_beyond_the_role_are_for_that_role_and_name() {
        let line = "app wall HASH read:p2p/status/device/+ write:display/#\n";
        let file = File::new("topics", line);
        let users = CredentialsFile::open(&file.0).unwrap();
        let who = |role, id: &str| Identity { role, id: id.into() };
        let wall = who(Role::App, "wall");
        for filter in ["p2p/status/device/+", "p2p/status/device/cam_1"] {
            assert!(users.may_read(&wall, filter) && !users.may_write(&wall, filter), "{filter}");
        }
        for filter in ["p2p/status/device/#", "p2p/status/+/+", "#", "display/1"] {
            assert!(!users.may_read(&wall, filter), "{filter}");
        }
        assert!(users.may_write(&wall, "display/1/2"));
        assert!(!users.may_write(&who(Role::Device, "wall"), "display/1"));
        assert!(!users.may_write(&who(Role::App, "other"), "display/1"));
    }

    #[test]
    fn mistakes_are_named_by_line_and_hashes_are_not_repeated() {
        for (line, expected) in [
            ("device cam_1", "expected: role id hash"),
            ("camera cam_1 HASH", "\"camera\" is no role"),
            ("device cam/1 HASH", "\"cam/1\": expected 1 to 64"),
            ("device cam_1 secret-in-clear", "expected $pbkdf2-sha256$"),
            ("app a HASH read", "expected read:TOPIC"),
            ("app a HASH read:a/#/b", "not a topic filter"),
            ("device cam_2 HASH\napp cam_2 HASH", "line 3: cam_2 stands here for the second time"),
        ] {
            let file = File::new("mistakes", &format!("# first\n{line}\n"));
            let text = CredentialsFile::open(&file.0).err().unwrap().to_string();
            assert!(text.contains(expected) && text.contains("line"), "{text}");
            assert!(!text.contains("MDEy") && !text.contains("in-clear"), "{text}");
        }
    }
}
