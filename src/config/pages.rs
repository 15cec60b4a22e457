//! Pages for Ringway's own answers, read when the config is.

use super::Page;
use super::fault::{Findings, Step};
use super::place::members;
use super::value::{Refusal, own_status};
use crate::limits::PAGE_BYTES_MAX;
use jsonc_parser::ast::Object;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

/// Reads all pages that the file names. `directory` is where relative paths begin.
pub(super) fn read_all(root: &Object<'_>, directory: &Path, findings: &mut Findings) -> BTreeMap<u16, Page> {
    let mut pages = BTreeMap::new();
    for member in members(root, "pages") {
        // Both are faults of shape where they fail.
        let (Ok(status), Some(path)) = (own_status(member.key), member.value.as_string_lit()) else { continue };
        match read(&directory.join(path.value.as_ref())) {
            Ok(page) => {
                pages.insert(status, page);
            }
            Err(refusal) => findings.add(path.range.start, &[Step::Key("pages"), Step::Key(member.key)], refusal),
        }
    }
    pages
}

fn read(path: &Path) -> Result<Page, Refusal> {
    let content_type = match path.extension().and_then(|e| e.to_str()) {
        Some("html" | "htm") => "text/html; charset=utf-8",
        Some("txt") => "text/plain; charset=utf-8",
        Some("json") => "application/json",
        _ => return Err(Refusal::hint("the type of this page is unknown", "name it .html, .txt or .json")),
    };
    let unreadable = |e: std::io::Error| Refusal::new(format!("cannot read {}: {e}", path.display()));
    // Looked at before it is opened: to open a FIFO would wait for its writer.
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(Refusal::new(format!("{} is not a regular file", path.display())));
    }
    let mut body = Vec::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(PAGE_BYTES_MAX + 1).read_to_end(&mut body).map_err(unreadable)?;
    if body.len() as u64 > PAGE_BYTES_MAX {
        return Err(Refusal::new(format!("{} has more than {PAGE_BYTES_MAX} bytes", path.display())));
    }
    Ok(Page { content_type: content_type.into(), body })
}
