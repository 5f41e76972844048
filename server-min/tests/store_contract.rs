//! What every session store must do, in virtual time: memory and a real Redis.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod redis_support;

use redis_support::{Redis, listen, record, run, until};
use sdk_core::wire::signal::{Path, SessionId, SessionState};
use server_min::session::closing::{By, Bye, Closing};
use server_min::session::record::SESSION_TTL_S;
use server_min::session::{
    Change, Counts, MemoryStore, SessionRecord, SessionStore, StoreError, Wanted,
};
use std::rc::Rc;

const MINUTE_MS: u64 = 60_000;
const IDLE_MS: u64 = 5 * MINUTE_MS;
const MAX: usize = 2;
const CONNECTED: Change =
    Change { state: Some(SessionState::Connected), path: None, setup_ms: None };

/// Runs `test` with each store, empty, that holds two sessions.
fn with_each<F: Future<Output = ()>>(test: impl Fn(Rc<dyn SessionStore>) -> F) {
    run(async {
        test(Rc::new(MemoryStore::new(MAX))).await;
        let redis = Redis::start();
        test(Rc::new(redis_support::store(&redis, MAX).await)).await;
    });
}

fn id(n: u8) -> SessionId {
    SessionId::from_random([n; 16])
}

fn closing(n: u8) -> Closing {
    Closing {
        reason: format!("said {n}: \"ende\""),
        bye: Bye::Online,
        ..redis_support::closing(&record(n, 0))
    }
}

async fn create(store: &dyn SessionStore, n: u8, now_ms: u64) -> SessionRecord {
    let record = record(n, now_ms);
    store.create(record.clone(), now_ms).await.unwrap();
    record
}

#[test]
fn what_was_created_is_there_as_it_was() {
    with_each(|store| async move {
        assert_eq!(store.ready(), Ok(()));
        assert_eq!(store.get(id(1), 5).await, Ok(None));
        let made = create(&*store, 1, 5).await;
        assert_eq!(store.get(id(1), 6).await, Ok(Some(made.clone())));
        assert_eq!(store.create(record(1, 7), 7).await, Err(StoreError::Exists));
        // What is found of a session that has expired is nothing.
        assert_eq!(store.get(id(1), 5 + SESSION_TTL_S * 1000).await, Ok(None));
        assert_eq!(store.update(&made, CONNECTED, 5 + SESSION_TTL_S * 1000).await, Ok(None));
        assert_eq!(store.update(&record(2, 0), CONNECTED, 6).await, Ok(None));
    });
}

#[test]
fn a_full_store_refuses_but_closed_sessions_make_room() {
    with_each(|store| async move {
        let one = create(&*store, 1, 0).await;
        create(&*store, 2, 0).await;
        assert_eq!(store.create(record(3, 0), 0).await, Err(StoreError::Full { max: MAX }));
        assert_eq!(store.get(id(3), 0).await, Ok(None));
        assert!(store.close(&one, closing(1), 1).await.unwrap().is_some());
        create(&*store, 3, 2).await;
        assert_eq!(store.create(record(4, 2), 2).await, Err(StoreError::Full { max: MAX }));
    });
}

#[test]
fn a_session_is_closed_once_and_stays_closed() {
    with_each(|store| async move {
        let heard = listen(&*store);
        let one = create(&*store, 1, 0).await;
        assert_eq!(store.close(&one, closing(1), 10).await, Ok(Some(one.clone())));
        assert_eq!(store.close(&one, closing(2), 11).await, Ok(None));
        assert_eq!(store.update(&one, CONNECTED, 12).await, Ok(None));
        assert_eq!(store.close(&record(2, 0), closing(2), 12).await, Ok(None));
        let after = store.get(id(1), 12).await.unwrap().unwrap();
        let closed = SessionRecord {
            status: SessionState::Closed,
            turn_allocation: None,
            updated_at: 10,
            ..one
        };
        assert_eq!(after, closed);
        assert_eq!(store.close(&after, closing(1), 13).await, Ok(None));
        until("the closing is heard", async || !heard.borrow().is_empty()).await;
        assert_eq!(*heard.borrow(), [(closing(1), By::ThisNode)]);
    });
}

