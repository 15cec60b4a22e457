//! `ringway import hipache`: files or a running Redis in, a config out. What is made of them is `import`'s business.

use super::redis;
use clap::Args;
use ringway::config::{Address, value};
use ringway::import::{self, Imported, Note, Store, Wish};
use ringway::limits;
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// Notes that are printed; the rest is counted.
const NOTES_MAX: usize = 1000;

/// The arguments.
#[derive(Args)]
pub struct Hipache {
    /// Dumps, append-only files or scripts, in the order in which they were written; `-` is standard input.
    #[arg(value_name = "FILE", required_unless_present = "redis", conflicts_with = "redis")]
    files: Vec<PathBuf>,
    /// Ask this running Redis. It is only read.
    #[arg(long, value_name = "HOST:PORT")]
    redis: Option<String>,
    /// Variable of the environment that holds its password.
    #[arg(long, value_name = "VARIABLE", requires = "redis")]
    password_env: Option<String>,
    /// The database.
    #[arg(long, value_name = "N", default_value_t = 0)]
    db: u64,
    /// What stands before "frontend:" in keys: the part behind "#" in Hipache's "driver".
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    prefix: String,
    /// Where the config is to listen; the default is Hipache's.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:80", value_parser = listen)]
    listen: Address,
    /// Write the config to this file, which must not be there yet.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

fn listen(text: &str) -> Result<Address, String> {
    value::listen_address(text).map_err(|why| why.to_string())
}

/// What came of it.
pub struct Done {
    /// The config, unless it has gone to a file.
    pub config: Option<String>,
    /// What there is to know, for standard error.
    pub said: String,
    /// Whether nothing was left out.
    pub complete: bool,
}

/// Reads, makes a config, and writes it if there is a file for it.
///
/// # Errors
/// Nothing could be made of the input, in sentences for people.
pub fn run(asked: &Hipache) -> Result<Done, String> {
    let mut store = Store::new(&asked.prefix);
    match &asked.redis {
        Some(address) => redis::read(address, password(asked)?, asked.db, &mut store)?,
        None => asked.files.iter().try_for_each(|file| read(file, &mut store))?,
    }
    let wish = Wish { database: asked.db, listen: asked.listen.clone() };
    let Imported { config, notes, counts } = import::import(store, &wish).map_err(|faults| faults.to_string())?;
    let mut said = told(&notes);
    let Some(config) = config else {
        said.push_str("there is no frontend that could be taken over");
        return Err(said);
    };
    let left_out = notes.iter().filter(|note| note.left_out).count();
    let (routes, clusters, backends) = counts;
    // Writing to a String cannot fail.
    let _ =
        write!(said, "ringway import: {routes} routes, {clusters} clusters, {backends} backends; {left_out} left out");
    let config = match &asked.output {
        None => Some(config),
        Some(file) => {
            save(file, &config).map_err(|e| format!("{}: {e}", file.display()))?;
            None
        }
    };
    Ok(Done { config, said, complete: left_out == 0 })
}

fn password(asked: &Hipache) -> Result<Option<String>, String> {
    let Some(variable) = &asked.password_env else { return Ok(None) };
    std::env::var(variable).map(Some).map_err(|e| format!("{variable}: {e}"))
}

fn told(notes: &[Note]) -> String {
    let mut said: String = notes.iter().take(NOTES_MAX).map(|note| format!("{note}\n")).collect();
    if let Some(more) = notes.len().checked_sub(NOTES_MAX).filter(|more| *more > 0) {
        let _ = writeln!(said, "and {more} more");
    }
    said
}

fn read(file: &Path, store: &mut Store) -> Result<(), String> {
    let name = if file == Path::new("-") { "stdin".into() } else { file.display().to_string() };
    let bytes = bytes(file).map_err(|e| format!("{name}: {e}"))?;
    if bytes.len() > limits::IMPORT_BYTES_MAX {
        return Err(format!("{name}: more than {} bytes (--redis asks the server itself)", limits::IMPORT_BYTES_MAX));
    }
    import::read(&bytes, &name, store).map_err(|why| format!("{name}: {why}"))
}

/// All bytes of a file, and one more than may be.
fn bytes(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let most = limits::IMPORT_BYTES_MAX as u64 + 1;
    if file == Path::new("-") {
        io::stdin().take(most).read_to_end(&mut bytes)?;
    } else {
        File::open(file)?.take(most).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

/// A config that is there already may be one that runs.
fn save(file: &Path, config: &str) -> io::Result<()> {
    OpenOptions::new().write(true).create_new(true).open(file)?.write_all(config.as_bytes())
}
