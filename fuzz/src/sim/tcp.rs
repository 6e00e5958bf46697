//! The byte streams of a [`Net`].

use alloc::vec::Vec;
use alloc::{format, vec};
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use super::nat::Protocol;
use super::net::Net;
use super::stream::{Cuts, End, Half, Stream};
use super::topology::{HostId, LAN, Owner, SiteId};
use super::world::{Arrival, ConnectFailure, Event};

impl Net {
    /// Listens for connections.
    pub fn listen(&mut self, host: HostId, local: SocketAddr) {
        let site = self.site_of(host, local.ip());
        self.listeners.insert((site, local));
    }

    /// Listens no more; connections that are open stay.
    pub fn unlisten(&mut self, host: HostId, local: SocketAddr) {
        let site = self.site_of(host, local.ip());
        self.listeners.remove(&(site, local));
    }

    /// Opens a connection from an address of the host, whose port is chosen here.
    /// [`Arrival::Connected`] or [`Arrival::ConnectFailed`] follows.
    pub fn connect(&mut self, host: HostId, local: IpAddr, remote: SocketAddr) -> End {
        let end = End(self.next_end);
        self.next_end += 2;
        let local = SocketAddr::new(local, self.free_port(host));
        self.note(host, || {
            format!("tcp {local} -> {remote} connect #{}", end.0)
        });
        let site = self.site_of(host, local.ip());
        let half = Half::new(host, local, remote);
        let stream = Stream {
            halves: [half, Half::new(host, remote, local)],
            cuts: self.cuts,
            window: self.window,
            dead: false,
            last: self.now,
        };
        self.streams.insert(end.0 >> 1, stream);
        match self.climb_tcp(site, local, remote) {
            Ok((site, from, path)) => {
                let event = Event::Syn {
                    site,
                    from,
                    to: remote,
                    end,
                    path,
                };
                self.schedule(path, event);
            }
            Err(why) => self.fail_connect(end, why, LAN),
        }
        end
    }

    fn fail_connect(&mut self, end: End, why: ConnectFailure, after: Duration) {
        let after = match why {
            ConnectFailure::Refused => after,
            ConnectFailure::TimedOut => self.connect_timeout,
        };
        if let Some(half) = self.half(end) {
            half.gone = true;
            let host = half.host;
            self.schedule(
                after,
                Event::Tell(host, Arrival::ConnectFailed { end, why }),
            );
        }
    }

    fn half(&mut self, end: End) -> Option<&mut Half> {
        self.streams
            .get_mut(&(end.0 >> 1))
            .map(|stream| stream.half(end))
    }

    pub(super) fn syn(
        &mut self,
        site: SiteId,
        from: SocketAddr,
        to: SocketAddr,
        end: End,
        path: Duration,
    ) -> Option<(HostId, Arrival)> {
        let host = match self.descend_tcp(site, from, to) {
            Some(Ok(host)) => host,
            Some(Err((site, to, more))) => {
                let event = Event::Syn {
                    site,
                    from,
                    to,
                    end,
                    path: path + more,
                };
                self.schedule(more, event);
                return None;
            }
            None => {
                self.fail_connect(end, ConnectFailure::TimedOut, path);
                return None;
            }
        };
        if !self.listeners.contains(&(site, to)) {
            self.fail_connect(end, ConnectFailure::Refused, path);
            return None;
        }
        if self.half(end)?.gone {
            return None;
        }
        let accepted = end.other();
        let half = self.half(accepted)?;
        *half = Half::new(host, to, from);
        half.open = true;
        self.note(host, || {
            format!("tcp {from} -> {to} accept #{}", accepted.0)
        });
        self.schedule(path, Event::SynAck(end));
        let arrival = Arrival::Accepted {
            end: accepted,
            local: to,
            remote: from,
        };
        Some((host, arrival))
    }

    pub(super) fn syn_ack(&mut self, end: End) -> Option<(HostId, Arrival)> {
        let half = self.half(end)?;
        if half.gone {
            return None;
        }
        half.open = true;
        let (host, local) = (half.host, half.local);
        // Bytes may have come meanwhile.
        self.schedule_read(end, Duration::ZERO);
        Some((host, Arrival::Connected { end, local }))
    }

    /// Both addresses of an end: its own and the other side's as it sees it.
    pub fn addresses(&self, end: End) -> Option<(SocketAddr, SocketAddr)> {
        let stream = self.streams.get(&(end.0 >> 1))?;
        let [first, second] = &stream.halves;
        let half = if end.0 & 1 == 0 { first } else { second };
        Some((half.local, half.remote))
    }

    /// Whether a host may still write to this end.
    pub fn is_writable(&mut self, end: End) -> bool {
        self.half(end)
            .is_some_and(|half| half.open && !half.shut && !half.gone)
    }

