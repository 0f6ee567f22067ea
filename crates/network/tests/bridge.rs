//! The bridge on a real kernel, in network namespaces made for the test. Needs root and nft.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use corten_network::{Bridge, Config, HostPort, LocalAddress, PodNetwork, Protocol, local, netns};
use corten_task::Tasks;

/// A network namespace that lives as long as this value.
struct Namespace(File);

impl Namespace {
    fn new() -> Self {
        let file = std::thread::spawn(|| {
            netns::isolate().unwrap();
            File::open("/proc/thread-self/ns/net").unwrap()
        });
        Self(file.join().unwrap())
    }

    fn path(&self) -> PathBuf {
        Path::new("/proc/self/fd").join(self.0.as_raw_fd().to_string())
    }

    fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> std::thread::JoinHandle<T> {
        let file = self.0.try_clone().unwrap();
        std::thread::spawn(move || {
            netns::enter(&file).unwrap();
            work()
        })
    }

    /// Answers each connection to `port` with the client's address.
    fn serve(&self, port: u16) {
        let (ready, wait) = std::sync::mpsc::channel();
        self.run(move || {
            let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))).unwrap();
            ready.send(()).unwrap();
            while let Ok((mut stream, from)) = listener.accept() {
                let _ = stream.write_all(from.ip().to_string().as_bytes());
            }
        });
        wait.recv().unwrap();
    }
}

/// Runs `test` on a thread with a network namespace of its own: threads and processes it starts inherit it.
fn in_node<F: Future<Output = ()>>(test: impl FnOnce(Tasks) -> F + Send + 'static) {
    let node = std::thread::spawn(move || {
        netns::isolate().unwrap();
        local::loopback_up().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test(Tasks::root("test")));
        runtime.shutdown_background();
    });
    if let Err(panic) = node.join() {
        std::panic::resume_unwind(panic);
    }
}

fn config(data: &Path) -> Config {
    Config {
        ranges: vec!["10.42.0.0/24".parse().unwrap()],
        cluster_ranges: vec!["10.42.0.0/16".parse().unwrap()],
        service_ranges: vec!["10.43.0.0/16".parse().unwrap()],
        data: data.to_owned(),
        ..Config::default()
    }
}

