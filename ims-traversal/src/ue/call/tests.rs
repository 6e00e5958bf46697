//! One user agent with calls; the other side is the text of the tests.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::wildcard_enum_match_arm,
    reason = "test code"
)]

mod incoming;
mod offers;
mod outgoing;

use alloc::string::ToString as _;
use core::net::SocketAddr;

use sip_outbound::wire::{Builder, Limits, UriBuf};
use sip_outbound::{
    FlowAction, Frame, Framer, FramerConfig, InstanceId, PONG, Role, UserAgentConfig,
};
use stun_proto::{FiveTuple, Transport};

use super::*;

const MS: u64 = 1_000_000;

fn at(ms: u64) -> Instant {
    Instant::from_nanos((ms * MS) as i64)
}

struct Bench {
    ua: UserAgent,
    calls: Calls,
    now: Instant,
    flow: FlowId,
    sent: VecDeque<(FlowId, Message)>,
    events: VecDeque<CallEvent>,
    /// Kinds of what was not about calls.
    others: Vec<UserAgentEvent>,
}

fn bench() -> Bench {
    bench_with(CallConfig::default())
}

fn bench_with(config: CallConfig) -> Bench {
    let proxy: UriBuf = "sips:ep1.example.com".parse().unwrap();
    let instance = InstanceId::new("urn:uuid:0a1b2c3d-0000-4000-8000-00aabbccddee").unwrap();
    let aor: UriBuf = "sip:alice@ims.example.com".parse().unwrap();
    let mut agent = UserAgentConfig::new(aor, instance, Vec::from([proxy]));
    agent.allow = METHODS.into();
    let mut bench = Bench {
        ua: UserAgent::new(agent, [7; 32], at(0)).unwrap(),
        calls: Calls::new(config, Rng::from_seed([9; 32]), at(0)),
        now: at(0),
        flow: FlowId(0),
        sent: VecDeque::new(),
        events: VecDeque::new(),
        others: Vec::new(),
    };
    bench.ua.start(at(0));
    bench.register();
    bench
}

impl Bench {
    /// Opens the flow the user agent wants, and accepts its REGISTER.
    fn register(&mut self) {
        self.drain();
        let flow = core::iter::from_fn(|| self.ua.poll_action()).find_map(|action| match action {
            FlowAction::OpenFlow { flow, .. } => Some(flow),
            FlowAction::CloseFlow { .. } => None,
        });
        self.flow = flow.expect("a flow is wanted");
        let at = FiveTuple {
            transport: Transport::Tls,
            local: SocketAddr::from(([10, 7, 0, 9], 40112)),
            remote: SocketAddr::from(([203, 0, 113, 1], 443)),
        };
        let names = Vec::from(["ep1.example.com".into()]);
        self.ua.flow_opened(self.now, self.flow, at, names);
        self.drain();
        let register = self.request("REGISTER");
        let contact = register.only(Name::CONTACT).unwrap();
        let rows = [("Contact", contact), ("Require", "outbound")];
        self.answer(&register, 200, "", &rows, "");
        assert!(matches!(
            self.others.last(),
            Some(UserAgentEvent::Registered { .. })
        ));
    }

    fn drain(&mut self) {
        let mut buf = [0; 65_535];
        loop {
            while let Some(event) = self.ua.poll_event() {
                let other = self.calls.handle_event(self.now, &mut self.ua, event);
                self.others.extend(other);
            }
            let Some(out) = self.ua.poll_transmit(&mut buf) else {
                break;
            };
            let mut framer = Framer::new(FramerConfig::new(Role::Server), self.now);
            let mut rest = &buf[..out.len];
            while let Some(frame) = framer.next(self.now, &mut rest) {
                match frame {
                    Frame::Message(message) => self.sent.push_back((out.to, message)),
                    Frame::Ping => self.ua.handle_flow_input(self.now, out.to, PONG),
                    Frame::Pong | Frame::Broken { .. } => {}
                }
            }
        }
        self.events
            .extend(core::iter::from_fn(|| self.calls.poll_event()));
        for next in [self.ua.poll_timeout(), self.calls.poll_timeout()] {
            assert!(next.is_none_or(|next| next > self.now));
        }
    }

