//! `ringway help`: of a command what clap tells, and the topics that are longer than a command's help.

mod config;
mod control;
mod reasons;
mod text;

use super::arguments::Cli;
use clap::{Command, CommandFactory};
use ringway::config::nearest;

/// The topics. `ctl` is a command as well: asked for alone, the topic tells more.
pub const TOPICS: [&str; 3] = ["config", "ctl", "reasons"];

/// What is told of a command or a topic; without one, what there is.
///
/// # Errors
/// There is no such thing: a sentence for people, with what was probably meant.
pub fn told(words: &[String]) -> Result<String, String> {
    let mut command = Cli::command();
    command.build();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["config"] => Ok(config::all()),
        ["config", key] => config::of(key),
        ["ctl"] => control::all(&command),
        ["reasons"] => Ok(reasons::all()),
        ["reasons", code] => reasons::of(code),
        ["config" | "reasons", .., last] => Err(format!("{last:?} is one word too many")),
        _ => of_command(command, &words),
    }
}

fn of_command(program: Command, words: &[&str]) -> Result<String, String> {
    let mut at = program;
    for (depth, word) in words.iter().enumerate() {
        let Some(below) = at.find_subcommand(word).cloned() else {
            let (what, topics) = if depth == 0 { ("command or topic", &TOPICS[..]) } else { ("command", &[][..]) };
            let known = at.get_subcommands().map(Command::get_name).chain(topics.iter().copied());
            return Err(unknown(&format!("{what} of that name"), word, known, "ringway help"));
        };
        at = below;
    }
    // Clap knows by itself how long a help is.
    let line = ["ringway"].into_iter().chain(words.iter().copied()).chain(["--help"]);
    match Cli::command().try_get_matches_from(line) {
        Err(help) => Ok(help.render().to_string()),
        Ok(_) => Err("clap has no help".to_owned()),
    }
}

/// A fault with what was probably meant.
fn unknown<'k>(what: &str, word: &str, known: impl Iterator<Item = &'k str>, all: &str) -> String {
    let meant = nearest(word, known).map(|near| format!("did you mean {near:?}? "));
    format!("{word:?}: there is no {what} ({}{all} lists them)", meant.unwrap_or_default())
}
