use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use hickory_proto::op::Query;
use hickory_proto::rr::Name;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::*;
use crate::Upstream;

/// One headless service `big.ns` with many endpoints, and an alias `out.ns`.
struct Objects;

impl Records for Objects {
    fn namespace(&self, name: &str) -> bool {
        name == "ns"
    }
    fn service(&self, _namespace: &str, name: &str) -> Option<Arc<Service>> {
        let spec = match name {
            "big" => serde_json::json!({"clusterIP": "None", "ports": []}),
            "out" => serde_json::json!({"type": "ExternalName", "externalName": "example.org"}),
            "in" => serde_json::json!({"type": "ExternalName", "externalName": "big.ns.svc.cluster.local"}),
            "loop" => serde_json::json!({"type": "ExternalName", "externalName": "loop.ns.svc.cluster.local"}),
            _ => return None,
        };
        Some(Arc::new(
            serde_json::from_value(serde_json::json!({"metadata": {"namespace": "ns", "name": name}, "spec": spec})).unwrap(),
        ))
    }
    fn slices(&self, _namespace: &str, _service: &str) -> Vec<Arc<EndpointSlice>> {
        let endpoints: Vec<_> = (0..100).map(|i| serde_json::json!({"addresses": [format!("10.42.0.{i}")]})).collect();
        let slice = serde_json::json!({"metadata": {}, "addressType": "IPv4", "endpoints": endpoints});
        vec![Arc::new(serde_json::from_value(slice).unwrap())]
    }
    fn service_at(&self, _ip: IpAddr) -> Option<Arc<Service>> {
        None
    }
    fn slices_at(&self, _ip: IpAddr) -> Vec<Arc<EndpointSlice>> {
        Vec::new()
    }
}

impl Source for Objects {
    fn complete(&self) -> bool {
        true
    }
}

/// An upstream server that knows one address of every name, and counts the questions.
async fn upstream(tasks: &Tasks) -> (SocketAddr, Arc<AtomicUsize>) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let counter = count.clone();
    tasks.spawn("upstream", async move {
        let mut buffer = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            counter.fetch_add(1, Ordering::SeqCst);
            let query = Message::from_vec(&buffer[..length]).unwrap();
            let mut reply = Message::response(query.metadata.id, OpCode::Query);
            reply.queries.clone_from(&query.queries);
            let data = RData::A(std::net::Ipv4Addr::new(192, 0, 2, 7).into());
            reply.add_answer(Record::from_rdata(query.queries[0].name.clone(), 300, data));
            socket.send_to(&reply.to_vec().unwrap(), from).await.unwrap();
        }
    });
    (address, count)
}

async fn server(tasks: &Tasks, servers: Vec<SocketAddr>) -> SocketAddr {
    let zone = Zone {
        domain: Name::from_ascii("cluster.local.").unwrap(),
        ranges: Vec::new(),
        servers: vec![IpAddr::from([10, 43, 0, 10])],
    };
    let listen = ["127.0.0.1:0".parse().unwrap()];
    let forwarder = Forwarder::new(Upstream::Servers(servers), &[]);
    start(&listen, zone, Objects, forwarder, tasks).await.unwrap()[0]
}

fn question(name: &str, edns: Option<u16>) -> Message {
    let mut query = Message::query();
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    if let Some(size) = edns {
        let mut edns = Edns::new();
        edns.set_max_payload(size);
        query.set_edns(edns);
    }
    query
}

async fn over_udp(server: SocketAddr, query: &Message) -> Message {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(&query.to_vec().unwrap(), server).await.unwrap();
    let mut buffer = [0; 4096];
    let length = timeout(Duration::from_secs(10), socket.recv(&mut buffer)).await.unwrap().unwrap();
    let reply = Message::from_vec(&buffer[..length]).unwrap();
    assert_eq!(reply.metadata.id, query.metadata.id);
    assert_eq!(reply.queries, query.queries);
    reply
}

