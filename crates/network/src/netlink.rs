//! A small synchronous route-netlink client: several requests in one system call, answered in one pass.
//!
//! Attaching a pod is a dozen requests to the kernel that take microseconds each. A connection task with channels would
//! cost more than the work, and a socket has to be opened inside the pod's namespace, on a thread that lives only for
//! that. The messages themselves are those of `rtnetlink`.

use std::io;
use std::net::IpAddr;

use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use rtnetlink::packet_route::link::{
    InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

/// A socket to the network namespace of the thread that opened it.
pub struct Netlink {
    socket: Socket,
    sequence: u32,
}

/// One change, and whether it is fine when it was made before.
pub struct Request {
    message: RouteNetlinkMessage,
    flags: u16,
    /// Errno values that mean "already so".
    tolerate: &'static [i32],
}

/// What is known of an interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Interface index.
    pub index: u32,
    /// Interface name.
    pub name: String,
    /// Largest packet in bytes.
    pub mtu: u32,
}

const EXISTS: &[i32] = &[nix::libc::EEXIST];
const GONE: &[i32] = &[nix::libc::ENODEV, nix::libc::ENOENT, nix::libc::ESRCH, nix::libc::EADDRNOTAVAIL];

impl Netlink {
    /// Opens a socket in the calling thread's network namespace.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Sends all requests at once; the kernel works them off in order. The first failure that is not tolerated is
    /// returned, after every answer was read.
    pub fn apply(&mut self, requests: Vec<Request>) -> io::Result<()> {
        let first = self.sequence.wrapping_add(1);
        let mut buffer = Vec::with_capacity(256 * requests.len());
        let mut tolerated = Vec::with_capacity(requests.len());
        for request in requests {
            self.encode(request.message, NLM_F_REQUEST | NLM_F_ACK | request.flags, &mut buffer);
            tolerated.push(request.tolerate);
        }
        if tolerated.is_empty() {
            return Ok(());
        }
        self.socket.send(&buffer, 0)?;
        let (mut left, mut failure) = (tolerated.len(), None);
        while left > 0 {
            self.receive(|message| {
                if let NetlinkPayload::Error(answer) = message.payload {
                    let position = message.header.sequence_number.wrapping_sub(first) as usize;
                    let Some(tolerate) = tolerated.get(position) else { return };
                    left -= 1;
                    if let Some(code) = answer.code {
                        let errno = code.get().abs();
                        if !tolerate.contains(&errno) && failure.is_none() {
                            failure = Some(io::Error::from_raw_os_error(errno));
                        }
                    }
                }
            })?;
        }
        failure.map_or(Ok(()), Err)
    }