    /// Writes to a stream; how many bytes were taken. When not all were, [`Arrival::Writable`]
    /// follows. Streams that are closed take everything, to nowhere.
    pub fn write(&mut self, end: End, data: &[u8]) -> usize {
        if !self.is_writable(end) {
            return data.len();
        }
        let Some(stream) = self.streams.get_mut(&(end.0 >> 1)) else {
            return data.len();
        };
        let window = stream.window;
        // Something on the way forgets who is silent for too long.
        if let Some(limit) = self.stream_idle
            && self.now.duration_since(stream.last) > limit
        {
            stream.dead = true;
        }
        stream.last = self.now;
        if stream.dead {
            return data.len();
        }
        let room = window.saturating_sub(stream.half(end.other()).held);
        let taken = room.min(data.len());
        stream.half(end).blocked = taken < data.len();
        let host = stream.half(end).host;
        self.note(host, || {
            format!("tcp #{} write {taken} of {}", end.0, data.len())
        });
        let Some(piece) = data.get(..taken).filter(|piece| !piece.is_empty()) else {
            return taken;
        };
        let time = self.stream_time(end);
        let ready = self.now.checked_add(time).unwrap_or(self.now);
        if let Some(other) = self.half(end.other()) {
            let ready = other.inbox.back().map_or(ready, |(at, _)| ready.max(*at));
            other.inbox.push_back((ready, piece.to_vec()));
            other.held += taken;
            let wait = ready.duration_since(self.now);
            self.schedule_read(end.other(), wait);
        }
        taken
    }

    /// How long a piece of a stream takes: both sites' links count.
    fn stream_time(&mut self, end: End) -> Duration {
        let mut time = LAN;
        for end in [end, end.other()] {
            let Some((local, _)) = self.addresses(end) else {
                continue;
            };
            let Some(host) = self
                .half(end)
                .filter(|half| half.open)
                .map(|half| half.host)
            else {
                continue;
            };
            let mut site = self.site_of(host, local.ip());
            while let Some((parent, delay, jitter)) = self.uplink(site) {
                time += delay + self.choices.duration(jitter);
                site = parent;
            }
        }
        time
    }

    fn schedule_read(&mut self, end: End, after: Duration) {
        if let Some(half) = self.half(end)
            && !half.due
        {
            half.due = true;
            self.schedule(after, Event::ReadStream(end));
        }
    }

    pub(super) fn read_stream(&mut self, end: End) -> Option<(HostId, Arrival)> {
        let (now, corrupt) = (self.now, self.stream_corrupt);
        let stream = self.streams.get_mut(&(end.0 >> 1))?;
        let (cuts, dead) = (stream.cuts, stream.dead);
        let half = stream.half(end);
        half.due = false;
        if dead || half.paused || (!half.open && !half.gone) {
            return None;
        }
        if half.gone {
            // Data for a closed socket is answered with a reset.
            let had_data = !half.inbox.is_empty();
            half.inbox.clear();
            half.held = 0;
            if had_data {
                self.schedule(LAN, Event::ResetStream(end.other()));
            }
            return None;
        }
        let mut data = Vec::new();
        while let Some((ready, piece)) = half.inbox.front_mut() {
            if *ready > now || (!data.is_empty() && cuts != Cuts::Wild) {
                break;
            }
            data.append(piece);
            half.inbox.pop_front();
        }
        if data.is_empty() {
            return self.maybe_eof(end);
        }
        let most = match cuts {
            Cuts::None => data.len(),
            Cuts::Most(most) => most.clamp(1, data.len()),
            Cuts::Wild if self.choices.chance(300) => 1,
            Cuts::Wild => 1 + self.choices.index(data.len()),
        };
        let rest = data.split_off(most);
        if !rest.is_empty() {
            half.inbox.push_front((now, rest));
        }
        half.held = half.held.saturating_sub(data.len());
        let host = half.host;
        if self.choices.chance(corrupt) {
            let at = self.choices.index(data.len());
            data[at] ^= 1 << self.choices.below(8);
        }
        let next = self.half(end)?.inbox.front().map(|(ready, _)| *ready);
        let wait = next.map(|ready| ready.duration_since(now) + Duration::from_micros(10));
        match wait {
            Some(wait) => self.schedule_read(end, wait),
            None => {
                if let Some(fin) = self.half(end)?.fin {
                    self.schedule_read(end, fin.duration_since(now));
                }
            }
        }
        let writer = self.half(end.other())?;
        if writer.blocked {
            writer.blocked = false;
            self.schedule(LAN, Event::StreamWritable(end.other()));
        }
        self.note(host, || format!("tcp #{} read {}", end.0, data.len()));
        Some((host, Arrival::Bytes { end, data }))
    }

    fn maybe_eof(&mut self, end: End) -> Option<(HostId, Arrival)> {
        let now = self.now;
        let half = self.half(end)?;
        if let Some((ready, _)) = half.inbox.front() {
            let wait = ready.duration_since(now);
            self.schedule_read(end, wait);
            return None;
        }
        let fin = half.fin?;
        if half.fin_read {
            return None;
        }
        if fin > now {
            self.schedule_read(end, fin.duration_since(now));
            return None;
        }
        half.fin_read = true;
        let host = half.host;
        self.note(host, || format!("tcp #{} end of input", end.0));
        Some((host, Arrival::Eof { end }))
    }

    pub(super) fn writable(&mut self, end: End) -> Option<(HostId, Arrival)> {
        let half = self.half(end)?;
        (half.open && !half.gone && !half.shut).then_some((half.host, Arrival::Writable { end }))
    }