    /// Lets time pass.
    fn run(&mut self, ms: u64) {
        let end = self.now + Duration::from_millis(ms);
        self.drain();
        loop {
            let next = [self.ua.poll_timeout(), self.calls.poll_timeout()];
            let Some(next) = next.into_iter().flatten().min().filter(|at| *at <= end) else {
                break;
            };
            self.now = next;
            self.ua.handle_timeout(next);
            self.calls.handle_timeout(next, &mut self.ua);
            self.drain();
        }
        self.now = end;
    }

    fn input(&mut self, bytes: &[u8]) {
        self.ua.handle_flow_input(self.now, self.flow, bytes);
        self.drain();
    }

    /// The next message, which must be this request.
    fn request(&mut self, method: &str) -> Request {
        let (flow, message) = self.sent.pop_front().expect(method);
        assert_eq!(flow, self.flow);
        let request = Request::check(message, &Limits::DEFAULT).expect(method);
        assert_eq!(request.method().as_str(), method);
        request
    }

    /// The next message, which must be a response with this code.
    fn response(&mut self, code: u16) -> Message {
        let (_, message) = self.sent.pop_front().expect("a response");
        let line = alloc::format!("SIP/2.0 {code} ");
        let text = message.as_bytes().escape_ascii().to_string();
        assert!(message.as_bytes().starts_with(line.as_bytes()), "{text}");
        message
    }

    fn answer(
        &mut self,
        request: &Request,
        code: u16,
        tag: &str,
        rows: &[(&str, &str)],
        body: &str,
    ) {
        let code = StatusCode::new(code).unwrap();
        let tag = (!tag.is_empty()).then_some(tag);
        let mut builder = Builder::reply(request, code, tag);
        for (name, value) in rows {
            builder = builder.header(*name, value);
        }
        let typed = rows.iter().any(|(name, _)| *name == "Content-Type");
        if !body.is_empty() && !typed {
            builder = builder.header(Name::CONTENT_TYPE, "application/sdp");
        }
        let message = builder.finish(body.as_bytes()).unwrap();
        self.input(message.as_bytes());
    }

    /// The next event in words.
    fn event(&mut self) -> String {
        match self.events.pop_front() {
            None => "nothing".into(),
            Some(event) => words(&event),
        }
    }

    fn quiet(&self) {
        assert!(self.sent.is_empty(), "{:?}", self.sent);
        assert!(self.events.is_empty(), "{:?}", self.events);
    }

    fn over(&mut self, cause: &EndCause) {
        let event = self.events.pop_front();
        assert!(
            matches!(&event, Some(CallEvent::Ended { cause: found, .. }) if found == cause),
            "{event:?}"
        );
        self.quiet();
        assert!(self.calls.is_empty() && self.calls.poll_timeout().is_none());
    }
}

fn words(event: &CallEvent) -> String {
    let text = |body: &Bytes| body.escape_ascii().to_string();
    let maybe = |body: &Option<Bytes>| body.as_ref().map_or("-".into(), text);
    match event {
        CallEvent::Incoming { from, offer, .. } => {
            alloc::format!("incoming {from} {}", maybe(offer))
        }
        CallEvent::Progress {
            fork, code, answer, ..
        } => alloc::format!("progress {fork:?} {code} {}", maybe(answer)),
        CallEvent::Answered { answer, .. } => alloc::format!("answered {}", text(answer)),
        CallEvent::Established { .. } => "established".into(),
        CallEvent::Offer { offer, .. } => alloc::format!("offer {}", maybe(offer)),
        CallEvent::Settled { .. } => "settled".into(),
        CallEvent::OfferWithdrawn { .. } => "withdrawn".into(),
        CallEvent::OfferRefused { code, .. } => alloc::format!("offer refused {code:?}"),
        CallEvent::Info {
            content_type, body, ..
        } => alloc::format!("info {content_type} {}", text(body)),
        CallEvent::Ended { cause, .. } => alloc::format!("ended: {cause}"),
    }
}

