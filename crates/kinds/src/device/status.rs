//! What drivers say in the status of a claim about the devices that it was given (KEP-4817).

use std::collections::{BTreeSet, HashMap, HashSet};

use corten_api::field::{Faults, Path};
use serde_json::{Value, json};

use super::slice::pool_name;
use super::validation::raw_object;
use crate::doc::{Read, Write, semantic_equal};
use crate::pod::volumes::csi_driver_name as driver_name;
use crate::{check, names};

const MAX_CONDITIONS: usize = 8;
const MAX_DATA: usize = 10 << 10;
const MAX_ADDRESSES: usize = 16;
const MAX_INTERFACE: usize = 256;
const MAX_HARDWARE: usize = 128;

/// One device, or one share of it: driver, pool, device, and the share's UID.
type Id<'v> = [&'v str; 4];

fn id(device: &Value) -> Id<'_> {
    ["driver", "pool", "device", "shareID"].map(|key| device.text(key))
}

fn shown(id: Id<'_>) -> String {
    let [driver, pool, device, share] = id.map(|text| json!(text));
    format!("{{\"Driver\":{driver},\"Pool\":{pool},\"Device\":{device},\"ShareID\":{share}}}")
}

fn allocated(status: &Value) -> HashSet<Id<'_>> {
    status["allocation"]["devices"].list("results").iter().map(id).collect()
}

/// Drops what is said of devices that a change takes from the claim.
pub(super) fn drop_deallocated(status: &mut Value, old: &Value) {
    let now = allocated(status);
    let lost: HashSet<Id<'_>> = allocated(old).difference(&now).copied().collect();
    if lost.is_empty() && !status.list("devices").is_empty() {
        return;
    }
    let kept: Vec<Value> = status.list("devices").iter().filter(|device| !lost.contains(&id(device))).cloned().collect();
    status.put("devices", if kept.is_empty() { Value::Null } else { kept.into() });
}

/// What a change of a claim's status touches that takes rights of its own (KEP-4817's granular authorization).
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ClaimChanges {
    /// The allocation, or who may use it: that is for schedulers.
    pub binding: bool,
    /// Drivers, in order, of whose devices something else is said now.
    pub drivers: BTreeSet<String>,
    /// The node that the claim is allocated on, if it is only one.
    pub node: Option<String>,
}

/// What is different in the status of `object`.
#[must_use]
pub fn claim_changes(object: &Value, old: &Value) -> ClaimChanges {
    let (now, before) = (&object["status"], &old["status"]);
    let binding = ["allocation", "reservedFor"].iter().any(|key| !semantic_equal(&now[*key], &before[*key]));
    // Without an allocation nothing is said of devices.
    if !now.has("allocation") {
        return ClaimChanges { binding, ..ClaimChanges::default() };
    }
    let mut gone: HashMap<Id<'_>, &Value> = before.list("devices").iter().map(|device| (id(device), device)).collect();
    let mut drivers = BTreeSet::new();
    for device in now.list("devices") {
        if !gone.remove(&id(device)).is_some_and(|before| semantic_equal(before, device)) {
            drivers.insert(device.text("driver").to_owned());
        }
    }
    drivers.extend(gone.values().map(|device| device.text("driver").to_owned()));
    ClaimChanges { binding, drivers, node: node_of(&now["allocation"]) }
}

/// The node that an allocation names: by a selector that has room for nothing else.
fn node_of(allocation: &Value) -> Option<String> {
    let [term] = allocation["nodeSelector"].list("nodeSelectorTerms") else { return None };
    let ([], [field]) = (term.list("matchExpressions"), term.list("matchFields")) else { return None };
    let [name] = field.list("values") else { return None };
    let named = field.text("key") == "metadata.name" && field.text("operator") == "In";
    name.as_str().filter(|name| named && !name.is_empty()).map(str::to_owned)
}

/// Faults of `status.devices`.
pub(super) fn devices(faults: &mut Faults, path: &Path<'_>, status: &Value) {
    let given = allocated(status);
    let devices = status.list("devices");
    for (i, one) in devices.iter().enumerate() {
        device(faults, &path.index(i), one, &given);
    }
    let mut seen = HashSet::new();
    for (i, one) in devices.iter().enumerate() {
        if !seen.insert(id(one)) {
            check::duplicate_shown(faults, &path.index(i), &shown(id(one)), "");
        }
    }
}

