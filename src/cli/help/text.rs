//! Text for terminals: broken into lines that are not too long, in a pipe as well.

/// Columns of a line.
pub const COLUMNS: usize = 100;

/// Adds words to `out` as lines that begin with so many spaces. A word that is longer than a line has one of its own.
pub fn wrap(out: &mut String, indent: usize, text: &str) {
    let mut used = 0;
    for word in text.split_whitespace() {
        let width = word.chars().count();
        if used > 0 && used + 1 + width > COLUMNS {
            out.push('\n');
            used = 0;
        }
        let gap = if used == 0 { indent } else { 1 };
        out.extend(std::iter::repeat_n(' ', gap));
        out.push_str(word);
        used += gap + width;
    }
    if used > 0 {
        out.push('\n');
    }
}

/// Adds a term, and behind it what it means, from `column` on.
pub fn row(out: &mut String, indent: usize, term: &str, column: usize, text: &str) {
    let mut told = String::new();
    wrap(&mut told, column, text);
    let head = format!("{:indent$}{term}", "");
    if head.chars().count() + 1 < column && !told.is_empty() {
        out.push_str(&format!("{head:column$}{}", &told[column..]));
    } else {
        out.push_str(&head);
        out.push('\n');
        out.push_str(&told);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_before_they_are_too_long() {
        let mut out = String::new();
        wrap(&mut out, 4, &"word ".repeat(100));
        wrap(&mut out, 4, &"x".repeat(300));
        wrap(&mut out, 4, "");
        let lines: Vec<&str> = out.lines().collect();
        assert!(lines.iter().all(|line| line.starts_with("    ") && !line.ends_with(' ')), "{out}");
        assert!(lines.iter().filter(|line| line.len() > COLUMNS).count() == 1, "{out}");
        assert_eq!(out.matches("word").count(), 100);
    }

    #[test]
    fn a_term_stands_before_its_meaning_or_above_it() {
        let mut out = String::new();
        row(&mut out, 2, "short", 10, "meaning");
        row(&mut out, 2, "much-too-long", 10, "meaning");
        assert_eq!(out, "  short   meaning\n  much-too-long\n          meaning\n");
    }
}