#[test]
fn of_many_who_close_at_once_one_did() {
    with_each(|store| async move {
        let heard = listen(&*store);
        let one = create(&*store, 1, 0).await;
        // Others change it meanwhile, so that nobody finds it as it knows it.
        let reports = (0..3).map(|n| store.update(&one, CONNECTED, n));
        let closings = (0..20).map(|n| store.close(&one, closing(n), 5));
        let (reports, closings) = tokio::join!(
            futures_util::future::join_all(reports),
            futures_util::future::join_all(closings)
        );
        let won: Vec<u8> =
            (0..).zip(closings).filter_map(|(n, won)| won.unwrap().map(|_| n)).collect();
        assert_eq!(won.len(), 1, "{won:?}");
        // Exactly one of the reports, at most, found it connecting and open.
        let first = reports.into_iter().filter_map(|updated| updated.unwrap());
        let first = first.filter(|updated| updated.before.status != updated.after.status);
        assert!(first.count() <= 1);
        until("the closing is heard", async || !heard.borrow().is_empty()).await;
        assert_eq!(*heard.borrow(), [(closing(won[0]), By::ThisNode)]);
        let record = store.get(id(1), 6).await.unwrap().unwrap();
        assert_eq!((record.status, record.updated_at), (SessionState::Closed, 5));
    });
}

#[test]
fn what_is_known_may_be_old() {
    with_each(|store| async move {
        let known = create(&*store, 1, 0).await;
        let first = store.update(&known, CONNECTED, 5).await.unwrap().unwrap();
        assert_eq!((&first.before, first.after.status), (&known, SessionState::Connected));
        let path = Change { path: Some(Path::Relay), ..Change::default() };
        let second = store.update(&known, path, 7).await.unwrap().unwrap();
        assert_eq!(second.before, first.after);
        assert_eq!(
            second.after,
            SessionRecord { path: Some(Path::Relay), updated_at: 7, ..first.after }
        );
        assert_eq!(store.get(id(1), 8).await, Ok(Some(second.after)));
    });
}

/// The device ids of a page.
fn devices(listed: &server_min::session::Listed) -> Vec<&str> {
    listed.sessions.iter().map(|record| record.device_id.as_str()).collect()
}

#[test]
fn open_sessions_are_listed_a_page_at_a_time() {
    const ALL: usize = 450;
    run(async {
        let redis = Redis::start();
        let stores: [Rc<dyn SessionStore>; 2] =
            [Rc::new(MemoryStore::new(ALL)), Rc::new(redis_support::store(&redis, ALL).await)];
        for store in stores {
            let none = store.list(&Wanted { limit: 10, ..Wanted::default() }, 0).await.unwrap();
            assert_eq!((none.sessions.len(), none.next, none.open), (0, None, 0));
            for n in 0..ALL {
                let record = SessionRecord {
                    session_id: SessionId::from_random((n as u128).to_be_bytes()).to_string(),
                    device_id: format!("cam_{n:03}"),
                    // Many in the same millisecond.
                    ..record(0, n as u64 / 100)
                };
                store.create(record.clone(), 0).await.unwrap();
                if n % 2 == 0 {
                    store.update(&record, CONNECTED, record.updated_at).await.unwrap().unwrap();
                }
            }
            // Everything once, whoever was heard of last first, no page above the bound.
            let mut wanted = Wanted { limit: usize::MAX, ..Wanted::default() };
            let mut seen: Vec<String> = Vec::new();
            let mut sizes = Vec::new();
            loop {
                let page = store.list(&wanted, 10).await.unwrap();
                assert_eq!(page.open, ALL);
                sizes.push(page.sessions.len());
                seen.extend(page.sessions.iter().map(|r| r.device_id.clone()));
                let in_order = page.sessions.is_sorted_by(|a, b| {
                    (a.updated_at, &a.session_id) > (b.updated_at, &b.session_id)
                });
                assert!(in_order);
                wanted.after = page.next;
                if page.next.is_none() {
                    break;
                }
            }
            assert_eq!(sizes, [200, 200, 50]);
            seen.sort();
            seen.dedup();
            assert_eq!(seen.len(), ALL);
            // One of them, by a part of what it is called.
            let one = Wanted { limit: 5, text: "m_123".into(), ..Wanted::default() };
            let page = store.list(&one, 10).await.unwrap();
            assert_eq!((devices(&page), page.next, page.open), (vec!["cam_123"], None, ALL));
            let by_id = Wanted { text: page.sessions[0].session_id[20..].into(), ..one.clone() };
            assert_eq!(devices(&store.list(&by_id, 10).await.unwrap()), ["cam_123"]);
            // By state, with a page that ends and goes on.
            let connected = Wanted {
                limit: 3,
                text: "cam_00".into(),
                state: Some(SessionState::Connected),
                ..Wanted::default()
            };
            let page = store.list(&connected, 10).await.unwrap();
            assert_eq!(devices(&page), ["cam_008", "cam_006", "cam_004"]);
            let next = Wanted { after: page.next, ..connected };
            let page = store.list(&next, 10).await.unwrap();
            assert_eq!((devices(&page), page.next), (vec!["cam_002", "cam_000"], None));
            // Neither what is closed nor what has expired.
            let gone = page.sessions[0].clone();
            store.close(&gone, redis_support::closing(&gone), 10).await.unwrap().unwrap();
            let page = store.list(&next, 10).await.unwrap();
            assert_eq!((devices(&page), page.open), (vec!["cam_000"], ALL - 1));
            let late = SESSION_TTL_S * 1000 + 3;
            let left = store.list(&Wanted { limit: 200, ..Wanted::default() }, late).await.unwrap();
            assert_eq!((left.sessions.len(), left.next), (50, None), "the others have expired");
        }
    });
}

