//! Disks that are full, or may not be written: the old version stays whole, that is told, and the new one comes as soon
//! as it can. Only root may mount, so without root there is nothing to see here.

use std::path::{Path, PathBuf};
use std::process::Command;

use ostler_schemas::spec::Drift;
use ostler_schemas::v1::document::FileSpec;
use ostler_schemas::v1::reason::Reason;
use ostler_schemas::v1::report::FileState;

use crate::plane::{Plane, file_entry, file_spec};
use crate::real::Box;

/// A small file system of its own.
struct Disk(PathBuf);

impl Disk {
    /// None where nothing may be mounted.
    fn new(at: PathBuf) -> Option<Self> {
        std::fs::create_dir_all(&at).expect("makes it");
        mount(&["-t", "tmpfs", "-o", "size=64k", "none"], &at).then_some(Self(at))
    }

    fn become_(&self, options: &str) {
        assert!(mount(&["-o", &format!("remount,{options}")], &self.0), "{options}");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(&self.0).status().ok();
    }
}

fn mount(words: &[&str], at: &Path) -> bool {
    let done = Command::new("mount").args(words).arg(at).output();
    done.is_ok_and(|done| done.status.success())
}

#[tokio::test]
async fn a_full_or_locked_disk_leaves_the_old_version_whole() {
    let host = Box::new();
    let Some(disk) = Disk::new(host.path("root/etc/small")) else { return };
    let mut plane = Plane::new().await;
    plane.start_agent_on(host.parts()).await;
    let at = |content: &[u8]| FileSpec {
        path: "/etc/small/app.conf".to_owned(),
        ..file_spec(content, Drift::Enforce)
    };
    let path = host.path("root/etc/small/app.conf");
    let contents = [b"small\n".to_vec(), "large\n".repeat(20_000).into_bytes(), b"last\n".to_vec()];
    let mut hashes = Vec::new();
    for content in &contents {
        hashes.push(plane.put_file_spec(&at(content), content).await);
    }
    let reads = |n: usize| std::fs::read(&path).is_ok_and(|bytes| bytes == contents[n]);
    let failed = |reason| {
        move |f: &ostler_schemas::v1::report::FileReport| {
            f.state == FileState::Failed && f.reason == Some(reason)
        }
    };
    plane.put_files(vec![file_entry(9, 1, hashes[0])]).await;
    plane.until("the first is there", |_| reads(0)).await;

    plane.put_files(vec![file_entry(9, 2, hashes[1])]).await;
    plane.until_report("the disk is full", |r| r.file_states.iter().any(failed(Reason::DiskFull))).await;
    assert!(reads(0), "the old one stays");
    disk.become_("size=1m");
    plane.until("there is room", |_| reads(1)).await;

    disk.become_("ro");
    plane.put_files(vec![file_entry(9, 3, hashes[2])]).await;
    plane
        .until_report("it may not be written", |r| r.file_states.iter().any(failed(Reason::WriteFailed)))
        .await;
    assert!(reads(1), "the old one stays");
    disk.become_("rw");
    plane.until("it may be written", |_| reads(2)).await;
    plane.until_report("all is well", |r| r.file_states.iter().all(|f| f.state == FileState::InSync)).await;
    let names = std::fs::read_dir(host.path("root/etc/small")).expect("reads").count();
    assert_eq!(names, 1, "nothing unfinished is left");
    plane.kill_agent().await;
}
