//! Certificates and TLS configurations.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// A client that trusts these certificates only.
pub fn client(roots: RootCertStore) -> Result<Arc<ClientConfig>> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// A client that trusts the certificates in a PEM file; without one, those the operating system
/// trusts.
pub fn client_trusting(file: Option<&Path>) -> Result<Arc<ClientConfig>> {
    let Some(file) = file else {
        let mut roots = RootCertStore::empty();
        // Without any, each connection says that nobody knows the issuer.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        return client(roots);
    };
    client(roots(file)?)
}

/// The certificates in a PEM file.
fn roots(file: &Path) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(file);
    for certificate in certificates.with_context(|| format!("CA file {}", file.display()))? {
        roots.add(certificate?)?;
    }
    anyhow::ensure!(!roots.is_empty(), "no certificate in {}", file.display());
    Ok(roots)
}

/// A server with a certificate chain and key from PEM files.
pub fn server(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>> {
    let chain = CertificateDer::pem_file_iter(certificate)
        .with_context(|| format!("certificate file {}", certificate.display()))?
        .collect::<Result<Vec<_>, _>>()
        .with_context(|| format!("certificate file {}", certificate.display()))?;
    // A file that is being written may be empty for a moment.
    anyhow::ensure!(
        !chain.is_empty(),
        "no certificate in {}",
        certificate.display()
    );
    let key =
        PrivateKeyDer::from_pem_file(key).with_context(|| format!("key file {}", key.display()))?;
    server_with(chain, key)
}

fn server_with(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<ServerConfig>> {
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    Ok(Arc::new(config))
}

/// A server and a client that trusts exactly it, with a certificate made for the moment. Names may
/// be addresses.
pub fn for_the_moment(names: &[&str]) -> Result<(Arc<ServerConfig>, Arc<ClientConfig>)> {
    let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(names)?;
    let certificate = made.cert.der().clone();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der());
    let key = key.map_err(anyhow::Error::msg)?;
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone())?;
    Ok((server_with(vec![certificate], key)?, client(roots)?))
}

/// The name a server's certificate must be for.
pub fn server_name(host: &str) -> Result<ServerName<'static>> {
    let host = host.trim_matches(['[', ']']);
    ServerName::try_from(host.to_owned()).with_context(|| format!("no server name: {host}"))
}
