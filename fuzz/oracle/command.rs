//! A line of the control protocol is a request that survives being written and read again, or a fault with an answer. A
//! patch that comes with it is merged or refused with faults that have places. Input: the line.

use ringway::config::answer::{Answer, Code, Error, Outcome};
use ringway::config::command::{Command, Request};
use ringway::config::{check, patch};

/// What patches are laid over.
const CONFIG: &str = r#"{
  "listeners": {"web": "127.0.0.1:8080"},
  "clusters": {"app": {"backends": {"a": "127.0.0.1:9001", "b": "127.0.0.1:9002"}}},
  "routes": {"*": "app"}
}
"#;

/// Judges one line.
pub fn check(bytes: &[u8]) {
    let request = match Request::parse(bytes) {
        Ok(request) => request,
        Err(garbage) => {
            let known =
                [Code::NotJson, Code::BadRequest, Code::UnsupportedVersion, Code::UnknownCommand, Code::BadArguments];
            assert!(known.contains(&garbage.error.code), "{:?}", garbage.error);
            assert!(!garbage.error.message.is_empty());
            return judge_answer(&Answer::error(garbage.id, garbage.error));
        }
    };
    assert!(!request.command.name().is_empty());
    let _ = request.command.level();
    let line = request.to_line();
    assert!(line.ends_with('\n') && !line[..line.len() - 1].contains('\n'));
    let again = Request::parse(line.as_bytes());
    assert_eq!(again.as_ref(), Ok(&request), "{line}");
    assert_eq!(again.map(|again| again.to_line()).ok(), Some(line));
    judge_answer(&Answer::ok(request.id.clone(), &request.command));

    if let Command::Apply(apply) = &request.command {
        let file = apply.file.as_deref().unwrap_or("patch");
        if let Err(error) = laid_over(&apply.patch, file) {
            judge_answer(&Answer::error(Some(request.id), error));
        }
    }
}

/// The config with this patch over it, checked as a command would have it.
fn laid_over(text: &str, file: &str) -> Result<(), Error> {
    let patch = patch::Patch::parse(text, file)?;
    let merged = patch::merged(CONFIG, [&patch]).expect("the config is JSON");
    // Merging once more changes nothing, and the difference does what the patch does.
    assert_eq!(patch::merged(&merged, [&patch]).ok().as_ref(), Some(&merged));
    let together = patch::Patch::together(CONFIG, [&patch]).expect("the config is JSON");
    let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).ok();
    let by_difference = patch::merged(CONFIG, [&together]).expect("the config is JSON");
    assert_eq!(value(&by_difference), value(&merged));
    let lines = text.split('\n').count();
    check::load(&merged, "config").map(|_| ()).map_err(|faults| {
        let faults = patch.relocate(faults, file);
        assert!(!faults.list.is_empty());
        assert!(faults.list.iter().all(|f| (1..=lines).contains(&f.line) && f.column >= 1), "{faults:?}");
        faults.into()
    })
}

/// An answer is one line, and reads as what was meant.
fn judge_answer(answer: &Answer) {
    let line = answer.to_line();
    assert!(line.ends_with('\n') && !line[..line.len() - 1].contains('\n'));
    let again: Answer = serde_json::from_str(&line).expect("an answer reads");
    assert_eq!(again.id, answer.id);
    match (&again.outcome, &answer.outcome) {
        (Outcome::Ok(again), Outcome::Ok(value)) => assert_eq!(again, value),
        (Outcome::Error(again), Outcome::Error(error)) => assert_eq!(again, error),
        (again, _) => panic!("{again:?} for {answer:?}"),
    }
}
