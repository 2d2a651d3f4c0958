//! Tells the linker how the program of a release is laid out.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=hot.ld");
    // Only there does it pay: elsewhere it would make each link slower.
    if std::env::var("PROFILE").as_deref() == Ok("release") {
        let folder = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
        println!("cargo:rustc-link-arg-bins=-Wl,-T,{folder}/hot.ld");
    }
}
