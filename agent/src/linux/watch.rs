//! Watches folders for changes of managed files. One inotify instance for all; hosts have few of them.
//!
//! A folder is watched, not the file: editors replace files, and a watch on a file would go with it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use futures::StreamExt;
use futures::stream::BoxStream;
use inotify::{EventMask, Inotify, WatchDescriptor, WatchMask, Watches};
use tokio::sync::watch;

use crate::context::lock;

/// Room for many events of one read.
const BUFFER: usize = 16 << 10;
/// The thread that waits for events calls nothing deep.
const STACK: usize = 128 << 10;
/// How often a folder that could not be watched (it is not there yet) is tried again.
const AGAIN_MS: u64 = 1_000;

type Key = (PathBuf, OsString);

#[derive(Default)]
struct Table {
    /// Folders by descriptor.
    folders: BTreeMap<i32, PathBuf>,
    /// Who listens to which name in which folder.
    names: BTreeMap<Key, watch::Sender<u64>>,
}

/// All watches of this agent.
pub(super) struct Watcher {
    watches: Option<Watches>,
    table: Arc<Mutex<Table>>,
}

impl Watcher {
    pub(super) fn start() -> Self {
        let table = Arc::new(Mutex::new(Table::default()));
        let started = Inotify::init().and_then(|inotify| {
            let (watches, heard_by) = (inotify.watches(), Arc::clone(&table));
            let thread = std::thread::Builder::new().name("watches".to_owned()).stack_size(STACK);
            thread.spawn(move || pump(inotify, &heard_by)).map(|_| watches)
        });
        let watches = started
            .map_err(|error| tracing::warn!(%error, "no watches: drift is found by the slow rescan only"))
            .ok();
        Self { watches, table }
    }

    pub(super) fn watch(&self, path: &Path) -> BoxStream<'static, ()> {
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return futures::stream::pending().boxed();
        };
        let key = (folder.to_owned(), name.to_owned());
        let receiver = {
            let mut table = lock(&self.table);
            table.names.retain(|_, sender| sender.receiver_count() > 0);
            table.names.entry(key).or_insert_with(|| watch::channel(0).0).subscribe()
        };
        let state = (receiver, self.watches.clone(), Arc::clone(&self.table), folder.to_owned(), false);
        futures::stream::unfold(state, |(mut receiver, mut watches, table, folder, mut watched)| async move {
            loop {
                if !watched && let Some(watches) = &mut watches {
                    watched = add(watches, &table, &folder);
                    if watched {
                        // What happened before the watch was there is seen by looking once.
                        return Some(((), (receiver, Some(watches.clone()), table, folder, watched)));
                    }
                }
                let again = std::time::Duration::from_millis(AGAIN_MS);
                let changed = if watched {
                    receiver.changed().await
                } else {
                    tokio::time::timeout(again, receiver.changed()).await.unwrap_or(Ok(()))
                };
                changed.ok()?;
                if watched {
                    // The folder itself may have gone with the change: then it is watched anew.
                    watched = is_watched(&table, &folder);
                    return Some(((), (receiver, watches, table, folder, watched)));
                }
            }
        })
        .boxed()
    }
}

/// A path that ends so is about everything in its folder.
const ANY: &str = "*";

fn mask() -> WatchMask {
    WatchMask::CLOSE_WRITE
        | WatchMask::CREATE
        | WatchMask::DELETE
        | WatchMask::MOVE
        | WatchMask::ATTRIB
        | WatchMask::MODIFY
        | WatchMask::DELETE_SELF
        | WatchMask::MOVE_SELF
        | WatchMask::ONLYDIR
}

fn number(descriptor: &WatchDescriptor) -> i32 {
    descriptor.get_watch_descriptor_id()
}

fn add(watches: &mut Watches, table: &Mutex<Table>, folder: &Path) -> bool {
    match watches.add(folder, mask()) {
        Ok(descriptor) => {
            lock(table).folders.insert(number(&descriptor), folder.to_owned());
            true
        }
        Err(error) => {
            tracing::debug!(%error, folder = %folder.display(), "a folder cannot be watched");
            false
        }
    }
}

fn is_watched(table: &Mutex<Table>, folder: &Path) -> bool {
    lock(table).folders.values().any(|watched| watched == folder)
}

/// Blocks in the kernel for as long as nothing happens; ends with the process, or when watches fail.
fn pump(mut inotify: Inotify, table: &Mutex<Table>) {
    let mut buffer = vec![0; BUFFER];
    loop {
        match inotify.read_events_blocking(&mut buffer) {
            Ok(events) => {
                let mut table = lock(table);
                for event in events {
                    heard(&mut table, number(&event.wd), event.mask, event.name);
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => {
                tracing::warn!(%error, "watches ended: drift is found by the slow rescan only");
                return;
            }
        }
    }
}

fn heard(table: &mut Table, descriptor: i32, mask: EventMask, name: Option<&std::ffi::OsStr>) {
    if mask.contains(EventMask::Q_OVERFLOW) {
        // Something was lost: everybody looks.
        for sender in table.names.values() {
            sender.send_modify(|n| *n += 1);
        }
        return;
    }
    let Some(folder) = table.folders.get(&descriptor).cloned() else { return };
    let gone = mask.intersects(EventMask::DELETE_SELF | EventMask::MOVE_SELF | EventMask::IGNORED);
    if gone {
        table.folders.remove(&descriptor);
    }
    for ((watched, file), sender) in &table.names {
        if *watched == folder && (gone || *file == *ANY || name.is_none_or(|name| name == file)) {
            sender.send_modify(|n| *n += 1);
        }
    }
}
