//! The command line, and the configuration it makes.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use base64ct::{Base64, Encoding as _};
use clap::{Args as Group, Parser, Subcommand, ValueEnum};
use hmac::{Hmac, KeyInit as _, Mac as _};
use http_connect::auth::Allow;
use ice_proto::{Policy, Role, SessionConfig, TurnServer};
use ims_traversal::HttpProxy;
use ims_traversal::access::AccessConfig;
use ims_traversal::ladder::Rung;
use ims_traversal::media::MediaConfig;
use ims_traversal::sdp::RtcpMux;
use ims_traversal::ue::UeConfig;
use sha1::Sha1;
use sip_outbound::wire::UriBuf;
use sip_outbound::{Account, InstanceId, UserAgentConfig};
use stun_proto::auth::Credentials;
use stun_proto::uri::{Scheme, Uri};

use crate::common::{self, servers};

/// A UE: registers through whatever firewall there is, calls, and is called.
///
/// Says what it does, a line for each step. Exit code 0 when what was asked for has succeeded and
/// the registrations are removed again. SIGINT and SIGTERM end calls, give relays back and
/// unregister, whatever is under way; once more, and it ends at once.
#[derive(Debug, Parser)]
#[command(name = "ue", version)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Registers, stays for --duration or until SIGINT, and unregisters.
    ///
    /// Success: every registration was there in time, and at the end.
    Register(Options),
    /// Registers, calls, and exchanges numbered packets until all have come back.
    ///
    /// Success: the call was taken, --messages packets came back, it lasted for --duration, and
    /// somebody hung up.
    Call {
        /// Whom to call: a SIP URI.
        to: String,
        #[command(flatten)]
        options: Options,
    },
    /// Registers, and takes calls until the other sides hang up.
    ///
    /// Success: as many calls came, and each went as one of `call` does. With --calls 0: it went
    /// on until --duration was over or a signal came; calls that fail are told and do not end it.
    Listen {
        /// How many calls to take; 0 is no end.
        #[arg(long, default_value_t = 1)]
        calls: u32,
        #[command(flatten)]
        options: Options,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Mux {
    Offer,
    Only,
    Never,
}

#[derive(Clone, Debug, Group)]
pub struct Options {
    /// A P-CSCF: sips:HOST[:PORT], or sip:HOST[:PORT];transport=tcp. May be given several times. PORT
    /// is where the ordinary ways go, 5061 or 5060 when it is not given; the ways direct and connect
    /// go to --tls-port, since they are for networks that let nothing else out.
    #[arg(long, value_name = "URI", required = true)]
    pub pcscf: Vec<String>,
    /// The port of the ways direct and connect.
    #[arg(long, value_name = "PORT", default_value_t = 443)]
    pub tls_port: u16,
    /// The address of record: sip:USER@DOMAIN.
    #[arg(long, value_name = "URI")]
    pub aor: String,
    /// The name that goes with the password; the user of --aor when it is not given.
    #[arg(long)]
    pub username: Option<String>,
    /// The last one counts.
    #[arg(
        long,
        env = "UE_PASSWORD",
        hide_env_values = true,
        overrides_with = "password"
    )]
    pub password: Option<String>,
    /// The password is the first line of this file.
    #[arg(long, value_name = "FILE", conflicts_with = "password")]
    pub password_file: Option<PathBuf>,
    /// The realm the password is for, `*` for any; the domain of --aor when it is not given.
    #[arg(long)]
    pub realm: Option<String>,
    /// How many P-CSCFs are used at the same time: all that are given, at most 2.
    #[arg(long)]
    pub flows: Option<usize>,
    /// How long a registration is asked for, in seconds; the registrar may grant less. 600000 when it
    /// is not given.
    #[arg(long, value_name = "SECONDS")]
    pub expires: Option<u32>,
    /// The name of the device, urn:uuid:...; made anew each time when it is not given.
    #[arg(long, value_name = "URN")]
    pub instance: Option<String>,
    /// Certificates to trust, a PEM file; those the system trusts when it is not given.
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// The HTTP proxy of the network, http://[USER:PASSWORD@]HOST:PORT.
    #[arg(long, value_name = "URL")]
    pub proxy: Option<String>,
    /// Answers a proxy that wants Basic or MD5, though it is asked in the clear.
    #[arg(long)]
    pub proxy_weak_auth: bool,
    /// The ways to a P-CSCF, best first: ordinary/TLS, ordinary/TCP, ordinary/UDP, direct (TLS to
    /// --tls-port), connect (the same through --proxy).
    #[arg(long, value_name = "WAY")]
    pub rung: Vec<Rung>,
    /// A STUN server, stun:HOST[:PORT]. May be given several times.
    #[arg(long, value_name = "URI")]
    pub stun: Vec<String>,
    /// A TURN server, turn: or turns:HOST[:PORT][?transport=udp|tcp]. May be given several times.
    #[arg(long, value_name = "URI")]
    pub turn: Vec<String>,
    #[arg(long, requires = "turn")]
    pub turn_user: Option<String>,
    #[arg(long, env = "UE_TURN_PASSWORD", hide_env_values = true)]
    pub turn_password: Option<String>,
    /// The secret TURN passwords are made from for an hour each.
    #[arg(
        long,
        env = "UE_TURN_SECRET",
        hide_env_values = true,
        conflicts_with = "turn_password"
    )]
    pub turn_secret: Option<String>,
    /// Media by relay only.
    #[arg(long)]
    pub relay_only: bool,
    /// RTP and RTCP on one port: offered with a second one to fall back on, the only way, or never.
    #[arg(long, value_enum, value_name = "HOW", default_value_t = Mux::Offer)]
    pub rtcp_mux: Mux,
    /// A local address for media; may be given several times. Default: that of the default route.
    #[arg(long, value_name = "IP")]
    pub bind: Vec<IpAddr>,
    /// Takes loopback addresses for media.
    #[arg(long)]
    pub loopback: bool,
    /// Packets to send in each call, which are to come back; 0 sends none, and proves nothing about
    /// the media.
    #[arg(long, default_value_t = 50)]
    pub messages: u32,
    /// Seconds a registration, or a call of this side, lasts at least; with `listen`, how long it
    /// waits for calls, 0 is no end.
    #[arg(long, default_value_t = 0)]
    pub duration: u64,
    /// Seconds each step may take: registering, whose ways are tried again as long as that; being
    /// answered and finding a way for the media.
    #[arg(long, default_value_t = 60)]
    pub timeout: u64,
    /// JSON lines instead of words.
    #[arg(long)]
    pub json: bool,
}

