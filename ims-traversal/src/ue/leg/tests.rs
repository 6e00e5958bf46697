use alloc::sync::Arc;

use core::net::SocketAddr;

use ice_proto::SessionConfig;
use sip_outbound::wire::UriBuf;
use sip_outbound::{InstanceId, UserAgentConfig};

use super::super::{Network, UeAction, UeConfig, UeConfigError};
use super::*;
use crate::access::AccessConfig;
use crate::ladder::NetworkKey;
use crate::media::MediaConfig;

const NOW: Instant = Instant::ZERO;

/// A UE with RTP and RTCP, in a network where no server is reached.
fn ue() -> Ue {
    let mut ue = Ue::new(config(), [7; 32], NOW).unwrap();
    let address = "192.168.1.20".parse().unwrap();
    ue.start(NOW, Network::new(NetworkKey(1), Vec::from([address])));
    ue
}

fn config() -> UeConfig {
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
    let session = SessionConfig::new(Role::Controlling);
    let access = AccessConfig::new(agent, tls.into());
    UeConfig::new(access, MediaConfig::new(session))
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

// spec: ICE-5.1.1.1-4
#[test]
fn components_that_do_not_go_with_rtcp_mux_are_an_error_of_the_configuration() {
    use crate::sdp::RtcpMux::{Never, Offer, Only};
    let check = |mux, components: &[u16], fits: bool| {
        let mut config = config();
        config.sdp.rtcp_mux = mux;
        config.media.session.agent.components = components.into();
        let error = Ue::new(config, [7; 32], NOW).err();
        let expected = (!fits).then_some(UeConfigError::Components);
        assert_eq!(error, expected, "{mux:?} {components:?}");
    };
    check(Offer, &[2], true);
    check(Offer, &[1], false);
    check(Only, &[1], true);
    check(Only, &[2], false);
    check(Never, &[1], true);
    check(Never, &[2], true);
    check(Never, &[3], false);
    check(Offer, &[2, 2], false);
    check(Offer, &[], false);
    for mux in [Offer, Only, Never] {
        let mut config = config();
        config.set_rtcp_mux(mux);
        assert!(Ue::new(config, [7; 32], NOW).is_ok());
    }
}

// spec: MUX-5761
#[test]
fn as_many_components_are_gathered_as_the_offer_takes() {
    let sockets = |more: &str| {
        let mut ue = ue();
        let offer = alloc::format!("{HEAD}{more}");
        let call = CallId(1);
        ue.call_event(
            NOW,
            CallEvent::Incoming {
                call,
                from: String::new(),
                display_name: None,
                to: String::new(),
                offer: Some(Bytes::from(offer)),
            },
        );
        let actions = core::iter::from_fn(|| ue.poll_action());
        actions
            .filter(|action| matches!(action, UeAction::OpenSocket { .. }))
            .count()
    };
    assert_eq!(sockets("a=rtcp-mux\r\n"), 1);
    assert_eq!(sockets(""), 2);
}
