//! Pages that nothing at rest needs: of the own program, and of what was allocated and is free again.
//!
//! Starting takes ten times as much of the program as beating does: reading settings, TLS, adopting what runs. What was
//! touched once stays mapped, and counts as memory of every host, until the kernel needs it. [`give_back`] unmaps all of
//! it; what is used again is mapped again from the page cache, in some hundreds of minor faults. Only what is never
//! written is unmapped, so nothing can be lost: the segment of code, and the read-only segment at the program's
//! beginning. What the loader has relocated is left alone.

#![expect(unsafe_code, reason = "unmapping pages has no safe wrapper")]

use std::path::Path;

use rustix::mm::{Advice, madvise};

/// Gives free memory of the allocator back, and unmaps the program's own code and constants where `/proc` tells them.
pub(crate) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it only returns pages that no allocation lies in.
    unsafe {
        nix::libc::malloc_trim(0);
    }
    let Ok(program) = std::fs::read_link("/proc/self/exe") else { return };
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    for (start, end) in maps.lines().filter_map(|line| never_written(line, &program)) {
        let at = std::ptr::with_exposed_provenance_mut(start);
        // SAFETY: the range is a whole private mapping of the program's file that nobody can write and nobody has
        // written; each page comes back unchanged from the file when it is touched next.
        unsafe { madvise(at, end - start, Advice::LinuxDontNeed) }.ok();
    }
}

/// The addresses of a line of `/proc/self/maps` that is code of `program`, or its constants before any relocation.
fn never_written(line: &str, program: &Path) -> Option<(usize, usize)> {
    let mut words = line.split_ascii_whitespace();
    let (range, rights, offset) = (words.next()?, words.next()?, words.next()?);
    let path = line.find('/').map(|at| Path::new(&line[at..]))?;
    let is_code = rights == "r-xp";
    // The loader makes what it has relocated read-only too; that never begins the file.
    let is_constant = rights == "r--p" && offset.bytes().all(|b| b == b'0');
    if path != program || !(is_code || is_constant) {
        return None;
    }
    let (start, end) = range.split_once('-')?;
    Some((usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: [&str; 5] = [
        "5581d0000000-5581d031b000 r--p 00000000 fe:00 1234   /usr/bin/ostler agent",
        "5581d031b000-5581d0bae000 r-xp 0031a000 fe:00 1234   /usr/bin/ostler agent",
        "5581d0bae000-5581d0bfa000 r--p 00bac000 fe:00 1234   /usr/bin/ostler agent",
        "5581d0bfa000-5581d0bfc000 rw-p 00bf7000 fe:00 1234   /usr/bin/ostler agent",
        "7f24c8a00000-7f24c8a28000 r--p 00000000 fe:00 99     /usr/lib/libc.so.6",
    ];

    #[test]
    fn only_what_is_never_written_is_given_back() {
        let found: Vec<_> =
            MAPS.iter().map(|line| never_written(line, Path::new("/usr/bin/ostler agent"))).collect();
        let first = Some((0x5581_d000_0000, 0x5581_d031_b000));
        let second = Some((0x5581_d031_b000, 0x5581_d0ba_e000));
        assert_eq!(found, [first, second, None, None, None]);
    }

    #[test]
    fn a_program_goes_on_after_it_gave_back() {
        give_back();
        assert_eq!(never_written(MAPS[4], Path::new("/nothing")), None);
    }
}
