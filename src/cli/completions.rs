//! `ringway completions`: what a shell needs to complete the command line.

use super::arguments::Cli;
use super::help::TOPICS;
use clap::{Command, CommandFactory};
use clap_complete::Shell;

/// The script for a shell.
pub fn script(shell: Shell) -> String {
    let mut command = Cli::command();
    // Any words are a question; a shell offers those that have an answer.
    let mut answered: Vec<Command> = command.get_subcommands().cloned().map(name_alone).collect();
    answered.extend(TOPICS.into_iter().filter(|topic| command.find_subcommand(topic).is_none()).map(Command::new));
    command = command.mut_subcommand("help", |help| help.subcommands(answered));
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, "ringway", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

fn name_alone(command: Command) -> Command {
    command.mut_args(|arg| arg.hide(true)).mut_subcommands(name_alone)
}
