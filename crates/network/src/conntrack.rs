//! Forgetting flows that the kernel's connection tracking remembers, over ctnetlink.
//!
//! The messages are built by hand: there are two of them, and only the addresses and ports inside matter.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

/// A flow as it is translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Where the client sends to.
    pub destination: (IpAddr, u16),
    /// Who answers.
    pub replier: (IpAddr, u16),
}

const CT_GET: u16 = (1 << 8) | 1;
const CT_DELETE: u16 = (1 << 8) | 2;
const REQUEST: u16 = 0x1;
const ACK: u16 = 0x4;
const DUMP: u16 = 0x300;
const ERROR: u16 = 0x2;
const DONE: u16 = 0x3;
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const NESTED: u16 = 0x8000;
const HEADER: usize = 16;
const FAMILY_HEADER: usize = 4;

/// Forgets the UDP flows of the calling thread's namespace that `stale` names, and returns how many there were.
pub fn forget_udp(stale: impl Fn(&Flow) -> bool) -> io::Result<usize> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut found = Vec::new();
    for family in [nix::libc::AF_INET as u8, nix::libc::AF_INET6 as u8] {
        socket.send(&message(CT_GET, REQUEST | DUMP, family, &[]), 0)?;
        read(&socket, |body| {
            let (mut destination, mut replier, mut original) = (None, None, None);
            for (kind, value) in attributes(body.get(FAMILY_HEADER..).unwrap_or_default()) {
                match kind & !NESTED {
                    TUPLE_ORIGINAL => {
                        destination = tuple(value).map(|(_, destination)| destination);
                        original = Some(value.to_vec());
                    }
                    TUPLE_REPLY => replier = tuple(value).map(|(source, _)| source),
                    _ => {}
                }
            }
            if let (Some(destination), Some(replier), Some(original)) = (destination, replier, original)
                && stale(&Flow { destination, replier })
            {
                found.push((family, original));
            }
        })?;
    }
    for (family, original) in &found {
        socket.send(&message(CT_DELETE, REQUEST | ACK, *family, original), 0)?;
        match read(&socket, |_| {}) {
            // It ended by itself meanwhile.
            Err(error) if error.raw_os_error() == Some(nix::libc::ENOENT) => {}
            other => other?,
        }
    }
    Ok(found.len())
}

fn message(kind: u16, flags: u16, family: u8, original: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; HEADER];
    bytes.extend([family, 0, 0, 0]);
    if !original.is_empty() {
        bytes.extend(((original.len() + 4) as u16).to_ne_bytes());
        bytes.extend((TUPLE_ORIGINAL | NESTED).to_ne_bytes());
        bytes.extend(original);
    }
    let length = bytes.len() as u32;
    bytes[0..4].copy_from_slice(&length.to_ne_bytes());
    bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
    bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
    bytes[8..12].copy_from_slice(&1u32.to_ne_bytes());
    bytes
}

/// Hands the body of each message to `each`, until the end of a dump or the acknowledgement.
fn read(socket: &Socket, mut each: impl FnMut(&[u8])) -> io::Result<()> {
    loop {
        let (bytes, _) = socket.recv_from_full()?;
        let mut rest = bytes.as_slice();
        while let (Some(length), Some(kind)) = (rest.get(0..4), rest.get(4..6)) {
            let length = u32::from_ne_bytes(length.try_into().expect("four bytes")) as usize;
            let kind = u16::from_ne_bytes(kind.try_into().expect("two bytes"));
            let Some(body) = rest.get(HEADER..length) else { break };
            match kind {
                DONE => return Ok(()),
                ERROR => {
                    let code = body.get(0..4).map_or(0, |code| i32::from_ne_bytes(code.try_into().expect("four bytes")));
                    return if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-code)) };
                }
                _ => each(body),
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

/// The source and destination of a tuple of the UDP protocol.
fn tuple(bytes: &[u8]) -> Option<((IpAddr, u16), (IpAddr, u16))> {
    let (mut source, mut destination, mut ports, mut udp) = (None, None, (None, None), false);
    for (kind, value) in attributes(bytes) {
        for (inner, data) in attributes(value) {
            match (kind & !NESTED, inner & !NESTED) {
                (1, 1 | 3) => source = address(data),
                (1, 2 | 4) => destination = address(data),
                (2, 1) => udp = data.first() == Some(&17),
                (2, 2) => ports.0 = port(data),
                (2, 3) => ports.1 = port(data),
                _ => {}
            }
        }
    }
    udp.then_some(())?;
    Some(((source?, ports.0?), (destination?, ports.1?)))
}

fn address(data: &[u8]) -> Option<IpAddr> {
    match data.len() {
        4 => Some(IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(data).ok()?))),
        16 => Some(IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(data).ok()?))),
        _ => None,
    }
}

fn port(data: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(data.try_into().ok()?))
}

fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(bytes.get(0..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?);
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}
