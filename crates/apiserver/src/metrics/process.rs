//! What Prometheus clients tell of the process they are in.

use prometheus::{Counter, Gauge, Registry};

use super::VALID;

/// What Prometheus clients tell of their process, read from `/proc` when asked.
pub(super) struct Process {
    memory: Gauge,
    cpu: Counter,
    files: Gauge,
    most_files: Gauge,
    virtual_memory: Gauge,
    most_virtual_memory: Gauge,
    started: Gauge,
    received: Counter,
    sent: Counter,
}

impl Process {
    pub(super) fn new(registry: &Registry) -> Self {
        let gauge = |name, help| {
            let gauge = Gauge::new(name, help).expect(VALID);
            registry.register(Box::new(gauge.clone())).expect(VALID);
            gauge
        };
        let counter = |name, help| {
            let counter = Counter::new(name, help).expect(VALID);
            registry.register(Box::new(counter.clone())).expect(VALID);
            counter
        };
        let cpu = counter("process_cpu_seconds_total", "Total user and system CPU time spent in seconds.");
        let process = Self {
            memory: gauge("process_resident_memory_bytes", "Resident memory size in bytes."),
            cpu,
            most_files: gauge("process_max_fds", "Maximum number of open file descriptors."),
            virtual_memory: gauge("process_virtual_memory_bytes", "Virtual memory size in bytes."),
            most_virtual_memory: gauge(
                "process_virtual_memory_max_bytes",
                "Maximum amount of virtual memory available in bytes.",
            ),
            files: gauge("process_open_fds", "Number of open file descriptors."),
            received: counter("process_network_receive_bytes_total", "Number of bytes received by the process over the network."),
            sent: counter("process_network_transmit_bytes_total", "Number of bytes sent by the process over the network."),
            started: gauge("process_start_time_seconds", "Start time of the process since unix epoch in seconds."),
        };
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        process.started.set(now.as_secs_f64());
        process
    }

    /// Brings them up to date.
    pub(super) fn read(&self) {
        /// `sysconf(_SC_CLK_TCK)` of every Linux there is.
        const TICKS: f64 = 100.0;
        if let Ok(status) = std::fs::read_to_string("/proc/self/status") {
            let bytes = |name: &str| {
                let line = status.lines().find_map(|line| line.strip_prefix(name))?;
                Some(line.trim().trim_end_matches(" kB").trim().parse::<f64>().ok()? * 1024.0)
            };
            bytes("VmRSS:").into_iter().for_each(|bytes| self.memory.set(bytes));
            bytes("VmSize:").into_iter().for_each(|bytes| self.virtual_memory.set(bytes));
        }
        if let Ok(limits) = std::fs::read_to_string("/proc/self/limits") {
            let limit = |name: &str| {
                let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
                let soft = line.split_whitespace().next()?;
                // Without a limit Go's client shows the greatest number there is.
                if soft == "unlimited" { Some(u64::MAX as f64) } else { soft.parse().ok() }
            };
            limit("Max open files").into_iter().for_each(|limit| self.most_files.set(limit));
            limit("Max address space").into_iter().for_each(|limit| self.most_virtual_memory.set(limit));
        }
        // The name, in parentheses, may hold spaces; utime and stime are the 12th and 13th fields after it.
        if let Ok(stat) = std::fs::read_to_string("/proc/self/stat")
            && let Some((_, rest)) = stat.rsplit_once(')')
        {
            let ticks: f64 = rest.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
            self.cpu.inc_by((ticks / TICKS - self.cpu.get()).max(0.0));
        }
        if let Ok(network) = std::fs::read_to_string("/proc/self/net/netstat") {
            let raise = |counter: &Counter, name: &str| {
                let bytes = octets(&network, name).unwrap_or_default();
                counter.inc_by((bytes - counter.get()).max(0.0));
            };
            raise(&self.received, "InOctets");
            raise(&self.sent, "OutOctets");
        }
        if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
            self.files.set(files.count() as f64);
        }
    }
}

/// A figure of the IP layer: a line of names and a line of figures, both headed `IpExt:`.
fn octets(netstat: &str, name: &str) -> Option<f64> {
    let mut lines = netstat.lines().filter_map(|line| line.strip_prefix("IpExt:")).map(str::split_whitespace);
    let (mut names, figures) = (lines.next()?, lines.next()?);
    let at = names.position(|known| known == name)?;
    figures.into_iter().nth(at)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_the_network_are_found_by_their_names() {
        let netstat = "TcpExt: A B\nTcpExt: 1 2\nIpExt: InNoRoutes InOctets OutOctets\nIpExt: 0 123 45\n";
        assert_eq!((octets(netstat, "InOctets"), octets(netstat, "OutOctets")), (Some(123.0), Some(45.0)));
        assert_eq!(octets(netstat, "Other"), None);
    }
}
