//! What the command line tells of itself: help by topic, completions, manual pages.

use crate::harness::{Scratch, cli, lossy, run, seconds};
use ringway::exchange::reason::Code;
use ringway::http::reject::Fault;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

/// What is printed by a command line that is good.
fn told(args: &[&str]) -> String {
    let out = cli(args, &std::env::temp_dir());
    assert_eq!(out.status.code(), Some(0), "{args:?}: {}", lossy(&out.stderr));
    lossy(&out.stdout)
}

/// Whether a program is here. Without it a test says loudly that it has shown nothing.
fn is_here(program: &str) -> bool {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("command -v {program}")]);
    let here = run(command, seconds(10)).status.success();
    if !here {
        eprintln!("SKIPPED: there is no {program} here, and what is for it was not tried");
    }
    here
}

/// The commands below a command, by its help.
fn commands(help: &str) -> Vec<String> {
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let name = |line: &str| Some(line.strip_prefix("  ")?.split(' ').next()?.to_owned());
    lines.filter_map(name).filter(|name| !name.is_empty()).collect()
}

/// The long options of a command, by its help.
fn long_options(help: &str) -> Vec<String> {
    let option = |line: &str| {
        let line = line.trim_start();
        let long = if line.starts_with('-') { line.split_once("--")?.1 } else { return None };
        Some(long.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '-').collect())
    };
    let lines =
        help.lines().skip_while(|line| *line != "Options:").skip(1).take_while(|line| !line.starts_with("Example"));
    lines.filter_map(option).collect()
}

#[test]
fn help_lists_commands_and_topics() {
    let help = told(&["help"]);
    assert_eq!(help, told(&["--help"]));
    for word in ["run", "doctor", "completions", "man", "help config", "help ctl", "help reasons"] {
        assert!(help.contains(word), "{word}: {help}");
    }
}

#[test]
fn help_of_a_command_is_what_its_option_tells() {
    for path in [&["run"][..], &["check"], &["ctl", "reload"], &["ctl", "log", "level"], &["help"]] {
        let (asked, option) = ([&["help"], path].concat(), [path, &["--help"]].concat());
        assert_eq!(told(&asked), told(&option), "{path:?}");
    }
    assert_eq!(told(&["ctl", "help", "reload"]), told(&["ctl", "reload", "--help"]));
    assert_eq!(told(&["ctl", "help"]), told(&["help", "ctl"]));
}

#[test]
fn an_unknown_topic_is_refused_with_what_was_meant() {
    for (words, meant) in [
        (&["reason"][..], "reasons"),
        (&["conf"], "config"),
        (&["rum"], "run"),
        (&["ctl", "relod"], "reload"),
        (&["ctl", "log", "levle"], "level"),
        (&["reasons", "NO_BAKEND"], "NO_BACKEND"),
        (&["reasons", "bare-fl"], "bare-lf"),
        (&["config", "clusters.*.hold_dwn"], "hold_down"),
    ] {
        let out = cli(&[&["help"], words].concat(), &std::env::temp_dir());
        assert_eq!(out.status.code(), Some(2), "{words:?}");
        assert!(lossy(&out.stderr).contains(&format!("did you mean {meant:?}?")), "{words:?}: {}", lossy(&out.stderr));
        assert!(out.stdout.is_empty(), "{words:?}");
    }
    for words in [&["quite-another-thing"][..], &["config", "log", "access"], &["reasons", "x", "y"], &["run", "fast"]]
    {
        let out = cli(&[&["help"], words].concat(), &std::env::temp_dir());
        assert_eq!((out.status.code(), out.stderr.is_empty()), (Some(2), false), "{words:?}");
    }
}

#[test]
fn topics_fit_a_terminal() {
    for topic in ["config", "ctl", "reasons"] {
        for line in told(&["help", topic]).lines() {
            assert!(line.chars().count() <= 100 && !line.ends_with(' '), "{topic}: {line:?}");
        }
    }
}

