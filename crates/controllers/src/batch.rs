//! Slow start: 1, 2, 4, … at a time, and no further batch after a failure, so that a quota or an admission error costs one
//! rejected request instead of five hundred.

use std::future::Future;

use futures::future::join_all;

/// Calls `act` up to `count` times. Returns how many succeeded, and the first failure.
pub(crate) async fn slow_start<F, E>(count: usize, act: impl Fn(usize) -> F) -> (usize, Option<E>)
where
    F: Future<Output = Result<(), E>>,
{
    let (mut done, mut batch) = (0, 1);
    while done < count {
        let size = batch.min(count - done);
        let outcomes = join_all((done..done + size).map(&act)).await;
        let succeeded = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        done += succeeded;
        if let Some(err) = outcomes.into_iter().find_map(Result::err) {
            return (done, Some(err));
        }
        batch *= 2;
    }
    (done, None)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test]
    async fn batches_double_and_end_with_the_first_failure() {
        for (count, fails_from, calls_expected, done_expected) in
            [(0, 9, 0, 0), (10, 99, 10, 10), (10, 0, 1, 0), (10, 2, 3, 2), (500, 3, 7, 3)]
        {
            let calls = Cell::new(0);
            let act = |n| {
                calls.set(calls.get() + 1);
                async move { if n < fails_from { Ok(()) } else { Err(n) } }
            };
            let (done, failure) = slow_start(count, act).await;
            assert_eq!(
                (calls.get(), done, failure.is_some()),
                (calls_expected, done_expected, done < count),
                "{count} {fails_from}"
            );
        }
    }
}
