//! Reads a description, line by line.

use super::*;

/// Transport attributes, which a section may inherit.
#[derive(Default)]
struct Transport<'a> {
    ice_ufrag: &'a str,
    ice_pwd: &'a str,
    ice_options: Option<IceOptions>,
    setup: Option<Setup>,
    fingerprints: Vec<Fingerprint>,
}

impl<'a> Description<'a> {
    /// Reads an offer or an answer. Attributes it does not know are ignored; the limits are the
    /// constants of [`crate::wire::sdp`].
    pub fn parse(text: &'a str) -> Result<Description<'a>, SdpError> {
        if text.len() > MAX_SDP_LEN {
            return Err(SdpError {
                code: ErrorCode::TooLarge,
                message: format!("the SDP has {} bytes; at most {MAX_SDP_LEN}", text.len()),
            });
        }
        let mut session = Transport::default();
        let mut parsed = Description {
            bundle: Vec::new(),
            ice_lite: false,
            extmap_allow_mixed: false,
            media: Vec::new(),
        };
        let mut saw_version = false;
        for (index, line) in text.lines().enumerate() {
            let line = line.trim_end_matches('\r');
            if line.is_empty() {
                continue;
            }
            let at = |e: SdpError| SdpError {
                message: format!("SDP line {}: {}", index + 1, e.message),
                ..e
            };
            if line.len() > MAX_LINE_LEN {
                return Err(at(SdpError::malformed(format!(
                    "{} bytes; at most {MAX_LINE_LEN}",
                    line.len()
                ))));
            }
            // What is echoed into the answer must not be able to end its line there.
            if line.bytes().any(|c| c < b' ' && c != b'\t') {
                return Err(at(SdpError::malformed("control characters")));
            }
            if !saw_version {
                if line.trim_end() != "v=0" {
                    return Err(at(SdpError::malformed("an SDP begins with `v=0`")));
                }
                saw_version = true;
                continue;
            }
            let Some((kind, value)) = line.split_once('=') else {
                return Err(at(SdpError::malformed("expected `letter=value`")));
            };
            match kind {
                "m" if parsed.media.len() == MAX_SECTIONS => {
                    return Err(at(SdpError::malformed(format!(
                        "more than {MAX_SECTIONS} m-lines"
                    ))));
                }
                "m" => parsed.media.push(media_line(value).map_err(at)?),
                "a" => {
                    let whole = value.trim_end();
                    let (name, value) = whole.split_once(':').unwrap_or((whole, ""));
                    let value = value.trim();
                    if let Some(media) = parsed.media.last_mut() {
                        if name == "extmap-allow-mixed" {
                            parsed.extmap_allow_mixed = true;
                        }
                        if name == "candidate" {
                            bounded(media.candidates.len(), MAX_CANDIDATES, "candidates")
                                .map_err(at)?;
                            media.candidates.push(whole);
                        }
                        media_attribute(media, name, value).map_err(at)?;
                    } else {
                        session_attribute(&mut parsed, &mut session, name, value).map_err(at)?;
                    }
                }
                kind if kind.len() == 1 => {}
                _ => return Err(at(SdpError::malformed("expected `letter=value`"))),
            }
        }
        if !saw_version {
            return Err(SdpError::malformed("the SDP is empty"));
        }
        inherit(&mut parsed, session);
        Ok(parsed)
    }
}

/// The first ICE user name fragment in `sdp`: it changes exactly when ICE restarts (RFC 8839
/// §4.4.1.1.1).
pub fn ice_ufrag(sdp: &str) -> Option<&str> {
    sdp.lines().find_map(|line| line.strip_prefix("a=ice-ufrag:")).map(str::trim)
}

/// Bundled sections without transport attributes have those of the bundle's first section; and
/// whoever still has none, the session's.
fn inherit<'a>(parsed: &mut Description<'a>, session: Transport<'a>) {
    let tagged = parsed.bundle.first().and_then(|tag| {
        let first = parsed.media.iter().find(|m| m.mid == *tag)?;
        Some(Transport {
            ice_ufrag: first.ice_ufrag,
            ice_pwd: first.ice_pwd,
            ice_options: Some(first.ice_options).filter(|o| *o != IceOptions::default()),
            setup: first.setup,
            fingerprints: first.fingerprints.clone(),
        })
    });
    for media in &mut parsed.media {
        let bundled = parsed.bundle.contains(&media.mid);
        for from in tagged.iter().filter(|_| bundled).chain([&session]) {
            if media.ice_ufrag.is_empty() && media.ice_pwd.is_empty() {
                media.ice_ufrag = from.ice_ufrag;
                media.ice_pwd = from.ice_pwd;
            }
            if media.ice_options == IceOptions::default() {
                media.ice_options = from.ice_options.unwrap_or_default();
            }
            media.setup = media.setup.or(from.setup);
            if media.fingerprints.is_empty() {
                media.fingerprints.clone_from(&from.fingerprints);
            }
        }
    }
}

