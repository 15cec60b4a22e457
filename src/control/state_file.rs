//! The state file: written by a thread of its own, whole and atomically (write aside, sync, rename, sync the directory).
//! A disk that hangs holds up answers, for a while, and nothing else.

use crate::config::state::State;
use crossbeam_channel::{Receiver, Sender, unbounded};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::AcqRel, Ordering::Acquire};
use std::sync::{Arc, Mutex, PoisonError};

/// Control's hold on the file.
#[derive(Debug)]
pub struct StateFile {
    to_writer: Sender<(u64, String)>,
    asked: u64,
    done: Arc<Done>,
}

#[derive(Debug, Default)]
struct Done {
    /// The latest state that was written, or failed to be.
    serial: AtomicU64,
    failure: Mutex<Option<String>>,
}

/// What was found at the start.
#[derive(Debug)]
pub enum Found {
    /// No file: nothing was ever changed.
    Nothing,
    /// A good one.
    State(State),
    /// One that cannot be used, and why. It was moved aside, to this name.
    Bad(String, PathBuf),
}

/// Reads the file. A bad one is moved aside: it must not keep the proxy from serving, and must not be written over.
///
/// # Errors
/// It cannot be read or moved.
pub fn read(path: &Path) -> Result<Found, String> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(e) => return Err(format!("{}: {e}", path.display())),
    };
    match State::parse(&text) {
        Ok(state) => Ok(Found::State(state)),
        Err(why) => Ok(Found::Bad(why, set_aside(path)?)),
    }
}

/// Renames a file that cannot be used. Returns its new name.
///
/// # Errors
/// A sentence.
pub fn set_aside(path: &Path) -> Result<PathBuf, String> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".bad");
    let aside = PathBuf::from(aside);
    fs::rename(path, &aside).map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(aside)
}

impl StateFile {
    /// Starts the thread; `ring` is called after each writing.
    ///
    /// # Errors
    /// No thread to be had.
    pub fn open(path: PathBuf, ring: Arc<dyn Fn() + Send + Sync>) -> io::Result<StateFile> {
        // Each change waits for its own writing, or gives up on it: there are few.
        let (to_writer, states) = unbounded();
        let done = Arc::new(Done::default());
        let theirs = done.clone();
        std::thread::Builder::new()
            .name("ringway-state".into())
            .spawn(move || write_all(&path, &states, &theirs, &*ring))?;
        Ok(StateFile { to_writer, asked: 0, done })
    }

    /// Has this written. Returns the number to ask [`StateFile::saved`] with.
    pub fn save(&mut self, state: &State) -> u64 {
        self.asked += 1;
        // The thread lives as long as this end.
        let _ = self.to_writer.send((self.asked, state.to_text()));
        self.asked
    }

    /// Whether that state, or a later one, is on the disk: `None` as long as it is not known, else the failure.
    pub fn saved(&self, serial: u64) -> Option<Result<(), String>> {
        if self.done.serial.load(Acquire) < serial {
            return None;
        }
        let failure = self.done.failure.lock().unwrap_or_else(PoisonError::into_inner);
        Some(failure.clone().map_or(Ok(()), Err))
    }
}

fn write_all(path: &Path, states: &Receiver<(u64, String)>, done: &Done, ring: &dyn Fn()) {
    while let Ok(first) = states.recv() {
        // Only the latest counts.
        let (serial, text) = states.try_iter().last().unwrap_or(first);
        let failure = write(path, &text).err().map(|e| format!("{}: {e}", path.display()));
        if let Some(why) = &failure {
            tracing::error!("the state file cannot be written: {why}");
        }
        *done.failure.lock().unwrap_or_else(PoisonError::into_inner) = failure;
        done.serial.swap(serial, AcqRel);
        ring();
    }
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".new");
    let aside = PathBuf::from(aside);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&aside, path)?;
    let directory = path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::state::VERSION;
    use std::time::{Duration, Instant};

    fn wait(file: &StateFile, serial: u64) -> Result<(), String> {
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            if let Some(saved) = file.saved(serial) {
                return saved;
            }
            assert!(Instant::now() < until, "the thread writes");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn what_is_saved_is_found_again() {
        let dir = std::env::temp_dir().join(format!("ringway-state-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join("state.json");
        assert!(matches!(read(&path), Ok(Found::Nothing)));
        let mut file = StateFile::open(path.clone(), Arc::new(|| {})).unwrap();
        let state = State { v: VERSION, ..State::default() };
        for _ in 0..20 {
            file.save(&state);
        }
        let serial = file.save(&state);
        assert_eq!(wait(&file, serial), Ok(()));
        assert!(matches!(read(&path), Ok(Found::State(found)) if found == state));
        fs::write(&path, "{").unwrap();
        let Ok(Found::Bad(_, aside)) = read(&path) else { panic!("a bad file") };
        assert!(aside.exists() && !path.exists());
        fs::remove_dir_all(&dir).unwrap();
        let serial = file.save(&state);
        assert!(wait(&file, serial).unwrap_err().contains("state.json"));
    }
}