const CONTACT: (&str, &str) = ("Contact", "<sip:bob@far.example.com>");
const ROUTES: (&str, &str) = (
    "Record-Route",
    "<sip:core;lr>, <sip:tok@ep1.example.com;lr>",
);

/// A request of the other side; `tag` is that of this side, if there is a dialog.
fn inbound(method: &str, cseq: u32, tag: &str, rows: &str, body: &str) -> String {
    let tag = if tag.is_empty() {
        String::new()
    } else {
        alloc::format!(";tag={tag}")
    };
    let kind = if body.is_empty() || rows.contains("Content-Type") {
        ""
    } else {
        "Content-Type: application/sdp\r\n"
    };
    alloc::format!(
        "{method} sip:alice@10.7.0.9:40112;ob SIP/2.0\r\nVia: SIP/2.0/TLS ep1.example.com;branch=z9hG4bK{method}{cseq};rport\r\n\
         From: \"Bob\" <sip:bob@example.com>;tag=far\r\nTo: <sip:alice@ims.example.com>{tag}\r\nCall-ID: call\r\n\
         CSeq: {cseq} {method}\r\nContact: <sip:bob@far.example.com>\r\nMax-Forwards: 69\r\n{rows}{kind}\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

impl Bench {
    /// A call that the other side makes; its number.
    fn called(&mut self, body: &str) -> CallId {
        let invite = inbound("INVITE", 1, "", "", body);
        self.input(invite.as_bytes());
        match self.events.pop_front() {
            Some(CallEvent::Incoming { call, .. }) => call,
            other => panic!("{other:?}"),
        }
    }

    fn accept(&mut self, call: CallId, body: &'static str) {
        let body = Bytes::from_static(body.as_bytes());
        self.calls
            .accept(self.now, &mut self.ua, call, &body)
            .unwrap();
        self.drain();
    }

    /// An open incoming call; its number and the tag of this side.
    fn incoming(&mut self) -> (CallId, String) {
        let call = self.called("offer");
        self.accept(call, "answer");
        let ok = self.response(200);
        let tag = ok.to(&Limits::DEFAULT).unwrap().tag().unwrap().to_string();
        self.input(inbound("ACK", 1, &tag, "", "").as_bytes());
        assert_eq!(self.event(), "established");
        (call, tag)
    }

    fn invite(&mut self) -> (CallId, Request) {
        let call = self.calls.prepare("sip:bob@example.com", Vec::new());
        let call = call.unwrap();
        let offer = Bytes::from_static(b"offer");
        self.calls
            .invite(self.now, &mut self.ua, call, offer)
            .unwrap();
        self.drain();
        (call, self.request("INVITE"))
    }

    /// An open outgoing call.
    fn outgoing(&mut self) -> CallId {
        let (call, invite) = self.invite();
        self.answer(&invite, 200, "b", &[CONTACT, ROUTES], "answer");
        self.request("ACK");
        assert_eq!(self.event(), "answered answer");
        assert_eq!(self.event(), "established");
        call
    }

    fn hang_up(&mut self, call: CallId) {
        self.calls
            .hang_up(self.now, &mut self.ua, call, EndCause::HungUp)
            .unwrap();
        self.drain();
    }

    fn offer(&mut self, call: CallId, method: Method) -> Result<(), CallError> {
        let body = Bytes::from_static(b"new offer");
        let done = self.calls.offer(self.now, &mut self.ua, call, method, body);
        self.drain();
        done
    }

    fn lose_flow(&mut self) {
        self.ua.handle_flow_closed(self.now, self.flow);
        self.drain();
    }
}
