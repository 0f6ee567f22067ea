//! UDP and TCP: a question in, a message out.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use corten_task::Tasks;
use hickory_proto::op::{Edns, Message, MessageType, Metadata, OpCode, ResponseCode};
use hickory_proto::rr::{DNSClass, RData, Record, RecordType};
use rand::seq::SliceRandom;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::StartError;
use crate::answer::{Answer, Records, Zone, answer, authority};
use crate::forward::{Forwarder, Transport};

/// Largest UDP answer: what passes every network without fragments (DNS flag day 2020).
const LARGEST_UDP: u16 = 1232;
/// What a client without EDNS can take (RFC 1035).
const SMALLEST_UDP: u16 = 512;
/// How long a TCP client may be silent.
const IDLE: Duration = Duration::from_secs(10);
/// Questions in the hands of upstream servers, and TCP connections, at one time.
const MOST_FORWARDED: usize = 1024;
const MOST_CONNECTIONS: usize = 256;
/// How many aliases are followed.
const LONGEST_CHAIN: usize = 8;

/// Records of which it is known whether they are all there.
pub trait Source: Records + Send + Sync + 'static {
    fn complete(&self) -> bool;
}

impl Source for crate::records::Cached {
    fn complete(&self) -> bool {
        crate::records::Cached::complete(self)
    }
}

struct Server<S> {
    zone: Zone,
    records: S,
    forwarder: Forwarder,
    forwarded: Semaphore,
    connections: Arc<Semaphore>,
    tasks: Tasks,
}

