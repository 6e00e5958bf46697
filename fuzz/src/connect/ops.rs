//! Entry functions for HTTP CONNECT: any bytes are a run.

use alloc::sync::Arc;
use alloc::vec::Vec;

use http_connect::auth::{
    Allow, Challenge, ClientAuth, Credentials, Policy, challenges, parse_basic,
};
use http_connect::{
    ConnectClient, ConnectConfig, ConnectServer, Instant, ProxyConfig, Side, Target,
};

use super::{ClientIn, ClientMachine, ProxyIn, ProxyMachine};
use crate::contract::Checked;
use crate::sim::Choices;

/// Reads a text as target, as challenges and as credentials; what was read is written and read
/// again.
pub fn parse_http(data: &[u8]) {
    let Ok(text) = core::str::from_utf8(data) else {
        return;
    };
    if let Ok(target) = text.parse::<Target>() {
        let shown = alloc::format!("{target}");
        assert_eq!(shown.parse::<Target>(), Ok(target));
    }
    for challenge in challenges(text).flatten() {
        assert!(!challenge.scheme.is_empty());
        let _ = challenge.parameters().count();
    }
    if let Ok(credentials) = Challenge::parse(text) {
        let _ = parse_basic(&credentials);
    }
}

/// What a proxy, or a client of one, may say.
fn speech(choices: &mut Choices) -> Vec<u8> {
    const WORDS: [&[u8]; 16] = [
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 407 Auth\r\n",
        b"HTTP/1.0 407 Auth\r\n",
        b"HTTP/1.1 403 No\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"Proxy-Authenticate: Basic realm=\"r\"\r\n",
        b"Proxy-Authenticate: Digest realm=\"r\",nonce=\"n\",qop=\"auth\"\r\n",
        b"Content-Length: 3\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Connection: close\r\n",
        b"\r\n",
        b"abc",
        b"3\r\nabc\r\n0\r\n\r\n",
        b"CONNECT 192.0.2.1:443 HTTP/1.1\r\n",
        b"Host: 192.0.2.1:443\r\n",
        b"\x16\x03\x01",
    ];
    if choices.chance(200) {
        let len = choices.index(20);
        return choices.bytes(len);
    }
    choices.pick(&WORDS).to_vec()
}

/// A client under operations drawn from the bytes.
pub fn ops_connect_client(data: &[u8]) {
    let mut choices = Choices::from_bytes(data);
    let mut now = Instant::ZERO;
    let mut client = Checked::new("connect client", now, || {
        let policy = Policy {
            basic: Allow::Always,
            ..Policy::default()
        };
        let auth = ClientAuth::new(Some(Credentials::new("user", "pass")), policy);
        let target = Target::new("h.example", 443).expect("the target is good");
        let config = ConnectConfig::default();
        let client = ConnectClient::new(target, config, auth, [7; 32], Instant::ZERO);
        ClientMachine(client.expect("the configuration is good"))
    });
    client.input(now, ClientIn::Connected);
    let mut steps = 0;
    while !choices.is_spent() && steps < 200 {
        steps += 1;
        now += choices.duration(core::time::Duration::from_secs(3));
        match choices.below(12) {
            0 => client.input(now, ClientIn::Connected),
            1 => client.input(now, ClientIn::Eof),
            2 => client.timeout(now),
            _ => client.input(now, ClientIn::Bytes(speech(&mut choices))),
        };
    }
    client.finish(&mut choices);
}

/// A proxy under operations drawn from the bytes.
pub fn ops_connect_proxy(data: &[u8]) {
    let mut choices = Choices::from_bytes(data);
    let mut now = Instant::ZERO;
    let config = Arc::new(ProxyConfig::new("proxy"));
    let mut proxy = Checked::new("connect proxy", now, move || {
        let server = ConnectServer::new(Arc::clone(&config), [7; 32], Instant::ZERO);
        ProxyMachine::new(server.expect("the configuration is good"), Instant::ZERO)
    });
    let mut steps = 0;
    while !choices.is_spent() && steps < 200 {
        steps += 1;
        now += choices.duration(core::time::Duration::from_secs(3));
        let side = if choices.chance(800) {
            Side::Client
        } else {
            Side::Upstream
        };
        match choices.below(12) {
            0 => proxy.input(now, ProxyIn::Eof(side)),
            1 => proxy.input(now, ProxyIn::Reset(side)),
            2 => proxy.timeout(now),
            _ => proxy.input(now, ProxyIn::Bytes(side, speech(&mut choices))),
        };
    }
    proxy.finish(&mut choices);
}