fn session_attribute<'a>(
    parsed: &mut Description<'a>,
    session: &mut Transport<'a>,
    name: &str,
    value: &'a str,
) -> Result<(), SdpError> {
    match name {
        "group" => {
            let mut words = value.split_ascii_whitespace();
            if words.next() == Some("BUNDLE") && parsed.bundle.is_empty() {
                parsed.bundle.extend(words.take(MAX_SECTIONS));
            }
        }
        "ice-lite" => parsed.ice_lite = true,
        "extmap-allow-mixed" => parsed.extmap_allow_mixed = true,
        "ice-ufrag" => session.ice_ufrag = value,
        "ice-pwd" => session.ice_pwd = value,
        "ice-options" => session.ice_options = Some(ice_options(value)),
        "setup" => session.setup = Some(setup(value)?),
        "fingerprint" => add_fingerprint(&mut session.fingerprints, value)?,
        _ => {}
    }
    Ok(())
}

fn media_attribute<'a>(media: &mut Media<'a>, name: &str, value: &'a str) -> Result<(), SdpError> {
    match name {
        "mid" => media.mid = value,
        "bundle-only" => media.bundle_only = true,
        "sendrecv" => media.direction = Direction::SendRecv,
        "sendonly" => media.direction = Direction::SendOnly,
        "recvonly" => media.direction = Direction::RecvOnly,
        "inactive" => media.direction = Direction::Inactive,
        // A DataChannel or RTP section of an older sender may say it with a value; the name is all.
        "rtcp-mux" | "rtcp-mux-only" => media.rtcp_mux = true,
        "rtcp-rsize" => media.rtcp_rsize = true,
        "ice-ufrag" => media.ice_ufrag = value,
        "ice-pwd" => media.ice_pwd = value,
        "ice-options" => media.ice_options = ice_options(value),
        "setup" => media.setup = Some(setup(value)?),
        "fingerprint" => add_fingerprint(&mut media.fingerprints, value)?,
        "end-of-candidates" => media.end_of_candidates = true,
        "msid" => media.msid = media.msid.or(Some(value)),
        "sctp-port" => media.sctp_port = value.parse().ok(),
        "max-message-size" => media.max_message_size = value.parse().ok(),
        "extmap" => {
            bounded(media.extmaps.len(), MAX_EXTMAPS, "header extensions")?;
            media.extmaps.push(extmap(value)?);
        }
        "rtpmap" => {
            let (payload, rest) = of_payload(media, value, "rtpmap")?;
            let Some(payload) = payload else { return Ok(()) };
            let mut parts = rest.split('/');
            payload.encoding = parts.next().unwrap_or_default();
            payload.clock_rate = parts
                .next()
                .and_then(|rate| rate.parse().ok())
                .ok_or_else(|| SdpError::malformed("a=rtpmap: no clock rate"))?;
            payload.channels = parts.next().and_then(|n| n.parse().ok()).unwrap_or(1);
        }
        "fmtp" => {
            if let (Some(payload), rest) = of_payload(media, value, "fmtp")? {
                payload.fmtp = rest;
            }
        }
        "rtcp-fb" => match value.strip_prefix("* ") {
            Some(rest) => media.payloads.iter_mut().for_each(|p| p.feedback.add(rest)),
            None => {
                if let (Some(payload), rest) = of_payload(media, value, "rtcp-fb")? {
                    payload.feedback.add(rest);
                }
            }
        },
        _ => {}
    }
    Ok(())
}

