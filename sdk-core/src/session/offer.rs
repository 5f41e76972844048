//! What a viewer offered last, what was taken of it, and the answer to it.

use super::stream::Stream;
use super::viewer::Viewer;
use crate::peer::Peer;
use crate::peer::dtls::Identity;
use crate::peer::ice::Credentials;
use crate::wire::sdp::{
    Answer, AudioChoice, AudioFormat, DataChoice, Description, Fingerprint, SdpError, VideoChoice,
};
use crate::wire::signal::Candidate;

pub(super) struct OfferInForce {
    sdp: String,
    choice: VideoChoice,
    /// Or why there is none.
    sound: Result<AudioChoice, &'static str>,
    data: Option<DataChoice>,
    /// Candidates that came with the offer.
    candidates: Vec<String>,
    /// Counts up with every changed description (RFC 8866 §5.2).
    version: u64,
}

impl OfferInForce {
    /// Reads an offer and takes what fits `stream`, and what fits `audio` where the camera has that.
    pub(super) fn read(
        sdp: &str,
        stream: &Stream,
        audio: Option<AudioFormat>,
    ) -> Result<OfferInForce, SdpError> {
        let description = Description::parse(sdp)?;
        let choice = description.choose_video(stream.format())?;
        Ok(OfferInForce::new(sdp, &description, choice, audio))
    }

    /// Reads a further offer of the same session, in which what is sent keeps its numbers.
    pub(super) fn read_next(
        &self,
        sdp: &str,
        audio: Option<AudioFormat>,
    ) -> Result<OfferInForce, SdpError> {
        let description = Description::parse(sdp)?;
        let choice = description.choose_video_again(&self.choice)?;
        let next = OfferInForce::new(sdp, &description, choice, audio);
        if next.moves_data(self) {
            return Err(SdpError::not_acceptable(
                "the new offer has its data section elsewhere than the first one; open a new \
                 session for that",
            ));
        }
        Ok(OfferInForce { version: self.version + 1, ..next })
    }

    fn new(
        sdp: &str,
        description: &Description<'_>,
        choice: VideoChoice,
        audio: Option<AudioFormat>,
    ) -> OfferInForce {
        let sound = match audio {
            None => Err("the camera has none"),
            Some(format) => description
                .choose_audio(&choice, format)
                .ok_or_else(|| description.why_no_audio(&choice, format)),
        };
        let data = description.choose_data(&choice);
        let candidates = description.media.iter().flat_map(|m| &m.candidates);
        let candidates = candidates.map(|c| (*c).to_owned()).collect();
        OfferInForce { sdp: sdp.to_owned(), choice, sound, data, candidates, version: 1 }
    }

    pub(super) fn choice(&self) -> &VideoChoice {
        &self.choice
    }

    /// What was taken of the offered sound, or why nothing.
    pub(super) fn sound(&self) -> Result<&AudioChoice, &'static str> {
        self.sound.as_ref().map_err(|why| *why)
    }

    /// Takes no sound after all.
    pub(super) fn refuse_sound(&mut self, why: &'static str) {
        self.sound = Err(why);
    }

    pub(super) fn data(&self) -> Option<&DataChoice> {
        self.data.as_ref()
    }

    /// Whether both have a data section, in different places (RFC 3264 §8).
    fn moves_data(&self, earlier: &OfferInForce) -> bool {
        match (&self.data, &earlier.data) {
            (Some(now), Some(before)) => (now.section, &now.mid) != (before.section, &before.mid),
            _ => false,
        }
    }

    pub(super) fn candidates(&self) -> &[String] {
        &self.candidates
    }

    pub(super) fn credentials(&self) -> Credentials {
        Credentials { ufrag: self.choice.ice_ufrag.clone(), password: self.choice.ice_pwd.clone() }
    }

    pub(super) fn fingerprints(&self) -> Vec<Fingerprint> {
        self.choice.fingerprints.clone()
    }

    /// One of our own candidates, as it is trickled to the viewer.
    pub(super) fn local_candidate(&self, candidate: String) -> Candidate {
        Candidate {
            candidate,
            sdp_mid: Some(self.choice.mid.clone()),
            sdp_m_line_index: u16::try_from(self.choice.section).ok(),
        }
    }

    /// The answer, with the candidates known so far.
    pub(super) fn answer(
        &self,
        peer: &Peer,
        viewer: &Viewer,
        identity: &Identity,
    ) -> Result<String, SdpError> {
        let credentials = peer.local_credentials();
        let answer = Answer {
            offer: &Description::parse(&self.sdp)?,
            choice: &self.choice,
            audio: self.sound.as_ref().ok(),
            data: self.data.as_ref(),
            session_number: u64::from(viewer.ssrc()),
            version: self.version,
            ice_ufrag: &credentials.ufrag,
            ice_pwd: &credentials.password,
            fingerprint: *identity.fingerprint(),
            ssrc: viewer.ssrc(),
            rtx_ssrc: viewer.rtx_ssrc(),
            audio_ssrc: viewer.sound().ssrc(),
            cname: viewer.cname(),
            stream_id: "p2pcam",
            track_id: "video",
            candidates: &peer.local_candidates(),
            end_of_candidates: false,
        };
        Ok(answer.write())
    }
}
