//! The simulated network: one switch between all hosts of a run, the same in every world.
//!
//! # Why it is ours
//! turmoil and madsim bring sockets of their own, and neither set can carry this project. turmoil's UDP has no
//! per-packet loss, no bandwidth, no ECN, no path MTU; madsim's can't be polled and sleeps a millisecond per call; losing
//! messages breaks the TCP of either. Conditions written over both would be written twice, and a transfer would meet
//! different networks in different worlds. So the worlds are used for what they are best at (executors, virtual time,
//! hosts that crash and restart) and every packet passes through [`Switch`], which knows nothing of either.
//!
//! # How packets arrive without tasks
//! Sending decides everything at once: what is lost, how long the bottleneck takes, when the packet arrives. It is put
//! into the inbox of the receiving port, sorted by arrival, and the receiver is woken if that is now the first to
//! arrive. The receiver waits for its own timer. So there is no pump, no task per packet or link, and no race that an
//! executor could decide.
//!
//! # TCP
//! Byte streams are segments of a real TCP (smoltcp) over the same switch: loss, reordering, corruption, a dead path
//! and a host that comes back without its connections act on TCP as they do outside, with nothing modelled twice.
//! The stack is in `tcp.rs`.

mod link;
mod nat;
mod queue;
mod tcp;
mod udp;

pub use link::{Conditions, Loss};
pub use queue::{Bandwidth, Discipline};

use crate::faults::{Fault, Ledger, lock};
use crate::host::Clock;
use crate::notes;
use crate::rng::{Rng, Seed};
use crate::trace::{Fate, Keep, Protocol, Trace};
use link::{Flow, Link, Packet, Step};
use nat::Nat;
use queue::{Queue, Verdict};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::task::Waker;
use std::time::Duration;
use vortex_p2p::runtime::BoxFuture;
use vortex_p2p::transport::{ByteStream, Listener, Network};

/// Bytes that wait for a reader, per port; what arrives beyond is dropped, as the kernel does.
const RECEIVE_BUFFER: usize = 2 << 20;

/// A host of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(u16);

impl HostId {
    /// Its IPv4 address: 10.0.x.y.
    pub fn ipv4(self) -> Ipv4Addr {
        let [high, low] = self.0.to_be_bytes();
        Ipv4Addr::new(10, 0, high, low)
    }

    /// Its IPv6 address: fd00::n.
    pub fn ipv6(self) -> Ipv6Addr {
        Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, self.0)
    }

    fn address_like(self, other: IpAddr) -> IpAddr {
        if other.is_ipv4() { self.ipv4().into() } else { self.ipv6().into() }
    }

    fn of(address: IpAddr) -> Option<HostId> {
        let id = match address {
            IpAddr::V4(ip) => {
                let [_, _, high, low] = ip.octets();
                u16::from_be_bytes([high, low])
            }
            IpAddr::V6(ip) => ip.segments()[7],
        };
        let host = HostId(id);
        (host.address_like(address) == address).then_some(host)
    }
}

impl fmt::Display for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ipv4().fmt(f)
    }
}

/// A port of a host: what packets are delivered to.
type PortKey = (Protocol, HostId, u16);

/// A TCP stack takes the segments of all its ports at once.
const STACK: u16 = 0;

#[derive(Debug, Default)]
struct Port {
    bound: bool,
    /// What is on its way or waits for the reader, by arrival.
    inbox: VecDeque<(Duration, Packet)>,
    bytes: usize,
    reader: Option<Waker>,
}

impl Port {
    fn push(&mut self, at: Duration, packet: Packet) {
        self.bytes += packet.payload.bytes().len();
        // Nearly all packets arrive after those that were sent before them.
        let index = self.inbox.iter().rposition(|(other, _)| *other <= at).map_or(0, |last| last + 1);
        self.inbox.insert(index, (at, packet));
        // The reader's timer is set for the packet that was the first until now.
        if index == 0
            && let Some(reader) = self.reader.take()
        {
            reader.wake();
        }
    }

