//! The words of `FailedScheduling`, which people and tools know by heart.

use std::collections::BTreeMap;

use crate::cycle::Diagnosis;

/// `0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint(s). preemption: …`
pub fn message(diagnosis: &Diagnosis, preemption: Option<&str>) -> String {
    let mut text = format!("0/{} nodes are available", diagnosis.nodes);
    match &diagnosis.before {
        Some(before) => text += &format!(": {}.", before.reasons.join(", ")),
        None if diagnosis.rejections.is_empty() => {}
        None => text += &format!(": {}.", histogram(diagnosis.rejections.iter().flat_map(|(_, r)| &r.reasons))),
    }
    if diagnosis.nodes == 0 && diagnosis.before.is_none() {
        return "no nodes available to schedule pods".to_owned();
    }
    if let Some(preemption) = preemption {
        text += &format!(" {preemption}");
    }
    text
}

/// `1 Insufficient cpu, 2 Too many pods`: each reason with the number of nodes it holds for, sorted as text.
pub fn histogram<'a, S: AsRef<str> + 'a>(reasons: impl Iterator<Item = &'a S>) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for reason in reasons {
        *counts.entry(reason.as_ref()).or_default() += 1;
    }
    let mut lines: Vec<String> = counts.into_iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    lines.sort();
    lines.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::Rejection;

    #[test]
    fn reasons_are_counted_and_sorted() {
        let taint = || Rejection::final_("TaintToleration", "node(s) had untolerated taint(s)");
        let diagnosis = Diagnosis {
            nodes: 3,
            before: None,
            rejections: vec![
                ("a".into(), taint()),
                ("b".into(), Rejection::resolvable("NodeResourcesFit", "Insufficient cpu")),
                ("c".into(), taint()),
            ],
        };
        let preemption = "preemption: 0/3 nodes are available: 1 No preemption victims found for incoming pod, 2 Preemption is not helpful for scheduling.";
        assert_eq!(
            message(&diagnosis, Some(preemption)),
            format!("0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint(s). {preemption}")
        );
    }
}