fn ask(to: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
fn pods_reach_each_other_and_the_node_reaches_them() {
    in_node(|tasks| async move {
        let data = tempfile::tempdir().unwrap();
        let bridge = Bridge::open(config(data.path()), &tasks).await.unwrap();
        let (a, b) = (Namespace::new(), Namespace::new());
        let ip_a = bridge.attach("a", &a.path(), &[]).await.unwrap().ips[0];
        let started = Instant::now();
        let ip_b = bridge.attach("b", &b.path(), &[]).await.unwrap().ips[0];
        println!("attach took {:?}", started.elapsed());
        assert_eq!(bridge.attach("a", &a.path(), &[]).await.unwrap().ips, [ip_a]);
        b.serve(8080);
        let from_node = ask((ip_b, 8080).into()).unwrap();
        assert_eq!(from_node, "10.42.0.1");
        let from_pod = a.run(move || ask((ip_b, 8080).into()).unwrap()).join().unwrap();
        assert_eq!(from_pod, ip_a.to_string(), "pods see each other's own address");
        let started = Instant::now();
        bridge.detach("b", None).await.unwrap();
        println!("detach took {:?}", started.elapsed());
        bridge.detach("b", None).await.unwrap();
        assert!(ask((ip_b, 8080).into()).is_err());
        bridge.teardown().await.unwrap();
    });
}

#[test]
fn a_host_port_leads_to_the_pod_until_it_is_detached() {
    in_node(|tasks| async move {
        let data = tempfile::tempdir().unwrap();
        let bridge = Bridge::open(config(data.path()), &tasks).await.unwrap();
        let pod = Namespace::new();
        let port = |host_port, host_ip| HostPort { host_ip, host_port, container_port: 80, protocol: Protocol::Tcp };
        let ports = [port(8081, None), port(8082, Some(IpAddr::from([127, 0, 0, 1])))];
        bridge.attach("pod", &pod.path(), &ports).await.unwrap();
        pod.serve(80);
        assert!(ask("10.42.0.1:8081".parse().unwrap()).is_ok());
        assert!(ask("127.0.0.1:8081".parse().unwrap()).is_ok());
        assert!(ask("127.0.0.1:8082".parse().unwrap()).is_ok());
        assert!(ask("10.42.0.1:8082".parse().unwrap()).is_err(), "bound to loopback only");
        let itself = pod.run(|| ask("10.42.0.1:8081".parse().unwrap()).is_ok());
        assert!(itself.join().unwrap(), "a pod reaches itself through the host port");
        bridge.attach("pod", &pod.path(), &[port(8083, None)]).await.unwrap();
        assert!(ask("10.42.0.1:8081".parse().unwrap()).is_err(), "a changed list of ports replaces the old one");
        assert!(ask("10.42.0.1:8083".parse().unwrap()).is_ok());
        bridge.detach("pod", Some(&pod.path())).await.unwrap();
        assert!(ask("10.42.0.1:8083".parse().unwrap()).is_err());
    });
}

#[test]
fn a_restart_keeps_live_pods_and_releases_dead_ones() {
    in_node(|tasks| async move {
        let data = tempfile::tempdir().unwrap();
        let bridge = Bridge::open(config(data.path()), &tasks).await.unwrap();
        let live = Namespace::new();
        let ip = bridge.attach("live", &live.path(), &[]).await.unwrap().ips[0];
        let dead_ip = {
            let dead = Namespace::new();
            bridge.attach("dead", &dead.path(), &[]).await.unwrap().ips[0]
        };
        live.serve(80);
        drop(bridge);
        let bridge = Bridge::open(config(data.path()), &tasks).await.unwrap();
        let new = Namespace::new();
        let new_ip = bridge.attach("attached after the live ones were listed", &new.path(), &[]).await.unwrap().ips[0];
        new.serve(80);
        bridge.reconcile(&["live".to_owned()]).await.unwrap();
        assert!(ask((ip, 80).into()).is_ok());
        assert!(ask((new_ip, 80).into()).is_ok());
        assert_eq!(bridge.attach("live", &live.path(), &[]).await.unwrap().ips, [ip]);
        let next = Namespace::new();
        let next_ip = bridge.attach("next", &next.path(), &[]).await.unwrap().ips[0];
        assert_ne!(next_ip, dead_ip);
        assert_ne!(next_ip, ip);
    });
}

#[test]
fn a_lease_whose_namespace_was_replaced_is_wired_anew() {
    in_node(|tasks| async move {
        let data = tempfile::tempdir().unwrap();
        let bridge = Bridge::open(config(data.path()), &tasks).await.unwrap();
        let first = Namespace::new();
        let ip = bridge.attach("pod", &first.path(), &[]).await.unwrap().ips[0];
        let second = Namespace::new();
        assert_eq!(bridge.attach("pod", &second.path(), &[]).await.unwrap().ips, [ip]);
        second.serve(80);
        assert!(ask((ip, 80).into()).is_ok());
    });
}

#[test]
fn a_local_address_answers_to_pods() {
    in_node(|tasks| async move {
        let data = tempfile::tempdir().unwrap();
        let bridge = Bridge::open(config(data.path()), &tasks).await.unwrap();
        let pod = Namespace::new();
        bridge.attach("pod", &pod.path(), &[]).await.unwrap();
        let address = LocalAddress::add("10.43.0.10".parse().unwrap()).unwrap();
        assert_eq!(LocalAddress::add(address.ip()).unwrap(), address);
        let server = UdpSocket::bind((address.ip(), 53)).unwrap();
        let client = pod.run(|| {
            let client = UdpSocket::bind("0.0.0.0:0").unwrap();
            client.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
            client.connect("10.43.0.10:53").unwrap();
            client.send(b"?").unwrap();
            client.recv(&mut [0; 8]).is_ok()
        });
        let mut buffer = [0; 8];
        let (_, from) = server.recv_from(&mut buffer).unwrap();
        server.send_to(b"!", from).unwrap();
        assert!(client.join().unwrap());
        address.remove().unwrap();
        address.remove().unwrap();
        assert!(UdpSocket::bind("10.43.0.10:53").is_err());
    });
}

#[test]
fn both_families_are_wired() {
    in_node(|tasks| async move {
        let data = tempfile::tempdir().unwrap();
        let both = Config {
            ranges: vec!["10.42.0.0/24".parse().unwrap(), "fd00:42::/64".parse().unwrap()],
            cluster_ranges: vec!["10.42.0.0/16".parse().unwrap(), "fd00:42::/56".parse().unwrap()],
            ..config(data.path())
        };
        let bridge = Bridge::open(both, &tasks).await.unwrap();
        let (a, b) = (Namespace::new(), Namespace::new());
        bridge.attach("a", &a.path(), &[]).await.unwrap();
        let ip = bridge.attach("b", &b.path(), &[]).await.unwrap().ips[1];
        assert!(ip.is_ipv6());
        let server = b.run(move || {
            let listener = TcpListener::bind((ip, 80)).unwrap();
            listener.accept().is_ok()
        });
        let client = a.run(move || {
            let until = Instant::now() + Duration::from_secs(2);
            while Instant::now() < until {
                if TcpStream::connect((ip, 80)).is_ok() {
                    return true;
                }
                std::thread::yield_now();
            }
            false
        });
        assert!(client.join().unwrap());
        assert!(server.join().unwrap());
    });
}

#[test]
fn pods_appear_to_the_outside_with_the_nodes_address() {
    in_node(|tasks| async move {
        let data = tempfile::tempdir().unwrap();
        // The outside is another bridge, whose only member knows no way back to pod addresses.
        let outside = Config {
            bridge: "outside0".to_owned(),
            ranges: vec!["192.0.2.0/24".parse().unwrap()],
            data: data.path().join("outside"),
            ..Config::default()
        };
        let outside = Bridge::open(outside, &tasks).await.unwrap();
        let server = Namespace::new();
        let server_ip = outside.attach("server", &server.path(), &[]).await.unwrap().ips[0];
        let bridge = Bridge::open(config(&data.path().join("pods")), &tasks).await.unwrap();
        let pod = Namespace::new();
        bridge.attach("pod", &pod.path(), &[]).await.unwrap();
        server.serve(80);
        let seen = pod.run(move || ask((server_ip, 80).into()).unwrap()).join().unwrap();
        assert_eq!(seen, "192.0.2.1");
    });
}