impl Options {
    pub fn config(&self) -> Result<UeConfig> {
        let proxy = self.proxy.as_deref().map(|url| self.http_proxy(url));
        let proxy = proxy.transpose()?;
        let tls = common::tls::client_trusting(self.ca.as_deref())?;
        let mut access = AccessConfig::new(self.agent()?, tls.clone());
        access.proxy.clone_from(&proxy);
        access.tls_port = self.tls_port;
        if !self.rung.is_empty() {
            access.ladder.rungs.clone_from(&self.rung);
        }
        let mut media = MediaConfig::new(self.session()?);
        media.tls = Some(tls);
        media.proxy = proxy;
        let mut config = UeConfig::new(access, media);
        config.set_rtcp_mux(match self.rtcp_mux {
            Mux::Offer => RtcpMux::Offer,
            Mux::Only => RtcpMux::Only,
            Mux::Never => RtcpMux::Never,
        });
        Ok(config)
    }

    fn password(&self) -> Result<String> {
        match (&self.password, &self.password_file) {
            (Some(password), _) => Ok(password.clone()),
            (None, Some(file)) => {
                let text = std::fs::read_to_string(file);
                let text = text.with_context(|| format!("password file {}", file.display()))?;
                Ok(text.lines().next().unwrap_or_default().to_owned())
            }
            (None, None) => bail!("--password, --password-file or UE_PASSWORD is needed"),
        }
    }