#[test]
fn help_reasons_names_each_that_there_is() {
    let help = told(&["help", "reasons"]);
    for code in Code::ALL {
        let head = format!("\n{} ({})\n", code.name(), code.status());
        assert!(help.contains(&head), "{head:?}");
        assert_eq!(told(&["help", "reasons", code.name()]).lines().next(), Some(head.trim()));
    }
    for fault in Fault::ALL {
        assert!(help.contains(&format!("\n    {} ", fault.name())), "{fault:?}");
    }
    for word in ["\nup\n", "\ndown\n", "\ndrain\n", "\nmaint\n", "\na response timeout\n"] {
        assert!(help.contains(word), "{word:?}");
    }
}

#[test]
fn help_config_names_each_key_of_the_schema() {
    fn keys<'s>(schema: &'s Value, found: &mut BTreeSet<&'s str>) {
        match schema {
            Value::Object(map) => {
                found.extend(map.get("properties").and_then(Value::as_object).into_iter().flatten().map(|(k, _)| &**k));
                map.values().for_each(|inner| keys(inner, found));
            }
            Value::Array(list) => list.iter().for_each(|inner| keys(inner, found)),
            _ => {}
        }
    }
    let schema: Value = serde_json::from_str(&told(&["schema"])).expect("JSON");
    let mut all = BTreeSet::new();
    keys(&schema, &mut all);
    assert!(all.len() > 80, "{}", all.len());
    let help = told(&["help", "config"]);
    let paths: Vec<&str> = help.lines().filter(|line| !line.starts_with(' ') && !line.contains(". ")).collect();
    for key in &all {
        assert!(paths.iter().any(|path| path.rsplit('.').next() == Some(key)), "{key}");
    }
    // Policy stands in two places, and is told in full where it is asked for.
    let mut policy = BTreeSet::new();
    keys(&schema["$defs"]["Policy"], &mut policy);
    let help = told(&["help", "config", "defaults"]);
    for key in policy {
        assert!(help.contains(&format!("\ndefaults.{key}\n")), "{key}");
    }
}

#[test]
fn help_config_is_narrowed_by_a_path_or_a_name() {
    let expected = "clusters.*.health.hold_down\n    a duration above zero, as \"30s\"; default \"30s\"\n";
    for asked in ["clusters.*.health.hold_down", "clusters.app.health.hold_down", "clusters.*.hold_down"] {
        let help = told(&["help", "config", asked]);
        assert!(help.starts_with(expected) && help.matches("hold_down\n").count() == 1, "{asked}: {help}");
    }
    let log = told(&["help", "config", "log"]);
    for key in ["log", "log.access", "log.sample"] {
        assert!(log.lines().any(|line| line == key), "{key}: {log}");
    }
    assert!(!log.contains("clusters"), "{log}");
}

#[test]
fn help_ctl_names_each_command_and_option() {
    let help = told(&["help", "ctl"]);
    for (path, options) in
        tree(&["ctl"]).iter().filter(|(path, _)| path.len() == 2 && path[1] != "help" && path[1] != "log")
    {
        assert!(help.lines().any(|line| line.split(' ').next() == Some(&path[1])), "{path:?}");
        for option in options {
            assert!(option == "help" || help.contains(&format!("--{option}")), "{path:?} --{option}");
        }
    }
    for word in ["log level <LEVEL>", "log reopen", "EXIT CODES", "PROTOCOL", "why_slow"] {
        assert!(help.contains(word), "{word}");
    }
}

type Told = (Vec<String>, Vec<String>);

/// All commands from one on, each with its path and its long options.
fn tree(path: &[&str]) -> Vec<Told> {
    let help = told(&[path, &["--help"]].concat());
    let mut all = vec![(path.iter().map(|word| (*word).to_owned()).collect(), long_options(&help))];
    for name in commands(&help) {
        all.extend(tree(&[path, &[&name]].concat()));
    }
    all
}

