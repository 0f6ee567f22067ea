//! The Services a container learns about through its environment, kept small: name, address and ports.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Service;

/// What the environment says about one Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceVars {
    pub namespace: String,
    pub name: String,
    ip: String,
    ports: Vec<(Option<String>, i32, String)>,
}

impl ServiceVars {
    /// `None` for a Service without a cluster address.
    pub fn of(service: &Service) -> Option<Self> {
        let spec = service.spec.as_ref()?;
        let ip = spec.cluster_ip.clone().filter(|ip| !ip.is_empty() && ip != "None")?;
        let ports = spec.ports.iter().flatten();
        let ports: Vec<_> =
            ports.map(|port| (port.name.clone(), port.port, port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()))).collect();
        (!ports.is_empty()).then(|| Self {
            namespace: service.metadata.namespace.clone().unwrap_or_default(),
            name: service.metadata.name.clone().unwrap_or_default(),
            ip,
            ports,
        })
    }

    /// Adds the variables, those of Docker links included.
    pub fn variables(&self, into: &mut BTreeMap<String, String>) {
        let prefix = self.name.to_uppercase().replace('-', "_");
        let first = self.ports.first().map(|(_, port, _)| *port).unwrap_or_default();
        into.insert(format!("{prefix}_SERVICE_HOST"), self.ip.clone());
        into.insert(format!("{prefix}_SERVICE_PORT"), first.to_string());
        let host = if self.ip.contains(':') { format!("[{}]", self.ip) } else { self.ip.clone() };
        for (index, (name, port, protocol)) in self.ports.iter().enumerate() {
            if let Some(name) = name.as_ref().filter(|name| !name.is_empty()) {
                let name = name.to_uppercase().replace('-', "_");
                into.insert(format!("{prefix}_SERVICE_PORT_{name}"), port.to_string());
            }
            let scheme = protocol.to_lowercase();
            let url = format!("{scheme}://{host}:{port}");
            if index == 0 {
                into.insert(format!("{prefix}_PORT"), url.clone());
            }
            let link = format!("{prefix}_PORT_{port}_{}", protocol.to_uppercase());
            into.insert(format!("{link}_PROTO"), scheme);
            into.insert(format!("{link}_PORT"), port.to_string());
            into.insert(format!("{link}_ADDR"), self.ip.clone());
            into.insert(link, url);
        }
    }

    #[cfg(test)]
    pub fn sample(namespace: &str, name: &str, ip: &str, port: i32) -> Self {
        let (namespace, name, ip) = (namespace.to_owned(), name.to_owned(), ip.to_owned());
        Self { namespace, name, ip, ports: vec![(Some("https".to_owned()), port, "TCP".to_owned())] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_upstreams() {
        let mut vars = BTreeMap::new();
        ServiceVars::sample("default", "my-db", "10.43.0.9", 5432).variables(&mut vars);
        let lines: Vec<_> = vars.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(
            lines.join("\n"),
            "MY_DB_PORT=tcp://10.43.0.9:5432\nMY_DB_PORT_5432_TCP=tcp://10.43.0.9:5432\nMY_DB_PORT_5432_TCP_ADDR=10.43.0.9\n\
             MY_DB_PORT_5432_TCP_PORT=5432\nMY_DB_PORT_5432_TCP_PROTO=tcp\nMY_DB_SERVICE_HOST=10.43.0.9\n\
             MY_DB_SERVICE_PORT=5432\nMY_DB_SERVICE_PORT_HTTPS=5432"
        );
    }
}