    fn pop(&mut self, now: Duration) -> Option<Packet> {
        if self.inbox.front()?.0 > now {
            return None;
        }
        let (_, packet) = self.inbox.pop_front()?;
        self.bytes -= packet.payload.bytes().len();
        Some(packet)
    }

    fn next(&self) -> Option<Duration> {
        self.inbox.front().map(|(at, _)| *at)
    }
}

#[derive(Debug)]
struct Attached {
    up: bool,
    /// How often it has lost power: a socket of before can't unbind one of after.
    outages: u64,
    next_port: u16,
    nat: Option<Nat>,
    /// What everything that the host sends has to pass first.
    uplink: Option<(Bandwidth, Queue)>,
}

#[derive(Debug)]
struct State {
    seed: Seed,
    trace: Trace,
    ledger: Ledger,
    default: Conditions,
    links: BTreeMap<(HostId, HostId), Link>,
    hosts: BTreeMap<HostId, Attached>,
    ports: BTreeMap<PortKey, Port>,
    /// Who owns an address that a NAT lent out.
    lent: BTreeMap<IpAddr, HostId>,
    /// Firewalls: whose packets of which protocol are swallowed, in both directions.
    blocked: BTreeSet<(HostId, Protocol)>,
    /// Data segments that a TCP has sent more than once.
    retransmissions: u64,
    /// Kept for its allocation.
    steps: Vec<Step>,
}

/// The switch between all hosts of a run.
#[derive(Debug)]
pub struct Switch(Mutex<State>);

impl Switch {
    /// A switch without hosts.
    pub(crate) fn new(seed: Seed, keep: Keep, ledger: Ledger) -> Arc<Self> {
        Arc::new(Switch(Mutex::new(State {
            seed,
            trace: Trace::new(keep),
            ledger,
            default: Conditions::default(),
            links: BTreeMap::new(),
            hosts: BTreeMap::new(),
            ports: BTreeMap::new(),
            lent: BTreeMap::new(),
            blocked: BTreeSet::new(),
            retransmissions: 0,
            steps: Vec::new(),
        })))
    }

    /// Attaches one more host.
    pub(crate) fn attach(&self) -> HostId {
        let mut state = lock(&self.0);
        // 10.0.0.1 is the first; 65,534 of them are more than any run can step.
        let host = HostId(state.hosts.len() as u16 + 1);
        state
            .hosts
            .insert(host, Attached { up: true, outages: 0, next_port: 49_152, nat: None, uplink: None });
        host
    }

    /// The host has lost power: nothing it had bound exists any more, and nothing more leaves it.
    pub(crate) fn power_off(&self, host: HostId) {
        let mut state = lock(&self.0);
        if let Some(attached) = state.hosts.get_mut(&host) {
            attached.up = false;
            attached.outages += 1;
        }
        // Packets on their way to it stay: who comes back in time gets to see them, as outside.
        for ((_, owner, _), port) in &mut state.ports {
            if *owner == host {
                port.bound = false;
                port.reader = None;
            }
        }
    }

    /// The host has power again.
    pub(crate) fn power_on(&self, host: HostId) {
        if let Some(attached) = lock(&self.0).hosts.get_mut(&host) {
            attached.up = true;
        }
    }

    /// Sets the conditions of every link that has none of its own.
    pub fn set_default(&self, conditions: Conditions) {
        let mut state = lock(&self.0);
        state.arm(&conditions);
        state.default = conditions;
        for link in state.links.values_mut() {
            link.conditions = conditions;
        }
    }

    /// Sets the conditions of one direction.
    pub fn set(&self, from: HostId, to: HostId, conditions: Conditions) {
        let mut state = lock(&self.0);
        state.arm(&conditions);
        state.link(from, to).conditions = conditions;
    }

    /// Sets the conditions of both directions.
    pub fn set_both(&self, a: HostId, b: HostId, conditions: Conditions) {
        self.set(a, b, conditions);
        self.set(b, a, conditions);
    }

