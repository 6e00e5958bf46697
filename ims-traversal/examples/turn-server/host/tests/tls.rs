//! TLS listeners, with a TLS client of its own.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};

use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use turn_proto::server::StaticUsers;

use super::*;

const BINDING: &[u8; 20] = b"\0\x01\0\0\x21\x12\xa4\x42abcdefghijkl";

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// A server's configuration, and that of a client that trusts it only.
fn certificate() -> (Arc<TlsConfig>, Arc<ClientConfig>) {
    let made = rcgen::generate_simple_self_signed(["turn.example".to_owned()]).unwrap();
    let chain: Vec<CertificateDer<'static>> = vec![made.cert.der().clone()];
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(chain[0].clone()).unwrap();
    let server = TlsConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let client = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (Arc::new(server), Arc::new(client))
}

type TlsStream = StreamOwned<ClientConnection, TcpStream>;

fn connect(at: SocketAddr, config: &Arc<ClientConfig>) -> TlsStream {
    let tcp = TcpStream::connect(at).unwrap();
    tcp.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let name = ServerName::try_from("turn.example").unwrap();
    let tls = ClientConnection::new(Arc::clone(config), name).unwrap();
    StreamOwned::new(tls, tcp)
}

/// Asks for the mapped address; whether it is right.
fn works(stream: &mut TlsStream) -> std::io::Result<bool> {
    stream.write_all(BINDING)?;
    let mut answer = [0; 32];
    stream.read_exact(&mut answer)?;
    let port = u16::from_be_bytes([answer[26], answer[27]]) ^ 0x2112;
    Ok(answer[..2] == [1, 1] && port == stream.sock.local_addr()?.port())
}

fn start(tls: Arc<TlsConfig>) -> Host {
    let at = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
    let mut listed = StaticUsers::new("example.org");
    listed.add("alice", "secret");
    let config = HostConfig {
        server: ServerConfig::new("example.org"),
        listen: vec![Listen {
            transport: Transport::Tls,
            at,
        }],
        relays: vec![relay("127.0.0.1")],
        workers: 1,
        tls: Some(tls),
        buffers: sockets::Buffers::default(),
        spread: sockets::Spread::Flow,
        secret: None,
    };
    Host::start(config, Keys { listed, rest: None }, Quota::new(1, 1)).unwrap()
}

#[test]
fn a_new_certificate_is_for_new_connections() {
    let (first, trusts_first) = certificate();
    let (second, trusts_second) = certificate();
    let host = start(first);
    let at = host.listening()[0].at;
    let mut old = connect(at, &trusts_first);
    assert!(works(&mut old).unwrap());
    works(&mut connect(at, &trusts_second)).unwrap_err();
    host.tell(|| Command::Tls(Arc::clone(&second)));
    std::thread::sleep(Duration::from_millis(100));
    assert!(works(&mut connect(at, &trusts_second)).unwrap());
    works(&mut connect(at, &trusts_first)).unwrap_err();
    assert!(works(&mut old).unwrap());
}

#[test]
fn requests_in_many_records_and_many_in_one_are_answered() {
    let (server, client) = certificate();
    let host = start(server);
    let mut stream = connect(host.listening()[0].at, &client);
    for byte in BINDING {
        stream.write_all(&[*byte]).unwrap();
        stream.flush().unwrap();
    }
    stream.write_all(&BINDING.repeat(3)).unwrap();
    let mut answers = [0; 4 * 32];
    stream.read_exact(&mut answers).unwrap();
    assert!(answers.chunks(32).all(|answer| answer[..2] == [1, 1]));
}

#[test]
fn what_is_no_tls_gets_an_alert_and_the_end() {
    let (server, _) = certificate();
    let host = start(server);
    let mut tcp = TcpStream::connect(host.listening()[0].at).unwrap();
    tcp.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    tcp.write_all(BINDING).unwrap();
    let mut answer = Vec::new();
    let _ = tcp.read_to_end(&mut answer);
    // A record of type alert.
    assert_eq!(answer.first(), Some(&21));
}
