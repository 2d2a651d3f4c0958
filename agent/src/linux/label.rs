//! The security label of a file that is replaced is that of the new one.
//!
//! A new file gets the label that the host's policy gives to files made in its folder; a policy that says otherwise of
//! this one path (SELinux's `fcontext`), or a person with `chcon`, has said so on the file that is there. Hosts without
//! labels have none to keep.

use std::fs::File;
use std::io;

use rustix::fs::{XattrFlags, fgetxattr, fsetxattr};
use rustix::io::Errno;

/// Where kernels keep labels: SELinux, and Smack.
const LABELS: [&str; 2] = ["security.selinux", "security.SMACK64"];
/// Longer than any label: SELinux allows a page.
const LONGEST: usize = 4_096;

/// Gives `new` the labels of `old`; says whether anything had to be changed, and must be synced.
pub(super) fn keep(old: &File, new: &File) -> io::Result<bool> {
    let mut changed = false;
    for name in LABELS {
        let Some(wanted) = label(old, name)? else { continue };
        if label(new, name)?.as_ref() != Some(&wanted) {
            fsetxattr(new, name, &wanted, XattrFlags::empty())
                .map_err(|error| io::Error::other(format!("its security label cannot be kept: {error}")))?;
            changed = true;
        }
    }
    Ok(changed)
}

fn label(file: &File, name: &str) -> io::Result<Option<Vec<u8>>> {
    let mut value = vec![0; LONGEST];
    match fgetxattr(file, name, &mut value[..]) {
        Ok(length) => {
            value.truncate(length);
            Ok(Some(value))
        }
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::PERM | Errno::ACCESS) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_goes_over_to_the_new_file() {
        let dir = tempfile::tempdir().expect("a folder");
        let make = |name: &str| File::create_new(dir.path().join(name)).expect("makes it");
        let (old, new) = (make("old"), make("new"));
        assert!(!keep(&old, &new).expect("nothing to keep, or the same"));
        let wanted = b"system_u:object_r:etc_t:s0\0";
        if fsetxattr(&old, LABELS[0], wanted, XattrFlags::empty()).is_err() {
            // Only root may set labels, and not on every file system.
            return;
        }
        assert!(keep(&old, &new).expect("sets it"));
        assert_eq!(label(&new, LABELS[0]).expect("reads").as_deref(), Some(wanted.as_slice()));
        assert!(!keep(&old, &new).expect("is so already"));
    }
}