    /// Has everything that `host` sends pass one bottleneck, whoever it is for, before the links.
    pub fn set_uplink(&self, host: HostId, bandwidth: Bandwidth) {
        let mut state = lock(&self.0);
        state.ledger.armed(Fault::Queue);
        if let Some(attached) = state.hosts.get_mut(&host) {
            attached.uplink = Some((bandwidth, Queue::default()));
        }
    }

    /// Cuts one direction: what is sent from now on is gone; what is on its way arrives.
    pub fn cut_one_way(&self, from: HostId, to: HostId) {
        let mut state = lock(&self.0);
        if !state.ledger.happens(Fault::Cut) {
            return;
        }
        notes::note(|| format!("{from} > {to} is cut"));
        state.link(from, to).flow = Flow::Cut;
    }

    /// Cuts both directions.
    pub fn cut(&self, a: HostId, b: HostId) {
        self.cut_one_way(a, b);
        self.cut_one_way(b, a);
    }

    /// Holds back what is sent from now on, in both directions.
    pub fn hold(&self, a: HostId, b: HostId) {
        let mut state = lock(&self.0);
        if !state.ledger.happens(Fault::Hold) {
            return;
        }
        notes::note(|| format!("{a} <> {b} holds everything back"));
        state.link(a, b).flow = Flow::Held;
        state.link(b, a).flow = Flow::Held;
    }

    /// Opens both directions again, and releases at `now` what was held back.
    pub(crate) fn open(&self, now: Duration, a: HostId, b: HostId) {
        let mut state = lock(&self.0);
        for (from, to) in [(a, b), (b, a)] {
            state.with_link(now, from, to, |link, faults, out| link.open(now, faults, out));
        }
    }

    /// Puts a firewall before `host` that swallows every packet of `protocol`, in both directions, from now on.
    pub fn block(&self, host: HostId, protocol: Protocol) {
        let mut state = lock(&self.0);
        if !state.ledger.happens(Fault::Cut) {
            return;
        }
        notes::note(|| format!("a firewall before {host} swallows {protocol:?}"));
        state.blocked.insert((host, protocol));
    }

    /// Puts `host` behind a NAT, or has its NAT forget every mapping: from now on its packets come from other ports, and
    /// from another address where `new_address` asks for one. What is sent to the old ones is lost.
    pub fn rebind(&self, host: HostId, new_address: bool) {
        let mut state = lock(&self.0);
        if !state.ledger.happens(Fault::Rebind) {
            return;
        }
        notes::note(|| format!("the NAT before {host} forgets its mappings"));
        state.rebind(host, new_address);
    }

    /// Data segments that the TCPs of all hosts have sent more than once.
    pub fn tcp_retransmissions(&self) -> u64 {
        lock(&self.0).retransmissions
    }

    /// What every link does that was not told otherwise.
    pub(crate) fn path(&self) -> Conditions {
        lock(&self.0).default
    }

    fn count_retransmission(&self) {
        lock(&self.0).retransmissions += 1;
    }

