//! What real proxies and clients have been seen to do (section 11 of the specification).

use http_connect::auth::{Allow, ClientAuth, Credentials, Policy};
use http_connect::wire::Leniency;
use http_connect::{ConnectClient, ConnectConfig, ConnectEvent, Instant, RejectionClass, Tunnel};

struct Scripted {
    client: ConnectClient,
    tunnel: Option<Tunnel>,
    heard: Vec<u8>,
    events: Vec<ConnectEvent>,
}

impl Scripted {
    fn new(config: ConnectConfig) -> Self {
        let now = Instant::ZERO;
        let policy = Policy {
            basic: Allow::Always,
            ntlm: Allow::Always,
            ..Policy::default()
        };
        let auth = ClientAuth::new(Some(Credentials::new("u", "p")), policy);
        let target = "[2001:db8::15]:443".parse().unwrap();
        let client = ConnectClient::new(target, config, auth, [3; 32], now).unwrap();
        let mut scripted = Self {
            client,
            tunnel: None,
            heard: Vec::new(),
            events: Vec::new(),
        };
        scripted.client.handle_connected(now);
        scripted
    }

    /// What the client has sent.
    fn request(&mut self) -> String {
        let mut buf = [0; 1000];
        let len = self.client.poll_transmit(&mut buf).unwrap_or(0);
        String::from_utf8(buf[..len].to_vec()).unwrap()
    }

    fn hear(&mut self, data: &[u8]) {
        let rest = self.client.handle_input(Instant::ZERO, data);
        if self.tunnel.is_none() {
            self.tunnel = self.client.tunnel();
        }
        match &mut self.tunnel {
            Some(tunnel) => match tunnel.read(rest) {
                Ok(data) => self.heard.extend_from_slice(data),
                Err(_) => self.heard.extend_from_slice(b"(not a tunnel)"),
            },
            None => assert!(rest.is_empty()),
        }
        while let Some(event) = self.client.poll_event() {
            self.events.push(event);
        }
    }
}

/// Whatever the pieces: the tunnel opens and its first bytes are these.
fn check_opens(response: &str, heard: &str) {
    for step in 1..=response.len() {
        let mut client = Scripted::new(ConnectConfig::default());
        client.request();
        for piece in response.as_bytes().chunks(step) {
            client.hear(piece);
        }
        assert!(
            matches!(client.events.as_slice(), [ConnectEvent::Established { .. }]),
            "{response:?} in pieces of {step}: {:?}",
            client.events
        );
        assert_eq!(client.heard, heard.as_bytes(), "in pieces of {step}");
    }
}

// spec: HS-9.3.6-3, HM-6.3-1, PRH-4-1, SEC-H-02
#[test]
fn answers_of_real_proxies_open_the_tunnel() {
    // hackney, paho: split status lines and heads. teleport, scrapy: bytes behind the blank line.
    check_opens(
        "HTTP/1.1 200 OK\r\n\r\n220 server speaks first\r\n",
        "220 server speaks first\r\n",
    );
    // hyper-util: the buffer never ends with the blank line.
    check_opens(
        "HTTP/1.1 200 OK\r\nVia: x\r\n\r\n\x16\x03\r\n\r\n",
        "\x16\x03\r\n\r\n",
    );
    // curl, martian, webrick, mint.
    check_opens("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nx", "x");
    check_opens(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nx",
        "5\r\nx",
    );
    // tinyproxy, 3proxy, old Squid.
    check_opens(
        "HTTP/1.0 200 Connection established\r\nProxy-agent: tinyproxy/1.11\r\n\r\n",
        "",
    );
    check_opens("HTTP/1.0 200 Tunnel established\r\n\r\n", "");
    check_opens("HTTP/1.1 200 \r\n\r\n", "");
    check_opens("HTTP/1.1 200\r\n\r\n", "");
    // Connection: close in a 2xx means nothing for the tunnel.
    check_opens("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nx", "x");
}

