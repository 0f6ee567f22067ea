//! Questions that are not about the cluster: asked upstream, with a small cache.
//!
//! Equal questions that arrive while one is being asked share its answer. That also ends a circle: if upstream asks us
//! again, the question waits for itself, times out and is answered with SERVFAIL once.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, RecordType};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::Upstream;
use crate::resolv::Servers;

/// How long one server has to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Longest time an answer is kept, whatever it says of itself; upstream's default.
const LONGEST: Duration = Duration::from_secs(30);
/// Most answers that are kept.
const CAPACITY: usize = 4096;

/// The transport of a question: it is passed on by the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// UDP.
    Udp,
    /// TCP.
    Tcp,
}

/// What makes two questions equal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Question {
    name: Name,
    kind: RecordType,
    class: DNSClass,
    transport: Transport,
    dnssec: bool,
    checking_disabled: bool,
}

/// An answer, when it came, and for how long it is good.
type Kept = (Arc<Message>, Instant, Duration);

type Shared = watch::Receiver<Option<Option<Arc<Message>>>>;

/// Asks, and remembers.
pub struct Forwarder {
    servers: Servers,
    cache: Mutex<HashMap<Question, Kept>>,
    asking: Mutex<HashMap<Question, Shared>>,
}

impl Forwarder {
    pub fn new(upstream: Upstream, own: &[SocketAddr]) -> Self {
        Self { servers: Servers::new(upstream, own), cache: Mutex::default(), asking: Mutex::default() }
    }

    /// The answer of an upstream server to `query`, with the identity of `query`; nothing if none answers.
    pub async fn ask(&self, query: &Message, transport: Transport) -> Option<Message> {
        let asked = query.queries.first()?;
        let question = Question {
            name: asked.name.to_lowercase(),
            kind: asked.query_type,
            class: asked.query_class,
            transport,
            dnssec: query.edns.as_ref().is_some_and(|edns| edns.flags().dnssec_ok),
            checking_disabled: query.metadata.checking_disabled,
        };
        let mut answer = match self.remembered(&question) {
            Some(answer) => answer,
            None => (*self.shared(question, query, transport).await?).clone(),
        };
        answer.metadata.id = query.metadata.id;
        // The spelling of the question is the client's, who may compare it (0x20).
        answer.queries.clone_from(&query.queries);
        Some(answer)
    }

    async fn shared(&self, question: Question, query: &Message, transport: Transport) -> Option<Arc<Message>> {
        let (sender, mut waiting) = {
            let mut asking = self.asking.lock();
            match asking.get(&question) {
                // Its asker may have been cancelled; then the channel is closed and we ask ourselves.
                Some(waiting) if waiting.has_changed().is_ok() => (None, waiting.clone()),
                _ => {
                    let (sender, waiting) = watch::channel(None);
                    asking.insert(question.clone(), waiting.clone());
                    (Some(sender), waiting)
                }
            }
        };
        let Some(sender) = sender else {
            let patience = PATIENCE * 2;
            let answer = timeout(patience, waiting.wait_for(Option::is_some)).await.ok()?.ok()?;
            return answer.clone().flatten();
        };
        let answer = self.upstream(query, transport).await.map(Arc::new);
        if let Some(answer) = &answer {
            self.remember(&question, answer);
        }
        self.asking.lock().remove(&question);
        sender.send_replace(Some(answer.clone()));
        answer
    }

    async fn upstream(&self, query: &Message, transport: Transport) -> Option<Message> {
        for server in self.servers.get() {
            let mut question = query.clone();
            question.metadata.id = rand::random();
            let Ok(bytes) = question.to_vec() else { return None };
            let asking = async {
                match transport {
                    Transport::Udp => udp(server, &bytes, &question).await,
                    Transport::Tcp => tcp(server, &bytes, &question).await,
                }
            };
            match timeout(PATIENCE, asking).await {
                // Another server may do better.
                Ok(Ok(answer)) if matches!(answer.metadata.response_code, ResponseCode::ServFail | ResponseCode::Refused) => {}
                Ok(Ok(answer)) => return Some(answer),
                Ok(Err(error)) => tracing::debug!(%server, %error, "a name server does not answer"),
                Err(_) => tracing::debug!(%server, "a name server does not answer in time"),
            }
        }
        None
    }

    fn remembered(&self, question: &Question) -> Option<Message> {
        let cache = self.cache.lock();
        let (answer, since, keep) = cache.get(question)?;
        let age = since.elapsed();
        if age >= *keep {
            return None;
        }
        let mut answer = (**answer).clone();
        let age = u32::try_from(age.as_secs()).unwrap_or(u32::MAX);
        let sections = [&mut answer.answers, &mut answer.authorities, &mut answer.additionals];
        for record in sections.into_iter().flatten() {
            record.ttl = record.ttl.saturating_sub(age);
        }
        Some(answer)
    }

    fn remember(&self, question: &Question, answer: &Arc<Message>) {
        let Some(keep) = lifetime(answer) else { return };
        let mut cache = self.cache.lock();
        if cache.len() >= CAPACITY {
            cache.retain(|_, (_, since, keep)| since.elapsed() < *keep);
        }
        if cache.len() >= CAPACITY {
            // Half of it, whichever: cheaper than to keep an order for the sake of a rare moment.
            let mut keep = false;
            cache.retain(|_, _| {
                keep = !keep;
                keep
            });
        }
        cache.insert(question.clone(), (answer.clone(), Instant::now(), keep));
    }
}

/// How long an answer holds: the shortest of its records, or for a negative one what the zone says (RFC 2308).
fn lifetime(answer: &Message) -> Option<Duration> {
    let positive = match answer.metadata.response_code {
        ResponseCode::NoError if !answer.metadata.truncation => !answer.answers.is_empty(),
        ResponseCode::NXDomain => false,
        _ => return None,
    };
    let seconds = if positive {
        answer.answers.iter().map(|record| record.ttl).min()
    } else {
        answer.authorities.iter().find_map(|record| match &record.data {
            RData::SOA(soa) => Some(soa.minimum.min(record.ttl)),
            _ => None,
        })
    };
    seconds.filter(|seconds| *seconds > 0).map(|seconds| Duration::from_secs(u64::from(seconds)).min(LONGEST))
}

async fn udp(server: SocketAddr, bytes: &[u8], question: &Message) -> io::Result<Message> {
    let any: SocketAddr = if server.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    // A socket of its own for each question: the port the kernel picks is what makes forging an answer hard.
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(bytes).await?;
    let mut buffer = vec![0; 4096];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if let Some(answer) = accepted(&buffer[..length], question) {
            return Ok(answer);
        }
    }
}

async fn tcp(server: SocketAddr, bytes: &[u8], question: &Message) -> io::Result<Message> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(bytes.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    stream.write_all(&[&length.to_be_bytes(), bytes].concat()).await?;
    let length = stream.read_u16().await?;
    let mut buffer = vec![0; usize::from(length)];
    stream.read_exact(&mut buffer).await?;
    accepted(&buffer, question).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The message, if it answers our question.
fn accepted(bytes: &[u8], question: &Message) -> Option<Message> {
    let answer = Message::from_vec(bytes).ok()?;
    let same = answer.metadata.id == question.metadata.id && answer.queries == question.queries;
    same.then_some(answer)
}
