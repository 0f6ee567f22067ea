//! The rules on a real kernel: pods in network namespaces, Services in nftables. Needs root and nft.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use corten_client::Key;
use corten_network::{Bridge, PodNetwork, conntrack, local, netns, nft};
use corten_proxy::{Applied, Family, Node, frame, plan};
use corten_task::Tasks;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;

struct Pod {
    netns: File,
    ip: IpAddr,
}

impl Pod {
    async fn new(bridge: &Bridge, name: &str) -> Self {
        let file = std::thread::spawn(|| {
            netns::isolate().unwrap();
            File::open("/proc/thread-self/ns/net").unwrap()
        });
        let netns = file.join().unwrap();
        let path: PathBuf = Path::new("/proc/self/fd").join(netns.as_raw_fd().to_string());
        let ip = bridge.attach(name, &path, &[]).await.unwrap().ips[0];
        Self { netns, ip }
    }

    fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> std::thread::JoinHandle<T> {
        let file = self.netns.try_clone().unwrap();
        std::thread::spawn(move || {
            netns::enter(&file).unwrap();
            work()
        })
    }

    /// Answers each connection to 8080 with its own and the client's address.
    fn serve(&self) {
        let (ready, wait) = std::sync::mpsc::channel();
        let own = self.ip;
        self.run(move || {
            let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8080))).unwrap();
            ready.send(()).unwrap();
            while let Ok((mut stream, from)) = listener.accept() {
                let _ = write!(stream, "{own} {}", from.ip());
            }
        });
        wait.recv().unwrap();
    }
}

fn ask(to: &str) -> std::io::Result<(String, String)> {
    let mut stream = TcpStream::connect_timeout(&to.parse().unwrap(), Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (server, client) = answer.split_once(' ').unwrap();
    Ok((server.to_owned(), client.to_owned()))
}

fn in_node<F: Future<Output = ()>>(test: impl FnOnce(Bridge) -> F + Send + 'static) {
    let node = std::thread::spawn(move || {
        netns::isolate().unwrap();
        local::loopback_up().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let data = tempfile::tempdir().unwrap();
            let config = corten_network::Config {
                ranges: vec!["10.42.0.0/24".parse().unwrap()],
                cluster_ranges: vec!["10.42.0.0/16".parse().unwrap()],
                service_ranges: vec!["10.43.0.0/16".parse().unwrap()],
                data: data.path().to_owned(),
                ..corten_network::Config::default()
            };
            test(Bridge::open(config, &Tasks::root("test")).await.unwrap()).await;
        });
        runtime.shutdown_background();
    });
    if let Err(panic) = node.join() {
        std::panic::resume_unwind(panic);
    }
}

fn node() -> Node {
    Node { name: "n1".into(), zone: None, cluster_ranges: vec!["10.42.0.0/16".parse().unwrap()] }
}

fn service(spec: serde_json::Value) -> Service {
    let mut all = serde_json::json!({
        "clusterIP": "10.43.0.7", "clusterIPs": ["10.43.0.7"], "type": "NodePort",
        "ports": [{"protocol": "TCP", "port": 80, "nodePort": 30080}],
    });
    for (key, value) in spec.as_object().unwrap() {
        all[key] = value.clone();
    }
    serde_json::from_value(serde_json::json!({"metadata": {"namespace": "ns", "name": "web"}, "spec": all})).unwrap()
}

fn slices(pods: &[&Pod], protocol: &str) -> Vec<Arc<EndpointSlice>> {
    let endpoints: Vec<_> =
        pods.iter().map(|pod| serde_json::json!({"addresses": [pod.ip.to_string()], "nodeName": "n1"})).collect();
    let slice = serde_json::json!({
        "metadata": {"namespace": "ns", "name": "web-x"}, "addressType": "IPv4",
        "ports": [{"protocol": protocol, "port": 8080}], "endpoints": endpoints,
    });
    vec![Arc::new(serde_json::from_value(slice).unwrap())]
}

async fn fresh() -> Applied {
    nft::apply(&frame(&[Family::V4], true)).await.unwrap();
    Applied::new(&[Family::V4])
}

async fn set(applied: &mut Applied, service: &Service, slices: &[Arc<EndpointSlice>]) {
    let script = applied.change(vec![(Key::new("ns", "web"), Some(plan(service, slices, &node())))]);
    nft::apply(&script).await.unwrap_or_else(|error| panic!("{error}\n{script}"));
}

