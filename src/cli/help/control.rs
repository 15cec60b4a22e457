//! `ringway help ctl`: the control commands, from the definitions by which they are parsed, and the protocol in short.

use super::super::arguments::CTL_EXIT_CODES;
use super::text::{row, wrap};
use clap::{Arg, Command};
use ringway::config::command::{COMMANDS, VERSION};

/// All of it. `program` is built.
pub fn all(program: &Command) -> Result<String, String> {
    let Some(ctl) = program.find_subcommand("ctl") else { return Err("there is no ctl".to_owned()) };
    let mut out = String::new();
    out.push_str("ringway ctl [--socket PATH] [--json] COMMAND\n");
    let told = |command: &Command| sentence(command.get_about().map(ToString::to_string));
    wrap(&mut out, 4, &told(ctl));
    ctl.get_arguments().for_each(|arg| of_argument(&mut out, arg));
    out.push_str("\nCOMMANDS\n");
    for command in leaves(ctl) {
        let name = command.get_bin_name().unwrap_or(command.get_name());
        let name = name.trim_start_matches("ringway ctl ");
        let positionals: String = command.get_positionals().map(|arg| format!(" {arg}")).collect();
        out.push_str(&format!("\n{name}{positionals}\n"));
        wrap(&mut out, 4, &told(command));
        command.get_arguments().filter(|arg| !arg.is_global_set()).for_each(|arg| of_argument(&mut out, arg));
    }
    out.push('\n');
    wrap(
        &mut out,
        0,
        "What changes what runs (reload, apply, backend, pause, resume) is answered with a receipt: the \
        generation and the epoch that run now, a hash of the running config, when each worker took the change over, what \
        was added, removed and changed, and what is left on what was taken away. --json prints any answer as it came.",
    );
    out.push_str("\nEXIT CODES\n");
    CTL_EXIT_CODES.iter().for_each(|(code, means)| row(&mut out, 4, code, 8, means));
    out.push_str("\nPROTOCOL\n");
    wrap(
        &mut out,
        4,
        &format!(
            "JSON over a Unix socket (control.socket), one object a line, version {VERSION}. The server \
        begins with {{\"hello\":\"ringway\",\"v\":{VERSION},...}}. A line from the client is a request, and gets one answer \
        with its id. Commands: {}. Keys that a reader does not know are to be ignored. Arguments, answers and codes of \
        errors: docs/CONFIG.md.",
            COMMANDS.join(", ")
        ),
    );
    out.push_str(&format!("\n        {{\"v\":{VERSION},\"id\":1,\"cmd\":\"reload\",\"args\":{{}}}}\n"));
    out.push_str("        {\"id\":1,\"ok\":{...}} or {\"id\":1,\"error\":{\"code\":...,\"message\":...}}\n");
    let examples = ctl.get_after_help().map(ToString::to_string).unwrap_or_default();
    out.push_str(&format!("\n{}\n", examples.trim_end()));
    Ok(out)
}

/// The commands that have none below them.
fn leaves(command: &Command) -> Vec<&Command> {
    let below = command.get_subcommands().filter(|sub| sub.get_name() != "help");
    below.flat_map(|sub| if sub.has_subcommands() { leaves(sub) } else { vec![sub] }).collect()
}

fn of_argument(out: &mut String, arg: &Arg) {
    if arg.get_id() == "help" || arg.is_hide_set() {
        return;
    }
    let mut told = sentence(arg.get_help().map(ToString::to_string));
    if arg.get_action().takes_values() {
        let values: Vec<String> = arg.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
        if !values.is_empty() {
            told.push_str(&format!(" One of {}.", values.join(", ")));
        }
        if let [default] = arg.get_default_values() {
            told.push_str(&format!(" Default: {}.", default.to_string_lossy()));
        }
    }
    row(out, 8, &arg.to_string(), 32, &told);
}

/// Clap takes the full stop away.
fn sentence(told: Option<String>) -> String {
    told.map(|told| format!("{}.", told.trim_end_matches('.'))).unwrap_or_default()
}