/// Binds all addresses, then serves them until `tasks` stops.
pub async fn start<S: Source>(
    listen: &[SocketAddr],
    zone: Zone,
    records: S,
    forwarder: Forwarder,
    tasks: &Tasks,
) -> Result<Vec<SocketAddr>, StartError> {
    let server = Arc::new(Server {
        zone,
        records,
        forwarder,
        forwarded: Semaphore::new(MOST_FORWARDED),
        connections: Arc::new(Semaphore::new(MOST_CONNECTIONS)),
        tasks: tasks.clone(),
    });
    let mut bound = Vec::new();
    for &address in listen {
        let failed = |source| StartError::Bind { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let socket = UdpSocket::bind(address).await.map_err(failed)?;
        bound.push((address, listener, socket));
    }
    let addresses = bound.iter().map(|(address, ..)| *address).collect();
    for (_, listener, socket) in bound {
        tasks.spawn("dns over udp", server.clone().udp(Arc::new(socket)));
        tasks.spawn("dns over tcp", server.clone().tcp(listener));
    }
    Ok(addresses)
}

/// What is to be done with a question.
enum Step {
    /// Send this.
    Reply(Message),
    /// Ask upstream; the records, if any, come before its answer.
    Forward { question: Message, aliases: Vec<Record> },
    /// Nothing: it was no question.
    Ignore,
}

impl<S: Source> Server<S> {
    async fn udp(self: Arc<Self>, socket: Arc<UdpSocket>) {
        let mut buffer = vec![0; 4096];
        loop {
            // An error here is an earlier answer that could not be delivered.
            let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
            let Ok(query) = Message::from_vec(&buffer[..length]) else {
                self.malformed(&buffer[..length], &socket, from).await;
                continue;
            };
            match self.step(&query) {
                Step::Ignore => {}
                Step::Reply(reply) => send(&socket, from, &query, reply).await,
                Step::Forward { question, aliases } => {
                    let (server, socket) = (self.clone(), socket.clone());
                    self.tasks.spawn("forward", async move {
                        let reply = server.forward(&query, question, aliases, Transport::Udp).await;
                        send(&socket, from, &query, reply).await;
                    });
                }
            }
        }
    }

    async fn tcp(self: Arc<Self>, listener: TcpListener) {
        loop {
            let Ok(permit) = self.connections.clone().acquire_owned().await else { return };
            let Ok((stream, _)) = listener.accept().await else {
                // Out of descriptors: one that ends frees some.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let server = self.clone();
            self.tasks.spawn("dns connection", async move {
                // A client that goes away, or is silent for too long, ends its connection; nobody has to know.
                let _ = server.connection(stream).await;
                drop(permit);
            });
        }
    }

    async fn connection(&self, mut stream: TcpStream) -> std::io::Result<()> {
        loop {
            let length = timeout(IDLE, stream.read_u16()).await??;
            let mut buffer = vec![0; usize::from(length)];
            timeout(IDLE, stream.read_exact(&mut buffer)).await??;
            let Ok(query) = Message::from_vec(&buffer) else { return Ok(()) };
            let reply = match self.step(&query) {
                Step::Ignore => return Ok(()),
                Step::Reply(reply) => reply,
                Step::Forward { question, aliases } => self.forward(&query, question, aliases, Transport::Tcp).await,
            };
            let Some(bytes) = encode(reply, u16::MAX) else { return Ok(()) };
            let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
            timeout(IDLE, stream.write_all(&[&length.to_be_bytes(), bytes.as_slice()].concat())).await??;
        }
    }

    /// Answers a message that cannot be read with FORMERR, if at least its header can.
    async fn malformed(&self, bytes: &[u8], socket: &UdpSocket, from: SocketAddr) {
        let Some(&[high, low, flags, ..]) = bytes.get(..12) else { return };
        if flags & 0x80 != 0 {
            return;
        }
        let id = u16::from_be_bytes([high, low]);
        if let Ok(bytes) = Message::error_msg(id, OpCode::Query, ResponseCode::FormErr).to_vec() {
            let _ = socket.send_to(&bytes, from).await;
        }
    }

    fn step(&self, query: &Message) -> Step {
        if query.metadata.message_type != MessageType::Query {
            return Step::Ignore;
        }
        let refuse = |code| {
            let mut reply = reply_to(query);
            reply.metadata.response_code = code;
            Step::Reply(reply)
        };
        if query.metadata.op_code != OpCode::Query {
            return refuse(ResponseCode::NotImp);
        }
        if query.edns.as_ref().is_some_and(|edns| edns.version() > 0) {
            return refuse(ResponseCode::BADVERS);
        }
        let [asked] = query.queries.as_slice() else { return refuse(ResponseCode::FormErr) };
        let ours = asked.query_class == DNSClass::IN;
        let mut name = asked.name.clone();
        let mut aliases = Vec::new();
        let mut reply = reply_to(query);
        while ours && aliases.len() < LONGEST_CHAIN {
            if !self.records.complete() && self.zone.domain.zone_of(&name) {
                return refuse(ResponseCode::ServFail);
            }
            reply.metadata.authoritative = true;
            match answer(&self.zone, &name, asked.query_type, &self.records) {
                Answer::NotOurs => break,
                Answer::Alias { record, target } => {
                    aliases.push(record);
                    name = target;
                    continue;
                }
                Answer::Found { mut answers, additionals } => {
                    if matches!(asked.query_type, RecordType::A | RecordType::AAAA) {
                        // Clients take the first: the order spreads them.
                        answers.shuffle(&mut rand::rng());
                    }
                    for record in &mut answers {
                        if let RData::SOA(soa) = &mut record.data {
                            soa.serial = serial();
                        }
                    }
                    reply.answers = aliases;
                    reply.answers.extend(answers);
                    reply.additionals = additionals;
                }
                negative => {
                    if negative == Answer::NoSuchName {
                        reply.metadata.response_code = ResponseCode::NXDomain;
                    }
                    reply.answers = aliases;
                    reply.authorities = vec![authority(&self.zone, serial())];
                }
            }
            return Step::Reply(reply);
        }
        if aliases.len() >= LONGEST_CHAIN {
            return refuse(ResponseCode::ServFail);
        }
        let mut question = query.clone();
        question.queries[0].name = name;
        Step::Forward { question, aliases }
    }

    async fn forward(&self, query: &Message, question: Message, aliases: Vec<Record>, transport: Transport) -> Message {
        let failed = || {
            let mut reply = reply_to(query);
            reply.metadata.response_code = ResponseCode::ServFail;
            reply
        };
        let Ok(_permit) = self.forwarded.try_acquire() else { return failed() };
        let Some(mut reply) = self.forwarder.ask(&question, transport).await else { return failed() };
        if !aliases.is_empty() {
            reply.queries.clone_from(&query.queries);
            reply.answers.splice(0..0, aliases);
        }
        if query.edns.is_none() {
            reply.edns = None;
        }
        reply
    }
}

fn reply_to(query: &Message) -> Message {
    let mut reply = Message::response(query.metadata.id, query.metadata.op_code);
    reply.metadata = Metadata::response_from_request(&query.metadata);
    reply.metadata.recursion_available = true;
    reply.queries.clone_from(&query.queries);
    if query.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(LARGEST_UDP);
        reply.set_edns(edns);
    }
    reply
}

async fn send(socket: &UdpSocket, to: SocketAddr, query: &Message, reply: Message) {
    let limit = query.edns.as_ref().map_or(SMALLEST_UDP, |edns| edns.max_payload().clamp(SMALLEST_UDP, LARGEST_UDP));
    if let Some(bytes) = encode(reply, limit) {
        // A client that is gone cannot be told.
        let _ = socket.send_to(&bytes, to).await;
    }
}

/// The bytes of a message of at most `limit` bytes. What does not fit is left out and marked as such, so that the client
/// asks again over TCP; addresses that fit are sent, for clients that cannot.
fn encode(mut reply: Message, limit: u16) -> Option<Vec<u8>> {
    let limit = usize::from(limit);
    let mut bytes = reply.to_vec().ok()?;
    if bytes.len() > limit {
        reply.additionals.clear();
        bytes = reply.to_vec().ok()?;
    }
    while bytes.len() > limit {
        reply.metadata.truncation = true;
        if reply.answers.is_empty() {
            bytes = reply.truncate().to_vec().ok()?;
            break;
        }
        let fits = reply.answers.len() * limit / bytes.len();
        reply.answers.truncate(fits.min(reply.answers.len() - 1));
        reply.authorities.clear();
        bytes = reply.to_vec().ok()?;
    }
    Some(bytes)
}

fn serial() -> u32 {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    // Serials go round (RFC 1982).
    seconds as u32
}

#[cfg(test)]
mod tests;