fn device(faults: &mut Faults, path: &Path<'_>, device: &Value, given: &HashSet<Id<'_>>) {
    driver_name(faults, &path.child("driver"), device.text("driver"));
    pool_name(faults, &path.child("pool"), device.text("pool"));
    check::dns_label(faults, &path.child("device"), device.text("device"));
    if let Some(share) = device.opt_text("shareID") {
        uid(faults, &path.child("shareID"), share);
    }
    if !given.contains(&id(device)) {
        check::invalid_shown(faults, path, &shown(id(device)), "must be an allocated device in the claim");
    }
    let conditions = device.list("conditions");
    let at = path.child("conditions");
    if conditions.len() > MAX_CONDITIONS {
        faults.too_many(&at, conditions.len(), MAX_CONDITIONS);
    }
    check::conditions(faults, &at, conditions);
    if device.get("data").is_some_and(|data| !data.is_null()) {
        raw_object(faults, &path.child("data"), &device["data"], MAX_DATA);
    }
    if let Some(network) = device.opt("networkData") {
        network_data(faults, &path.child("networkData"), network);
    }
}

fn network_data(faults: &mut Faults, path: &Path<'_>, network: &Value) {
    for (key, max) in [("interfaceName", MAX_INTERFACE), ("hardwareAddress", MAX_HARDWARE)] {
        if network.text(key).len() > max {
            faults.too_long(&path.child(key), max);
        }
    }
    let addresses: Vec<&str> = network.texts("ips").collect();
    let at = path.child("ips");
    if addresses.len() > MAX_ADDRESSES {
        return faults.too_many(&at, addresses.len(), MAX_ADDRESSES);
    }
    for (i, address) in addresses.iter().enumerate() {
        interface_address(faults, &at.index(i), address);
    }
    check::unique_texts(faults, &at, addresses.into_iter());
}

/// An address with the length of its network's prefix, in canonical form.
fn interface_address(faults: &mut Faults, path: &Path<'_>, address: &str) {
    let Some((ip, bits)) = names::parse_cidr(address) else {
        let detail = "must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)";
        return faults.invalid_str(path, address, detail);
    };
    let (ip, bits) = match ip.to_canonical() {
        v4 if v4.is_ipv4() && bits > 32 => (v4, bits - 96),
        canonical => (canonical, bits),
    };
    let canonical = format!("{ip}/{bits}");
    if canonical != address {
        let quoted = corten_api::field::quoted(&canonical);
        faults.invalid_str(path, address, &format!("must be in canonical form ({quoted})"));
    }
}

/// A UID in the form of RFC 4122.
pub(super) fn uid(faults: &mut Faults, path: &Path<'_>, text: &str) {
    if let Err(why) = uuid(text) {
        faults.invalid_str(path, text, &format!("error validating uid: {why}"));
    } else if text.len() != 36 || text.bytes().any(|b| b.is_ascii_uppercase()) {
        let detail = "uid must be in RFC 4122 normalized form, `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` with lowercase hexadecimal \
                      characters";
        faults.invalid_str(path, text, detail);
    }
}