    /// Binds a port: `port`, or a free one for 0. With it comes how often the host had lost power by then.
    fn bind(&self, protocol: Protocol, host: HostId, port: u16, now: Duration) -> io::Result<(u16, u64)> {
        let mut state = lock(&self.0);
        let port = match port {
            0 if protocol == Protocol::Udp => state.free_port(protocol, host)?,
            port => port,
        };
        let entry = state.ports.entry((protocol, host, port)).or_default();
        if entry.bound {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        entry.bound = true;
        // What arrived while nobody was there was lost.
        while entry.pop(now).is_some() {}
        Ok((port, state.hosts.get(&host).map_or(0, |attached| attached.outages)))
    }

    fn unbind(&self, key: PortKey, outages: u64) {
        let mut state = lock(&self.0);
        let same_boot = state.hosts.get(&key.1).is_some_and(|attached| attached.outages == outages);
        if same_boot && let Some(port) = state.ports.get_mut(&key) {
            port.bound = false;
            port.reader = None;
        }
    }

    /// A port number that no TCP connection of this incarnation of `host` has had.
    fn ephemeral(&self, host: HostId) -> io::Result<u16> {
        lock(&self.0).free_port(Protocol::Tcp, host)
    }

    /// Sends a packet.
    fn send(&self, now: Duration, from: HostId, packet: Packet) {
        lock(&self.0).send(now, from, packet);
    }

    /// Hands what has arrived at `key` to `take` while that answers true. Answers with the arrival of what comes next;
    /// `reader` is woken where something comes earlier than that.
    fn receive(
        &self,
        now: Duration,
        key: PortKey,
        reader: &Waker,
        mut take: impl FnMut(Packet) -> bool,
    ) -> Option<Duration> {
        let mut state = lock(&self.0);
        let State { trace, ports, ledger, .. } = &mut *state;
        let port = ports.get_mut(&key)?;
        if port.bytes > RECEIVE_BUFFER {
            drop_beyond_buffer(now, port, trace);
        }
        while let Some(packet) = port.pop(now) {
            trace.add(
                now,
                Fate::Delivered,
                packet.protocol,
                packet.source,
                packet.destination,
                &packet.payload,
            );
            if packet.copy {
                ledger.seen(Fault::Duplicate, 1);
            }
            if !take(packet) {
                break;
            }
        }
        if !port.reader.as_ref().is_some_and(|known| known.will_wake(reader)) {
            port.reader = Some(reader.clone());
        }
        port.next()
    }

    /// Ends the run: drops what packets and wakers keep alive, and answers with the trace.
    pub(crate) fn finish(&self) -> Trace {
        let mut state = lock(&self.0);
        let (ports, links) = (std::mem::take(&mut state.ports), std::mem::take(&mut state.links));
        let trace = std::mem::replace(&mut state.trace, Trace::new(Keep::Digest));
        // Dropping a waker may drop a task, and with it a socket that unbinds itself here.
        drop(state);
        drop((ports, links));
        trace
    }
}

/// The network as one host sees it, from its boot to its crash.
#[derive(Debug)]
pub(crate) struct SimNetwork {
    switch: Arc<Switch>,
    clock: Arc<dyn Clock>,
    host: HostId,
    stack: tcp::Stack,
}

impl SimNetwork {
    /// Brings the network of a host up.
    pub(crate) fn start(
        switch: Arc<Switch>,
        clock: Arc<dyn Clock>,
        host: HostId,
        random: Rng,
    ) -> io::Result<Self> {
        let stack = tcp::Stack::start(switch.clone(), clock.clone(), host, random)?;
        Ok(SimNetwork { switch, clock, host, stack })
    }
}

impl Network for SimNetwork {
    fn udp(&self, bind: SocketAddr) -> BoxFuture<'_, io::Result<Arc<dyn quinn::AsyncUdpSocket>>> {
        let socket = udp::Socket::bind(self.switch.clone(), self.clock.clone(), self.host, bind);
        Box::pin(async { Ok(Arc::new(socket?) as Arc<dyn quinn::AsyncUdpSocket>) })
    }

    fn listen(&self, bind: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        Box::pin(async move { Ok(Box::new(self.stack.listen(bind)?) as Box<dyn Listener>) })
    }

    fn connect(&self, to: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn ByteStream>>> {
        Box::pin(async move { Ok(Box::new(self.stack.connect(to).await?) as Box<dyn ByteStream>) })
    }
}

/// Drops the latest of what has arrived where it is more than a receive buffer holds.
fn drop_beyond_buffer(now: Duration, port: &mut Port, trace: &mut Trace) {
    let mut waiting = 0;
    port.inbox.retain(|(at, packet)| {
        let length = packet.payload.bytes().len();
        let kept = *at > now || waiting + length <= RECEIVE_BUFFER;
        if kept && *at <= now {
            waiting += length;
        }
        if !kept {
            port.bytes -= length;
            let Packet { protocol, source, destination, payload, .. } = packet;
            trace.add(now, Fate::BufferFull, *protocol, *source, *destination, payload);
        }
        kept
    });
}

impl State {
    fn arm(&self, conditions: &Conditions) {
        conditions.faults().for_each(|fault| self.ledger.armed(fault));
    }