// spec: HM-3.2.3-1, HS-9.3.6-1, PRH-3-2
#[test]
fn the_request_is_what_proxies_understand() {
    let mut client = Scripted::new(ConnectConfig::default());
    assert_eq!(
        client.request(),
        "CONNECT [2001:db8::15]:443 HTTP/1.1\r\nHost: [2001:db8::15]:443\r\n\r\n"
    );
    let mut client = Scripted::new(ConnectConfig {
        proxy_connection: true,
        ..ConnectConfig::default()
    });
    assert!(
        client
            .request()
            .contains("\r\nProxy-Connection: keep-alive\r\n")
    );
}

// spec: NEG-4-1, NEG-4-4
#[test]
fn px_keep_alive_and_long_bodies_between_legs() {
    let mut client = Scripted::new(ConnectConfig::default());
    client.request();
    let body = "x".repeat(1062);
    client.hear(
        format!(
            "HTTP/1.0 407 x\r\nProxy-Authenticate: Negotiate\r\nProxy-Authenticate: NTLM\r\n\
             Proxy-Authenticate: Basic realm=unquoted\r\nProxy-Connection: keep-alive\r\n\
             Content-Length: 1062\r\n\r\n{body}"
        )
        .as_bytes(),
    );
    assert!(matches!(
        client.events.pop(),
        Some(ConnectEvent::NeedToken { token: None, .. })
    ));
    client.client.set_token(Instant::ZERO, Some("dDE=".into()));
    assert!(
        client
            .request()
            .contains("\r\nProxy-Authorization: NTLM dDE=\r\n")
    );
    // curl #3972: some proxies remember the address and agree at once.
    client.hear(b"HTTP/1.1 200 OK\r\n\r\n");
    assert!(matches!(
        client.events.as_slice(),
        [ConnectEvent::Established { .. }]
    ));
}

// spec: PRH-5-4
#[test]
fn a_407_that_closes_is_answered_over_a_new_connection() {
    // px #29.
    let mut client = Scripted::new(ConnectConfig::default());
    client.request();
    client.hear(
        b"HTTP/1.1 407 x\r\nProxy-Authenticate: Digest realm=proxy, nonce=abc/d==, \
          algorithm=\"SHA-256\", qop=auth\r\nProxy-Connection: close\r\n\r\n<html>",
    );
    assert_eq!(client.events.pop(), Some(ConnectEvent::Reconnect));
    assert_eq!(client.request(), "");
    client.client.handle_connected(Instant::ZERO);
    let request = client.request();
    assert!(request.contains("nonce=\"abc/d==\"") && request.contains("realm=\"proxy\""));
    assert!(request.contains("uri=\"[2001:db8::15]:443\""));
}

// spec: SEC-H-04, PRH-4-4
#[test]
fn squid_refuses_other_ports_with_a_page() {
    let mut client = Scripted::new(ConnectConfig::default());
    client.request();
    let page = "<html>Access Denied</html>";
    client.hear(
        format!(
            "HTTP/1.1 403 Forbidden\r\nServer: squid\r\nSet-Cookie: a=b\r\nX-Squid-Error: ERR_ACCESS_DENIED 0\r\n\
             Content-Length: {}\r\n\r\n{page}",
            page.len()
        )
        .as_bytes(),
    );
    let Some(ConnectEvent::Rejected(rejection)) = client.events.pop() else {
        panic!();
    };
    assert_eq!(rejection.class, RejectionClass::Policy);
    assert_eq!(rejection.body, page.as_bytes());
    assert!(client.heard.is_empty());
}

#[test]
fn a_captive_portal_says_200_to_everything() {
    let mut client = Scripted::new(ConnectConfig {
        expect_tls: true,
        leniency: Leniency::LENIENT,
        ..ConnectConfig::default()
    });
    client.request();
    client.hear(b"HTTP/1.1 200 OK\nContent-Type: text/html\nContent-Length: 6\n\n<html>");
    assert_eq!(client.heard, b"(not a tunnel)");
}
