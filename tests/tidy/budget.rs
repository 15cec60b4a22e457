//! How many crates the binary is made of.

use std::process::Command;

/// Crates in the binary, Ringway included. Raise it with a reason in the commit that does.
const CRATES_MAX: usize = 90;

#[test]
fn the_crate_budget_is_kept() {
    let out = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--offline", "-e", "normal", "--prefix", "none", "--format", "{p}"])
        .current_dir(crate::source::root())
        .output()
        .expect("cargo tree runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let mut crates: Vec<String> = text.lines().map(|l| l.trim_end_matches(" (*)").to_string()).collect();
    crates.sort();
    crates.dedup();
    // Proc macros run at build time and are part of no binary.
    crates.retain(|c| !c.is_empty() && !c.contains("(proc-macro)"));
    println!("{} crates", crates.len());
    assert!(crates.len() <= CRATES_MAX, "{} crates, {CRATES_MAX} are allowed:\n{}", crates.len(), crates.join("\n"));
}
