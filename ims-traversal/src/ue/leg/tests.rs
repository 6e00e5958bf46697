use alloc::sync::Arc;

use core::net::SocketAddr;

use ice_proto::SessionConfig;
use sip_outbound::wire::UriBuf;
use sip_outbound::{InstanceId, UserAgentConfig};

use super::super::{Network, UeAction, UeConfig};
use super::*;
use crate::access::AccessConfig;
use crate::ladder::NetworkKey;
use crate::media::MediaConfig;

const NOW: Instant = Instant::ZERO;

/// A UE with RTP and RTCP, in a network where no server is reached.
fn ue() -> Ue {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let instance = InstanceId::new("urn:uuid:0a1b2c3d-0000-4000-8000-00aabbccddee").unwrap();
    let aor: UriBuf = "sip:alice@ims.example".parse().unwrap();
    let proxy: UriBuf = "sips:pcscf1.ims.example".parse().unwrap();
    let agent = UserAgentConfig::ims(aor, instance, Vec::from([proxy]));
    let mut session = SessionConfig::new(Role::Controlling);
    session.agent.components = Vec::from([2]);
    let access = AccessConfig::new(agent, tls.into());
    let mut ue = Ue::new(
        UeConfig::new(access, MediaConfig::new(session)),
        [7; 32],
        NOW,
    )
    .unwrap();
    let address = "192.168.1.20".parse().unwrap();
    ue.start(NOW, Network::new(NetworkKey(1), Vec::from([address])));
    ue
}

/// Opens what sockets it wants.
fn open_sockets(ue: &mut Ue) {
    let mut port = 40_000;
    while let Some(action) = ue.poll_action() {
        if let UeAction::OpenSocket { socket, .. } = action {
            port += 1;
            let local = SocketAddr::from(([192, 168, 1, 20], port));
            ue.socket_opened(NOW, socket, local, None);
        }
    }
}

/// Answers an offer of the other side; whether ICE is in use after it.
fn offered(ue: &mut Ue, call: CallId, offer: &str) -> Option<bool> {
    let leg = ue.legs.get_mut(&call).unwrap();
    if leg.negotiation.asked().is_none() {
        leg.negotiation.handle_offer(offer.as_bytes()).unwrap();
    }
    let local = ue.media[&leg.media].media.local(0).unwrap();
    leg.negotiation.answer(&local).unwrap();
    ue.events.clear();
    ue.agreed(NOW, call);
    ue.events.iter().find_map(|event| match event {
        UeEvent::Agreed { ice, .. } => Some(*ice),
        _ => None,
    })
}

/// The other side's words before its media attributes.
const HEAD: &str = "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n\
                    m=audio 5000 RTP/AVP 0\r\n";

/// A call that comes in, gathered for, and its offer.
fn called(ue: &mut Ue) -> (CallId, String) {
    let offer = alloc::format!(
        "{HEAD}a=rtcp-mux\r\na=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\n\
         a=candidate:1 1 UDP 2130706431 192.0.2.1 5000 typ host\r\n"
    );
    let call = CallId(1);
    ue.call_event(
        NOW,
        CallEvent::Incoming {
            call,
            from: String::new(),
            display_name: None,
            to: String::new(),
            offer: Some(Bytes::from(offer.clone())),
        },
    );
    open_sockets(ue);
    (call, offer)
}

#[test]
fn an_offer_that_leaves_ice_and_the_shared_port_is_taken() {
    let mut ue = ue();
    let (call, ice) = called(&mut ue);
    assert_eq!(offered(&mut ue, call, &ice), Some(true));
    let plain = HEAD.replace("- 1 1", "- 1 2");
    assert_eq!(offered(&mut ue, call, &plain), Some(false));
}

#[test]
fn an_offer_that_gets_lost_is_not_made_again_for_ever() {
    let mut ue = ue();
    let (call, _) = called(&mut ue);
    for seconds in [2, 4, 8, 16, 32, 64, 128] {
        ue.offer_lost(NOW, call);
        let due = NOW + Duration::from_secs(seconds);
        assert_eq!(ue.timers.get(call), Some(due));
    }
    ue.timers.disarm(call);
    ue.offer_lost(NOW, call);
    assert_eq!(ue.timers.get(call), None);
}

#[test]
fn an_offer_that_cannot_be_sent_is_given_back() {
    let mut ue = ue();
    let (call, _) = called(&mut ue);
    ue.offer_impossible(NOW, call);
    let last = ue.events.back();
    assert!(matches!(
        last,
        Some(UeEvent::ChangeRefused { code: None, .. })
    ));
}
