//! Keeps a cache equal to the server: the watch protocol's events in, changes of the cache out.
//!
//! `kube`'s watcher speaks the protocol (streaming list, bookmarks, resuming, 410). What is added here is the fallback
//! for servers that refuse the streaming list, the back-off, and the comparison after a repeated list, which finds what
//! was deleted while the watch was down.

use std::collections::HashSet;
use std::pin::pin;
use std::time::Duration;

use futures::StreamExt;
use kube::Api;
use kube::runtime::watcher::{self, Event, watcher};
use tracing::{debug, warn};

use super::{Informer, Object};
use crate::Key;
use crate::backoff::Backoff;

/// How the watch is opened.
pub(crate) struct Follow<K> {
    pub(crate) api: Api<K>,
    pub(crate) config: watcher::Config,
    /// Drops what nobody reads, before an object is kept.
    pub(crate) trim: fn(&mut K),
    /// For the log.
    pub(crate) what: String,
}

/// Why the watcher has to be opened anew.
enum Reopen {
    /// The server does not know the streaming list.
    WithoutStreaming,
    /// The revision to resume from is gone, and the server says so in the answer's status, not in an event.
    Fresh,
}

/// Follows until dropped.
pub(crate) async fn follow<K: Object>(follow: Follow<K>, informer: Informer<K>) {
    let mut config = follow.config.clone().streaming_lists();
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(30));
    loop {
        let streaming = config.initial_list_strategy == watcher::InitialListStrategy::StreamingList;
        match follow_once(&follow, config.clone(), streaming, &informer, &mut backoff).await {
            Reopen::WithoutStreaming => {
                debug!(resource = %follow.what, "the server refuses the streaming list, listing instead");
                config = follow.config.clone();
            }
            Reopen::Fresh => tokio::time::sleep(backoff.next()).await,
        }
    }
}

async fn follow_once<K: Object>(
    follow: &Follow<K>,
    config: watcher::Config,
    streaming: bool,
    informer: &Informer<K>,
    backoff: &mut Backoff,
) -> Reopen {
    let mut events = pin!(watcher(follow.api.clone(), config));
    // The keys seen in the list that is being read.
    let mut listed: HashSet<Key> = HashSet::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                if !matches!(event, Event::Init) {
                    backoff.reset();
                }
                match event {
                    Event::Init => listed.clear(),
                    Event::InitApply(mut object) => {
                        (follow.trim)(&mut object);
                        listed.insert(Key::of(&object));
                        informer.apply(object);
                    }
                    Event::InitDone => {
                        for key in informer.keys() {
                            if !listed.contains(&key) {
                                informer.remove(&key, None);
                            }
                        }
                        listed = HashSet::new();
                        informer.set_synced();
                    }
                    Event::Apply(mut object) => {
                        (follow.trim)(&mut object);
                        informer.apply(object);
                    }
                    Event::Delete(mut object) => {
                        (follow.trim)(&mut object);
                        informer.remove(&Key::of(&object), Some(object));
                    }
                }
            }
            Err(err) => match judge(&err, streaming && !informer.is_synced()) {
                Some(reopen) => return reopen,
                None => {
                    // One line when it begins to fail; the attempts after it are for those who debug.
                    let resource = &follow.what;
                    if backoff.is_failing() {
                        debug!(%resource, error = %chain(&err), "watch failed again");
                    } else {
                        warn!(%resource, error = %chain(&err), "watch failed, will retry");
                    }
                    tokio::time::sleep(backoff.next()).await;
                }
            },
        }
    }
    Reopen::Fresh
}

fn judge(err: &watcher::Error, streaming: bool) -> Option<Reopen> {
    let watcher::Error::WatchStartFailed(kube::Error::Api(status)) = err else { return None };
    match status.code {
        410 => Some(Reopen::Fresh),
        400 | 422 if streaming => Some(Reopen::WithoutStreaming),
        _ => None,
    }
}

fn chain(err: &watcher::Error) -> String {
    match err {
        // Its `Display` would print the status twice and in full.
        watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => status.message.clone(),
        other => other.to_string(),
    }
}
