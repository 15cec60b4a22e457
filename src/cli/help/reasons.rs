//! `ringway help reasons`: why exchanges end as they do, and why backends take no traffic, from the tables that the code
//! goes by.

use super::text::{row, wrap};
use super::unknown;
use ringway::exchange::reason::Code;
use ringway::http::reject::Fault;
use ringway::route::health::{STATES, Standing};
use ringway::route::judge;

/// All of them.
pub fn all() -> String {
    let mut out = String::new();
    wrap(
        &mut out,
        0,
        "REASON CODES: why an exchange ended as it did, in the access log (reason), in ringway ctl errors and \
        in the metric ringway_exchanges. In brackets the status that the client was sent.",
    );
    Code::ALL.iter().for_each(|code| of_code(&mut out, *code));
    out.push('\n');
    wrap(
        &mut out,
        0,
        "RULES behind REJECTED, TLS_HELLO and HTTP2_PREFACE, with the status of the answer and where the rule \
        stands. In a response each of them is a BAD_RESPONSE, answered with 502.",
    );
    out.push('\n');
    Fault::ALL.iter().for_each(|fault| of_fault(&mut out, *fault));
    out.push('\n');
    wrap(&mut out, 0, "STATES of a backend, in ringway ctl backends:");
    for standing in Standing::ALL {
        out.push_str(&format!("\n{}\n", STATES[standing as usize]));
        meaning_and_cure(&mut out, standing.meaning(), standing.cure());
    }
    out.push('\n');
    wrap(
        &mut out,
        0,
        "WHY a backend is held down, as ringway ctl backends tells it, with numbers of its own; failed probes \
        tell what they found.",
    );
    for fault in judge::Fault::KINDS {
        out.push_str(&format!("\n{fault}\n"));
        wrap(&mut out, 4, &plain(fault.cure()));
    }
    out
}

/// One of them: a reason code or a rule.
///
/// # Errors
/// There is none of that name.
pub fn of(asked: &str) -> Result<String, String> {
    let wanted = asked.to_uppercase().replace('-', "_");
    let mut out = String::new();
    Code::ALL.iter().filter(|code| code.name() == wanted).for_each(|code| of_code(&mut out, *code));
    let rule = asked.to_lowercase().replace('_', "-");
    Fault::ALL.iter().filter(|fault| fault.name() == rule).for_each(|fault| of_fault(&mut out, *fault));
    for standing in Standing::ALL.into_iter().filter(|standing| STATES[*standing as usize] == rule) {
        meaning_and_cure(&mut out, standing.meaning(), standing.cure());
    }
    if out.is_empty() {
        let codes = Code::ALL.iter().map(|code| code.name());
        let known = codes.chain(Fault::ALL.iter().map(|fault| fault.name())).chain(STATES);
        return Err(unknown("reason of that name", asked, known, "ringway help reasons"));
    }
    Ok(out.trim_start_matches('\n').to_owned())
}

fn of_code(out: &mut String, code: Code) {
    out.push_str(&format!("\n{} ({})\n", code.name(), code.status()));
    meaning_and_cure(out, code.meaning(), code.cure());
}

fn of_fault(out: &mut String, fault: Fault) {
    let told = format!("{} {} ({})", fault.status(), fault.describe(), fault.clause());
    row(out, 4, fault.name(), 25, &told);
}

fn meaning_and_cure(out: &mut String, meaning: &str, cure: &str) {
    wrap(out, 4, &plain(meaning));
    wrap(out, 4, &format!("Do: {}", plain(cure)));
}

/// Backticks are for documents.
fn plain(text: &str) -> String {
    text.replace('`', "")
}
