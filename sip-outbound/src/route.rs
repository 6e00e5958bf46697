//! The way back: `received`, `rport` and where responses go (RFC 3261 section 18.2, RFC 3581).

use core::net::SocketAddr;

use alloc::string::ToString as _;

use crate::wire::{Limits, Message, Name, ParseConfig, Request, host_ip};

/// A copy of a request whose topmost Via says where it came from; `None` when the Via cannot be
/// read, or says so already.
pub(crate) fn stamp_via(message: &Message, source: SocketAddr, limits: &Limits) -> Option<Message> {
    let via = message.via(limits).ok()?;
    let ip = source.ip().to_string();
    let port = source.port().to_string();
    let asked = via.asks_rport();
    let differs = host_ip(via.host()) != Some(source.ip());
    // A value the sender has put there itself means nothing.
    let forged = via.params.has("received") || via.rport().is_some();
    let value = match (
        asked || forged && via.params.has("rport"),
        differs || asked || forged,
    ) {
        (true, _) => via.with_params(&[("rport", Some(&port)), ("received", Some(&ip))]),
        (false, true) => via.with_params(&[("received", Some(&ip))]),
        (false, false) => return None,
    };
    message
        .edit()
        .replace_first(Name::VIA, &value)
        .finish()
        .ok()
}

/// Where the response to a datagram goes, from the topmost Via of a stamped request: to
/// `received` or the host, at `rport` or the port of the sender.
pub(crate) fn reply_address(request: &Request, config: &ParseConfig) -> Option<SocketAddr> {
    let via = request.via(&config.limits).ok()?;
    let ip = via.received().or_else(|| host_ip(via.host()))?;
    let port = via.rport().or(via.port).unwrap_or(5060);
    Some(SocketAddr::new(ip, port))
}