async fn over_tcp(server: SocketAddr, query: &Message) -> Message {
    let mut stream = TcpStream::connect(server).await.unwrap();
    let bytes = query.to_vec().unwrap();
    stream.write_u16(bytes.len() as u16).await.unwrap();
    stream.write_all(&bytes).await.unwrap();
    let length = stream.read_u16().await.unwrap();
    let mut buffer = vec![0; usize::from(length)];
    stream.read_exact(&mut buffer).await.unwrap();
    Message::from_vec(&buffer).unwrap()
}

#[tokio::test]
async fn what_does_not_fit_udp_comes_over_tcp() {
    let tasks = Tasks::root("test");
    let server = server(&tasks, Vec::new()).await;
    let name = "Big.ns.svc.cluster.local.";
    let small = over_udp(server, &question(name, None)).await;
    assert!(small.metadata.truncation && small.metadata.authoritative);
    assert!((10..40).contains(&small.answers.len()), "{} addresses fit", small.answers.len());
    let larger = over_udp(server, &question(name, Some(4096))).await;
    assert!(larger.metadata.truncation && larger.edns.is_some());
    assert!(larger.answers.len() > small.answers.len());
    let all = over_tcp(server, &question(name, None)).await;
    assert!(!all.metadata.truncation);
    assert_eq!(all.answers.len(), 100);
    tasks.stop().await;
}

#[tokio::test]
async fn other_names_are_asked_upstream_once() {
    let tasks = Tasks::root("test");
    let (upstream, count) = upstream(&tasks).await;
    let server = server(&tasks, vec![upstream]).await;
    for _ in 0..3 {
        let reply = over_udp(server, &question("Example.org.", None)).await;
        assert_eq!(reply.answers.len(), 1);
    }
    assert_eq!(count.load(Ordering::SeqCst), 1, "the answer is remembered");
    let alias = over_udp(server, &question("out.ns.svc.cluster.local.", None)).await;
    let kinds: Vec<_> = alias.answers.iter().map(Record::record_type).collect();
    assert_eq!(kinds, [RecordType::CNAME, RecordType::A]);
    let inside = over_tcp(server, &question("in.ns.svc.cluster.local.", None)).await;
    assert_eq!(inside.answers.len(), 101);
    tasks.stop().await;
}

#[tokio::test]
async fn failures_have_their_codes() {
    let tasks = Tasks::root("test");
    let server = server(&tasks, Vec::new()).await;
    let code = |reply: Message| reply.metadata.response_code;
    let missing = over_udp(server, &question("none.ns.svc.cluster.local.", None)).await;
    assert_eq!(missing.authorities[0].record_type(), RecordType::SOA);
    assert_eq!(code(missing), ResponseCode::NXDomain);
    assert_eq!(code(over_udp(server, &question("loop.ns.svc.cluster.local.", None)).await), ResponseCode::ServFail);
    assert_eq!(code(over_udp(server, &question("example.org.", None)).await), ResponseCode::ServFail);
    let mut update = question("big.ns.svc.cluster.local.", None);
    update.metadata.op_code = OpCode::Status;
    assert_eq!(code(over_udp(server, &update).await), ResponseCode::NotImp);

    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(&[7, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 99], server).await.unwrap();
    let mut buffer = [0; 64];
    let length = socket.recv(&mut buffer).await.unwrap();
    let reply = Message::from_vec(&buffer[..length]).unwrap();
    assert_eq!((reply.metadata.id, code(reply)), (0x0707, ResponseCode::FormErr));
    tasks.stop().await;
}

#[tokio::test]
async fn a_circle_ends() {
    let tasks = Tasks::root("test");
    // An upstream that asks us back what we ask it.
    let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
    let server = server(&tasks, vec![socket.local_addr().unwrap()]).await;
    let count = Arc::new(AtomicUsize::new(0));
    tasks.spawn("circle", {
        let count = count.clone();
        async move {
            let mut buffer = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                if from != server {
                    count.fetch_add(1, Ordering::SeqCst);
                    socket.send_to(&buffer[..length], server).await.unwrap();
                }
            }
        }
    });
    let reply = over_udp(server, &question("example.org.", None)).await;
    assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(count.load(Ordering::SeqCst), 1);
    tasks.stop().await;
}
