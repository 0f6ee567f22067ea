use super::*;

fn fragment(chains: &[(&str, &str)], elements: &[(Map, &str, Option<&str>)]) -> Fragment {
    let chains = chains.iter().map(|(name, rule)| ((*name).to_owned(), vec![(*rule).to_owned()])).collect();
    let elements = elements.iter().map(|(map, key, value)| ((*map, (*key).to_owned()), value.map(ToOwned::to_owned))).collect();
    Fragment { v4: Part { chains, elements, ..Part::default() }, ..Fragment::default() }
}

fn key(name: &str) -> Key {
    Key::new("ns", name)
}

#[test]
fn an_update_costs_what_changed() {
    let element = (Map::ServiceIps, "10.43.0.7 . tcp . 80", Some("goto service/a"));
    let mut applied = Applied::new(&[Family::V4]);
    let first =
        applied.change(vec![(key("a"), Some(fragment(&[("service/a", "goto cluster/a"), ("cluster/a", "one")], &[element])))]);
    assert!(first.contains("add element ip corten-proxy service-ips { 10.43.0.7 . tcp . 80 : goto service/a }"));

    let more = fragment(&[("service/a", "goto cluster/a"), ("cluster/a", "two")], &[element]);
    let script = applied.change(vec![(key("a"), Some(more.clone()))]);
    assert_eq!(
        script,
        "add chain ip corten-proxy cluster/a\nflush chain ip corten-proxy cluster/a\nadd rule ip corten-proxy cluster/a two\n"
    );
    assert_eq!(applied.change(vec![(key("a"), Some(more))]), "");
    let end = applied.change(vec![(key("a"), None)]);
    assert_eq!(
        end,
        "delete element ip corten-proxy service-ips { 10.43.0.7 . tcp . 80 }
flush chain ip corten-proxy cluster/a
flush chain ip corten-proxy service/a
delete chain ip corten-proxy cluster/a
delete chain ip corten-proxy service/a\n"
    );
}

#[test]
fn an_element_belongs_to_the_first_claimant_and_passes_on() {
    let claim = |to| fragment(&[], &[(Map::ServiceIps, "203.0.113.1 . tcp . 80", Some(to))]);
    let mut applied = Applied::new(&[Family::V4]);
    applied.change(vec![(key("a"), Some(claim("goto a")))]);
    assert_eq!(applied.change(vec![(key("b"), Some(claim("goto b")))]), "");
    assert_eq!(
        applied.change(vec![(key("a"), None)]),
        "delete element ip corten-proxy service-ips { 203.0.113.1 . tcp . 80 }
add element ip corten-proxy service-ips { 203.0.113.1 . tcp . 80 : goto b }\n"
    );
}

#[test]
fn an_element_shared_by_two_services_stays_until_both_are_gone() {
    let shared = || Some(fragment(&[], &[(Map::Hairpin, "10.42.0.5 . 10.42.0.5", None)]));
    let mut applied = Applied::new(&[Family::V4]);
    applied.change(vec![(key("a"), shared()), (key("b"), shared())]);
    assert_eq!(applied.change(vec![(key("a"), None)]), "");
    assert_eq!(applied.change(vec![(key("b"), None)]), "delete element ip corten-proxy hairpin { 10.42.0.5 . 10.42.0.5 }\n");
}