#[test]
fn watchers_see_each_change() {
    with_each(|store| async move {
        assert!(store.watch(id(1)).await.unwrap().is_none());
        let one = create(&*store, 1, 0).await;
        let mut updates = store.watch(id(1)).await.unwrap().unwrap();
        let mut second = store.watch(id(1)).await.unwrap().unwrap();
        assert_eq!(*updates.borrow_and_update(), one);
        let connected = Change {
            state: Some(SessionState::Connected),
            path: Some(Path::Prflx),
            setup_ms: Some(120),
        };
        let updated = store.update(&one, connected, 7).await.unwrap().unwrap();
        for watcher in [&mut updates, &mut second] {
            watcher.changed().await.unwrap();
            let seen = watcher.borrow_and_update().clone();
            assert_eq!(seen, updated.after);
            assert_eq!((seen.status, seen.path), (SessionState::Connected, Some(Path::Prflx)));
            assert_eq!(seen.updated_at, 7);
        }
        // What is relayed for one side is relayed, and the other may not know.
        for (said, kept) in
            [(Path::Host, Path::Prflx), (Path::Relay, Path::Relay), (Path::Prflx, Path::Relay)]
        {
            let change = Change { path: Some(said), ..Change::default() };
            let updated = store.update(&one, change, 7).await.unwrap().unwrap();
            assert_eq!(updated.after.path, Some(kept));
        }
        // A late `connecting` of the other side does not take the connection back.
        let late = Change { state: Some(SessionState::Connecting), ..Change::default() };
        let updated = store.update(&one, late, 8).await.unwrap().unwrap();
        assert_eq!(updated.after.status, SessionState::Connected);
        assert!(store.close(&one, closing(1), 9).await.unwrap().is_some());
        updates.wait_for(SessionRecord::is_closed).await.unwrap();
        assert_eq!(Some(updates.borrow().clone()), store.get(id(1), 9).await.unwrap());
    });
}