/// Whether a text is a UUID in one of the four forms that there are.
fn uuid(text: &str) -> Result<(), String> {
    const FORMAT: &str = "invalid UUID format";
    let bytes = text.as_bytes();
    let hyphenated = match bytes.len() {
        36 => bytes,
        45 if bytes[..9].eq_ignore_ascii_case(b"urn:uuid:") => &bytes[9..],
        45 => {
            let prefix = String::from_utf8_lossy(&bytes[..9]);
            return Err(format!("invalid urn prefix: {}", corten_api::field::quoted(&prefix)));
        }
        38 if bytes[0] == b'{' && bytes[37] == b'}' => &bytes[1..37],
        38 => return Err("invalid bracketed UUID format".into()),
        32 if bytes.iter().all(u8::is_ascii_hexdigit) => return Ok(()),
        32 => return Err(FORMAT.into()),
        length => return Err(format!("invalid UUID length: {length}")),
    };
    let fits = hyphenated.iter().enumerate().all(|(i, b)| match i {
        8 | 13 | 18 | 23 => *b == b'-',
        _ => b.is_ascii_hexdigit(),
    });
    if fits { Ok(()) } else { Err(FORMAT.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uids_are_normalized() {
        let told = |text: &str| {
            let mut faults = Faults::default();
            uid(&mut faults, &Path::new("u"), text);
            faults.0.first().map(|fault| fault.message.clone()).unwrap_or_default()
        };
        assert_eq!(told("a4b3c2d1-0000-4000-8000-000000000000"), "");
        assert!(told("a4b3c2d1-0000-4000-8000-00000000000g").ends_with("error validating uid: invalid UUID format"));
        assert!(told("x").ends_with("error validating uid: invalid UUID length: 1"));
        assert!(told("A4b3c2d1-0000-4000-8000-000000000000").contains("RFC 4122 normalized form"));
        assert!(told("{a4b3c2d1-0000-4000-8000-000000000000}").contains("RFC 4122 normalized form"));
    }

    #[test]
    fn addresses_of_interfaces_are_canonical() {
        let told = |text: &str| {
            let mut faults = Faults::default();
            interface_address(&mut faults, &Path::new("a"), text);
            faults.0.first().map(|fault| fault.message.clone()).unwrap_or_default()
        };
        assert_eq!(told("10.0.0.1/24"), "");
        assert_eq!(told("2001:db8::1/64"), "");
        assert!(told("10.0.0.1").contains("must be a valid address in CIDR form"));
        assert!(told("2001:DB8::1/64").ends_with("must be in canonical form (\"2001:db8::1/64\")"));
    }

    #[test]
    fn what_was_said_of_devices_goes_with_them() {
        let device = |name: &str| json!({"driver": "d", "pool": "p", "device": name});
        let results = |names: &[&str]| json!({"devices": {"results": names.iter().map(|name| device(name)).collect::<Vec<_>>()}});
        let old = json!({"allocation": results(&["a", "b"])});
        let mut status = json!({"allocation": results(&["a"]), "devices": [device("a"), device("b")]});
        drop_deallocated(&mut status, &old);
        assert_eq!(status["devices"], json!([device("a")]));
        let mut status = json!({"devices": [device("a")]});
        drop_deallocated(&mut status, &old);
        assert_eq!(status["devices"], Value::Null);
    }

    #[test]
    fn changes_of_a_status_name_whose_they_are() {
        let device = |driver: &str, data: i64| json!({"driver": driver, "pool": "p", "device": "d", "data": {"a": data}});
        let status = |devices: Value| json!({"status": {"allocation": {"devices": {"results": []}}, "devices": devices}});
        let drivers = |new: &Value, old: &Value| claim_changes(new, old).drivers.into_iter().collect::<Vec<_>>();
        let before = status(json!([device("a", 1), device("b", 1)]));
        assert_eq!(claim_changes(&before, &before), ClaimChanges::default());
        assert_eq!(drivers(&status(json!([device("a", 2), device("b", 1)])), &before), ["a"]);
        assert_eq!(drivers(&status(json!([device("c", 1), device("a", 1)])), &before), ["b", "c"]);
        // Without an allocation what was said of devices is dropped, which is nobody's right.
        let gone = json!({"status": {}});
        assert_eq!(claim_changes(&gone, &before), ClaimChanges { binding: true, ..ClaimChanges::default() });
    }

    #[test]
    fn an_allocation_names_a_node_only_alone() {
        let selector = |fields: Value| json!({"nodeSelector": {"nodeSelectorTerms": [{"matchFields": fields}]}});
        let field = |values: Value| json!([{"key": "metadata.name", "operator": "In", "values": values}]);
        assert_eq!(node_of(&selector(field(json!(["n"])))).as_deref(), Some("n"));
        assert_eq!(node_of(&selector(field(json!(["n", "m"])))), None);
        assert_eq!(node_of(&json!({})), None);
    }
}
