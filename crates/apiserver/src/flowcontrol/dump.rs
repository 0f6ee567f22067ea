//! What the levels are doing, as tables for people (`/debug/api_priority_and_fairness`).

use std::fmt::Write as _;
use std::sync::Arc;

use jiff::Timestamp;

use super::executing::Running;
use super::queues::{Level, Ticket};

/// A row for each level.
pub(super) fn levels(levels: &[&Arc<Level>]) -> String {
    let mut table = Table::new(&[
        "PriorityLevelName",
        "ActiveQueues",
        "IsIdle",
        "IsQuiescing",
        "WaitingRequests",
        "ExecutingRequests",
        "DispatchedRequests",
        "RejectedRequests",
        "TimedoutRequests",
        "CancelledRequests",
    ]);
    for level in levels {
        level.inspect(|totals, queues, executing| {
            let waiting: usize = queues.iter().map(|queue| queue.tickets().len()).sum();
            let active = queues.iter().filter(|queue| queue.tickets().len() > 0).count();
            let running = executing.iter().count();
            // Who waits too long is counted with those whose clients have gone, as upstream counts them.
            let late = 0;
            let figures = [waiting as u64, running as u64, totals.dispatched, totals.rejected, late, totals.cancelled];
            // A level whose object is deleted is in no plan any more, so that none that is here is on its way out.
            let state = [level.name.clone(), active.to_string(), (waiting + running == 0).to_string(), false.to_string()];
            table.row(state.into_iter().chain(figures.map(|figure| figure.to_string())));
        });
    }
    table.text()
}

/// A row for each queue.
pub(super) fn queues(levels: &[&Arc<Level>]) -> String {
    let mut table = Table::new(&[
        "PriorityLevelName",
        "Index",
        "PendingRequests",
        "ExecutingRequests",
        "SeatsInUse",
        "NextDispatchR",
        "InitialSeatsSum",
        "MaxSeatsSum",
        "TotalWorkSum",
    ]);
    for level in levels.iter().filter(|level| level.has_queues()) {
        level.inspect(|_, queues, _| {
            for (index, queue) in queues.iter().enumerate() {
                let sum = |seats: fn(&Ticket) -> usize| queue.tickets().map(seats).sum::<usize>().to_string();
                table.row([
                    level.name.clone(),
                    index.to_string(),
                    queue.tickets().len().to_string(),
                    queue.running.to_string(),
                    queue.seats.to_string(),
                    seat_seconds(queue.next),
                    sum(|ticket| ticket.width.running),
                    sum(|ticket| ticket.width.most()),
                    seat_seconds(queue.work()),
                ]);
            }
        });
    }
    table.text()
}

/// A row for each request; with who asks for what when `detailed`.
pub(super) fn requests(levels: &[&Arc<Level>], detailed: bool) -> String {
    const DETAILS: [&str; 8] = ["UserName", "Verb", "APIPath", "Namespace", "Name", "APIVersion", "Resource", "SubResource"];
    let mut heads = vec![
        "PriorityLevelName",
        "FlowSchemaName",
        "QueueIndex",
        "RequestIndexInQueue",
        "FlowDistingsher",
        "ArriveTime",
        "InitialSeats",
        "FinalSeats",
        "AdditionalLatency",
        "StartTime",
    ];
    heads.extend(DETAILS.into_iter().filter(|_| detailed));
    let mut table = Table::new(&heads);
    for level in levels {
        level.inspect(|_, queues, executing| {
            let mut rows: Vec<_> = executing.iter().map(|running| (place(running), running.since, &running.ticket)).collect();
            for (queue, at) in queues.iter().zip(0_i64..) {
                rows.extend(queue.tickets().zip(0_i64..).map(|(ticket, index)| ((at, index), NEVER, ticket)));
            }
            for ((queue, index), started, ticket) in rows {
                let (seats, lasting) = ticket.width.after.unwrap_or_default();
                let info = &ticket.info;
                let lasting = i64::try_from(lasting.as_nanos()).unwrap_or(i64::MAX);
                let row = [
                    level.name.clone(),
                    ticket.schema.to_string(),
                    queue.to_string(),
                    index.to_string(),
                    ticket.distinguisher.clone(),
                    ticket.arrived.to_string(),
                    ticket.width.running.to_string(),
                    seats.to_string(),
                    corten_api::time::format_duration(lasting),
                    if started == NEVER { "0001-01-01T00:00:00Z".to_owned() } else { started.to_string() },
                ];
                let details = [&ticket.user, &info.verb, &info.path, &info.namespace, &info.name].map(String::clone);
                let more = [info.api_version(), info.resource.clone(), info.subresource.clone()];
                table.row(row.into_iter().chain(details.into_iter().chain(more).filter(|_| detailed)));
            }
        });
    }
    table.text()
}

/// The start of who has not started.
const NEVER: Timestamp = Timestamp::UNIX_EPOCH;

/// Who runs has no place in the queue it came from.
fn place(running: &Running) -> (i64, i64) {
    (running.queue.and_then(|queue| i64::try_from(queue).ok()).unwrap_or(-1), -1)
}

fn seat_seconds(amount: f64) -> String {
    format!("{amount:.8}ss")
}

/// Columns that are as wide as their widest cell.
struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    fn new(heads: &[&str]) -> Self {
        Self { rows: vec![heads.iter().map(|head| (*head).to_owned()).collect()] }
    }

    fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    fn text(&self) -> String {
        /// No column is narrower than this.
        const LEAST: usize = 8;
        let columns = self.rows.first().map_or(0, Vec::len);
        let width = |column: usize| {
            let widest = self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
            (widest + 2).max(LEAST)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            for (cell, width) in row[..columns - 1].iter().zip(&widths) {
                let _ = write!(text, "{:<width$}", format!("{cell},"));
            }
            let _ = writeln!(text, "{}", row[columns - 1]);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_the_last_is_as_long_as_it_is() {
        let mut table = Table::new(&["PriorityLevelName", "Index", "Work"]);
        table.row(["system", "10", "0.00000000ss"].map(str::to_owned));
        assert_eq!(table.text(), "PriorityLevelName, Index,  Work\nsystem,            10,     0.00000000ss\n");
        assert_eq!(seat_seconds(1.5), "1.50000000ss");
    }
}
