use super::*;

fn queue() -> Queue<&'static str> {
    Queue::new()
}

/// What `next` gives at this moment, without letting time pass.
async fn now(queue: &Queue<&'static str>) -> Option<Work<&'static str>> {
    tokio::time::timeout(Duration::ZERO, queue.next()).await.ok().flatten()
}

#[tokio::test(start_paused = true)]
async fn a_key_added_twice_comes_once() {
    let queue = queue();
    queue.add("a");
    queue.add("b");
    queue.add("a");
    assert_eq!(**now(&queue).await.unwrap(), *"a");
    assert_eq!(**now(&queue).await.unwrap(), *"b");
    assert!(now(&queue).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_key_in_work_comes_again_only_when_it_is_done() {
    let queue = queue();
    queue.add("a");
    let work = now(&queue).await.unwrap();
    queue.add("a");
    queue.add("a");
    assert!(now(&queue).await.is_none());
    drop(work);
    let work = now(&queue).await.unwrap();
    drop(work);
    assert!(now(&queue).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn the_earliest_deadline_counts() {
    let queue = queue();
    let start = Instant::now();
    queue.add_after("a", Duration::from_secs(10));
    queue.add_after("a", Duration::from_secs(3));
    queue.add_after("a", Duration::from_secs(5));
    queue.add_after("b", Duration::from_secs(4));
    assert_eq!(*queue.next().await.unwrap().key(), "a");
    assert_eq!(start.elapsed().as_secs(), 3);
    assert_eq!(*queue.next().await.unwrap().key(), "b");
    assert_eq!(start.elapsed().as_secs(), 4);
    assert!(tokio::time::timeout(Duration::from_secs(3600), queue.next()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_run_drops_the_deadline_it_was_before() {
    let queue = queue();
    queue.add_after("a", Duration::from_secs(10));
    queue.add("a");
    drop(now(&queue).await.unwrap());
    assert!(tokio::time::timeout(Duration::from_secs(3600), queue.next()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_deadline_set_during_a_run_stays() {
    let queue = queue();
    queue.add("a");
    let work = now(&queue).await.unwrap();
    queue.add_after("a", Duration::from_secs(10));
    drop(work);
    let start = Instant::now();
    queue.next().await.unwrap();
    assert_eq!(start.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn failures_double_the_delay_until_they_are_forgotten() {
    let queue = queue();
    let mut delays = Vec::new();
    for _ in 0..20 {
        let start = Instant::now();
        queue.retry("a");
        queue.next().await.unwrap();
        delays.push(start.elapsed().as_millis());
    }
    assert_eq!(delays[..4], [5, 10, 20, 40]);
    assert_eq!(delays[19], 1_000_000);
    queue.forget(&"a");
    let start = Instant::now();
    queue.retry("a");
    queue.next().await.unwrap();
    assert_eq!(start.elapsed().as_millis(), 5);
}

#[tokio::test(start_paused = true)]
async fn several_workers_wake_and_a_closed_queue_ends_them() {
    let queue = queue();
    let worker = || {
        let queue = queue.clone();
        async move {
            let mut done = Vec::new();
            while let Some(work) = queue.next().await {
                tokio::time::sleep(Duration::from_secs(1)).await;
                done.push(*work.key());
            }
            done.len()
        }
    };
    let feeder = async {
        for key in ["a", "b", "c", "d", "e", "f"] {
            queue.add(key);
        }
        tokio::time::sleep(Duration::from_millis(2500)).await;
        queue.close();
    };
    let (one, two, three, ()) = tokio::join!(worker(), worker(), worker(), feeder);
    // Two rounds of a second each were enough for three workers.
    assert_eq!(one + two + three, 6);
}

#[tokio::test(start_paused = true)]
async fn what_happens_in_a_queue_is_counted_under_its_name() {
    let queue: Queue<u8> = Queue::new();
    queue.add(1);
    queue.count_as("counted-in-a-test");
    queue.add(1); // the same key, once
    queue.add(2);
    let counted = crate::metrics::QueueMetrics::of("counted-in-a-test");
    assert_eq!((counted.adds.get(), counted.depth.get()), (1, 2));
    let work = queue.next().await.unwrap();
    queue.retry(7);
    drop(work);
    assert_eq!((counted.depth.get(), counted.retries.get()), (1, 1));
    assert_eq!((counted.waited.get_sample_count(), counted.worked.get_sample_count()), (1, 1));
}
