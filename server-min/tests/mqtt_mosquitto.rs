//! The broker against mosquitto's own clients, in both protocol versions.

#![allow(clippy::unwrap_used, reason = "clippy sees tests only in functions marked as such")]

mod mqtt_support;

use mqtt_support::{Listener, Rig, mosquitto, run, with_broker};
use server_min::mqtt::BrokerConfig;

const VERSIONS: [&str; 2] = ["mqttv311", "mqttv5"];

async fn publish(rig: &Rig, user: &str, arguments: &[&str]) -> mqtt_support::Finished {
    run(mosquitto(rig, "mosquitto_pub", user, arguments)).await
}

#[tokio::test]
async fn every_qos_is_taken_and_delivered_as_at_most_1() {
    with_broker(BrokerConfig::default(), |rig| async move {
        for version in VERSIONS {
            for qos in ["0", "1", "2"] {
                let mut listener = Listener::start(
                    &rig,
                    "admin:a",
                    "%q %t %p",
                    &["-V", version, "-q", qos, "-t", "x/+"],
                )
                .await;
                for sent in ["0", "1", "2"] {
                    let arguments = ["-V", version, "-q", sent, "-t", "x/y", "-m", "hello"];
                    let done = publish(&rig, "admin:b", &arguments).await;
                    assert_eq!((done.code, done.text.as_str()), (Some(0), ""));
                    let expected = sent.min(qos).min("1");
                    assert_eq!(
                        listener.message().await,
                        format!("{expected} x/y hello"),
                        "{version} {qos} {sent}"
                    );
                }
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_device_and_an_app_signal_to_each_other() {
    with_broker(BrokerConfig::default(), |rig| async move {
        for version in VERSIONS {
            let to_device = "p2p/signal/device/cam1";
            let to_app = "p2p/signal/app/a1";
            let mut device = Listener::start(
                &rig,
                "device:cam1",
                "%p",
                &["-V", version, "-q", "1", "-t", to_device],
            )
            .await;
            let mut app =
                Listener::start(&rig, "app:a1", "%p", &["-V", version, "-q", "1", "-t", to_app])
                    .await;
            let offer = ["-V", version, "-q", "1", "-t", to_device, "-m", "offer"];
            assert_eq!(publish(&rig, "app:a1", &offer).await.code, Some(0));
            assert_eq!(device.message().await, "offer");
            let answer = ["-V", version, "-q", "1", "-t", to_app, "-m", "answer"];
            assert_eq!(publish(&rig, "device:cam1", &answer).await.code, Some(0));
            assert_eq!(app.message().await, "answer");
        }
    })
    .await;
}

#[tokio::test]
async fn a_retained_status_waits_for_whoever_comes_and_can_be_removed() {
    with_broker(BrokerConfig::default(), |rig| async move {
        for version in VERSIONS {
            let topic = "p2p/status/device/cam1";
            let online = ["-V", version, "-q", "1", "-r", "-t", topic, "-m", "online"];
            assert_eq!(publish(&rig, "device:cam1", &online).await.code, Some(0));
            let mut first =
                Listener::start(&rig, "app:a", "%r %p", &["-V", version, "-t", topic]).await;
            assert_eq!(first.message().await, "1 online");
            assert_eq!(publish(&rig, "device:cam1", &online).await.code, Some(0));
            assert_eq!(
                first.message().await,
                "0 online",
                "to a listener it is an ordinary message"
            );

            assert_eq!(
                publish(&rig, "device:cam1", &["-V", version, "-r", "-n", "-t", topic]).await.code,
                Some(0)
            );
            assert_eq!(first.message().await, "0 ");
            let mut late =
                Listener::start(&rig, "app:b", "%r %p", &["-V", version, "-t", topic]).await;
            let fresh = ["-V", version, "-t", topic, "-m", "fresh"];
            assert_eq!(publish(&rig, "device:cam1", &fresh).await.code, Some(0));
            assert_eq!(late.message().await, "0 fresh");
        }
    })
    .await;
}

#[tokio::test]
async fn a_will_is_said_for_a_client_that_is_lost_and_only_then() {
    with_broker(BrokerConfig::default(), |rig| async move {
        for version in VERSIONS {
            let topic = "p2p/status/device/cam1";
            let will = [
                "--will-topic",
                topic,
                "--will-payload",
                "offline",
                "--will-qos",
                "1",
                "--will-retain",
            ];
            let mut watcher =
                Listener::start(&rig, "app:a", "%r %p", &["-V", version, "-t", topic]).await;

            let polite = ["-V", version, "-t", "p2p/signal/server", "-m", "x"];
            assert_eq!(
                publish(&rig, "device:cam1", &[&polite[..], &will[..]].concat()).await.code,
                Some(0)
            );
            let marker = ["-V", version, "-t", topic, "-m", "marker"];
            assert_eq!(publish(&rig, "device:cam1", &marker).await.code, Some(0));
            assert_eq!(watcher.message().await, "0 marker");

            let own = ["-V", version, "-t", "p2p/signal/device/cam1"];
            let device =
                Listener::start(&rig, "device:cam1", "%p", &[&own[..], &will[..]].concat()).await;
            device.kill().await;
            assert_eq!(watcher.message().await, "0 offline");
            let mut late =
                Listener::start(&rig, "app:b", "%r %p", &["-V", version, "-t", topic]).await;
            assert_eq!(late.message().await, "1 offline");
            assert_eq!(
                publish(&rig, "device:cam1", &["-V", version, "-r", "-n", "-t", topic]).await.code,
                Some(0)
            );

            let elsewhere = ["--will-topic", "p2p/status/device/cam2", "--will-payload", "offline"];
            let refused =
                publish(&rig, "device:cam1", &[&polite[..], &elsewhere[..]].concat()).await;
            assert_ne!(refused.code, Some(0), "a will elsewhere is refused");
        }
    })
    .await;
}

#[tokio::test]
async fn foreign_topics_and_wildcards_are_refused() {
    with_broker(BrokerConfig::default(), |rig| async move {
        for version in VERSIONS {
            for filter in [
                "#",
                "p2p/#",
                "p2p/status/device/+",
                "p2p/signal/app/other",
                "p2p/status/device/secret",
            ] {
                let mut command =
                    mosquitto(&rig, "mosquitto_sub", "app:a", &["-V", version, "-W", "5", "-t"]);
                command.arg(filter);
                let done = run(command).await;
                assert!(
                    done.text.contains("All subscription requests were denied"),
                    "{filter}: {}",
                    done.text
                );
            }
            for topic in ["p2p/signal/app/other", "p2p/status/device/cam1", "anything"] {
                let mut spy = Listener::start(
                    &rig,
                    "admin:spy",
                    "%t",
                    &["-V", version, "-q", "1", "-t", "#"],
                )
                .await;
                let done =
                    publish(&rig, "app:a", &["-V", version, "-q", "1", "-t", topic, "-m", "x"])
                        .await;
                // 3.1.1 cannot say no: acknowledged and dropped.
                assert_eq!(
                    done.text.contains("Not authorized"),
                    version == "mqttv5",
                    "{}",
                    done.text
                );
                let marker = ["-V", version, "-q", "1", "-t", "marker", "-m", "x"];
                assert_eq!(publish(&rig, "admin:b", &marker).await.code, Some(0));
                assert_eq!(spy.message().await, "marker");
            }
        }
        assert!(rig.broker.stats().access_denied_total >= 16);
    })
    .await;
}

#[tokio::test]
async fn the_content_of_a_message_may_be_refused() {
    with_broker(BrokerConfig::default(), |rig| async move {
        let arguments = ["-V", "mqttv5", "-q", "1", "-t", "p2p/signal/server", "-m"];
        let done = publish(&rig, "app:a", &[&arguments[..], &["forbidden"]].concat()).await;
        assert!(done.text.contains("Not authorized"), "{}", done.text);
        let done = publish(&rig, "app:a", &[&arguments[..], &["allowed"]].concat()).await;
        assert!(!done.text.contains("Not authorized"), "{}", done.text);
    })
    .await;
}

#[tokio::test]
async fn a_wrong_password_is_refused() {
    with_broker(BrokerConfig::default(), |rig| async move {
        for version in VERSIONS {
            let mut command =
                mosquitto(&rig, "mosquitto_pub", "app:a", &["-V", version, "-t", "x", "-m", "x"]);
            command.args(["-P", "wrong"]);
            let done = run(command).await;
            assert_ne!(done.code, Some(0));
            assert!(
                done.text.to_lowercase().contains("bad user name or password"),
                "{}",
                done.text
            );
        }
        assert_eq!(rig.broker.stats().logins_refused_total, 2);
    })
    .await;
}

#[tokio::test]
async fn a_persistent_session_keeps_qos_1_while_its_client_is_away() {
    with_broker(BrokerConfig::default(), |rig| async move {
        for version in VERSIONS {
            let session =
                ["-V", version, "-c", "-i", "keeper", "-q", "1", "-t", "p2p/signal/device/cam1"];
            let session = match version {
                "mqttv5" => [&session[..], &["-x", "600"]].concat(),
                _ => session.to_vec(),
            };
            let listener = Listener::start(&rig, "device:cam1", "%p", &session).await;
            listener.kill().await;
            for n in 0..5 {
                let payload = n.to_string();
                let arguments =
                    ["-V", version, "-q", "1", "-t", "p2p/signal/device/cam1", "-m", &payload];
                assert_eq!(publish(&rig, "app:a", &arguments).await.code, Some(0));
            }
            let mut listener = Listener::start(&rig, "device:cam1", "%p", &session).await;
            for n in 0..5 {
                assert_eq!(listener.message().await, n.to_string(), "{version}");
            }
            listener.kill().await;
        }
    })
    .await;
}

#[tokio::test]
async fn mqtt_5_properties_travel_with_the_message() {
    with_broker(BrokerConfig::default(), |rig| async move {
        let mut listener =
            Listener::start(&rig, "admin:a", "%C|%D|%R|%P|%E|%p", &["-V", "mqttv5", "-t", "x"]).await;
        let properties = "-D publish content-type text/plain -D publish correlation-data c0 -D publish \
                          response-topic back -D publish user-property k v -D publish message-expiry-interval 100";
        let arguments: Vec<&str> = "-V mqttv5 -t x -m hi".split(' ').chain(properties.split_whitespace()).collect();
        assert_eq!(publish(&rig, "admin:b", &arguments).await.code, Some(0));
        let message = listener.message().await;
        let expiry = message.split('|').nth(4).unwrap().parse::<u32>().unwrap();
        assert!((95..=100).contains(&expiry), "{message}");
        assert_eq!(message.replace(&format!("|{expiry}|"), "|E|"), "text/plain|c0|back|k:v|E|hi");

        let arguments = ["-V", "mqttv5", "-q", "1", "-d", "-t", "nobody", "-m", "x"];
        let done = publish(&rig, "admin:b", &arguments).await;
        assert!(done.text.contains("RC:16"), "no matching subscribers: {}", done.text);
    })
    .await;
}

#[tokio::test]
async fn sixty_four_kib_pass_and_a_hundred_do_not() {
    let folder = std::env::temp_dir().join(format!("mqtt-size-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = |len: usize| {
        let path = folder.join(len.to_string());
        std::fs::write(&path, vec![b'x'; len]).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (fits, too_large) = (file(64 * 1024), file(100 * 1024));
    with_broker(BrokerConfig::default(), |rig| async move {
        for version in VERSIONS {
            let mut listener =
                Listener::start(&rig, "admin:a", "%l", &["-V", version, "-q", "1", "-t", "x"])
                    .await;
            let done =
                publish(&rig, "admin:b", &["-V", version, "-q", "1", "-t", "x", "-f", &fits]).await;
            assert_eq!((done.code, done.text.as_str()), (Some(0), ""));
            assert_eq!(listener.message().await, "65536");
            let arguments = ["-V", version, "-q", "1", "-t", "x", "-f", &too_large];
            let mut child =
                mosquitto(&rig, "mosquitto_pub", "admin:b", &arguments).spawn().unwrap();
            // It tries again and again, or gives up, by its version.
            let _ = tokio::time::timeout(std::time::Duration::from_secs(2), child.wait()).await;
            child.kill().await.unwrap();
            let marker = ["-V", version, "-q", "1", "-t", "x", "-m", "12345"];
            assert_eq!(publish(&rig, "admin:c", &marker).await.code, Some(0));
            assert_eq!(listener.message().await, "5");
        }
        assert!(rig.broker.stats().protocol_errors_total >= 1);
    })
    .await;
    std::fs::remove_dir_all(folder).unwrap();
}