    /// Stops or resumes reading from a stream: what a slow host does.
    pub fn pause(&mut self, end: End, paused: bool) {
        if let Some(half) = self.half(end) {
            half.paused = paused;
        }
        if !paused {
            self.schedule_read(end, Duration::ZERO);
        }
    }

    /// Ends writing; what was written still arrives.
    pub fn shutdown(&mut self, end: End) {
        let time = self.stream_time(end);
        let now = self.now;
        let Some(half) = self.half(end) else { return };
        if half.shut || half.gone {
            return;
        }
        half.shut = true;
        let host = half.host;
        self.note(host, || format!("tcp #{} shutdown", end.0));
        if let Some(other) = self.half(end.other()) {
            let last = other.inbox.back().map_or(now, |(ready, _)| *ready);
            let fin = now.checked_add(time).unwrap_or(now).max(last);
            other.fin = Some(fin);
            self.schedule_read(end.other(), fin.duration_since(now));
        }
    }

    /// Ends writing and reading; what was written still arrives.
    pub fn close(&mut self, end: End) {
        self.shutdown(end);
        if let Some(half) = self.half(end) {
            half.gone = true;
            half.inbox.clear();
            half.held = 0;
        }
        // Somebody may wait for room that nobody will make any more.
        self.schedule(LAN, Event::StreamWritable(end.other()));
    }

    /// Ends a stream at once: the other side sees a reset.
    pub fn reset(&mut self, end: End) {
        let time = self.stream_time(end);
        let Some(half) = self.half(end) else { return };
        if half.gone {
            return;
        }
        half.gone = true;
        half.inbox.clear();
        let host = half.host;
        self.note(host, || format!("tcp #{} reset", end.0));
        self.schedule(time, Event::ResetStream(end.other()));
    }

    /// Something on the way ends a stream at once: both sides see a reset. One that is not open
    /// yet stays.
    pub fn cut(&mut self, end: End) {
        for end in [end, end.other()] {
            let time = self.stream_time(end);
            self.schedule(time, Event::ResetStream(end));
        }
    }

    pub(super) fn reset_arrives(&mut self, end: End) -> Option<(HostId, Arrival)> {
        let half = self.half(end)?;
        if half.gone || !half.open {
            return None;
        }
        half.gone = true;
        half.inbox.clear();
        half.held = 0;
        Some((half.host, Arrival::Reset { end }))
    }

    /// Nothing arrives any more on a stream, and nobody is told: a NAT forgot it.
    pub fn kill(&mut self, end: End) {
        if let Some(stream) = self.streams.get_mut(&(end.0 >> 1)) {
            stream.dead = true;
        }
    }

    /// A host loses all its streams, as in a restart: the other sides see resets.
    pub fn reset_all(&mut self, host: HostId) {
        let mut ends = vec![];
        for (id, stream) in &self.streams {
            for (side, half) in (0..).zip(&stream.halves) {
                if half.host == host && !half.gone {
                    ends.push(End(id << 1 | side));
                }
            }
        }
        for end in ends {
            self.reset(end);
        }
    }

    /// The way of a connection attempt out of its site: where it arrives, from which address, and
    /// how long that takes.
    pub(super) fn climb_tcp(
        &mut self,
        site: SiteId,
        local: SocketAddr,
        remote: SocketAddr,
    ) -> Result<(SiteId, SocketAddr, Duration), ConnectFailure> {
        let (mut site, mut from, mut time) = (site, local, LAN);
        let now = self.now;
        while !self.is_below(site, remote.ip()) {
            let Some((parent, gateway)) = &mut self.sites[site.0].up else {
                return Err(ConnectFailure::TimedOut);
            };
            if !gateway.firewall.lets_tcp_out(remote) {
                return Err(if gateway.firewall.rejects {
                    ConnectFailure::Refused
                } else {
                    ConnectFailure::TimedOut
                });
            }
            if let Some(nat) = &mut gateway.nat {
                if nat.external() == Some(remote.ip()) && !nat.kind.hairpin {
                    return Err(ConnectFailure::TimedOut);
                }
                from = nat.outbound(now, &mut self.choices, Protocol::Tcp, from, remote);
            }
            time += gateway.link.delay;
            site = *parent;
        }
        Ok((site, from, time))
    }

    /// Where a connection attempt goes that is in a site: `Ok` when it is at its host.
    pub(super) fn descend_tcp(
        &mut self,
        site: SiteId,
        from: SocketAddr,
        to: SocketAddr,
    ) -> Option<Result<HostId, (SiteId, SocketAddr, Duration)>> {
        let now = self.now;
        match *self.sites[site.0].owners.get(&to.ip())? {
            Owner::Host(host) => Some(Ok(host)),
            Owner::Child(child) => {
                let (_, gateway) = self.sites[child.0].up.as_ref()?;
                let to = match &gateway.nat {
                    Some(nat) => nat.inbound(now, Protocol::Tcp, from, to)?,
                    None => to,
                };
                Some(Err((child, to, gateway.link.delay)))
            }
        }
    }
}
