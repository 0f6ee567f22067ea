//! The words with which a pod goes.

use std::collections::BTreeMap;

use super::{Candidate, Consumer, Reading, Resource, Threshold};
use crate::quantity;

/// Message of status, event and condition of a pod that goes because `resource` is short.
#[must_use]
pub fn message(resource: Resource, met: Option<(&Threshold, Reading)>, pod: &Candidate) -> String {
    let mut message = format!("The node was low on resource: {}. ", resource.name());
    if let Some((threshold, reading)) = met {
        let wanted = threshold.amount(reading.capacity);
        let text = |amount| if matches!(resource, Resource::Pids | Resource::Inodes) { decimal(amount) } else { binary(amount) };
        message += &format!("Threshold quantity: {}, available: {}. ", text(wanted), text(reading.available));
    }
    for Consumer { name, usage, request } in exceeding(resource, pod) {
        let (usage, request) = (binary(*usage), binary(*request));
        let resource = resource.name();
        message += &format!("Container {name} was using {usage}, request is {request}, has larger consumption of {resource}. ");
    }
    message
}

/// Annotations of the event, which name the containers at fault.
#[must_use]
pub fn annotations(resource: Resource, pod: &Candidate) -> BTreeMap<String, String> {
    let names: Vec<&str> = exceeding(resource, pod).map(|consumer| consumer.name.as_str()).collect();
    let usage: Vec<String> = exceeding(resource, pod).map(|consumer| binary(consumer.usage)).collect();
    BTreeMap::from([
        ("offending_containers".to_owned(), names.join(",")),
        ("offending_containers_usage".to_owned(), usage.join(",")),
        ("starved_resource".to_owned(), resource.name().to_owned()),
    ])
}

fn exceeding(resource: Resource, pod: &Candidate) -> impl Iterator<Item = &Consumer> {
    let measured = matches!(resource, Resource::Memory | Resource::Storage);
    pod.consumers.iter().filter(move |consumer| measured && consumer.usage > consumer.request)
}

fn binary(amount: i64) -> String {
    quantity::bytes(amount).0
}

fn decimal(amount: i64) -> String {
    quantity::decimal(amount).0
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Amount;
    use super::*;

    #[test]
    fn the_message_names_the_containers_at_fault() {
        let consumer = |name: &str, usage, request| Consumer { name: name.to_owned(), usage, request };
        let consumers = vec![consumer("a", 3 << 20, 1 << 20), consumer("b", 1000, 2000), consumer("c", 4096, 0)];
        let pod = Candidate { consumers, ..Candidate::default() };
        let threshold =
            |signal: &str, value| Threshold { signal: signal.to_owned(), value, grace: Duration::ZERO, min_reclaim: None };
        let memory = threshold("memory.available", Amount::Absolute(100 << 20));
        let reading = Reading { signal: "memory.available", available: 52 << 10, capacity: 1 << 30 };
        assert_eq!(
            message(Resource::Memory, Some((&memory, reading)), &pod),
            "The node was low on resource: memory. Threshold quantity: 100Mi, available: 52Ki. \
             Container a was using 3Mi, request is 1Mi, has larger consumption of memory. \
             Container c was using 4Ki, request is 0, has larger consumption of memory. "
        );
        let inodes = threshold("nodefs.inodesFree", Amount::Part(0.05));
        let reading = Reading { signal: "nodefs.inodesFree", available: 4321, capacity: 100_000 };
        assert_eq!(
            message(Resource::Inodes, Some((&inodes, reading)), &pod),
            "The node was low on resource: inodes. Threshold quantity: 5k, available: 4321. "
        );
        let notes = annotations(Resource::Memory, &pod);
        assert_eq!((notes["offending_containers"].as_str(), notes["offending_containers_usage"].as_str()), ("a,c", "3Mi,4Ki"));
    }
}