#[test]
fn stale_and_expired_sessions_are_found() {
    with_each(|store| async move {
        let one = create(&*store, 1, 0).await;
        let two = create(&*store, 2, 0).await;
        store.update(&two, Change::default(), 4 * MINUTE_MS).await.unwrap().unwrap();
        assert!(store.stale(IDLE_MS - 1, IDLE_MS, 9).await.unwrap().is_empty());
        assert_eq!(store.stale(IDLE_MS, IDLE_MS, 9).await, Ok(vec![one.clone()]));
        assert_eq!(store.stale(20 * MINUTE_MS, IDLE_MS, 9).await.unwrap().len(), 2);
        assert_eq!(store.stale(20 * MINUTE_MS, IDLE_MS, 1).await.unwrap().len(), 1);
        assert!(store.close(&one, closing(1), 20 * MINUTE_MS).await.unwrap().is_some());
        assert_eq!(store.stale(20 * MINUTE_MS, IDLE_MS, 9).await.unwrap().len(), 1);
        // One that is reported on to the end is found after it.
        let end_ms = SESSION_TTL_S * 1000;
        store.update(&two, Change::default(), end_ms - 1).await.unwrap().unwrap();
        assert!(store.stale(end_ms - 1, IDLE_MS, 9).await.unwrap().is_empty());
        let found = store.stale(end_ms - 1 + IDLE_MS, IDLE_MS, 9).await.unwrap();
        assert_eq!(found.len(), 1);
        assert!(found[0].is_expired(end_ms) && found[0].session_id == two.session_id);
        assert!(store.close(&found[0], closing(2), end_ms + IDLE_MS).await.unwrap().is_some());
        assert!(store.stale(end_ms + 2 * IDLE_MS, IDLE_MS, 9).await.unwrap().is_empty());
    });
}

#[test]
fn who_sweeps_may_go_on_and_begin_again() {
    with_each(|store| async move {
        for _ in 0..2 {
            assert_eq!(store.begin_sweep().await, Ok(true));
            assert_eq!(store.begin_sweep().await, Ok(true));
            assert_eq!(store.end_sweep().await, Ok(()));
        }
    });
}

#[test]
fn memory_forgets_what_is_closed_and_expired() {
    run(async {
        let store = MemoryStore::new(MAX);
        let one = create(&store, 1, 0).await;
        create(&store, 2, 0).await;
        store.close(&one, closing(1), 1).await.unwrap();
        let mut updates = store.watch(id(1)).await.unwrap().unwrap();
        let end_ms = SESSION_TTL_S * 1000;
        // Expired and open: to be closed, at once, and then forgotten.
        assert_eq!(store.stale(end_ms, u64::MAX, 9).await.unwrap().len(), 1);
        assert_eq!(store.len(), 1);
        updates.mark_unchanged();
        assert!(updates.changed().await.is_err());
    });
}

/// Memory at once; of Redis a node hears within some seconds.
#[test]
fn records_are_counted_by_their_state() {
    with_each(|store| async move {
        let is = async |connecting, connected, closed| {
            let expected = Some(Counts { connecting, connected, closed });
            if store.is_shared() {
                until(&format!("{expected:?}"), async || store.counts() == expected).await;
            }
            assert_eq!(store.counts(), expected);
        };
        is(0, 0, 0).await;
        let first = create(&*store, 1, 0).await;
        let second = create(&*store, 2, 0).await;
        // What both sides report, and once more.
        for _ in 0..3 {
            store.update(&first, CONNECTED, 1).await.unwrap();
            store.update(&first, Change::default(), 1).await.unwrap();
        }
        is(1, 1, 0).await;
        for _ in 0..2 {
            store.close(&second, closing(2), 2).await.unwrap();
        }
        is(0, 1, 1).await;
        assert_eq!(store.update(&second, CONNECTED, 3).await, Ok(None));
        store.close(&first, closing(1), 4).await.unwrap();
        is(0, 0, 2).await;
    });
}

#[test]
fn memory_counts_no_record_that_it_has_forgotten() {
    run(async {
        let store = MemoryStore::new(MAX);
        let counts = || {
            let Counts { connecting, connected, closed } = store.counts().unwrap();
            (connecting, connected, closed)
        };
        let first = create(&store, 1, 0).await;
        let second = create(&store, 2, 0).await;
        store.update(&first, CONNECTED, 1).await.unwrap();
        store.close(&second, closing(2), 2).await.unwrap();
        assert_eq!(counts(), (0, 1, 1));
        // Full: what is closed makes room.
        create(&store, 3, 3).await;
        assert_eq!(counts(), (1, 1, 0));
        store.set_max(MAX + 1);
        create(&store, 4, 3).await;
        store.close(&first, closing(1), 4).await.unwrap();
        store.stale(SESSION_TTL_S * 1000, u64::MAX, 9).await.unwrap();
        assert_eq!(counts(), (2, 0, 0));
    });
}
