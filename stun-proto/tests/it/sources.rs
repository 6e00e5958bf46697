//! What the compiler alone does not show: rules that hold because something is not there.

use std::path::{Path, PathBuf};

const CRATES: [&str; 5] = [
    "stun-proto",
    "turn-proto",
    "ice-proto",
    "sip-outbound",
    "http-connect",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The sources of a crate, without tests.
fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let tests = path.file_stem().is_some_and(|name| name == "tests");
        if path.is_dir() && !tests {
            sources(&path, into);
        } else if path.extension().is_some_and(|ext| ext == "rs") && !tests {
            into.push(path);
        }
    }
}

// spec: SEC-G-02, SEC-G-13
#[test]
fn the_crates_forbid_unsafe_code_and_hash_no_keys() {
    let workspace = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    assert!(workspace.contains("unsafe_code = \"forbid\""));
    for name in CRATES {
        let manifest = std::fs::read_to_string(root().join(name).join("Cargo.toml")).unwrap();
        assert!(
            manifest.contains("[lints]\nworkspace = true"),
            "{name} has lints of its own"
        );
        assert!(!manifest.contains("hashbrown"), "{name}");
        let mut files = Vec::new();
        sources(&root().join(name).join("src"), &mut files);
        assert!(files.len() > 5);
        let crate_root = root().join(name).join("src/lib.rs");
        let text = std::fs::read_to_string(crate_root).unwrap();
        // Without `std` there is no map but the ordered one.
        assert!(text.contains("#![no_std]"), "{name}");
        assert!(!text.contains("extern crate std"), "{name}");
        for file in files {
            let text = std::fs::read_to_string(&file).unwrap();
            for word in ["unsafe {", "HashMap", "HashSet", "allow(unsafe_code"] {
                assert!(!text.contains(word), "{word} in {}", file.display());
            }
        }
    }
}