/// Reads `video 9 UDP/TLS/RTP/SAVPF 96 97`.
fn media_line(value: &str) -> Result<Media<'_>, SdpError> {
    let bad = |what: &str| {
        SdpError::malformed(format!("m-line: {what}; expected `m=kind port proto formats`"))
    };
    let mut words = value.splitn(4, ' ');
    let mut next = |what| words.next().filter(|w| !w.is_empty()).ok_or_else(|| bad(what));
    let kind_text = next("no kind")?;
    let port = next("no port")?;
    let proto = next("no protocol")?;
    let formats = next("no formats")?.trim();
    // `port/number` is allowed by the grammar (RFC 8866 §5.14) and never used here.
    let port = port.split('/').next().unwrap_or_default();
    let port = port.parse().map_err(|_| bad("the port is not a number up to 65535"))?;
    let is_rtp = proto.contains("RTP/");
    let kind = match kind_text {
        "audio" if is_rtp => MediaKind::Audio,
        "video" if is_rtp => MediaKind::Video,
        "application" if formats == "webrtc-datachannel" => MediaKind::DataChannel,
        _ => MediaKind::Other,
    };
    let mut payloads = Vec::new();
    if is_rtp {
        let count = formats.split_ascii_whitespace().count();
        if count > MAX_PAYLOADS {
            return Err(bad("more than 128 payload types"));
        }
        payloads.reserve_exact(count);
        for word in formats.split_ascii_whitespace() {
            let payload_type = payload_type(word)
                .ok_or_else(|| bad("a payload type is not a number up to 127"))?;
            payloads.push(Payload {
                payload_type,
                encoding: "",
                clock_rate: 0,
                channels: 1,
                fmtp: "",
                feedback: Feedback::default(),
            });
        }
    }
    if formats.is_empty() {
        return Err(bad("no formats"));
    }
    Ok(Media {
        kind,
        kind_text,
        port,
        proto,
        formats,
        mid: "",
        bundle_only: false,
        direction: Direction::default(),
        rtcp_mux: false,
        rtcp_rsize: false,
        setup: None,
        ice_ufrag: "",
        ice_pwd: "",
        ice_options: IceOptions::default(),
        fingerprints: Vec::new(),
        candidates: Vec::new(),
        end_of_candidates: false,
        msid: None,
        extmaps: Vec::new(),
        payloads,
        sctp_port: None,
        max_message_size: None,
    })
}

/// Splits `96 rest` and finds the payload type; attributes of one that the m-line does not list
/// are ignored.
fn of_payload<'m, 'a>(
    media: &'m mut Media<'a>,
    value: &'a str,
    attribute: &str,
) -> Result<(Option<&'m mut Payload<'a>>, &'a str), SdpError> {
    let (number, rest) = value.split_once(' ').unwrap_or((value, ""));
    let number = payload_type(number).ok_or_else(|| {
        SdpError::malformed(format!("a={attribute}: {number:?} is not a payload type"))
    })?;
    Ok((media.payloads.iter_mut().find(|p| p.payload_type == number), rest.trim()))
}

fn payload_type(word: &str) -> Option<u8> {
    word.parse().ok().filter(|n| *n < 128)
}

/// Reads `3 uri` or `3/sendonly uri`.
fn extmap(value: &str) -> Result<Extmap<'_>, SdpError> {
    let mut words = value.split_ascii_whitespace();
    let id = words.next().and_then(|w| w.split('/').next()).and_then(|w| w.parse().ok());
    match (id, words.next()) {
        (Some(id), Some(uri)) => Ok(Extmap { id, uri }),
        _ => Err(SdpError::malformed("a=extmap: expected `id uri` (RFC 8285 §8)")),
    }
}

fn ice_options(value: &str) -> IceOptions {
    // Separated by spaces (RFC 8839 §5.6), or by commas as libdatachannel has it.
    let has = |name| value.split([' ', ',']).any(|w| w == name);
    IceOptions { trickle: has("trickle"), ice2: has("ice2"), renomination: has("renomination") }
}

fn setup(value: &str) -> Result<Setup, SdpError> {
    match value {
        "actpass" => Ok(Setup::ActPass),
        "active" => Ok(Setup::Active),
        "passive" => Ok(Setup::Passive),
        "holdconn" => Ok(Setup::HoldConn),
        other => Err(SdpError::malformed(format!("a=setup: {other:?} is no role (RFC 4145 §4)"))),
    }
}

fn add_fingerprint(list: &mut Vec<Fingerprint>, value: &str) -> Result<(), SdpError> {
    bounded(list.len(), MAX_FINGERPRINTS, "fingerprints")?;
    list.extend(Fingerprint::parse(value)?);
    Ok(())
}

fn bounded(len: usize, limit: usize, what: &str) -> Result<(), SdpError> {
    if len < limit { Ok(()) } else { Err(SdpError::malformed(format!("more than {limit} {what}"))) }
}

impl Feedback {
    fn add(&mut self, text: &str) {
        match text.trim() {
            "nack" => self.nack = true,
            "nack pli" => self.pli = true,
            "ccm fir" => self.fir = true,
            "goog-remb" => self.remb = true,
            "transport-cc" => self.transport_cc = true,
            _ => {}
        }
    }
}
