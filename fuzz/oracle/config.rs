//! Any text is either a plan or a list of faults that can be said; what `show` makes of a good text is the same plan, and
//! showing that changes nothing more. Input: the text.

use ringway::config::check::{load, load_for, show};

const FILE: &str = "fuzz";

/// Judges one input.
pub fn check(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let plan = match load(text, FILE) {
        Ok(plan) => plan,
        Err(faults) => {
            assert!(!faults.list.is_empty() && !faults.to_string().is_empty());
            let lines = text.split('\n').count();
            assert!(faults.list.iter().all(|f| (1..=lines).contains(&f.line) && f.column >= 1), "{faults:?}");
            assert!(show(text, FILE).is_err());
            return;
        }
    };
    let shown = show(text, FILE).expect("what loads can be shown");
    assert_eq!(load(&shown, FILE).as_ref(), Ok(&plan), "{shown}");
    assert_eq!(show(&shown, FILE).as_ref(), Ok(&shown));
    // Fitting it to a machine fills in budgets or says why it cannot.
    if let Err(faults) = load_for(text, FILE, 2, 1024) {
        assert!(!faults.list.is_empty() && !faults.to_string().is_empty());
    }
}