#[test]
fn there_is_a_page_for_each_command_with_each_of_its_options() {
    let scratch = Scratch::new();
    let out = cli(&["man", "--dir", "pages/man1"], &scratch.path(""));
    assert_eq!(out.status.code(), Some(0), "{}", lossy(&out.stderr));
    let all = tree(&[]);
    assert!(all.len() > 25, "{}", all.len());
    for (path, options) in &all {
        let name = [&["ringway".to_owned()], &path[..]].concat().join("-");
        let page = scratch.path(&format!("pages/man1/{name}.1"));
        let page = fs::read_to_string(&page).unwrap_or_else(|e| panic!("{}: {e}", page.display()));
        assert!(options.contains(&"help".to_owned()), "{path:?}: {options:?}");
        for option in options {
            assert!(page.contains(&format!("\\-\\-{}", option.replace('-', "\\-"))), "{name}: --{option}");
        }
        for section in ["NAME", "SYNOPSIS", "\"EXIT STATUS\"", "\"SEE ALSO\""] {
            assert!(page.contains(&format!("\n.SH {section}\n")), "{name}: {section}");
        }
    }
    let files = fs::read_dir(scratch.path("pages/man1")).expect("a directory").count();
    assert_eq!(files, all.len(), "no page without a command");
    let top = told(&["man"]);
    assert_eq!(top.trim(), fs::read_to_string(scratch.path("pages/man1/ringway.1")).expect("a page").trim());
    for section in ["FILES", "SIGNALS", "ENVIRONMENT", "EXAMPLES"] {
        assert!(top.contains(&format!("\n.SH {section}\n")), "{section}");
    }
    assert!(top.contains("RINGWAY_LOG"));
    typeset(&scratch.path("pages/man1"));
}

/// All pages are set without a warning.
fn typeset(directory: &Path) {
    if !is_here("groff") {
        return;
    }
    for page in fs::read_dir(directory).expect("a directory") {
        let page = page.expect("a page").path();
        let mut command = Command::new("groff");
        command.args(["-man", "-ww", "-z", "-Tascii"]).arg(&page);
        let out = run(command, seconds(20));
        assert!(out.status.success() && out.stderr.is_empty(), "{}: {}", page.display(), lossy(&out.stderr));
    }
}

#[test]
fn pages_that_cannot_be_written_are_a_failure() {
    let scratch = Scratch::new();
    scratch.write("taken", "");
    let out = cli(&["man", "--dir", "taken/man1"], &scratch.path(""));
    assert_eq!(out.status.code(), Some(1));
    assert!(lossy(&out.stderr).contains("taken/man1"), "{}", lossy(&out.stderr));
}

#[test]
fn each_shell_gets_its_completions() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = told(&["completions", shell]);
        for word in ["ringway", "why-slow", "drop-patches", "completions", "reasons"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
    assert_eq!(cli(&["completions", "dos"], &std::env::temp_dir()).status.code(), Some(2));
}

#[test]
fn bash_completes() {
    if !is_here("bash") {
        return;
    }
    let scratch = Scratch::new();
    scratch.write("ringway.bash", &told(&["completions", "bash"]));
    let bash = |args: &[&str]| {
        let mut command = Command::new("bash");
        command.args(["--norc", "--noprofile"]).args(args).current_dir(scratch.path(""));
        run(command, seconds(20))
    };
    let parsed = bash(&["-n", "ringway.bash"]);
    assert!(parsed.status.success() && parsed.stderr.is_empty(), "{}", lossy(&parsed.stderr));
    // As readline does: it looks the function up and calls it with the command, the word and the one before.
    let drive = r#". ./ringway.bash
        spec=$(complete -p ringway) && spec=${spec#*-F } && function=${spec%% *}
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=()
        "$function" ringway "${@: -1}" "${@: -2:1}"
        printf '%s\n' "${COMPREPLY[@]}""#;
    for (line, offered) in [
        (&["ringway", "ctl", "rel"][..], &["reload"][..]),
        (&["ringway", "sch"], &["schema"]),
        (&["ringway", "ctl", "backend", "ma"], &["maint"]),
        (&["ringway", "ctl", "reload", "--dro"], &["--drop-patches"]),
        (&["ringway", "completions", "f"], &["fish"]),
        (&["ringway", "help", "rea"], &["reasons"]),
        (&["ringway", "help", "ctl", "rel"], &["reload"]),
    ] {
        let out = bash(&[&["-c", drive, "drive"], line].concat());
        let words: Vec<String> = lossy(&out.stdout).lines().map(str::to_owned).collect();
        assert_eq!(words, offered, "{line:?}: {}", lossy(&out.stderr));
    }
}