    fn link(&mut self, from: HostId, to: HostId) -> &mut Link {
        let (seed, default) = (self.seed, self.default);
        self.links
            .entry((from, to))
            .or_insert_with(|| Link::new(default, seed.stream(&format!("link/{from}/{to}"))))
    }

    fn free_port(&mut self, protocol: Protocol, host: HostId) -> io::Result<u16> {
        let attached = self.hosts.get_mut(&host).ok_or(io::ErrorKind::NetworkDown)?;
        for _ in 0..16_384 {
            let port = attached.next_port;
            attached.next_port = port.checked_add(1).unwrap_or(49_152);
            if !self.ports.get(&(protocol, host, port)).is_some_and(|port| port.bound) {
                return Ok(port);
            }
        }
        Err(io::ErrorKind::AddrNotAvailable.into())
    }

    fn record(&mut self, now: Duration, fate: Fate, packet: &Packet) {
        let Packet { protocol, source, destination, payload, .. } = packet;
        self.trace.add(now, fate, *protocol, *source, *destination, payload);
    }

    fn send(&mut self, now: Duration, from: HostId, mut packet: Packet) {
        if !self.hosts.get(&from).is_some_and(|host| host.up) {
            return;
        }
        self.record(now, Fate::Sent, &packet);
        let Some(enters) = self.leave_through_uplink(now, from, &mut packet) else { return };
        self.leave_through_nat(from, &mut packet);
        let owner = self.lent.get(&packet.destination.ip()).copied();
        let Some(to) = owner.or_else(|| HostId::of(packet.destination.ip())) else {
            return self.record(now, Fate::Unreachable, &packet);
        };
        if [from, to].iter().any(|host| self.blocked.contains(&(*host, packet.protocol))) {
            self.ledger.fired(Fault::Cut);
            return self.record(now, Fate::Cut, &packet);
        }
        self.with_link(now, from, to, |link, faults, out| link.carry(enters, packet, faults, out));
    }

    /// When the packet has left its host; never where the uplink drops it.
    fn leave_through_uplink(&mut self, now: Duration, from: HostId, packet: &mut Packet) -> Option<Duration> {
        let Some((bandwidth, queue)) = self.hosts.get_mut(&from).and_then(|host| host.uplink.as_mut()) else {
            return Some(now);
        };
        match queue.offer(bandwidth, now, packet.wire_bytes(), packet.is_markable()) {
            Verdict::Dropped if self.ledger.acts(Fault::Queue) => {
                self.record(now, Fate::QueueDropped, packet);
                None
            }
            Verdict::Dropped => Some(now),
            Verdict::Leaves { at, signal } => {
                if signal && self.ledger.acts(Fault::Mark) {
                    packet.mark();
                    self.record(now, Fate::Marked, packet);
                }
                Some(at)
            }
        }
    }

    fn with_link(
        &mut self,
        now: Duration,
        from: HostId,
        to: HostId,
        act: impl FnOnce(&mut Link, &Ledger, &mut Vec<Step>),
    ) {
        let (mut steps, faults) = (std::mem::take(&mut self.steps), self.ledger.clone());
        act(self.link(from, to), &faults, &mut steps);
        for step in steps.drain(..) {
            match step {
                Step::Fate(fate, packet) => self.record(now, fate, &packet),
                Step::Arrives(at, packet) => self.arrive(now, at, to, packet),
            }
        }
        self.steps = steps;
    }

    fn arrive(&mut self, now: Duration, at: Duration, to: HostId, mut packet: Packet) {
        if !self.enter_through_nat(to, &mut packet) {
            self.ledger.fired(Fault::Rebind);
            return self.record(now, Fate::Unreachable, &packet);
        }
        let port = match packet.protocol {
            Protocol::Udp => packet.destination.port(),
            Protocol::Tcp => STACK,
        };
        let key = (packet.protocol, to, port);
        match self.ports.get_mut(&key) {
            Some(port) => {
                if !port.bound {
                    // Whoever binds it next sees what has not arrived by then; keep no more than that.
                    while port.pop(now).is_some() {}
                }
                port.push(at, packet);
            }
            None => self.record(now, Fate::Unreachable, &packet),
        }
    }
}