    fn agent(&self) -> Result<UserAgentConfig> {
        let aor: UriBuf = self.aor.parse().context("--aor")?;
        let proxies = self.pcscf.iter().map(|uri| uri.parse());
        let proxies = proxies.collect::<Result<Vec<UriBuf>, _>>();
        let proxies = proxies.context("--pcscf")?;
        let instance = match &self.instance {
            Some(urn) => urn.clone(),
            None => random_urn(),
        };
        let instance = InstanceId::new(&instance).context("--instance")?;
        let uri = aor.as_uri();
        let realm = self.realm.clone().unwrap_or_else(|| uri.host().to_owned());
        let name = self.username.clone();
        let name = name.unwrap_or_else(|| uri.user().unwrap_or_default().to_owned());
        let account = Account::new(&name, self.password()?.as_str(), &realm);
        let mut agent = UserAgentConfig::ims(aor, instance, proxies);
        agent.accounts = vec![account];
        // Registrars that know nothing else are common, and TLS is around it.
        agent.digest.md5 = Allow::OverTls;
        if let Some(flows) = self.flows {
            agent.flows = flows;
        }
        if let Some(expires) = self.expires {
            agent.expires = expires;
        }
        agent.user_agent = Some(concat!("ue/", env!("CARGO_PKG_VERSION")).to_owned());
        Ok(agent)
    }

    fn session(&self) -> Result<SessionConfig> {
        let mut session = SessionConfig::new(Role::Controlling);
        session.trickle = false;
        session.allow_loopback = self.loopback;
        if self.relay_only {
            session.policy = Policy::RelayOnly;
        }
        let stun = self.stun.iter().map(|uri| stun_server(uri));
        session.stun_servers = stun.collect::<Result<_>>()?;
        let turn = self.turn.iter().map(|uri| self.turn_server(uri));
        session.turn_servers = turn.collect::<Result<_>>()?;
        Ok(session)
    }

    fn turn_server(&self, text: &str) -> Result<TurnServer> {
        let uri = servers::turn_uri(text)?;
        Ok(TurnServer {
            addr: uri.addr,
            transport: uri.transport,
            credentials: self.turn_credentials()?,
            server_name: Some(uri.host),
            family: None,
        })
    }

    fn turn_credentials(&self) -> Result<Credentials> {
        if let Some(secret) = &self.turn_secret {
            let end = SystemTime::now().duration_since(UNIX_EPOCH)? + Duration::from_secs(3600);
            let user = self.turn_user.as_deref().unwrap_or("ue");
            let user = format!("{}:{user}", end.as_secs());
            let mut mac = Hmac::<Sha1>::new_from_slice(secret.as_bytes())?;
            mac.update(user.as_bytes());
            let password = Base64::encode_string(&mac.finalize().into_bytes());
            return Ok(Credentials::new(&user, password));
        }
        let (Some(user), Some(password)) = (&self.turn_user, &self.turn_password) else {
            bail!("--turn needs --turn-user and --turn-password, or --turn-secret");
        };
        Ok(Credentials::new(user, password.as_str()))
    }

    fn http_proxy(&self, url: &str) -> Result<HttpProxy> {
        let mut proxy = servers::proxy(url)?.http_proxy();
        let weak = if self.proxy_weak_auth {
            Allow::Always
        } else {
            Allow::Never
        };
        let policy = proxy.auth.policy_mut();
        (policy.basic, policy.md5) = (weak, weak);
        // Nobody is there to be asked.
        policy.ask_host = false;
        Ok(proxy)
    }

    /// The addresses for media.
    pub fn addresses(&self) -> Result<Vec<IpAddr>> {
        if !self.bind.is_empty() {
            return Ok(self.bind.clone());
        }
        // The address the way to the relay, or to anywhere, begins with.
        let turn = self.session()?.turn_servers;
        let to = turn.first().map(|server| server.addr);
        let to = to.unwrap_or_else(|| SocketAddr::from(([203, 0, 113, 1], 9)));
        Ok(servers::local_address(to).into_iter().collect())
    }
}

fn random_urn() -> String {
    let seed = common::seed();
    let hex: String = seed[..16]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!(
        "urn:uuid:{}-{}-4{}-8{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[13..16],
        &hex[17..20],
        &hex[20..]
    )
}

fn stun_server(text: &str) -> Result<SocketAddr> {
    let uri: Uri = text.parse().with_context(|| format!("STUN URI {text}"))?;
    let plain = uri.scheme() == Scheme::Stun;
    anyhow::ensure!(plain, "{text}: only stun: over UDP is supported");
    servers::resolve(&servers::host_text(&uri), uri.port())
}
