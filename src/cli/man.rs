//! `ringway man`: manual pages. Clap's generator writes what it knows of a command; examples, and what the program says to
//! the system around it, stand in sections of their own.

use super::arguments::{CTL_EXIT_CODES, Cli, ENVIRONMENT, EXIT_CODES, FILES, SIGNALS};
use clap::{Command, CommandFactory};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};
use std::io::{self, Write};
use std::path::Path;

const SECTION: &str = "1";

/// The page of the program.
///
/// # Errors
/// None in practice: it is written into memory.
pub fn top() -> io::Result<String> {
    page(&built(), None)
}

/// Writes all pages to a directory, which is made if it is not there. Returns how many.
///
/// # Errors
/// The directory or a file cannot be written.
pub fn write(directory: &Path) -> io::Result<usize> {
    std::fs::create_dir_all(directory)?;
    write_from(&built(), None, directory)
}

/// All names and places that clap works out only when it parses.
fn built() -> Command {
    let mut command = Cli::command();
    command.build();
    command
}

fn write_from(command: &Command, parent: Option<&Command>, directory: &Path) -> io::Result<usize> {
    std::fs::write(directory.join(format!("{}.{SECTION}", name(command))), page(command, parent)?)?;
    let below = command.get_subcommands().map(|sub| write_from(sub, Some(command), directory));
    below.sum::<io::Result<usize>>().map(|pages| pages + 1)
}

/// As the page is called: `ringway-ctl-reload`.
fn name(command: &Command) -> &str {
    command.get_display_name().unwrap_or(command.get_name())
}

fn page(command: &Command, parent: Option<&Command>) -> io::Result<String> {
    let man = Man::new(command.clone()).section(SECTION);
    let mut out = Vec::new();
    // Without a date, so that a version has one page wherever it is built; clap's own title would leave its place out.
    let title = name(command).to_uppercase().replace('-', "\\-");
    writeln!(out, ".TH \"{title}\" {SECTION} \"\" \"Ringway {}\" \"Ringway Manual\"", env!("CARGO_PKG_VERSION"))?;
    man.render_name_section(&mut out)?;
    man.render_synopsis_section(&mut out)?;
    man.render_description_section(&mut out)?;
    let told = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let (examples, notes): (Vec<&str>, Vec<&str>) =
        told.split("\n\n").filter(|part| !part.is_empty()).partition(|part| part.starts_with("Example"));
    // The notes of the program itself are the sections below.
    if parent.is_some() {
        paragraphs(&notes).to_writer(&mut out)?;
    }
    man.render_options_section(&mut out)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut out)?;
    }
    rest(command, parent, &examples).to_writer(&mut out)?;
    Ok(once(&String::from_utf8_lossy(&out)))
}

/// The sections that clap does not know.
fn rest(command: &Command, parent: Option<&Command>, examples: &[&str]) -> Roff {
    let mut roff = Roff::new();
    if !examples.is_empty() {
        roff.control("SH", ["EXAMPLES"]);
        roff.control("nf", []);
        for line in examples.iter().flat_map(|part| example_lines(part)) {
            roff.text([roman(line)]);
        }
        roff.control("fi", []);
    }
    let of_ctl = |command: &Command| name(command).starts_with("ringway-ctl");
    let codes = if of_ctl(command) { &CTL_EXIT_CODES } else { &EXIT_CODES };
    list(&mut roff, "EXIT STATUS", codes);
    if parent.is_none() || command.get_name() == "run" {
        list(&mut roff, "FILES", &FILES);
        list(&mut roff, "SIGNALS", &SIGNALS);
        list(&mut roff, "ENVIRONMENT", &ENVIRONMENT);
    }
    roff.control("SH", ["SEE ALSO"]);
    roff.control("nh", []);
    let others: Vec<String> = match parent {
        Some(parent) => vec![format!("{}({SECTION})", name(parent))],
        None => command.get_subcommands().map(|sub| format!("{}({SECTION})", name(sub))).collect(),
    };
    roff.text([roman(others.join(", "))]);
    roff
}

/// The lines of "Examples:", or the one behind "Example:".
fn example_lines(part: &str) -> Vec<String> {
    match part.split_once(":\n") {
        Some((_, lines)) => lines.lines().map(|line| line.strip_prefix("  ").unwrap_or(line).to_owned()).collect(),
        None => vec![part.trim_start_matches("Example: ").to_owned()],
    }
}

fn paragraphs(notes: &[&str]) -> Roff {
    let mut roff = Roff::new();
    for note in notes {
        roff.control("PP", []);
        note.lines().for_each(|line| {
            roff.text([roman(line)]);
        });
    }
    roff
}

fn list(roff: &mut Roff, heading: &str, rows: &[(&str, &str)]) {
    roff.control("SH", [heading]);
    for (what, told) in rows {
        roff.control("TP", []);
        roff.text([bold(*what)]);
        roff.text([roman(*told)]);
    }
}

/// Each section begins with the same definition of an apostrophe: it is kept once.
fn once(page: &str) -> String {
    let mut out = String::with_capacity(page.len());
    for line in page.lines() {
        if !(line.contains("ds Aq") && out.contains(line)) {
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}