    /// The interface called `name`.
    pub fn link(&mut self, name: &str) -> io::Result<Option<Link>> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        match self.query(RouteNetlinkMessage::GetLink(message), 0) {
            Ok(answers) => Ok(answers.into_iter().find_map(link_of)),
            Err(error) if error.raw_os_error() == Some(nix::libc::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All interfaces of the namespace.
    pub fn links(&mut self) -> io::Result<Vec<Link>> {
        let answers = self.query(RouteNetlinkMessage::GetLink(LinkMessage::default()), NLM_F_DUMP)?;
        Ok(answers.into_iter().filter_map(link_of).collect())
    }

    /// The addresses of the interface `index`, or of all interfaces.
    pub fn addresses(&mut self, index: Option<u32>) -> io::Result<Vec<IpAddr>> {
        let answers = self.query(RouteNetlinkMessage::GetAddress(AddressMessage::default()), NLM_F_DUMP)?;
        Ok(answers
            .into_iter()
            .filter_map(|answer| match answer {
                RouteNetlinkMessage::NewAddress(message) if index.is_none_or(|index| message.header.index == index) => {
                    let local = message.attributes.iter().find_map(|attribute| match attribute {
                        AddressAttribute::Local(ip) => Some(*ip),
                        _ => None,
                    });
                    local.or_else(|| {
                        message.attributes.iter().find_map(|attribute| match attribute {
                            AddressAttribute::Address(ip) => Some(*ip),
                            _ => None,
                        })
                    })
                }
                _ => None,
            })
            .collect())
    }

    /// The interface that the IPv4 default route leaves by.
    pub fn default_interface(&mut self) -> io::Result<Option<u32>> {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        let answers = self.query(RouteNetlinkMessage::GetRoute(message), NLM_F_DUMP)?;
        Ok(answers.into_iter().find_map(|answer| match answer {
            RouteNetlinkMessage::NewRoute(route)
                if route.header.destination_prefix_length == 0
                    && route.header.kind == RouteType::Unicast
                    && route.header.table == RouteHeader::RT_TABLE_MAIN =>
            {
                route.attributes.iter().find_map(|attribute| match attribute {
                    RouteAttribute::Oif(index) => Some(*index),
                    _ => None,
                })
            }
            _ => None,
        }))
    }

    fn query(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<RouteNetlinkMessage>> {
        let mut buffer = Vec::new();
        let sequence = self.encode(message, NLM_F_REQUEST | flags, &mut buffer);
        self.socket.send(&buffer, 0)?;
        let (mut answers, mut done, mut failure) = (Vec::new(), false, None);
        while !done {
            self.receive(|message| {
                if message.header.sequence_number != sequence {
                    return;
                }
                match message.payload {
                    NetlinkPayload::InnerMessage(inner) => {
                        answers.push(inner);
                        done |= flags & NLM_F_DUMP != NLM_F_DUMP;
                    }
                    NetlinkPayload::Done(_) => done = true,
                    NetlinkPayload::Error(error) => {
                        failure = error.code.map(|code| io::Error::from_raw_os_error(code.get().abs()));
                        done = true;
                    }
                    _ => {}
                }
            })?;
        }
        failure.map_or(Ok(answers), Err)
    }

    fn encode(&mut self, message: RouteNetlinkMessage, flags: u16, buffer: &mut Vec<u8>) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
        message.finalize();
        let start = buffer.len();
        buffer.resize(start + message.buffer_len().next_multiple_of(4), 0);
        message.serialize(&mut buffer[start..]);
        self.sequence
    }

    fn receive(&mut self, mut each: impl FnMut(NetlinkMessage<RouteNetlinkMessage>)) -> io::Result<()> {
        let (bytes, _) = self.socket.recv_from_full()?;
        let mut rest = bytes.as_slice();
        while rest.len() >= 16 {
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
            let length = (message.header.length as usize).next_multiple_of(4);
            if length == 0 {
                break;
            }
            each(message);
            rest = rest.get(length..).unwrap_or_default();
        }
        Ok(())
    }
}

fn link_of(message: RouteNetlinkMessage) -> Option<Link> {
    let RouteNetlinkMessage::NewLink(message) = message else { return None };
    let mut link = Link { index: message.header.index, ..Link::default() };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            _ => {}
        }
    }
    Some(link)
}

impl Request {
    fn create(message: RouteNetlinkMessage) -> Self {
        Self { message, flags: NLM_F_CREATE | NLM_F_EXCL, tolerate: EXISTS }
    }

    fn set(message: RouteNetlinkMessage) -> Self {
        Self { message, flags: 0, tolerate: &[] }
    }

    fn delete(message: RouteNetlinkMessage) -> Self {
        Self { message, flags: 0, tolerate: GONE }
    }

    /// Makes "it exists" an error.
    #[must_use]
    pub fn strictly(mut self) -> Self {
        self.tolerate = &[];
        self
    }

