//! The cache against a server that misbehaves.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::AtomicUsize;

use ostler_schemas::hash::sha256;
use ostler_schemas::quantity::Mode;

use super::*;

/// What the server does with a request.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    /// Serves it whole, and ranges of it.
    Well,
    /// The first time, breaks off in the middle; serves ranges.
    BreaksOnce,
    /// The same, and what it serves has changed afterwards.
    BreaksAndChanges,
    Status(u16),
    Redirects,
}

struct Server {
    address: String,
    requests: Arc<Mutex<Vec<String>>>,
}

const BODY: usize = 300_000;

fn body(changed: bool) -> Vec<u8> {
    (0..BODY).map(|i| u8::try_from((i * 7 + usize::from(changed)) % 251).unwrap_or(0)).collect()
}

fn serve(manner: Manner) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    let requests: Arc<Mutex<Vec<String>>> = Arc::default();
    let (heard, count, own) = (Arc::clone(&requests), AtomicUsize::new(0), address.clone());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let request = head(&mut stream);
            lock(&heard).push(request.clone());
            let n = count.fetch_add(1, Ordering::Relaxed);
            answer(&mut stream, manner, (n, &request, &own)).ok();
        }
    });
    Server { address, requests }
}

fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
        head.push(byte[0]);
    }
    String::from_utf8_lossy(&head).to_ascii_lowercase()
}

