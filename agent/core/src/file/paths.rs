//! Which paths may be written, and what lies beside them.

use std::sync::Arc;

use crate::veto::Veto;

/// Where Ostler never writes a managed file, whatever is asked: the kernel's own trees.
const KERNEL_TREES: [&str; 3] = ["/proc", "/sys", "/dev"];

/// The rules of one host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rules {
    /// What all managed paths lie below; empty on a host, a sandbox folder in `dev`.
    pub root: String,
    /// The agent's own folders, as host paths.
    pub own: Vec<String>,
    /// Folder where originals are kept, as a host path.
    pub originals: String,
    /// What the host allows.
    pub veto: Arc<Veto>,
}

impl Rules {
    /// The host path of a path in a manifest.
    #[must_use]
    pub fn on_host(&self, path: &str) -> String {
        format!("{}{path}", self.root)
    }

    /// Where the original of the file with this uid is kept.
    #[must_use]
    pub fn original(&self, uid: &ostler_schemas::Uid) -> String {
        format!("{}/{uid}", self.originals)
    }

    /// Where the original of one of its files is kept.
    #[must_use]
    pub fn original_of(&self, uid: &ostler_schemas::Uid, name: &str) -> String {
        match name {
            "" => self.original(uid),
            // By hash, because a name may have slashes and any length.
            name => format!("{}.{}", self.original(uid), ostler_schemas::hash::sha256(name.as_bytes())),
        }
    }

    /// Why a path of a manifest is refused, if it is. `real_dir` is what its folder really is, or would be once it
    /// is made.
    #[must_use]
    pub fn refusal(&self, path: &str, real_dir: Option<&str>) -> Option<String> {
        if !is_normal(path) {
            return Some("the path is not absolute and in normal form".to_owned());
        }
        if let Some(tree) = KERNEL_TREES.iter().find(|tree| is_below(path, tree)) {
            return Some(format!("paths below {tree} are not managed"));
        }
        let on_host = self.on_host(path);
        let real = real_dir.map(|dir| in_folder(dir, path));
        for candidate in [Some(&on_host), real.as_ref()].into_iter().flatten() {
            if let Some(tree) = KERNEL_TREES.iter().find(|tree| is_below(candidate, tree)) {
                return Some(format!("its folder leads below {tree}"));
            }
            if let Some(own) = self.own.iter().find(|own| is_below(candidate, own)) {
                return Some(format!("{own} is Ostler's own folder"));
            }
            if !self.root.is_empty() && !is_below(candidate, &self.root) {
                return Some(format!("its folder leads out of {}", self.root));
            }
        }
        // In a sandbox the rules speak of what lies below it.
        let real = real.as_deref().and_then(|real| real.strip_prefix(self.root.as_str()));
        self.veto.path(path, real.filter(|real| *real != path))
    }
}

/// Whether a path is absolute, without `.`, `..`, empty parts or a final slash.
fn is_normal(path: &str) -> bool {
    path.strip_prefix('/').is_some_and(|rest| {
        !path.contains('\0') && rest.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
    })
}

fn is_below(path: &str, tree: &str) -> bool {
    let tree = tree.trim_end_matches('/');
    path.strip_prefix(tree).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The folder of an absolute path.
#[must_use]
pub fn parent(path: &str) -> &str {
    match path.rfind('/') {
        Some(0) | None => "/",
        Some(at) => &path[..at],
    }
}

/// What a path is called when its folder is called `dir`.
#[must_use]
pub fn in_folder(dir: &str, path: &str) -> String {
    format!("{}/{}", dir.trim_end_matches('/'), name(path))
}

fn name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Longest name of a file on Linux.
const NAME_MAX: usize = 255;

/// Where the next version of a file is written before it is renamed: beside it, `.NAME.ostler`. A name too long for
/// that is cut.
#[must_use]
pub fn temp_path(path: &str) -> String {
    let room = NAME_MAX - ".".len() - ".ostler".len();
    let name = name(path);
    let mut end = name.len().min(room);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}/.{}.ostler", parent(path).trim_end_matches('/'), &name[..end])
}