    /// Creates bridge `name` with a fixed hardware address, so that it does not change with its first port.
    #[must_use]
    pub fn bridge(name: &str, mac: [u8; 6], mtu: u32) -> Self {
        let mut message = LinkMessage::default();
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        message.attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::Address(mac.to_vec()),
            LinkAttribute::Mtu(mtu),
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]),
        ];
        Self::create(RouteNetlinkMessage::NewLink(message))
    }

    /// Creates a pair: `host` here, up and in bridge `bridge`; `peer` in the namespace of `netns`, still down, for the
    /// kernel cannot bring one end up before it knows the other.
    #[must_use]
    pub fn veth(host: &str, bridge: u32, peer: &str, mac: [u8; 6], netns: std::os::fd::RawFd, mtu: u32) -> Self {
        let mut inner = LinkMessage::default();
        inner.attributes = vec![
            LinkAttribute::IfName(peer.to_owned()),
            LinkAttribute::Address(mac.to_vec()),
            LinkAttribute::Mtu(mtu),
            LinkAttribute::NetNsFd(netns),
        ];
        let mut message = LinkMessage::default();
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        message.attributes = vec![
            LinkAttribute::IfName(host.to_owned()),
            LinkAttribute::Mtu(mtu),
            LinkAttribute::Controller(bridge),
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth), LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(inner)))]),
        ];
        Self::create(RouteNetlinkMessage::NewLink(message))
    }

    /// Lets the bridge send a frame back through the port it came from.
    #[must_use]
    pub fn hairpin(port: &str) -> Self {
        let mut message = LinkMessage::default();
        message.attributes = vec![
            LinkAttribute::IfName(port.to_owned()),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::PortKind(InfoPortKind::Bridge),
                LinkInfo::PortData(InfoPortData::BridgePort(vec![InfoBridgePort::HairpinMode(true)])),
            ]),
        ];
        Self::set(RouteNetlinkMessage::NewLink(message))
    }

    /// Brings an interface up.
    #[must_use]
    pub fn up(index: u32) -> Self {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        Self::set(RouteNetlinkMessage::SetLink(message))
    }

    /// Removes an interface; fine when it is not there.
    #[must_use]
    pub fn delete_link(name: &str) -> Self {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        Self::delete(RouteNetlinkMessage::DelLink(message))
    }

    /// Adds an address, usable at once: IPv6 duplicate detection is off, for we are the only one who assigns them.
    #[must_use]
    pub fn address(index: u32, ip: IpAddr, prefix: u8) -> Self {
        Self::create(RouteNetlinkMessage::NewAddress(address(index, ip, prefix)))
    }

    /// Takes an address away; fine when it is not there.
    #[must_use]
    pub fn delete_address(index: u32, ip: IpAddr, prefix: u8) -> Self {
        Self::delete(RouteNetlinkMessage::DelAddress(address(index, ip, prefix)))
    }

    /// Adds or replaces a route to `network`: through `gateway`, or directly on the interface when there is none.
    #[must_use]
    pub fn route(network: ipnet::IpNet, gateway: Option<IpAddr>, index: u32, source: Option<IpAddr>) -> Self {
        let mut message = RouteMessage::default();
        message.header.address_family = family(network.addr());
        message.header.destination_prefix_length = network.prefix_len();
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.protocol = RouteProtocol::Static;
        message.header.kind = RouteType::Unicast;
        let direct = gateway.is_none() && network.addr().is_ipv4();
        message.header.scope = if direct { RouteScope::Link } else { RouteScope::Universe };
        if network.prefix_len() > 0 {
            message.attributes.push(RouteAttribute::Destination(RouteAddress::from(network.network())));
        }
        message.attributes.extend(gateway.map(|gateway| RouteAttribute::Gateway(RouteAddress::from(gateway))));
        message.attributes.extend(source.map(|source| RouteAttribute::PrefSource(RouteAddress::from(source))));
        message.attributes.push(RouteAttribute::Oif(index));
        Self { message: RouteNetlinkMessage::NewRoute(message), flags: NLM_F_CREATE | NLM_F_REPLACE, tolerate: EXISTS }
    }
}

fn family(ip: IpAddr) -> AddressFamily {
    if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn address(index: u32, ip: IpAddr, prefix: u8) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(ip);
    message.header.prefix_len = prefix;
    message.header.index = index;
    message.header.scope = AddressScope::Universe;
    message.attributes = vec![AddressAttribute::Local(ip), AddressAttribute::Address(ip)];
    if ip.is_ipv6() {
        message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
    }
    message
}