#[test]
fn connections_reach_every_endpoint_and_follow_changes() {
    in_node(|bridge| async move {
        let (a, b, client) = (Pod::new(&bridge, "a").await, Pod::new(&bridge, "b").await, Pod::new(&bridge, "c").await);
        a.serve();
        b.serve();
        let mut applied = fresh().await;
        let web = service(serde_json::json!({}));
        set(&mut applied, &web, &slices(&[&a, &b], "TCP")).await;
        let both = BTreeSet::from([a.ip.to_string(), b.ip.to_string()]);
        let all = |count: usize| (0..count).map(|_| ask("10.43.0.7:80").unwrap()).collect::<Vec<_>>();

        let from_pod = client.run(move || all(40)).join().unwrap();
        assert_eq!(from_pod.iter().map(|(server, _)| server.clone()).collect::<BTreeSet<_>>(), both);
        assert!(from_pod.iter().all(|(_, seen)| *seen == client.ip.to_string()), "a pod keeps its address");
        let from_node = all(40);
        assert_eq!(from_node.into_iter().map(|(server, _)| server).collect::<BTreeSet<_>>(), both);
        // An endpoint that is sent to itself sees the node, or it would answer past the translation.
        let itself = a.run(move || all(40)).join().unwrap();
        let own = a.ip.to_string();
        assert!(itself.iter().any(|(server, seen)| *server == own && seen == "10.42.0.1"), "{itself:?}");
        for address in ["10.42.0.1:30080", "127.0.0.1:30080"] {
            assert!(both.contains(&ask(address).unwrap().0), "node port on {address}");
        }

        set(&mut applied, &web, &slices(&[&b], "TCP")).await;
        let left: BTreeSet<_> = all(20).into_iter().map(|(server, _)| server).collect();
        assert_eq!(left, BTreeSet::from([b.ip.to_string()]));

        set(&mut applied, &web, &slices(&[], "TCP")).await;
        for address in ["10.43.0.7:80", "10.42.0.1:30080"] {
            let refused = client.run(move || ask(address)).join().unwrap().unwrap_err();
            assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused, "{address}");
            assert_eq!(ask(address).unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused, "{address}");
        }
        let script = applied.change(vec![(Key::new("ns", "web"), None)]);
        nft::apply(&script).await.unwrap();
        corten_proxy::cleanup().await.unwrap();
        corten_proxy::cleanup().await.unwrap();
    });
}

#[test]
fn session_affinity_sticks_while_endpoints_change() {
    in_node(|bridge| async move {
        let (a, b, c) = (Pod::new(&bridge, "a").await, Pod::new(&bridge, "b").await, Pod::new(&bridge, "c").await);
        [&a, &b, &c].into_iter().for_each(Pod::serve);
        let client = Pod::new(&bridge, "client").await;
        let mut applied = fresh().await;
        let affinity = |seconds| {
            service(
                serde_json::json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": seconds}}}),
            )
        };
        set(&mut applied, &affinity(600), &slices(&[&a, &b], "TCP")).await;
        let servers = || (0..20).map(|_| ask("10.43.0.7:80").unwrap().0).collect::<BTreeSet<_>>();
        let first = client.run(servers).join().unwrap();
        assert_eq!(first.len(), 1);
        set(&mut applied, &affinity(600), &slices(&[&a, &b, &c], "TCP")).await;
        assert_eq!(client.run(servers).join().unwrap(), first, "a new endpoint changes nothing for known clients");
        set(&mut applied, &affinity(300), &slices(&[&a, &b, &c], "TCP")).await;
        assert_eq!(client.run(servers).join().unwrap().len(), 1);
        set(&mut applied, &service(serde_json::json!({})), &slices(&[&a, &b, &c], "TCP")).await;
        let all = client.run(move || (0..60).map(|_| ask("10.43.0.7:80").unwrap().0).collect::<BTreeSet<_>>());
        assert_eq!(all.join().unwrap().len(), 3);
    });
}

#[test]
fn a_busy_udp_flow_moves_to_a_living_endpoint() {
    in_node(|bridge| async move {
        let (a, b, client) = (Pod::new(&bridge, "a").await, Pod::new(&bridge, "b").await, Pod::new(&bridge, "c").await);
        for pod in [&a, &b] {
            let (ready, wait) = std::sync::mpsc::channel();
            let own = pod.ip.to_string();
            pod.run(move || {
                let socket = UdpSocket::bind("0.0.0.0:8080").unwrap();
                ready.send(()).unwrap();
                while let Ok((_, from)) = socket.recv_from(&mut [0; 16]) {
                    let _ = socket.send_to(own.as_bytes(), from);
                }
            });
            wait.recv().unwrap();
        }
        let mut applied = fresh().await;
        let dns = service(serde_json::json!({"ports": [{"protocol": "UDP", "port": 53}]}));
        set(&mut applied, &dns, &slices(&[&a], "UDP")).await;
        let (send, questions) = std::sync::mpsc::channel::<()>();
        let (answers, receive) = std::sync::mpsc::channel();
        client.run(move || {
            // One socket, so one flow.
            let socket = UdpSocket::bind("0.0.0.0:4000").unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
            while questions.recv().is_ok() {
                socket.send_to(b"?", "10.43.0.7:53").unwrap();
                let mut buffer = [0; 64];
                let answer = socket.recv(&mut buffer).map(|n| String::from_utf8_lossy(&buffer[..n]).into_owned());
                answers.send(answer.unwrap_or_default()).unwrap();
            }
        });
        send.send(()).unwrap();
        assert_eq!(receive.recv().unwrap(), a.ip.to_string());
        set(&mut applied, &dns, &slices(&[&b], "UDP")).await;
        let gone = (a.ip, 8080);
        assert_eq!(conntrack::forget_udp(|flow| flow.replier == gone).unwrap(), 1);
        send.send(()).unwrap();
        assert_eq!(receive.recv().unwrap(), b.ip.to_string());
    });
}