fn answer(stream: &mut TcpStream, manner: Manner, (n, request, own): (usize, &str, &str)) -> io::Result<()> {
    let changed = manner == Manner::BreaksAndChanges && n > 0;
    let whole = body(changed);
    let tag = if changed { "\"two\"" } else { "\"one\"" };
    match manner {
        Manner::Status(status) => {
            return write!(
                stream,
                "HTTP/1.1 {status} Sorry\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            );
        }
        Manner::Redirects => {
            return write!(
                stream,
                "HTTP/1.1 302 Found\r\nLocation: http://{own}/{n}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            );
        }
        Manner::Well | Manner::BreaksOnce | Manner::BreaksAndChanges => {}
    }
    let from = request.lines().find_map(|l| l.strip_prefix("range: bytes=")?.strip_suffix('-')?.parse().ok());
    let same = request.contains(&format!("if-range: {tag}"));
    let from: usize = from.filter(|_| same).unwrap_or(0);
    let rest = &whole[from..];
    let status = match from {
        0 => "200 OK".to_owned(),
        _ => format!("206 Partial Content\r\nContent-Range: bytes {from}-{}/{BODY}", BODY - 1),
    };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nETag: {tag}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        rest.len()
    )?;
    let breaks = n == 0 && matches!(manner, Manner::BreaksOnce | Manner::BreaksAndChanges);
    stream.write_all(if breaks { &rest[..BODY / 2] } else { rest })
}

fn artifact(source: String, bytes: &[u8]) -> Artifact {
    Artifact {
        source,
        sha256: sha256(bytes),
        path: "bin/app".to_owned(),
        mode: Mode::from_bits(0o755),
        unpack: Unpack::None,
    }
}

struct Rig {
    dir: tempfile::TempDir,
    cache: ArtifactCache,
}

fn rig(limits: CacheLimits) -> Rig {
    let dir = tempfile::tempdir().expect("a folder");
    let root = dir.path().join("root");
    fs::create_dir(&root).expect("made");
    let cache =
        ArtifactCache::open(&dir.path().join("cache"), &root.to_string_lossy(), limits).expect("opened");
    Rig { dir, cache }
}

async fn prepare(cache: &ArtifactCache, artifacts: &[Artifact]) -> Result<PathBuf, String> {
    let mut states = cache.prepare(artifacts.to_vec());
    let mut last = None;
    while let Some(state) = states.next().await {
        last = Some(state);
    }
    match last.expect("it ends with an answer") {
        Preparing::Ready(folder) => Ok(PathBuf::from(folder)),
        Preparing::Failed(why) => Err(why),
        Preparing::Underway(text) => panic!("it ended underway: {text}"),
    }
}

fn no_leftovers(rig: &Rig) {
    for folder in [PARTIAL, BUILDING] {
        let left = fs::read_dir(rig.dir.path().join("cache").join(folder)).expect("there").count();
        assert_eq!(left, 0, "{folder}");
    }
}

#[tokio::test]
async fn what_is_fetched_is_read_only_and_shared() {
    let (rig, server) = (rig(CacheLimits::default()), serve(Manner::Well));
    let one = artifact(format!("http://{}/app", server.address), &body(false));
    let other = Artifact { path: "app".to_owned(), ..one.clone() };
    let (first, second) = futures::join!(
        prepare(&rig.cache, std::slice::from_ref(&one)),
        prepare(&rig.cache, std::slice::from_ref(&other))
    );
    let (first, second) = (first.expect("ready"), second.expect("ready"));
    assert_eq!(fs::read(first.join("bin/app")).expect("there"), body(false));
    let meta = fs::metadata(second.join("app")).expect("there");
    assert_eq!((meta.permissions().mode() & 0o7777, meta.nlink()), (0o555, 3), "one file under three names");
    assert_eq!(lock(&server.requests).len(), 1, "one fetch for both");
    assert_eq!(fs::metadata(&first).expect("there").permissions().mode() & 0o777, 0o555);
    no_leftovers(&rig);
}

#[tokio::test]
async fn a_broken_fetch_goes_on_where_it_stopped() {
    let (rig, server) = (rig(CacheLimits::default()), serve(Manner::BreaksOnce));
    let one = artifact(format!("http://{}/app", server.address), &body(false));
    prepare(&rig.cache, &[one]).await.expect("ready");
    let requests = lock(&server.requests).clone();
    assert_eq!(requests.len(), 2);
    assert!(requests[1].contains(&format!("range: bytes={}-", BODY / 2)), "{}", requests[1]);
    no_leftovers(&rig);
}

#[tokio::test]
async fn what_changed_meanwhile_begins_anew() {
    let (rig, server) = (rig(CacheLimits::default()), serve(Manner::BreaksAndChanges));
    let one = artifact(format!("http://{}/app", server.address), &body(true));
    let folder = prepare(&rig.cache, &[one]).await.expect("ready");
    assert_eq!(fs::read(folder.join("bin/app")).expect("there"), body(true));
}

#[tokio::test]
async fn another_hash_is_never_used() {
    let (rig, server) = (rig(CacheLimits::default()), serve(Manner::Well));
    let one = artifact(format!("http://{}/app", server.address), b"something else");
    let why = prepare(&rig.cache, &[one]).await.expect_err("refused");
    let found = sha256(&body(false)).to_string();
    assert!(why.contains(&found) && why.contains("the manifest says"), "{why}");
    assert_eq!(fs::read_dir(rig.dir.path().join("cache").join(BLOBS)).expect("there").count(), 0);
    assert_eq!(fs::read_dir(rig.dir.path().join("cache").join(SETS)).expect("there").count(), 0);
}

#[tokio::test]
async fn refusals_loops_and_giants_are_told() {
    let rig = rig(CacheLimits { one: 1_000, all: 10_000 });
    for (manner, words) in
        [(Manner::Status(404), "404"), (Manner::Redirects, "redirect"), (Manner::Well, "1000 bytes")]
    {
        let server = serve(manner);
        let one = artifact(format!("http://{}/app", server.address), &body(false));
        let why = prepare(&rig.cache, &[one]).await.expect_err("refused");
        assert!(why.contains(words), "{why}");
    }
    let nowhere = artifact("file:/no/such/file".to_owned(), b"x");
    let why = prepare(&rig.cache, &[nowhere]).await.expect_err("refused");
    assert!(why.contains("file:/no/such/file"), "{why}");
}

#[tokio::test]
async fn files_of_the_host_are_taken_below_the_root() {
    let rig = rig(CacheLimits::default());
    fs::write(rig.dir.path().join("root/app"), b"program").expect("written");
    let mut one = artifact("file:/app".to_owned(), b"program");
    one.mode = Mode::from_bits(0o640);
    let folder = prepare(&rig.cache, &[one]).await.expect("ready");
    let meta = fs::metadata(folder.join("bin/app")).expect("there");
    assert_eq!((meta.permissions().mode() & 0o7777, meta.len()), (0o440, 7));
}

#[tokio::test]
async fn what_not_everybody_may_read_is_no_source() {
    let rig = rig(CacheLimits::default());
    let root = rig.dir.path().join("root");
    let one = artifact("file:///secret/app".to_owned(), b"program");
    fs::create_dir(root.join("secret")).expect("made");
    fs::write(root.join("secret/app"), b"program").expect("written");
    std::os::unix::fs::symlink("/etc/passwd", root.join("out")).expect("linked");
    for (path, mode) in [("secret/app", 0o640), ("secret", 0o750)] {
        let before = fs::metadata(root.join(path)).expect("there").permissions();
        fs::set_permissions(root.join(path), fs::Permissions::from_mode(mode)).expect("set");
        let why = prepare(&rig.cache, std::slice::from_ref(&one)).await.expect_err("refused");
        assert!(why.contains("not open to everybody"), "{why}");
        assert!(!why.contains(&sha256(b"program").to_string()), "its hash is nobody's business: {why}");
        fs::set_permissions(root.join(path), before).expect("set");
    }
    let out = artifact("file:///out".to_owned(), b"program");
    let why = prepare(&rig.cache, &[out]).await.expect_err("refused");
    assert!(why.contains("leads out of the sandbox"), "{why}");
    prepare(&rig.cache, &[one]).await.expect("ready");
}

#[tokio::test]
async fn an_archive_leads_no_later_file_into_the_cache() {
    let rig = rig(CacheLimits::default());
    let root = rig.dir.path().join("root");
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    tar.append_link(&mut header, "b", "lib/a").expect("appended");
    let tar = tar.into_inner().expect("finished");
    for (name, bytes) in [("victim", &b"victim"[..]), ("evil", b"evil"), ("links.tar", &tar)] {
        fs::write(root.join(name), bytes).expect("written");
    }
    let victim = artifact("file:///victim".to_owned(), b"victim");
    let set = [
        Artifact { path: "lib/a".to_owned(), ..victim.clone() },
        Artifact {
            path: ".".to_owned(),
            unpack: Unpack::Tar,
            ..artifact("file:///links.tar".to_owned(), &tar)
        },
        Artifact {
            path: "b".to_owned(),
            mode: Mode::from_bits(0o444),
            ..artifact("file:///evil".to_owned(), b"evil")
        },
    ];
    prepare(&rig.cache, &set).await.expect_err("refused");
    let folder = prepare(&rig.cache, &[victim]).await.expect("ready");
    assert_eq!(fs::read(folder.join("bin/app")).expect("there"), b"victim");
    no_leftovers(&rig);
}

#[tokio::test]
async fn a_pipe_is_no_source_and_holds_nothing_up() {
    let rig = rig(CacheLimits::default());
    let pipe = rig.dir.path().join("root/pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::from_raw_mode(0o644)).expect("made");
    let one = artifact("file:///pipe".to_owned(), b"program");
    let why = prepare(&rig.cache, &[one]).await.expect_err("refused");
    assert!(why.contains("not a regular file"), "{why}");
}

#[tokio::test]
async fn what_is_unused_makes_room() {
    let rig = rig(CacheLimits { one: 1 << 20, all: 10 });
    let mut sets = Vec::new();
    for name in ["a", "b"] {
        fs::write(rig.dir.path().join("root").join(name), format!("program {name}")).expect("written");
        let one = artifact(format!("file:/{name}"), format!("program {name}").as_bytes());
        sets.push((set_id(std::slice::from_ref(&one)), prepare(&rig.cache, &[one]).await.expect("ready")));
    }
    rig.cache.retain([sets[1].0].into());
    while sets[0].1.exists() {
        tokio::task::yield_now().await;
    }
    assert!(sets[1].1.join("bin/app").exists(), "what is in use stays");
    // A cache that is opened anew finds what there is, and sweeps what a crash left.
    let cache = rig.dir.path().join("cache");
    fs::create_dir_all(cache.join(BUILDING).join("half")).expect("made");
    let again = ArtifactCache::open(&cache, "", CacheLimits::default()).expect("opened");
    let one = artifact("file:/gone/by/now".to_owned(), b"program b");
    assert_eq!(prepare(&again, &[one]).await.as_deref(), Ok(sets[1].1.as_path()));
    no_leftovers(&rig);
}

#[tokio::test]
async fn what_nothing_uses_can_go_and_takes_its_fetched_files_along() {
    let rig = rig(CacheLimits::default());
    let bytes = vec![7; 256 << 10];
    fs::write(rig.dir.path().join("root/app"), &bytes).expect("written");
    let used = artifact("file:/app".to_owned(), &bytes);
    let spare = Artifact { path: "bin/other".to_owned(), ..used.clone() };
    let lone = vec![9; 256 << 10];
    fs::write(rig.dir.path().join("root/lone"), &lone).expect("written");
    let old = artifact("file:/lone".to_owned(), &lone);
    for set in [&used, &spare, &old] {
        prepare(&rig.cache, std::slice::from_ref(set)).await.expect("ready");
    }
    assert_eq!(rig.cache.spare().await, [], "nobody has said yet what is in use");
    rig.cache.retain([set_id(std::slice::from_ref(&used))].into());
    fs::write(rig.dir.path().join("cache/partial").join(sha256(b"x").to_string()), b"part").expect("written");
    let spares = rig.cache.spare().await;
    let of = |set: &Artifact| format!("sets/{}", set_id(std::slice::from_ref(set)));
    let find = |id: &str| spares.iter().find(|spare| spare.id == id);
    assert!(find(&of(&used)).is_none(), "it is in use");
    assert!(find(&of(&spare)).is_some_and(|s| s.bytes < 256 << 10), "its file is another set's too");
    assert!(find(&of(&old)).is_some_and(|s| s.bytes >= 256 << 10), "its file goes with it");
    assert_eq!(spares.iter().filter(|s| s.kind == ostler_agent_core::reclaim::Kind::Partial).count(), 1);

    // What would free nothing is never chosen.
    let chosen = spares.into_iter().filter(|spare| spare.bytes > 0).collect();
    let removed = rig.cache.remove(chosen).await;
    assert_eq!(removed.len(), 3, "{removed:?}");
    let blobs = fs::read_dir(rig.dir.path().join("cache/blobs")).expect("there").count();
    assert_eq!(blobs, 1, "that of the set in use");
    prepare(&rig.cache, std::slice::from_ref(&used)).await.expect("is there still");
    no_leftovers(&rig);
}
